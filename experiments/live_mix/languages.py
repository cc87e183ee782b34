"""Reads the sizes of the languages of mC4, and how often methods of 2023 drew them.

Source: table 8 of Chung et al., "UniMax: fairer and more effective language sampling for large-scale multilingual
pretraining", ICLR 2023, https://openreview.net/forum?id=kXwdL1cWOAi: "Statistics for our improved and refreshed variant
of the mC4 corpus, as well as the sampling rates (%) of the sampling methods studied in the paper".
"""

import csv
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["FULL_BUDGET", "RATES", "Languages", "languages"]

RATES = ("temperature_3.33", "temperature_1", "unimax_1x", "unimax_1/8")
"""Names of the printed sampling rates: temperatures, and UniMax with one epoch at most for two budgets."""


FULL_BUDGET = 8 * 250_000 * 1024 * 568 * 4 / 1e6
"""Characters of the paper's full budget, in millions.

One eighth are 250,000 steps of 1,024 sequences of 568 tokens (sections 4.4 and 5.3) of 4 characters (section 3.1).
"""


class Languages(NamedTuple):
    """Holds the table, from the largest language to the smallest.

    Attributes:
        names: codes of the languages.
        characters: ``[language]``, characters in millions.
        rounding: ``[language]``, by how much a size may be off because it was printed with few digits, in millions.
        rates: ``{name of RATES: [language]}``, printed shares of what is drawn, from 0 to 1; each may be off by 5e-5.
    """

    names: list[str]
    characters: np.ndarray
    rounding: np.ndarray
    rates: dict[str, np.ndarray]


@functools.cache
def languages() -> Languages:
    """Returns the table."""
    with Path(__file__).with_name("mc4.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    printed = [row["billion_characters"] for row in rows]
    digits = [len(text.partition(".")[2]) for text in printed]
    return Languages(
        names=[row["language"] for row in rows],
        characters=np.array([1000.0 * float(text) for text in printed]),
        rounding=np.array([500.0 / 10.0**number for number in digits]),
        rates={name: np.array([float(row[name]) for row in rows]) / 100.0 for name in RATES},
    )

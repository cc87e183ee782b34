"""The numbers that pages quote from benchmarks are those of the results."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "experiments" / "benchmarks" / "results"
PAGE = (ROOT / "experiments" / "guides" / "benchmarks.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
NUMBER = re.compile(r"(?<![\w.^/])(?<!\w-)\d[\d,]*(?:\.\d+)?(?![\w^]|\.\d)")
# What is worked out from results: half of a processor time, for two cores, and ratios of two rows.
WORKED_OUT = {"A sweep of training runs": {"4.3"}, "Gradient norms of examples": {"1.2", "6", "360"}}
SIZES = 10**3, 10**5, 10**7


def data_of(name):
    return json.loads((RESULTS / name / "results.json").read_text())["data"]


def medians(data):
    """The numbers of a tree of results, without the least and the most of turns."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name not in {"low", "high", "repeats"}:
                yield from medians(value)
    elif isinstance(data, list):
        for value in data:
            yield from medians(value)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield float(data)


def value_of(token):
    return float(token.replace(",", ""))


def is_rounded(token, value):
    """Whether a token is a number as a reader would round it: to the digits shown, the zeros of a large one aside."""
    whole, _, decimals = token.replace(",", "").partition(".")
    unit = 10.0 ** (len(whole) - max(len(whole.rstrip("0")), 2)) if not decimals else 10.0 ** -len(decimals)
    return abs(value - value_of(token)) <= 0.501 * unit


def known(names):
    """The numbers of some benchmarks, as they are, as thousands and as per cent."""
    found = set()
    for name in names:
        text = re.sub(r"\([^()]* to [^()]*\)", "", (RESULTS / name / "RESULTS.md").read_text())
        found |= {value_of(token) for token in NUMBER.findall(text.partition("## Machine")[0])}
        found |= {value_of(token) for token in NUMBER.findall(text.partition("## Measurements")[2])}
        found |= {value * scale for value in medians(data_of(name)) for scale in (1, 1e3, 100)}
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_numbers_of_a_section_are_in_its_tables(title):
    section = SECTIONS[title]
    pool = known(set(re.findall(r"results/(\w+)/RESULTS", section)))
    # Names of code and addresses hold no measurements, and brackets hold the least and the most.
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|\([^()]* to [^()]*\)", " ", section)
    tokens = set(NUMBER.findall(text)) - WORKED_OUT.get(title, set())
    missing = sorted(token for token in tokens if not any(is_rounded(token, value) for value in pool))
    assert not missing

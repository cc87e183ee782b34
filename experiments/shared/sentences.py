"""Writes what the claims of every paper say: quotations, means with their errors, verdicts."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.shared.statistics import mean_stderr
from mixjax.runner.claims import Claim

__all__ = ["VERDICTS", "quoter", "text", "verdict"]

VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}


def quoter(paper: str, sentences: Mapping[str, tuple[str, str]]) -> Callable[[str], dict[str, str]]:
    """Returns ``quote(name)``, which gives the ``statement`` and the ``source`` of a claim.

    Args:
        paper: the paper's number, such as ``"000"``.
        sentences: from a claim's name to the section and the sentence as printed. A section is a number, where numbers
            from 8 on and letters are appendices, or ``"abstract"``.

    Returns:
        A function from a key of ``sentences`` to keyword arguments of ``versus``, ``paired`` and ``near`` in
        :mod:`mixjax.runner.claims`. It raises a KeyError where there is no such sentence.

    Example:
        >>> quoter("000", {"best": ("3.1", "is the best")})("best")
        {'statement': 'is the best', 'source': 'paper 000, section 3.1'}
    """

    def quote(name: str) -> dict[str, str]:
        section, sentence = sentences[name]
        number = section.split(".")[0].split(",")[0]
        if number == "abstract":
            kind = ""
        elif number.isdigit() and int(number) < 8:
            kind = "section "
        else:
            kind = "appendix "
        return {"statement": sentence, "source": f"paper {paper}, {kind}{section}"}

    return quote


def text(values: Any, digits: int = 3) -> str:
    """Returns "mean ± standard error" over the seeds, or the number of a single seed, which has no error.

    Args:
        values: numbers, one a seed.
        digits: significant digits of the mean; the error has one.

    Returns:
        Such as ``"2.81 ± 0.2"``.

    Example:
        >>> text([1.0, 2.0, 3.0])
        '2 ± 0.6'
        >>> text([2.0])
        '2 (one seed)'
    """
    mean, stderr = mean_stderr(np.asarray(values, np.float64))
    if np.size(values) == 1:
        return f"{mean:.{digits}g} (one seed)"
    return f"{mean:.{digits}g} ± {stderr:.1g}"


def verdict(claim: Claim) -> str:
    """Returns a claim's number and verdict, for another claim's note.

    Example:
        >>> verdict(Claim("a", "it is large", "ours", 3.0, 0.25, 1.0, 20, True))
        '3 ± 0.25, holds'
    """
    error = "" if claim.stderr is None else f" ± {claim.stderr:.2g}"
    value = "no number" if claim.value is None else f"{claim.value:.3g}{error}"
    return f"{value}, {VERDICTS[claim.holds]}"

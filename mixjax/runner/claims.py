"""Claims: a sentence, a number with its standard error over paired seeds, and one rule that says if it holds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["Claim", "claims_table", "mean_stderr", "near", "paired", "rows", "versus"]

_HOLDS = {True: "yes", False: "no", None: "undecided"}


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of `claims.json`: a sentence and what we measured.

    Args:
        name: a unique slug.
        statement: the sentence as tested, the paper's or ours.
        source: where it stands, such as "paper 000, section 5.1".
        value: the measured number, or None.
        stderr: its standard error over the seeds, or None.
        threshold: the number it is compared with, or None.
        num_seeds: how many seeds the value rests on.
        holds: True, False, or None where it cannot be decided.
        note: what was tried, why it is undecided.
    """

    name: str
    statement: str
    source: str
    value: float | None
    stderr: float | None
    threshold: float | None
    num_seeds: int
    holds: bool | None
    note: str = ""


def versus(
    name: str,
    values: Any,
    side: Literal[">=", "<="],
    threshold: float,
    *,
    statement: str,
    source: str,
    z: float = 2.0,
    note: str = "",
) -> Claim:
    """Claims that the mean of a per-seed value is at least, or at most, a threshold.

    The rule, for m = mean over seeds, se = standard deviation (n - 1) / √n: the claim holds if m lies on the claimed
    side of the threshold by at least z·se, fails if it lies on the other side by at least z·se, and is undecided
    (None) in between. With se = 0 the side alone decides, and m equal to the threshold holds. One seed is always
    undecided. Seeds whose value is not finite are left out of m, se and `num_seeds`, and named in the note: where a
    method diverges on some seeds, the statement should say so; where it does on more than half, nothing is decided.

    Args:
        name: a unique slug; statement, source, note: as in Claim.
        values: [seed], an array or a one-dimensional xarray.DataArray (whose "seed" coordinate then names the seeds).
        side: ">=" or "<=".
        threshold: in the units of `values`.
        z: standard errors to clear, >= 0.

    Returns:
        The Claim.

    Raises:
        ValueError: `values` is not one-dimensional, or `side` is unknown.

    Example:
        >>> claim = versus("share", [0.9, 1.0, 1.1], ">=", 0.5, statement="...", source="...")
        >>> claim.value, round(claim.stderr, 4), claim.holds
        (1.0, 0.0577, True)
        >>> versus("share", [0.9, 1.0, 1.1], "<=", 0.95, statement="...", source="...").holds  # None: within 2·se
    """
    _check_side(side, (">=", "<="))
    mean, stderr, count, left_out = _summary(values)
    sign = 1 if side == ">=" else -1
    holds = _decide(sign * (mean - threshold), stderr, z, equal=True)
    return _claim(name, statement, source, mean, stderr, threshold, count, holds, note, left_out)


def paired(
    name: str,
    a: Any,
    side: Literal[">", "<"],
    b: Any,
    *,
    statement: str,
    source: str,
    threshold: float = 0.0,
    z: float = 2.0,
    note: str = "",
) -> Claim:
    """Claims that a is greater, or less, than b on average over paired seeds.

    The rule of `versus` on the differences a - b, whose mean is the claim's value; differences that all equal the
    threshold do not hold. A seed counts only if both values are finite.

    Args:
        name: a unique slug; statement, source, note: as in Claim.
        a: [seed].
        side: ">" or "<".
        b: [seed], the same seeds in the same order.
        threshold: a - b is compared with this; 0.1 with ">" claims "greater by at least 0.1".
        z: standard errors to clear, >= 0.

    Returns:
        The Claim.

    Raises:
        ValueError: a and b differ in shape, are not one-dimensional, or `side` is unknown.

    Example:
        >>> claim = paired("fgls", [1.0, 2.0, 3.0], "<", [2.0, 3.0, 5.0], statement="...", source="...")
        >>> round(claim.value, 4), round(claim.stderr, 4), claim.holds
        (-1.3333, 0.3333, True)
    """
    _check_side(side, (">", "<"))
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a and b must have one value for each seed, got shapes {np.shape(a)} and {np.shape(b)}")
    with np.errstate(invalid="ignore"):  # inf - inf
        values = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean, stderr, count, left_out = _summary(values, getattr(a, "coords", {}))
    sign = 1 if side == ">" else -1
    holds = _decide(sign * (mean - threshold), stderr, z, equal=False)
    return _claim(name, statement, source, mean, stderr, threshold, count, holds, note, left_out)


def near(
    name: str,
    values: Any,
    target: float,
    tolerance: float,
    *,
    statement: str,
    source: str,
    z: float = 2.0,
    note: str = "",
) -> Claim:
    """Claims that the mean of a per-seed value is within a tolerance of a target: "converges to", "has no effect".

    With the mean m and the standard error se of `versus`: holds if |m - target| + z·se <= tolerance, fails if
    |m - target| - z·se >= tolerance, undecided in between.

    Args:
        name: a unique slug; statement, source, note: as in Claim.
        values: [seed]; differences of paired seeds for "no effect".
        target: the claim's threshold, in the units of `values`.
        tolerance: > 0, in the same units; choose it before looking.
        z: standard errors to clear, >= 0.

    Returns:
        The Claim.

    Raises:
        ValueError: `values` is not one-dimensional.

    Example:
        >>> near("share", [0.94, 0.95, 0.96], 0.952, 0.02, statement="...", source="...").holds
        True
    """
    mean, stderr, count, left_out = _summary(values)
    holds = _decide(tolerance - abs(mean - target), stderr, z, equal=True)
    note = "; ".join(filter(None, [note, f"tolerance {tolerance:g}"]))
    return _claim(name, statement, source, mean, stderr, target, count, holds, note, left_out)


def mean_stderr(values: Any) -> tuple[float, float, int]:
    """Mean over the finite values, its standard error and their number.

    Args:
        values: [seed]

    Returns:
        The mean (NaN without a finite value), the standard deviation (n - 1) / √n (NaN for fewer than two, exactly 0
        where they are all the same), and n.

    Example:
        >>> mean_stderr([1.0, 3.0, float("inf")])
        (2.0, 1.0, 2)
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return np.nan, np.nan, 0
    if values.size == 1 or np.ptp(values) == 0:
        return float(values[0]), 0.0 if values.size > 1 else np.nan, values.size
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)), values.size


def rows(claims: Sequence[Any]) -> list[dict[str, Any]]:
    """Claims as rows of `claims.json`.

    Args:
        claims: `Claim` instances; their numbers may be NumPy's or JAX's.

    Returns:
        One dict a claim, in plain Python types, None for what is not finite.

    Raises:
        TypeError: something is not a Claim.
        ValueError: two claims have one name.
    """
    table = []
    for claim in claims:
        if not isinstance(claim, Claim):
            raise TypeError(f"claims must be a list of Claim, got {type(claim).__name__}")
        if any(claim.name == row["name"] for row in table):
            raise ValueError(f"two claims are named {claim.name!r}; names must differ")
        table.append(_plain(dataclasses.asdict(claim)))
    return table


def claims_table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Claims as (name, holds, value ± stderr, threshold) texts.

    Args:
        rows: rows of `claims.json`.

    Returns:
        One tuple of texts a row, in order.
    """

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    def value(row: Mapping[str, Any]) -> str:
        return number(row["value"]) + (f" ± {row['stderr']:.2g}" if row["stderr"] is not None else "")

    return [(row["name"], _HOLDS[row["holds"]], value(row), number(row["threshold"])) for row in rows]


def _check_side(side: str, known: tuple[str, str]) -> None:
    if side not in known:
        raise ValueError(f"side must be {known[0]!r} or {known[1]!r}, got {side!r}")


def _summary(values: Any, coords: Mapping[str, Any] | None = None) -> tuple[float, float, int, list]:
    """(mean, standard error, number, names of the seeds left out) of the finite values."""
    coords = getattr(values, "coords", {}) if coords is None else coords
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"values must be one-dimensional, one for each seed, got shape {values.shape}")
    seeds = np.asarray(coords["seed"]) if "seed" in coords else np.arange(values.size)
    return *mean_stderr(values), seeds[~np.isfinite(values)].tolist()


def _decide(margin: float, stderr: float, z: float, *, equal: bool) -> bool | None:
    """True for margin >= z·stderr, False for margin <= -z·stderr, else None; `equal` decides where both are 0."""
    if not (math.isfinite(margin) and math.isfinite(stderr)) or abs(margin) < z * stderr:
        return None
    return margin > 0 or (equal and margin == 0)


def _claim(name, statement, source, mean, stderr, threshold, count, holds, note, left_out) -> Claim:
    value, stderr = (x if math.isfinite(x) else None for x in (mean, stderr))
    notes = [note] if note else []
    if left_out:
        named = ", ".join(map(str, left_out[:10])) + (", ..." if len(left_out) > 10 else "")
        notes.append(f"{len(left_out)} of {count + len(left_out)} seeds not finite, left out: {named}")
    if len(left_out) > count:
        holds = None
        notes.append("undecided: the others are fewer than half")
    if count < 2:
        notes.append("a standard error needs two seeds")
    return Claim(name, statement, source, value, stderr, float(threshold), count, holds, "; ".join(notes))


def _plain(value: Any) -> Any:
    """Numbers as Python's own, a NaN or an infinity as None: JSON has neither."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if not isinstance(value, (str, type(None))):
        value = np.asarray(value).item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

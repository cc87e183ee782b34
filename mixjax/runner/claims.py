"""Decides claims: a sentence, a number with its standard error over paired seeds, and one rule that judges it.

The rule is Student's t-test, as in :mod:`mixjax.runner.comparison`, at a level that ``z`` sets: see :func:`versus`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mixjax.statistics import MIN_SEEDS, critical_value, mean_stderr, rounding_of, same_up_to_rounding

__all__ = ["Claim", "near", "paired", "rows", "versus"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """Holds one row of ``claims.json``: a sentence and what we measured.

    Args:
        name: a slug, unique among the claims of an experiment.
        statement: the sentence as tested, the paper's or ours.
        source: where the sentence stands, such as "paper 000, section 5.1".
        value: the measured number, or None.
        stderr: the number's standard error over the seeds, or None.
        threshold: the number that the value is compared with, or None.
        num_seeds: how many seeds the value rests on.
        holds: True, False, or None where it cannot be decided.
        note: what was tried, or why the claim is undecided.
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

    Let m be the mean over the n seeds and se its standard error: the standard deviation, with n - 1 in its denominator,
    over √n. Let t be :func:`mixjax.statistics.critical_value` of z and n: the quantile of Student's distribution
    with n - 1 degrees of freedom at the level that z has for a normal one. The claim

    - holds if m lies on the claimed side of the threshold by at least t·se,
    - fails if m lies on the other side by at least t·se,
    - is undecided (None) in between.

    At z = 2 a claim whose true mean is the threshold holds by chance in 2.3 % of the cases, at any n. With fewer than
    :data:`mixjax.statistics.MIN_SEEDS` seeds nothing is decided. Values that are all the same up to their rounding have
    se = 0: then the side alone decides, and values equal to the threshold up to rounding hold.

    Seeds whose value is not finite are left out of m, se and ``num_seeds``, and are named in the note. Where a method
    diverges on some seeds, the statement should say so. Where it diverges on half of them or more, nothing is decided.

    Args:
        name: a unique slug, as in :class:`Claim`.
        values: ``[seed]``, an array or an xarray.DataArray, whose "seed" coordinate then names the seeds.
        side: ">=" or "<=".
        threshold: in the units of ``values``.
        statement: as in :class:`Claim`.
        source: as in :class:`Claim`.
        z: number of standard errors to clear if there were many seeds, at least 0.
        note: as in :class:`Claim`.

    Returns:
        The claim.

    Raises:
        ValueError: ``values`` is not one-dimensional, or ``side`` is unknown.

    Example:
        >>> claim = versus("share", [0.9, 1.0, 1.1], ">=", 0.5, statement="...", source="...")
        >>> claim.value, round(claim.stderr, 4), claim.holds
        (1.0, 0.0577, True)
        >>> versus("share", [0.9, 1.0, 1.1], ">=", 0.8, statement="...", source="...").holds  # None: within 4.53·se
    """
    _check_side(side, (">=", "<="))
    measured = _measure(values, rounding_of(values), _coords_of(values))
    margin = measured.above(threshold) if side == ">=" else -measured.above(threshold)
    holds = measured.decide(margin, z, at_zero=True)
    return measured.claim(name, holds, threshold, statement=statement, source=source, note=note)


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

    The rule is that of :func:`versus` on the differences a - b, whose mean is the claim's value, with one exception:
    differences that all equal the threshold up to rounding do not hold. A seed counts only if both of its values are
    finite.

    Args:
        name: a unique slug, as in :class:`Claim`.
        a: ``[seed]``.
        side: ">" or "<".
        b: ``[seed]``, the same seeds in the same order.
        statement: as in :class:`Claim`.
        source: as in :class:`Claim`.
        threshold: a - b is compared with this; 0.1 with ">" claims "greater by more than 0.1".
        z: as in :func:`versus`.
        note: as in :class:`Claim`.

    Returns:
        The claim.

    Raises:
        ValueError: a and b differ in shape or are not one-dimensional, have coordinates "seed" of different seeds, or
            ``side`` is unknown.

    Example:
        >>> claim = paired("fgls", [1.0, 2.0, 3.0], "<", [3.0, 4.0, 5.5], statement="...", source="...")
        >>> round(claim.value, 4), round(claim.stderr, 4), claim.holds
        (-2.1667, 0.1667, True)
    """
    _check_side(side, (">", "<"))
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a and b must have one value for each seed, got shapes {np.shape(a)} and {np.shape(b)}")
    b = _in_order_of(a, b)
    with np.errstate(invalid="ignore"):  # both runs may have diverged: inf - inf
        differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    # The differences are a plain array; the seeds' names are a's.
    measured = _measure(differences, rounding_of(a, b), _coords_of(a))
    margin = measured.above(threshold) if side == ">" else -measured.above(threshold)
    holds = measured.decide(margin, z, at_zero=False)
    return measured.claim(name, holds, threshold, statement=statement, source=source, note=note)


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

    With the mean m, the standard error se and the number t of :func:`versus`, the claim

    - holds if |m - target| + t·se <= tolerance,
    - fails if |m - target| - t·se >= tolerance,
    - is undecided (None) in between.

    Args:
        name: a unique slug, as in :class:`Claim`.
        values: ``[seed]``; for "has no effect" the differences of paired seeds.
        target: the claim's threshold, in the units of ``values``.
        tolerance: above 0, in the same units. Choose it before you look.
        statement: as in :class:`Claim`.
        source: as in :class:`Claim`.
        z: as in :func:`versus`.
        note: as in :class:`Claim`.

    Returns:
        The claim.

    Raises:
        ValueError: ``values`` is not one-dimensional.

    Example:
        >>> near("share", [0.94, 0.95, 0.96], 0.952, 0.03, statement="...", source="...").holds
        True
    """
    measured = _measure(values, rounding_of(values), _coords_of(values))
    holds = measured.decide(tolerance - abs(measured.above(target)), z, at_zero=True)
    note = f"{note}; tolerance {tolerance:g}" if note else f"tolerance {tolerance:g}"
    return measured.claim(name, holds, target, statement=statement, source=source, note=note)


def rows(claims: Sequence[Any]) -> list[dict[str, Any]]:
    """Turns claims into rows of ``claims.json``.

    Args:
        claims: instances of :class:`Claim`, whose numbers may be NumPy's or JAX's.

    Returns:
        One dict for each claim, of plain Python values; None stands for what is not finite.

    Raises:
        TypeError: something is not a :class:`Claim`.
        ValueError: two claims have one name.
    """
    table = []
    for claim in claims:
        if not isinstance(claim, Claim):
            raise TypeError(f"claims must be a list of Claim, but one item is a {type(claim).__name__}")
        if any(claim.name == row["name"] for row in table):
            raise ValueError(f"two claims are named {claim.name!r}; names must differ")
        table.append({key: _plain(value) for key, value in dataclasses.asdict(claim).items()})
    return table


def _plain(value: Any) -> Any:
    """Returns a number as Python's own, and a NaN or an infinity as None, since JSON has neither."""
    if isinstance(value, (str, type(None))):
        return value
    # NumPy's and JAX's scalars alike: json knows neither.
    number = np.asarray(value).item()
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _check_side(side: str, known: tuple[str, str]) -> None:
    if side not in known:
        raise ValueError(f"side must be {known[0]!r} or {known[1]!r}, got {side!r}")


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Holds a per-seed value over the seeds in which it is finite, and judges claims about its mean."""

    values: np.ndarray
    rounding: np.ndarray
    left_out: list

    @property
    def num_seeds(self) -> int:
        return self.values.size

    @property
    def mean(self) -> float:
        return mean_stderr(self.values, self.rounding)[0]

    @property
    def stderr(self) -> float:
        return mean_stderr(self.values, self.rounding)[1]

    def above(self, number: float) -> float:
        """Returns how far the mean lies above a number; 0 where the values are that number up to rounding."""
        return 0.0 if same_up_to_rounding(self.values, self.rounding, number) else self.mean - number

    def decide(self, margin: float, z: float, *, at_zero: bool) -> bool | None:
        """Decides a claim by its margin: True or False where it is as far from zero as ``z`` asks for, else None.

        ``at_zero`` says if the claim holds where margin and standard error are both zero.
        """
        # The mean over those that did not diverge says nothing about the method where they are no majority.
        if self.num_seeds < MIN_SEEDS or len(self.left_out) >= self.num_seeds:
            return None
        if not z >= 0:
            raise ValueError(f"z must be at least 0, got {z}")
        # The sum of the values may be beyond the largest float, and a threshold may be NaN.
        if math.isnan(margin) or not (math.isfinite(self.mean) and math.isfinite(self.stderr)):
            return None
        if abs(margin) < critical_value(z, self.num_seeds) * self.stderr:
            return None
        return margin > 0 or (at_zero and margin == 0)

    def claim(
        self, name: str, holds: bool | None, threshold: float, *, statement: str, source: str, note: str
    ) -> Claim:
        """Makes the claim; its note says what was left out, and why too few seeds decide nothing."""
        notes = [note] if note else []
        if self.left_out:
            named = ", ".join(map(str, self.left_out[:10]))
            more = ", ..." if len(self.left_out) > 10 else ""
            total = self.num_seeds + len(self.left_out)
            notes.append(f"{len(self.left_out)} of {total} seeds not finite, left out: {named}{more}")
        if len(self.left_out) >= max(self.num_seeds, 1):
            notes.append("undecided: the others are no more than half")
        if self.num_seeds < MIN_SEEDS:
            notes.append(f"undecided: a claim needs {MIN_SEEDS} finite seeds")
        elif not (math.isfinite(self.mean) and math.isfinite(self.stderr)):
            notes.append("undecided: the mean or its standard error is beyond the largest float")
        if math.isnan(threshold):
            notes.append("undecided: the threshold is not a number")
        return Claim(
            name=name,
            statement=statement,
            source=source,
            value=self.mean if math.isfinite(self.mean) else None,
            stderr=self.stderr if math.isfinite(self.stderr) else None,
            threshold=float(threshold),
            num_seeds=self.num_seeds,
            holds=holds,
            note="; ".join(notes),
        )


def _in_order_of(a: Any, b: Any) -> Any:
    """Returns the values of b in the order of a's seeds, where both name their seeds."""
    if "seed" not in _coords_of(a) or "seed" not in _coords_of(b):
        return b
    seeds, others = (np.asarray(_coords_of(each)["seed"]) for each in (a, b))
    order, other_order = np.argsort(seeds, kind="stable"), np.argsort(others, kind="stable")
    if not np.array_equal(seeds[order], others[other_order]):
        raise ValueError(f"a and b must have the same seeds, got {seeds.tolist()[:10]} and {others.tolist()[:10]}")
    places = np.empty_like(order)
    places[order] = other_order
    return np.asarray(b)[places]


def _coords_of(values: Any) -> Mapping[str, Any]:
    """Returns the coordinates of an xarray.DataArray; an empty dict for plain arrays."""
    return getattr(values, "coords", {})


def _measure(values: Any, rounding: np.ndarray, coords: Mapping[str, Any]) -> _Measured:
    """Keeps the finite values; the seeds left out are named by the coordinate "seed", or else by position."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"values must be one-dimensional, one for each seed, got shape {values.shape}")
    seeds = np.asarray(coords["seed"]) if "seed" in coords else np.arange(values.size)
    finite = np.isfinite(values)
    return _Measured(values[finite], rounding[finite], seeds[~finite].tolist())

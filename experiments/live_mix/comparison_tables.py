"""Puts the runs of the comparison of mixing methods into tables: differences over paired seeds, and speed-ups.

The results are those of ``configs/live_mix/comparison.toml``: a run for each method at equal steps, named by the
method, and ``METHOD_time`` with as many steps as the method may take in the processor time of the uniform mix. A method
whose cost is that of the uniform mix has no second run, and its first one counts for both.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray

from experiments.live_mix.methods import METHODS
from mixjax.runner.claims import MIN_SEEDS
from mixjax.runner.comparison import paired_table

__all__ = [
    "BEST_STATIC",
    "COSTS",
    "LEVEL",
    "MEASURES",
    "NAMES",
    "REFERENCE",
    "STATIC",
    "VERDICTS",
    "BestStatic",
    "at_equal",
    "best_of",
    "by_domain",
    "compared",
    "final",
    "is_comparison",
    "last_step",
    "methods",
    "moving",
    "speed_up",
    "static_twin",
]

Results = Mapping[str, xarray.Dataset]

NAMES = {name: method.title for name, method in METHODS.items()}
"""Methods as the figure and the tables call them."""

STATIC = tuple(name for name, method in METHODS.items() if not method.moves)
"""Methods whose weights never move."""

REFERENCE, BEST_STATIC = "uniform", "best static"
COSTS = {"steps": "steps", "time": "processor time"}
MEASURES = {
    "mean": "mean over the training domains",
    "worst": "worst training domain",
    "target": "held-out domain",
}
LEVEL = 0.05
"""The largest p-value after Holm's correction that decides a comparison."""

VERDICTS = ("better", "worse", "undecided")

_TIME = "_time"


def is_comparison(results: Results) -> bool:
    """Tells whether results have the uniform mix and another method, each run with one choice of settings."""
    return (
        REFERENCE in results
        and len(methods(results)) > 1
        and all(set(data["loss"].dims) == {"seed", "step", "domain"} for data in results.values())
    )


def methods(results: Results) -> list[str]:
    """Returns the methods that were run, in config order."""
    return [name for name in results if not name.endswith(_TIME)]


def moving(results: Results) -> list[str]:
    """Returns the methods that were run and choose their weights by training."""
    return [name for name in methods(results) if name not in STATIC]


def at_equal(results: Results, cost: str) -> dict[str, xarray.Dataset]:
    """Returns the metrics of each method at equal steps, or at equal processor time.

    Args:
        results: run name -> metrics.
        cost: ``"steps"`` or ``"time"``.
    """
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {cost!r}.")
    own = {name: results.get(name + _TIME, results[name]) for name in methods(results)}
    return own if cost == "time" else {name: results[name] for name in own}


def final(data: xarray.Dataset, measure: str) -> xarray.DataArray:
    """Returns a test loss after the last step, ``[seed]`` in nats per token; NaN for a seed that diverged.

    Args:
        data: metrics of one method.
        measure: a key of :data:`MEASURES`.
    """
    if measure == "target":
        return data["target_loss"].isel(step=-1)
    # A domain that diverged must not be left out of the others' mean, nor of their largest loss.
    loss = data["loss"].isel(step=-1)
    return loss.mean("domain", skipna=False) if measure == "mean" else loss.max("domain", skipna=False)


def last_step(data: xarray.Dataset) -> int:
    """Returns the number of optimizer steps after which a method's last losses were measured."""
    return int(data["step"].values[-1])


class BestStatic(NamedTuple):
    """Holds the losses of the best of several methods, chosen for each seed by the other seeds.

    Attributes:
        losses: ``[seed]``.
        name: the method that was chosen for most seeds.
    """

    losses: xarray.DataArray
    name: str


def best_of(candidates: Mapping[str, xarray.DataArray]) -> BestStatic:
    """Chooses the method with the lowest mean loss, for each seed by the other seeds.

    The lowest of several means over the same seeds would be too low, by what the seeds happened to favour. A choice
    that does not know the seed which it is judged on has no such gain.

    Args:
        candidates: method -> final losses ``[seed]``.

    Raises:
        ValueError: there is no method.
    """
    if not candidates:
        raise ValueError("candidates must have a method, got none.")
    names, losses = list(candidates), np.stack([np.asarray(each, np.float64) for each in candidates.values()])
    finite = np.where(np.isfinite(losses), losses, np.inf)
    chosen = []
    for seed in range(losses.shape[1]):
        others = np.delete(finite, seed, axis=1)
        chosen.append(int((others if others.size else finite).mean(axis=1).argmin()))
    (first,) = [next(iter(candidates.values()))]
    best = first.copy(data=losses[chosen, np.arange(losses.shape[1])])
    return BestStatic(best, names[int(np.bincount(chosen).argmax())])


def compared(results: Results, baseline: str) -> pd.DataFrame:
    """Compares the final losses of methods with a baseline, at equal steps and at equal time.

    Args:
        results: run name -> metrics, the uniform mix among them.
        baseline: ``"uniform"``, or ``"best static"`` for the static mix of the lowest loss, see :func:`best_of`. The
            latter leaves out the static mixes from what is compared.

    Returns:
        A row for each cost, measure and method with the columns of :func:`mixjax.runner.comparison.paired_table` and
        ``verdict``: ``"better"`` or ``"worse"`` where p after Holm's correction is at most :data:`LEVEL`, else
        ``"undecided"``. The correction is over all rows that are tests of their own. A method without a run of its own
        at equal time has the row of equal steps again, with ``reused`` true.
    """
    frames = []
    for cost in COSTS:
        for measure in MEASURES:
            losses = {name: final(data, measure) for name, data in at_equal(results, cost).items()}
            chosen = _with_baseline(results, losses, baseline, cost)
            frames += [_frame(each, cost=cost, measure=measure, method=name) for name, each in chosen.items()]
    table = paired_table(pd.concat(frames, ignore_index=True), "loss", "method", better="lower", baseline=baseline)
    table["reused"] = False
    again = table[(table.cost == "steps") & ~table.method.map(lambda name: name + _TIME in results)]
    table = pd.concat([table, again.assign(cost="time", reused=True)], ignore_index=True)
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    return table


def _with_baseline(results, losses, baseline, cost):
    """Returns the baseline's losses and those that are compared with it, each of a run that no other row has."""
    if baseline == BEST_STATIC:
        best = best_of({name: each for name, each in losses.items() if name in STATIC})
        losses = {baseline: best.losses} | {name: each for name, each in losses.items() if name not in STATIC}
    return {
        name: each for name, each in losses.items() if cost == "steps" or name == baseline or name + _TIME in results
    }


def _frame(values: xarray.DataArray, **labels: str) -> pd.DataFrame:
    return pd.DataFrame({**labels, "seed": values["seed"].values, "loss": values.values})


def _verdict(row) -> str:
    if row.num_seeds < MIN_SEEDS or row.left_out >= row.num_seeds or not row.p_holm <= LEVEL:
        return "undecided"
    return "better" if row.difference < 0 else "worse"


def by_domain(results: Results, cost: str = "steps", baseline: str = REFERENCE) -> pd.DataFrame:
    """Compares each method's final loss in each training domain with a baseline's.

    Args:
        results: run name -> metrics.
        cost: ``"steps"`` or ``"time"``.
        baseline: a method.

    Returns:
        A row for each domain and method, with the columns that :func:`compared` has apart from ``reused``. Holm's
        correction is over all rows.
    """
    frames = []
    for name, data in at_equal(results, cost).items():
        last = data["loss"].isel(step=-1)
        frames += [_frame(last.sel(domain=each), domain=str(each), method=name) for each in data["domain"].values]
    table = paired_table(pd.concat(frames, ignore_index=True), "loss", "method", better="lower", baseline=baseline)
    table["verdict"] = [_verdict(row) for row in table.itertuples()]
    return table


def speed_up(data: xarray.Dataset, baseline: xarray.Dataset) -> xarray.DataArray:
    """Returns how many times fewer steps a method takes to the final mean loss of a baseline, ``[seed]``.

    Losses between two evaluations are interpolated linearly. A method that never comes to the baseline's final loss has
    the reverse ratio, below 1: the share of its steps in which the baseline came to the method's final loss.

    Args:
        data: metrics of the method.
        baseline: metrics of the baseline, with the same seeds.

    Example:
        >>> def curve(losses):
        ...     return xarray.Dataset({"loss": (("seed", "step", "domain"), [losses])}, {"step": [100, 200, 300, 400]})
        >>> slow, fast = curve([[4.0], [3.0], [2.5], [2.0]]), curve([[3.0], [2.0], [1.5], [1.0]])
        >>> speed_up(fast, slow).item(), speed_up(slow, fast).item()
        (2.0, 0.5)
    """
    own, other = (each["loss"].mean("domain", skipna=False) for each in (data, baseline))
    steps, other_steps = (np.asarray(each["step"].values, np.float64) for each in (data, baseline))
    ratios = []
    for ours, theirs in zip(own.values, other.values, strict=True):
        reached = _first_below(steps, ours, theirs[-1])
        if not np.isfinite([ours[-1], theirs[-1]]).all():
            ratios.append(np.nan)
        elif reached is not None:
            ratios.append(other_steps[-1] / reached)
        else:
            ratios.append(_first_below(other_steps, theirs, ours[-1]) / steps[-1])
    return own.isel(step=-1, drop=True).copy(data=np.array(ratios))


def _first_below(steps: np.ndarray, losses: np.ndarray, level: float) -> Any:
    """Returns the step at which a curve first comes down to a level; None if it never does."""
    below = np.flatnonzero(losses <= level)
    if not below.size:
        return None
    after = int(below[0])
    # What was reached before the first evaluation is counted as reached at it.
    if not after:
        return steps[0]
    share = (losses[after - 1] - level) / (losses[after - 1] - losses[after])
    return steps[after - 1] + share * (steps[after] - steps[after - 1])


def static_twin(results: Results, method: str, held: str) -> str:
    """Returns the static mix that has the weights which a method holds fixed, for instance ERMA's sampling weights.

    Args:
        results: run name -> metrics.
        method: the method.
        held: ``"sampling_weight"`` or ``"loss_weight"``.

    Raises:
        ValueError: no static mix was run.
    """
    own = results[method][held].isel(step=-1).mean("seed")
    distances = {
        name: float(abs(results[name][held].isel(step=-1).mean("seed") - own).sum())
        for name in STATIC
        if name in results
    }
    if not distances:
        raise ValueError(f"static_twin needs one of the runs {', '.join(STATIC)}, got {', '.join(results)}.")
    return min(distances, key=lambda name: distances[name])

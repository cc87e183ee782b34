"""Judges the methods on real data by steps and time to a target loss and by gradient variance, and draws the figure."""

import re

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.benchmarks import timing
from experiments.shared.figures import quantile_band
from experiments.shared.sentences import text
from mixjax.runner.claims import paired, versus
from mixjax.statistics import mean_stderr

__all__ = [
    "COLORS",
    "METHODS",
    "at_equal_time",
    "claims",
    "figure",
    "first_point",
    "log_ratios",
    "slowness",
    "steps_to_target",
]

SOURCE = "ours (paper 003 has no network and no real data)"
METHODS = {
    "sgd": "uniform draws",
    "va": "variance-aware",
    "rr": "RR, stale norms",
    "switch": "RR while it pays",
    "by_loss": "by loss, weighted",
    "hardness": "hardness sampling",
}
COLORS = dict(zip(METHODS, ("0.3", "C0", "C1", "C3", "C2", "C4"), strict=True))


def first_point(results):
    """Returns every run at the first point of its grid, which is the point that is judged."""
    point = {"learning_rate": 0, "strength": 0}
    return {name: data.isel(point, drop=True, missing_dims="ignore") for name, data in results.items()}


def of(dataset, metric: str, method: str):
    """Returns one metric of one method."""
    return dataset[metric].sel({"method": method})


def steps_to_target(dataset) -> xarray.DataArray:
    """Returns the number of steps after which each run's loss is first at the target.

    Between two records the loss is taken to be a straight line.

    Returns:
        An array with the dims of ``loss`` but ``step``. It is NaN for a run that does not reach the target.
    """
    return xarray.apply_ufunc(
        _crossing, dataset.loss, dataset.step, dataset.target, input_core_dims=[["step"], ["step"], []], vectorize=True
    )


def _crossing(losses, steps, target):
    below = np.flatnonzero(losses <= target)
    if not below.size:
        return np.nan
    i = below[0]
    if i == 0:
        return float(steps[0])
    share = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
    return steps[i - 1] + share * (steps[i] - steps[i - 1])


def slowness(dataset, method: str) -> np.ndarray:
    """Returns the time of a method's step over that of a step with uniform draws, ``[turn]``."""
    times = dataset.milliseconds.isel(seed=0)
    return (times.sel({"method": method}) / times.sel({"method": "sgd"})).values


def log_ratios(dataset, method: str):
    """Returns the log of a method's steps to the target over those of uniform draws, ``[seed]``.

    A run of the method that does not arrive counts as arriving with its last step, which flatters the method. Where the
    run with uniform draws does not arrive, the ratio is NaN.
    """
    steps = steps_to_target(dataset)
    own = steps.sel({"method": method}).fillna(float(dataset.step[-1]))
    return np.log(own) - np.log(steps.sel({"method": "sgd"}))


def at_equal_time(dataset, method: str):
    """Returns a method's loss after as much time as all steps with uniform draws take, ``[seed]``.

    A method that is faster than uniform draws is judged after the same number of steps.
    """
    last = float(dataset.step[-1])
    return of(dataset, "loss", method).interp(step=min(last, last / np.median(slowness(dataset, method))))


def claims(results) -> list:
    """Judges each method against uniform draws, in every run."""
    return [claim for name, data in first_point(results).items() for claim in _claims_of(name, data)]


def _claims_of(name, data) -> list:
    """Judges each method of one run against uniform draws."""
    methods = [method for method in data["method"].values.tolist() if method != "sgd"]
    return [claim for method in methods for claim in _claims_of_method(name, data, method)]


def _claims_of_method(name, data, method) -> list:
    """Judges one method of one run by its steps, time and loss, and by its variance where it has one."""
    slug = re.sub(r"\W+", "_", name.lower())
    target = f"{data.target[0]:g} nats"
    ratios, slower = log_ratios(data, method), slowness(data, method)
    low, high = timing.median_interval(slower)
    relative = f"{np.median(slower):.2f} (95 %: {low:.2f} to {high:.2f}) times that of uniform draws"
    factor = f"{np.exp(float(ratios.mean())):.3f} times the steps"

    def row(kind, sentence):
        return {
            "name": f"{slug}_{method}_{kind}",
            "statement": f"ours: {METHODS[method]} {sentence} ({name})",
            "source": SOURCE,
        }

    found = [
        paired(
            a=ratios,
            side="<",
            b=0 * ratios,
            **row("fewer_steps", f"reaches {target} in fewer steps than uniform draws"),
            note=f"log of the ratio, {factor}; {_arrivals(data, method)}; {_arrivals(data, 'sgd')}",
        ),
        paired(
            a=ratios + np.log(np.median(slower)),
            side="<",
            b=0 * ratios,
            **row("less_time", f"reaches {target} in less time than uniform draws"),
            note=f"log of the ratio; time of a step, whose error is not in the number, {relative}",
        ),
        paired(
            a=at_equal_time(data, method),
            side="<",
            b=of(data, "loss", "sgd").isel(step=-1, drop=True),
            **row("lower_loss", "has a lower loss than uniform draws after equal time"),
            note=f"nats; uniform draws: {text(of(data, 'loss', 'sgd').isel(step=-1))}",
        ),
    ]
    # Hardness sampling descends another objective: its estimate has no variance about this one's gradient.
    if method != "hardness":
        values = of(data, "variance_ratio", method)
        found.append(
            versus(
                values=values.where(data.step >= data.step[-1] / 2, drop=True).mean("step"),
                side="<=",
                threshold=1.0,
                **row("less_variance", "has a gradient of less variance in the second half of the run"),
                note=f"over that of uniform draws; at the end {text(values.isel(step=-1))}; {_possible(data)}",
            )
        )
    return found


def _arrivals(data, method) -> str:
    """Writes how many of a method's runs reach the target, and after how many steps."""
    steps = steps_to_target(data).sel({"method": method}).values
    arrived = steps[np.isfinite(steps)]
    told = f"{METHODS[method]}: {arrived.size} of {data.sizes['seed']} runs"
    if not arrived.size:
        return told
    return f"{told}, in {np.median(arrived):.0f} steps ({arrived.min():.0f} to {arrived.max():.0f})"


def _possible(data) -> str:
    """Writes the variance that fresh norms of all examples and exact spreads of the domains would give."""

    def told(scheme, label):
        start, end = (text(data.possible_ratio.sel(scheme=scheme, when=when), 2) for when in ("start", "end"))
        return f"{label} would give {start} to {end}"

    return f"from start to end {told('rr', 'all fresh norms')}, {told('va', 'exact spreads of the domains')}"


def figure(results):
    """Draws losses by steps and by time, variances, and steps and time to the target, with a row for each run."""
    results = first_point(results)
    drawn, rows = plt.subplots(
        len(results), 4, figsize=(16, 3.6 * len(results) + 1.1), layout="constrained", squeeze=False
    )
    for axes, (name, data) in zip(rows, results.items(), strict=True):
        methods = data["method"].values.tolist()
        # The record before any step is so much higher than the others that it would flatten the curves.
        later = data.isel(step=slice(1, None))
        seconds = data.milliseconds.isel(seed=0).median("turn").sel({"method": "sgd"}).item() / 1e3
        for method in methods:
            style = {"color": COLORS[method], "label": METHODS[method]}
            time = later.step * seconds * np.median(slowness(data, method))
            _band(axes[0], later.step, of(later, "loss", method), **style)
            _band(axes[1], time, of(later, "loss", method), **style)
            if method not in ("sgd", "hardness"):
                _band(axes[2], data.step, of(data, "variance_ratio", method), **style)
        for axis in axes[:2]:
            axis.axhline(float(data.target[0]), color="0.5", lw=1, ls=":")
            axis.set(ylabel="training loss (nats)", title=f"{name}: loss; dotted: the target")
            axis.set_ylim(top=float(later.loss.isel(step=0).median()))
        axes[0].set(xlabel="steps")
        axes[1].set(xlabel="seconds")
        axes[2].axhline(1.0, color="0.5", lw=1, ls=":")
        axes[2].set(xlabel="steps", ylabel="over that of uniform draws", title="variance of the gradient")
        _ratios(axes[3], data, [m for m in methods if m != "sgd"])
    for axis in rows.flat:
        axis.grid(alpha=0.3, lw=0.5)
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Importance sampling on real data, {seeds} paired seeds\n"
        "curves: median, 10 to 90 % of the runs; right: geometric mean, ±2 standard errors",
        fontsize=11,
    )
    drawn.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    return drawn


def _band(axis, x, values, **style):
    axis.plot(x, values.quantile(0.5, "seed"), lw=1.3, **style)
    quantile_band(axis, x, values, alpha=0.15, color=style["color"])


def _ratios(axis, data, methods):
    """Draws the steps and the time to the target over those of uniform draws, as geometric means over the seeds."""
    for place, method in enumerate(methods):
        ratios, slower = log_ratios(data, method), np.log(np.median(slowness(data, method)))
        # The ratio is NaN at a seed where uniform draws do not arrive; such seeds do not count.
        mean, stderr, _ = mean_stderr(ratios)
        error = 2 * stderr
        for shift, middle, marker in ((-0.12, mean, "o"), (0.12, mean + slower, "s")):
            low, middle, high = np.exp([middle - error, middle, middle + error])
            bar = [[middle - low], [high - middle]]
            axis.errorbar(middle, place + shift, xerr=bar, marker=marker, ms=5, capsize=2, color=COLORS[method])
        arrived = np.isfinite(steps_to_target(data).sel({"method": method})).mean("seed").item()
        if arrived < 1:
            axis.annotate(f"{arrived:.0%} arrived", (1, place), (-4, 0), ("axes fraction", "data"), "offset points")
    axis.axvline(1.0, color="0.5", lw=1, ls=":")
    axis.set(xlabel="over that of uniform draws", xscale="log", title="to the target: steps ●, time ■")
    axis.set_yticks(range(len(methods)), [METHODS[m] for m in methods])
    # A logarithmic axis of less than a decade has no labels of its own.
    low, high = axis.get_xlim()
    ticks = [x for x in (0.25, 0.35, 0.5, 0.7, 0.85, 0.95, 1.0, 1.05, 1.2, 1.5, 2.0, 3.0, 5.0) if low <= x <= high]
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.minorticks_off()
    axis.invert_yaxis()

"""Figure and claims of importance sampling on real data: steps and time to a target loss, and the reason, variances."""

import re

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.benchmarks import timing
from experiments.shared.figures import text
from mixjax.runner.claims import paired, versus

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
    """Every run at the first point of its grid: what is judged where one was run."""
    point = {"learning_rate": 0, "strength": 0}
    return {name: data.isel(point, drop=True, missing_dims="ignore") for name, data in results.items()}


def of(dataset, metric: str, method: str):
    """A method's metric."""
    return dataset[metric].sel({"method": method})


def steps_to_target(dataset) -> xarray.DataArray:
    """Steps after which a run's loss is first at the target, between two records by a straight line.

    Returns:
        ``[..., method]`` as ``loss`` without its steps; NaN for a run that does not get there.
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
    """A method's time a step over that of uniform draws, ``[turn]``."""
    times = dataset.milliseconds.isel(seed=0)
    return (times.sel({"method": method}) / times.sel({"method": "sgd"})).values


def log_ratios(dataset, method: str):
    """Log of a method's steps to the target over those of uniform draws, ``[seed]``.

    A method that does not arrive counts as arriving with its last step, which flatters it; where uniform draws do not,
    there is no ratio.
    """
    steps = steps_to_target(dataset)
    own = steps.sel({"method": method}).fillna(float(dataset.step[-1]))
    return np.log(own) - np.log(steps.sel({"method": "sgd"}))


def at_equal_time(dataset, method: str):
    """A method's loss after as much time as the steps of uniform draws take, and after no more steps, ``[seed]``."""
    last = float(dataset.step[-1])
    return of(dataset, "loss", method).interp(step=min(last, last / np.median(slowness(dataset, method))))


def claims(results) -> list:
    """Each method against uniform draws."""
    return [claim for name, data in first_point(results).items() for claim in _claims_of(name, data)]


def _claims_of(name, data) -> list:
    """The rows of one run."""
    slug, steps, total = re.sub(r"\W+", "_", name.lower()), steps_to_target(data), data.sizes["seed"]
    late = data.variance_ratio.where(data.step >= data.step[-1] / 2, drop=True).mean("step")

    def told(method):
        own = steps.sel({"method": method}).values
        own = own[np.isfinite(own)]
        middle = f", in {np.median(own):.0f} steps ({own.min():.0f} to {own.max():.0f})" if own.size else ""
        return f"{METHODS[method]}: {own.size} of {total} runs{middle}"

    def row(method, kind, sentence):
        return {
            "name": f"{slug}_{method}_{kind}",
            "statement": f"ours: {METHODS[method]} {sentence} ({name})",
            "source": SOURCE,
        }

    found = []
    for method in (m for m in data["method"].values.tolist() if m != "sgd"):
        ratios, slower = log_ratios(data, method), slowness(data, method)
        low, high = timing.median_interval(slower)
        relative = f"{np.median(slower):.2f} (95 %: {low:.2f} to {high:.2f}) times that of uniform draws"
        factor = f"{np.exp(float(ratios.mean())):.3f} times the steps"
        found += [
            paired(
                a=ratios,
                side="<",
                b=0 * ratios,
                **row(method, "fewer_steps", f"reaches {data.target[0]:g} nats in fewer steps than uniform draws"),
                note=f"log of the ratio, {factor}; {told(method)}; {told('sgd')}",
            ),
            paired(
                a=ratios + np.log(np.median(slower)),
                side="<",
                b=0 * ratios,
                **row(method, "less_time", f"reaches {data.target[0]:g} nats in less time than uniform draws"),
                note=f"log of the ratio; time of a step, whose error is not in the number, {relative}",
            ),
            paired(
                a=at_equal_time(data, method),
                side="<",
                b=of(data, "loss", "sgd").isel(step=-1, drop=True),
                **row(method, "lower_loss", "has a lower loss than uniform draws after equal time"),
                note=f"nats; uniform draws: {text(of(data, 'loss', 'sgd').isel(step=-1))}",
            ),
        ]
        if method != "hardness":
            values = of(data, "variance_ratio", method)
            found.append(
                versus(
                    values=late.sel({"method": method}),
                    side="<=",
                    threshold=1.0,
                    **row(method, "less_variance", "has a gradient of less variance in the second half of the run"),
                    note=f"over that of uniform draws; at the end {text(values.isel(step=-1))}; {_possible(data)}",
                )
            )
    return found


def _possible(data) -> str:
    """What fresh norms and exact spreads would give."""
    told = {
        label: " to ".join(text(data.possible_ratio.sel(scheme=scheme, when=when), 2) for when in ("start", "end"))
        for scheme, label in (("rr", "all fresh norms"), ("va", "exact spreads of the domains"))
    }
    return "from start to end " + ", ".join(f"{label} would give {values}" for label, values in told.items())


def figure(results):
    """Losses by steps and by the clock, variances, and what it takes to the target; one row a run."""
    results = first_point(results)
    drawn, rows = plt.subplots(
        len(results), 4, figsize=(16, 3.6 * len(results) + 1.1), layout="constrained", squeeze=False
    )
    for axes, (name, data) in zip(rows, results.items(), strict=True):
        methods = data["method"].values.tolist()
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
    middle, low, high = (values.quantile(q, "seed") for q in (0.5, 0.1, 0.9))
    axis.plot(x, middle, lw=1.3, **style)
    axis.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def _ratios(axis, data, methods):
    """Steps and time to the target over those of uniform draws, geometric means over the seeds."""
    for place, method in enumerate(methods):
        ratios, slower = log_ratios(data, method), np.log(np.median(slowness(data, method)))
        mean, error = float(ratios.mean()), 2 * float(ratios.std(ddof=1)) / np.sqrt(max(int(ratios.count()), 1))
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
    low, high = axis.get_xlim()
    ticks = [x for x in (0.25, 0.35, 0.5, 0.7, 0.85, 0.95, 1.0, 1.05, 1.2, 1.5, 2.0, 3.0, 5.0) if low <= x <= high]
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.minorticks_off()
    axis.invert_yaxis()

"""Best T, laws fitted to it over resampled instances, claims and panels about them."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates.quadratics import SPECTRUM
from mixjax import mixing
from mixjax.mixing.horizons import ROUNDS, pilot_steps
from mixjax.runner.claims import Claim

RESAMPLES = 1000  # of the instances, for intervals


class Best(NamedTuple):
    """The best T by budget: row 0 for the mean over all instances, the others for instances drawn with replacement.

    Attributes:
        budgets: ``[N]``.
        horizons: ``[1 + RESAMPLES, N]``.
        losses: ``[1 + RESAMPLES, N]``, the mean excess there.
    """

    budgets: np.ndarray
    horizons: np.ndarray
    losses: np.ndarray


def resampled_means(excess) -> np.ndarray:
    """Means ``[1 + RESAMPLES, ...]`` of ``[seed, ...]``; the first one over all seeds as they are."""
    values = np.asarray(excess, np.float64)
    count = len(values)
    shares = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    return np.tensordot(np.vstack([np.full((1, count), 1 / count), shares]), values, 1)


def best_horizons(data, metric: str) -> Best:
    """Of a metric, in a data set with dims ``seed``, ``budget`` and ``horizon``."""
    means = resampled_means(data[metric].transpose("seed", "budget", "horizon"))
    return Best(data.budget.values, refined(means, data.horizon.values), means.min(-1))


def settled(best: Best) -> Best:
    """Budgets in which the best T leaves as many rounds as ``mixing.horizon`` asks for, and the three largest ones."""
    kept = best.budgets >= ROUNDS * best.horizons[0]
    kept[-3:] = True
    return Best(best.budgets[kept], best.horizons[:, kept], best.losses[:, kept])


def refined(losses: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The T of least loss ``[..., horizon]``: of the parabola in log T through the least and its neighbours."""
    x, least = np.log(grid), losses.argmin(-1)
    middle = np.clip(least, 1, len(grid) - 2)
    (x0, y0), (x1, y1), (x2, y2) = (
        (x[middle + i], np.take_along_axis(losses, (middle + i)[..., None], -1)[..., 0]) for i in (-1, 0, 1)
    )
    first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (second - first) / (x2 - x0)
    lowest = (x0 + x1) / 2 - first / np.where(bend > 0, 2 * bend, np.inf)
    inside = (least == middle) & (bend > 0)
    return np.exp(np.where(inside, np.clip(lowest, x0, x2), x[least]))


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares slope of ``y`` over ``x``, along the last axis."""
    x = x - x.mean(-1, keepdims=True)
    return (x * y).sum(-1) / (x * x).sum(-1)


def log_slope(best: Best) -> np.ndarray:
    """Of T over log N."""
    return slope(np.log(best.budgets), best.horizons)


def exponent(best: Best) -> np.ndarray:
    """Of T as a power of N."""
    return slope(np.log(best.budgets), np.log(best.horizons))


def order(best: Best) -> np.ndarray:
    """``q``, where the excess at the best T falls like ``(T / N)^q``."""
    with np.errstate(invalid="ignore"):  # last parameters can have less than the best weights' loss
        return slope(np.log(best.horizons / best.budgets), np.log(best.losses))


def explained(best: Best, law: str) -> np.ndarray:
    """R² of T over budgets: of ``a + b log N`` (``log``), or of the best ``a N^b`` (``power``)."""
    T, n = best.horizons, best.budgets
    spread = np.square(T - T.mean(-1, keepdims=True)).sum(-1)
    spread = np.where(spread > 0, spread, np.nan)
    if law == "log":
        return log_slope(best) ** 2 * np.square(np.log(n) - np.log(n).mean()).sum() / spread
    powers = n ** np.linspace(0, 1.5, 1501)[:, None]
    fits = np.square(T @ powers.T) / np.square(powers).sum(-1)
    return 1 - (np.square(T).sum(-1) - fits.max(-1)) / spread


def contraction(data) -> float:
    """``c_η = -log(1 - ημ)`` of a fixed learning rate."""
    return -float(np.log1p(-data.eta.mean() * SPECTRUM[0]))


def auto_horizons(data) -> np.ndarray:
    """What ``mixing.horizon`` takes for each instance and N, ``[seed, budget]``, as positions in the grid of T."""
    steps = [n - pilot_steps(n) for n in data.budget.values.tolist()]
    rates = data.rate.transpose("seed", "budget").values.tolist()
    chosen = [[mixing.horizon(n, rate) for n, rate in zip(steps, row, strict=True)] for row in rates]
    return abs(np.log(chosen)[..., None] - np.log(data.horizon.values)).argmin(-1)


def auto_ratio(data, metric: str) -> np.ndarray:
    """The mean loss at ``mixing.horizon``'s T over that at the best T, ``[1 + RESAMPLES, N]``."""
    values = data[metric].transpose("seed", "budget", "horizon").values
    auto = np.take_along_axis(values, auto_horizons(data)[..., None], -1)[..., 0]
    return resampled_means(auto) / resampled_means(values).min(-1)


def judged(name: str, values: np.ndarray, low: float, high: float, target: float, seeds: int, note: str, **sentence):
    """A claim that a number is within bounds: it holds if the number's 95 % interval is, and fails if none of it is.

    Args:
        name: slug.
        values: ``[1 + RESAMPLES]``, the number and its values over resampled instances.
        low: bound, may be -inf.
        high: bound, may be inf.
        target: shown as the threshold.
        seeds: instances.
        note: more words.
        **sentence: ``statement`` and ``source``.
    """
    lower, upper = np.quantile(values[1:], [0.025, 0.975])
    holds = True if low <= lower and upper <= high else False if upper < low or high < lower else None
    note = f"{interval(values)}, asked for: {low:.3g} to {high:.3g}; {note}"
    return Claim(
        name,
        **sentence,
        value=values[0],
        stderr=values[1:].std(),
        threshold=target,
        num_seeds=seeds,
        holds=holds,
        note=note,
    )


def interval(values: np.ndarray, digits: int = 3) -> str:
    """The number with its 95 % interval over resampled instances."""
    lower, upper = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:.{digits}g} [{lower:.{digits}g}, {upper:.{digits}g}]"


def listed(values) -> str:
    """Numbers by budget."""
    return " ".join(str(value) if isinstance(value, np.integer) else f"{value:.3g}" for value in values)


def losses(axis, data, metric: str) -> None:
    """The mean excess against T, a line for each budget, with the best T."""
    means, best = data[metric].mean("seed"), best_horizons(data, metric)
    colors = plt.cm.viridis(np.linspace(0, 0.9, data.sizes["budget"]))
    for number, (budget, color) in enumerate(zip(data.budget.values, colors, strict=True)):
        axis.plot(data.horizon, means.sel(budget=budget), color=color, lw=1.2, label=f"N = {budget}")
        axis.plot(best.horizons[0, number], best.losses[0, number], "o", ms=5, color=color)
    axis.set(xscale="log", yscale="log", xlabel="T (steps a round)", ylabel="excess validation loss (mean)")
    axis.set_ylim(top=40 * float(means.max()))
    axis.legend(fontsize=7.5, ncols=3, loc="upper left")


def best_with_bars(axis, best: Best, **style) -> None:
    """The best T against N, with 95 % intervals."""
    low, high = np.quantile(best.horizons[1:], [0.025, 0.975], axis=0)
    T = best.horizons[0]
    bars = np.maximum([T - low, high - T], 0)
    axis.errorbar(best.budgets, T, bars, **{"fmt": "o", "ms": 4.5, "lw": 1, "capsize": 2, **style})


def band(axis, x, values: np.ndarray, **style) -> None:
    """A line with its 95 % band, of ``[1 + RESAMPLES, N]``."""
    axis.plot(x, values[0], **{"lw": 1.4, **style})
    axis.fill_between(x, *np.quantile(values[1:], [0.025, 0.975], axis=0), color=style["color"], alpha=0.2, lw=0)


def finish(drawn, data, what: str):
    """Grids, legends and the title."""
    for axis in drawn.axes:
        axis.grid(alpha=0.3, lw=0.5)
        if axis.get_legend() is None and axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7.5)
        axis.title.set_fontsize(10)
    drawn.suptitle(
        f"Papers 001 and 002, {what}: {data.sizes['seed']} random quadratics; bars and bands: 95 % over instances",
        fontsize=11,
    )
    return drawn

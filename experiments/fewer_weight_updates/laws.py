"""Finds the best T for each budget, fits laws to it over resampled instances, and draws and judges them."""

from typing import Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates.quadratics import SPECTRUM
from mixjax import mixing
from mixjax.mixing.horizons import ROUNDS, pilot_steps
from mixjax.runner.claims import Claim

# The intervals come from so many resamplings of the instances.
RESAMPLES = 1000


class Best(NamedTuple):
    """Holds the best T of each budget.

    Row 0 is for the mean over all instances, the others for instances drawn with replacement.

    Attributes:
        budgets: ``[N]``.
        horizons: ``[1 + RESAMPLES, N]``.
        losses: ``[1 + RESAMPLES, N]``, the mean excess there.
    """

    budgets: np.ndarray
    horizons: np.ndarray
    losses: np.ndarray


def resampled_means(excess) -> np.ndarray:
    """Returns means ``[1 + RESAMPLES, ...]`` of ``[seed, ...]``: over all seeds, then over seeds drawn again."""
    values = np.asarray(excess, np.float64)
    count = len(values)
    shares = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    return np.tensordot(np.vstack([np.full((1, count), 1 / count), shares]), values, 1)


def best_horizons(data, metric: str) -> Best:
    """Finds the best T for a metric of a data set with dims ``seed``, ``budget`` and ``horizon``."""
    means = resampled_means(data[metric].transpose("seed", "budget", "horizon"))
    return Best(data.budget.values, refined(means, data.horizon.values), means.min(-1))


def settled(best: Best) -> Best:
    """Keeps the budgets whose best T leaves enough rounds, as many as ``mixing.horizon`` asks for.

    The three largest budgets are always kept, so that there is something to fit.
    """
    kept = best.budgets >= ROUNDS * best.horizons[0]
    kept[-3:] = True
    return Best(best.budgets[kept], best.horizons[:, kept], best.losses[:, kept])


def refined(losses: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Finds the T of least loss between grid points.

    It is the lowest point of the parabola in log T through the least loss and its neighbours.

    Args:
        losses: ``[..., horizon]``.
        grid: ``[horizon]``, the T.
    """
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
    """Returns the least squares slope of ``y`` over ``x``, along the last axis."""
    x = x - x.mean(-1, keepdims=True)
    return (x * y).sum(-1) / (x * x).sum(-1)


def log_slope(best: Best) -> np.ndarray:
    """Returns the slope of the best T over log N."""
    return slope(np.log(best.budgets), best.horizons)


def exponent(best: Best) -> np.ndarray:
    """Returns the exponent of the best T as a power of N."""
    return slope(np.log(best.budgets), np.log(best.horizons))


def order(best: Best) -> np.ndarray:
    """Returns ``q``, where the excess at the best T falls like ``(T / N)^q``."""
    # The last parameters can have less loss than the best weights' optimum, whose logarithm is NaN.
    with np.errstate(invalid="ignore"):
        return slope(np.log(best.horizons / best.budgets), np.log(best.losses))


def explained(best: Best, law: Literal["log", "power"]) -> np.ndarray:
    """Returns the R² of T over budgets, of ``a + b log N`` (``log``) or of the best ``a N^b`` (``power``)."""
    T, n = best.horizons, best.budgets
    spread = np.square(T - T.mean(-1, keepdims=True)).sum(-1)
    spread = np.where(spread > 0, spread, np.nan)
    if law == "log":
        return log_slope(best) ** 2 * np.square(np.log(n) - np.log(n).mean()).sum() / spread
    powers = n ** np.linspace(0, 1.5, 1501)[:, None]
    fits = np.square(T @ powers.T) / np.square(powers).sum(-1)
    return 1 - (np.square(T).sum(-1) - fits.max(-1)) / spread


def contraction(data) -> float:
    """Returns ``c_η = -log(1 - ημ)`` of a fixed learning rate."""
    return -float(np.log1p(-data.eta.mean() * SPECTRUM[0]))


def auto_horizons(data) -> np.ndarray:
    """Returns the T that ``mixing.horizon`` takes, ``[seed, budget]``, as the nearest positions in the grid of T."""
    steps = [n - pilot_steps(n) for n in data.budget.values.tolist()]
    rates = data.rate.transpose("seed", "budget").values.tolist()
    chosen = [[mixing.horizon(n, rate) for n, rate in zip(steps, row, strict=True)] for row in rates]
    return abs(np.log(chosen)[..., None] - np.log(data.horizon.values)).argmin(-1)


def auto_ratio(data, metric: str) -> np.ndarray:
    """Returns the mean loss at ``mixing.horizon``'s T over that at the best T, ``[1 + RESAMPLES, N]``."""
    values = data[metric].transpose("seed", "budget", "horizon").values
    auto = np.take_along_axis(values, auto_horizons(data)[..., None], -1)[..., 0]
    return resampled_means(auto) / resampled_means(values).min(-1)


def judged(
    name: str, values: np.ndarray, *, low: float, high: float, target: float, seeds: int, note: str, **sentence
) -> Claim:
    """Judges the claim that a number is within bounds.

    The claim holds if the number's whole 95 % interval is within the bounds. It fails if none of the interval is.

    Args:
        name: the row's name.
        values: ``[1 + RESAMPLES]``, the number and its values over resampled instances.
        low: the lower bound; may be -inf.
        high: the upper bound; may be inf.
        target: the number that is shown as the threshold.
        seeds: the number of instances.
        note: words to add to the row's note.
        **sentence: ``statement`` and ``source``.
    """
    lower, upper = np.quantile(values[1:], [0.025, 0.975])
    if low <= lower and upper <= high:
        holds = True
    elif upper < low or high < lower:
        holds = False
    else:
        holds = None
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
    """Writes a number with its 95 % interval over resampled instances."""
    lower, upper = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:.{digits}g} [{lower:.{digits}g}, {upper:.{digits}g}]"


def listed(values) -> str:
    """Writes numbers, one for each budget, with spaces between them."""
    return " ".join(str(value) if isinstance(value, np.integer) else f"{value:.3g}" for value in values)


def losses(axis, data, metric: str) -> None:
    """Draws the mean excess against T, a line for each budget, with the best T."""
    means, best = data[metric].mean("seed"), best_horizons(data, metric)
    colors = plt.cm.viridis(np.linspace(0, 0.9, data.sizes["budget"]))
    for number, (budget, color) in enumerate(zip(data.budget.values, colors, strict=True)):
        axis.plot(data.horizon, means.sel(budget=budget), color=color, lw=1.2, label=f"N = {budget}")
        axis.plot(best.horizons[0, number], best.losses[0, number], "o", ms=5, color=color)
    axis.set(xscale="log", yscale="log", xlabel="T (steps a round)", ylabel="excess validation loss (mean)")
    axis.set_ylim(top=40 * float(means.max()))
    axis.legend(fontsize=7.5, ncols=3, loc="upper left")


def best_with_bars(axis, best: Best, **style) -> None:
    """Draws the best T against N, with 95 % intervals."""
    low, high = np.quantile(best.horizons[1:], [0.025, 0.975], axis=0)
    T = best.horizons[0]
    bars = np.maximum([T - low, high - T], 0)
    axis.errorbar(best.budgets, T, bars, **{"fmt": "o", "ms": 4.5, "lw": 1, "capsize": 2, **style})


def band(axis, x, values: np.ndarray, **style) -> None:
    """Draws a line with its 95 % band, from values ``[1 + RESAMPLES, N]``."""
    axis.plot(x, values[0], **{"lw": 1.4, **style})
    axis.fill_between(x, *np.quantile(values[1:], [0.025, 0.975], axis=0), color=style["color"], alpha=0.2, lw=0)


def finish(drawn, data, what: str):
    """Adds grids, legends and the title to a figure."""
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

"""Robust statistics with two groups of unequal features: paper 003, section 4.1 (figures 2 and 3)."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting import runs
from experiments.resampling_reweighting.runs import Run, by_rate, interval, swept
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.figures import text
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

METHODS = {"sgd": "SGD", "per_term": "RR, all norms (eq. 3.5)", "group": "RR, one element a group"}
GAIN = 0.1  # share of the way to the best loss that counts as better
COLORS = {"sgd": "C0", "per_term": "C1", "group": "C2"}


class Points(NamedTuple):
    """Features ``[n, d]``, targets ``[n]``, the first parameters, and those of the best fit or the truth."""

    x: jax.Array
    y: jax.Array
    first: jax.Array
    best: jax.Array


@dataclasses.dataclass(frozen=True)
class Welsch(Run):
    """Section 4.1's problems.

    Attributes:
        problem: ``classification``, section 4.1.1; ``regression``, 4.1.2.
        sizes: points of the first group, of large features, and of the second.
        spread: standard deviation of the second group's features in the classification.
        corrupted: share of the regression's targets that are corrupted; the paper's text reads as 1.
        offset: the regression starts at ``beta* + offset e + start_noise N(0, I)``.
        start_noise: see ``offset``.
        margin: a run has ended in the global basin if its loss is at most that of the best parameters plus so much of
            the way from there to 1.
        first: the classification's first parameter.
    """

    learning_rate: float = 0.015
    num_steps: int = 2000
    record_every: int = 20
    problem: Literal["classification", "regression"] = "classification"
    sizes: tuple[int, int] = (800, 4000)
    spread: float = 0.5
    corrupted: float = 1.0
    offset: float = 5.0
    start_noise: float = 1.0
    margin: float = 0.1
    first: float = -0.5


def loss(theta: jax.Array, points: Points) -> jax.Array:
    """Eq. 4.1, mean over the points."""
    return jnp.mean(-jnp.expm1(-jnp.square(points.y - points.x @ theta) / 2))


def gradients(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Of eq. 4.1, ``[n, d]``; exactly zero where the residual is beyond float32's exponential."""
    residuals = y - x @ theta
    return -(residuals * jnp.exp(-jnp.square(residuals) / 2))[:, None] * x


def classification(key: jax.Array, config: Welsch) -> Points:
    """Section 4.1.1; the best parameter is that of least loss on a grid."""
    keys = jax.random.split(key, 3)
    first = 20 + jax.random.normal(keys[0], (config.sizes[0], 1))
    second = 0.5 + config.spread * jax.random.normal(keys[1], (config.sizes[1], 1))
    x = jnp.concatenate([first, second])
    y = jax.random.bernoulli(keys[2], shape=(len(x),)).astype(jnp.float32)
    points = Points(x, y, jnp.full(1, config.first), jnp.zeros(1))
    grid = jnp.linspace(-0.2, 0.2, 401)[:, None]
    best = grid[jnp.argmin(jax.lax.map(lambda theta: loss(theta, points), grid))]
    return points._replace(best=best)


def regression(key: jax.Array, config: Welsch, dim: int = 10) -> Points:
    """Section 4.1.2; the best parameters are the true ones."""
    keys = jax.random.split(key, 7)
    first = 20 + jax.random.normal(keys[0], (config.sizes[0], dim))
    second = 0.25 + 0.5 * jax.random.normal(keys[1], (config.sizes[1], dim))
    x, best = jnp.concatenate([first, second]), jax.random.normal(keys[2], (dim,))
    clean = x @ best
    bad = jax.random.bernoulli(keys[3], config.corrupted, clean.shape)
    shift = jax.random.uniform(keys[4], clean.shape, minval=-1, maxval=1) * 3 * jnp.abs(clean).max()
    y = clean + jnp.where(bad, shift, 0.0) + 0.1 * jax.random.normal(keys[5], clean.shape)
    start = best + config.offset + config.start_noise * jax.random.normal(keys[6], (dim,))
    return Points(x, y, start, best)


def train(key: jax.Array, config: Welsch) -> dict[str, jax.Array]:
    """One data set, and every method from the same parameters with the same random numbers.

    Returns:
        ``theta`` ``[method, step]``, the first coordinate; ``loss`` the same; ``best_loss``, a scalar.
    """
    data_key, run_key = jax.random.split(key)
    points = {"classification": classification, "regression": regression}[config.problem](data_key, config)
    n, sizes = sum(config.sizes), jnp.array(config.sizes)

    def run(method):
        def step(theta, key):
            estimate = runs.direction(method, key, lambda i: gradients(theta, points.x[i], points.y[i]), sizes, n)
            return theta - config.learning_rate * estimate, None

        def stage(theta, keys):
            theta, _ = jax.lax.scan(step, theta, keys)
            return theta, (theta[0], loss(theta, points))

        keys = jax.random.split(run_key, config.num_steps)
        return jax.lax.scan(stage, points.first, keys.reshape(-1, config.record_every))[1]

    theta, losses = map(jnp.stack, zip(*(run(method) for method in METHODS), strict=True))
    return {"theta": theta, "loss": losses, "best_loss": loss(points.best, points)}


def welsch(config: Welsch) -> Experiment:
    """Figure 2 or figure 3."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={"theta": ("method", "step"), "loss": ("method", "step"), "best_loss": ()},
        coords={"method": list(METHODS), "step": config.steps},
        units={"theta": "1", "loss": "1", "best_loss": "1"},
        figure=lambda results: figure(swept(results, config.learning_rate), config),
        claims=lambda results: claims(swept(results, config.learning_rate), config),
    )


def arrived(data, config: Welsch):
    """Whether a run's last loss is near the best one, ``[learning_rate, seed, method]``."""
    return (data.loss.isel(step=-1) <= data.best_loss + config.margin * (1 - data.best_loss)).astype(float)


def claims(data, config: Welsch) -> list:
    """Who is in the global basin at the end, and whose loss is lower, at the config's own learning rate."""
    near, last, ours = arrived(data, config), data.loss.isel(step=-1), {"source": "paper 003, section 4.1"}
    own = config.learning_rate

    def at(values, method):
        return runs.at(values, own, method)

    def lower(name, method, **sentence):
        """At the learning rate of the grid where it is least so, by a share of what there is to gain."""
        gaps = last.sel({"method": method}) - last.sel({"method": "sgd"})
        weakest = gaps.isel(learning_rate=int(gaps.mean("seed").argmax("learning_rate")))
        wanted = -GAIN * float((1 - data.best_loss).mean())
        truth = text(data.best_loss.isel(learning_rate=0))
        note = (
            f"last loss less SGD's after {config.num_steps} steps, at the grid's learning rate where RR gains least, "
            f"{weakest.learning_rate.item():g}; asked for: {GAIN:g} of the way from 1 to the loss of the true "
            f"coefficients ({truth}); mean last losses, {table(last, 4)}; in the global basin, {table(near, 3)}"
        )
        return paired(name, weakest, "<", 0.0 * weakest, threshold=wanted, **sentence, note=note)

    def table(values, digits):
        return f"{' / '.join(METHODS)} by learning rate: {by_rate(values, digits)}"

    steps = f"after {config.num_steps} steps at learning rate {own:g}"
    if config.problem == "classification":
        where = f"share of runs whose loss is within {config.margin:g} of the way from the least loss to 1, {steps}"
        return [
            versus(
                "classification_sgd_escapes",
                1 - at(near, "sgd"),
                ">=",
                0.95,
                **quote("classification_sgd_escapes"),
                note=f"1 - {where}; in the global basin {interval(at(near, 'sgd'))}",
            ),
            versus(
                "classification_rr_stays",
                at(near, "group"),
                ">=",
                0.95,
                **quote("classification_rr_stays"),
                note=f"{where}, one element a group; {interval(at(near, 'group'))}; shares, {table(near, 3)}",
            ),
            versus(
                "classification_rr_stays_per_term",
                at(near, "per_term"),
                ">=",
                0.95,
                statement="ours: so does RR by all gradient norms",
                **ours,
                note=interval(at(near, "per_term")),
            ),
            paired(
                "classification_lower_loss",
                at(last, "group"),
                "<",
                at(last, "sgd"),
                statement="ours: RR ends at a lower loss than SGD",
                **ours,
                note=f"mean last losses, {table(last, 4)}",
            ),
        ]
    variant = config.corrupted != 1.0
    return [
        lower(f"regression_better{_suffix(config)}", "per_term", **_sentence(config)),
        lower(
            f"regression_better_group{_suffix(config)}",
            "group",
            statement=f"ours: so does RR by one element a group{', in the variant' if variant else ''}",
            **ours,
        ),
        versus(
            f"regression_arrives{_suffix(config)}",
            at(near, "per_term"),
            ">=",
            0.85,
            statement="ours: RR ends near the loss of the true coefficients",
            **ours,
            note=f"share of runs {steps}",
        ),
    ]


def _suffix(config):
    return "" if config.corrupted == 1.0 else "_variant"


def _sentence(config):
    if config.corrupted == 1.0:
        return quote("regression_better")
    what = f"with {config.corrupted:.0%} of the targets corrupted and a start near the truth"
    return {"statement": f"ours, a variant: {what}, RR ends lower", "source": "paper 003, section 4.1"}


def figure(data, config: Welsch):
    """Trajectories of ten runs, losses, and the share of runs in the global basin against the learning rate."""
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    shown = data.sel(learning_rate=config.learning_rate, method="nearest")
    near, seeds = arrived(data, config), data.sizes["seed"]
    for method, label in METHODS.items():
        color = COLORS[method]
        paths = shown.theta.sel({"method": method}).isel(seed=slice(0, 10))
        axes[0].plot(shown.step, paths.T, color=color, lw=0.6, alpha=0.7)
        values = shown.loss.sel({"method": method})
        middle, low, high = (values.quantile(q, "seed") for q in (0.5, 0.1, 0.9))
        axes[1].plot(shown.step, middle, color=color, lw=1.4, label=label)
        axes[1].fill_between(shown.step, low, high, color=color, alpha=0.2, lw=0)
        share = near.sel({"method": method}).mean("seed")
        error = 2 * np.sqrt(share * (1 - share) / seeds)
        style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": color, "label": label}
        axes[2].errorbar(data.learning_rate, share, error, **style)
    axes[1].axhline(float(shown.best_loss.mean()), color="0.4", lw=1, ls=":", label="best parameters")
    name = "θ" if config.problem == "classification" else "first coefficient"
    axes[0].set(xlabel="steps", ylabel=name, title=f"10 runs, η = {config.learning_rate:g}")
    axes[1].set(xlabel="steps", ylabel="loss (eq. 4.1)", title="median, 10 to 90 % of the runs")
    axes[2].set(xlabel="learning rate η", ylabel="in the global basin at the end (share)", ylim=(-0.03, 1.03))
    axes[2].set(title=f"{seeds} runs, a data set each, ±2 errors", xscale="log")
    axes[2].set_xticks(data.learning_rate.values, [f"{rate:g}" for rate in data.learning_rate.values])
    axes[2].minorticks_off()
    for axis in axes:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS) + 1)
    number = 2 if config.problem == "classification" else 3
    drawn.suptitle(
        f"Paper 003, figure {number}: Welsch {config.problem}, {config.corrupted:.0%} of the targets corrupted"
        if number == 3
        else "Paper 003, figure 2: Welsch classification",
        fontsize=11,
    )
    return drawn

r"""Features of norm 1 and ``K`` under a nonlinear model: paper 003, remark 2.2.

.. math:: L(\theta) = \frac{1}{2n} \sum_i (f(\theta \cdot x_i) - y_i)^2, \qquad f = \tanh

The remark leaves ``f`` and the targets open. ``tanh`` makes either group blind, as in section 2's example, where the
other one is fitted: features lie around one axis ``e``, a share of them of norm ``K``, whose targets are
``f(e · x / K)`` and noise, the others of norm 1 with targets ``f(-b e · x)`` and noise. The loss has a sharp minimum
near ``e / K`` and a flat one near ``-b e``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting import runs
from experiments.resampling_reweighting.runs import Run, bounds, by_rate, interval
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.figures import text
from mixjax.grad_norms import norm
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

METHODS = {
    "sgd": "SGD",
    "static": "RR by ‖x‖ (section 2)",
    "per_term": "RR, all norms (eq. 3.5)",
    "group": "RR, one element a group",
}
COLORS = {"sgd": "C0", "static": "C3", "per_term": "C1", "group": "C2"}
LINE = 101  # points of the segment between the minima


class Points(NamedTuple):
    """Features ``[n, d]``, the large ones first, targets ``[n]``, and the parameters that fit either group."""

    x: jax.Array
    y: jax.Array
    sharp: jax.Array
    flat: jax.Array


@dataclasses.dataclass(frozen=True)
class FeatureNorms(Run):
    """Remark 2.2's problem.

    Attributes:
        num_examples: ``n``.
        dim: ``d``.
        large: ``K``.
        share: the share of features of norm ``K``.
        spread: size of a feature's part across the axis, relative to that along it.
        noise: standard deviation of the targets' noise.
        flat: ``b``, the flat minimum's distance from 0.
        first: the start, in units of ``e / K``.
    """

    learning_rate: float = 0.01
    num_steps: int = 1000
    record_every: int = 20
    num_examples: int = 200
    dim: int = 10
    large: float = 20.0
    share: float = 0.2
    spread: float = 0.3
    noise: float = 0.5
    flat: float = 0.5
    first: float = 1.25


def loss(theta: jax.Array, points: Points) -> jax.Array:
    """Eq. 2.3."""
    return jnp.square(jnp.tanh(points.x @ theta) - points.y).mean() / 2


def gradients(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Of eq. 2.3's terms, ``[n, d]``."""
    fitted = jnp.tanh(x @ theta)
    return ((fitted - y) * (1 - jnp.square(fitted)))[:, None] * x


def problem(key: jax.Array, config: FeatureNorms) -> tuple[Points, jax.Array]:
    """Draws the data.

    Returns:
        The points and how many of them are large; ``share`` may be traced.
    """
    across_key, noise_key = jax.random.split(key)
    n, axis = config.num_examples, jnp.eye(config.dim)[0]
    large = jnp.arange(n) < config.share * n
    x = axis + config.spread * jax.random.normal(across_key, (n, config.dim)) / np.sqrt(config.dim)
    x *= (jnp.where(large, config.large, 1.0) / norm(x))[:, None]
    sharp, flat = axis / config.large, -config.flat * axis
    clean = jnp.tanh(x @ jnp.stack([flat, sharp], 1))
    y = jnp.where(large, clean[:, 1], clean[:, 0]) + config.noise * jax.random.normal(noise_key, (n,))
    return Points(x, y, sharp, flat), large.sum()


def along_axis(points: Points) -> tuple[jax.Array, jax.Array]:
    """Places from ``e / K`` to ``-b e`` by their coordinate, and the losses there."""
    steps = jnp.linspace(0, 1, LINE)[:, None]
    places = (1 - steps) * points.sharp + steps * points.flat
    return places[:, 0], jax.vmap(lambda theta: loss(theta, points))(places)


def train(key: jax.Array, config: FeatureNorms) -> dict[str, jax.Array]:
    """One data set, and every method from the same parameters with the same random numbers.

    Returns:
        ``theta`` ``[method, step]``, the coordinate along the axis; ``stayed`` ``[method]``, whether it ends on the
        sharp minimum's side of the axis's highest point between the minima; ``line`` ``[place]``, the loss along it.
    """
    data_key, run_key = jax.random.split(key)
    points, number = problem(data_key, config)
    sizes = jnp.stack([number, config.num_examples - number])
    places, line = along_axis(points)
    barrier = places[jnp.argmax(line)]
    keys = jax.random.split(run_key, config.num_steps).reshape(-1, config.record_every)

    def run(method):
        def step(theta, key):
            estimate = runs.direction(
                method,
                key,
                lambda i: gradients(theta, points.x[i], points.y[i]),
                sizes,
                config.num_examples,
                norm(points.x),
            )
            return theta - config.learning_rate * estimate, None

        def stage(theta, keys):
            theta, _ = jax.lax.scan(step, theta, keys)
            return theta, theta[0]

        last, path = jax.lax.scan(stage, config.first * points.sharp, keys)
        return path, last[0] > barrier

    theta, stayed = map(jnp.stack, zip(*map(run, METHODS), strict=True))
    return {"theta": theta, "stayed": 1.0 * stayed, "line": line}


def feature_norms(config: FeatureNorms) -> Experiment:
    """Who leaves the sharp minimum's basin, by learning rate and by the share of large features."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims={"theta": ("method", "step"), "stayed": ("method",), "line": ("place",)},
        coords={
            "method": list(METHODS),
            "step": config.steps,
            "place": np.linspace(1 / config.large, -config.flat, LINE),
        },
        units={"theta": "1", "stayed": "share", "line": "1"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def claims(data, config: FeatureNorms) -> list:
    """Whether RR stays where SGD leaves, as in section 2's example, for every share of large features."""
    ours, rows, least = {"source": "paper 003, section 2.1, remark 2.2"}, [], data.share.values.min()
    for share in data.share.values:
        stayed = data.stayed.sel(share=share).transpose("learning_rate", "seed", "method")
        counts = {method: stayed.sel({"method": method}).sum("learning_rate") for method in METHODS}
        table = (
            f"number of the grid's learning rates at which a run of {config.num_steps} steps ends in the sharp "
            f"minimum's basin, RR less SGD; shares of runs that do, {' / '.join(METHODS)}, by learning rate: "
            f"{by_rate(stayed)}; "
            + "; ".join(
                f"{method} by learning rate: {', '.join(map(interval, stayed.sel({'method': method})))}"
                for method in ("sgd", "per_term")
            )
        )
        name = f"feature_norms_{share:g}".replace(".", "_")
        rows.append(paired(name, counts["per_term"], ">", counts["sgd"], **quote(name), note=table))
        rows += [
            paired(
                f"{name}_{method}",
                counts[method],
                ">",
                counts["sgd"],
                statement=f"ours: with large features in {share:.0%} of the examples {METHODS[method]} stays at more "
                "learning rates than SGD",
                **ours,
                note=f"{text(counts[method])} against {text(counts['sgd'])} of {stayed.sizes['learning_rate']}",
            )
            for method in ("static", "group")
        ]
    own = data.sel(share=least)
    sgd, rr = (runs.at(own.stayed, config.learning_rate, method) for method in ("sgd", "per_term"))
    where = f"large features in {least:.0%} of the examples, {config.num_steps} steps at {config.learning_rate:g}"
    sharper = data.line.isel(place=0, learning_rate=0) < data.line.isel(place=-1, learning_rate=0)
    return [
        *rows,
        versus(
            "feature_norms_sgd_leaves",
            1 - sgd,
            ">=",
            0.5,
            statement="ours: as in figure 1, there is a learning rate at which SGD leaves the sharp minimum ...",
            **ours,
            note=f"share of runs that end elsewhere, {where}: {interval(1 - sgd)}",
        ),
        versus(
            "feature_norms_rr_stays",
            rr,
            ">=",
            0.95,
            statement="ours: ... and RR by all norms stays",
            **ours,
            note=f"share of runs that end there, {where}: {interval(rr)}",
        ),
        versus(
            "feature_norms_sharp_is_global",
            sharper.astype(float).mean("share"),
            ">=",
            0.95,
            statement="ours: the loss is lower at the sharp end of the axis, in nearly all data sets",
            **ours,
        ),
    ]


def figure(data, config: FeatureNorms):
    """The loss between the minima, ten runs, and the share in the sharp minimum's basin by learning rate."""
    shares, least = data.share.values, data.share.values.min()
    drawn, axes = plt.subplots(2, max(3, len(shares)), figsize=(14, 8.0), layout="constrained", squeeze=False)
    own = data.sel(share=least).sel(learning_rate=config.learning_rate, method="nearest")
    for number, share in enumerate(shares):
        line = data.line.sel(share=share).isel(learning_rate=0).mean("seed")
        axes[0, 0].plot(data.place, line, color=f"C{4 + number}", label=f"{share:.0%} large features")
    axes[0, 0].set(xlabel="coordinate along the axis", ylabel="loss (eq. 2.3)")
    axes[0, 0].set(title="along the axis, mean of the data sets")
    axes[0, 0].legend(fontsize=8.5)
    for axis, method in zip(axes[0, 1:], ("sgd", "per_term"), strict=False):
        paths = own.theta.sel({"method": method}).isel(seed=slice(0, 10))
        axis.plot(data.step, paths.T, color=COLORS[method], lw=0.7, alpha=0.8)
        axis.axhline(1 / config.large, color="0.3", lw=0.9, ls=":", label="1/K")
        axis.axhline(-config.flat, color="0.3", lw=0.9, ls="--", label="-b")
        axis.set(xlabel="steps", ylabel="coordinate along the axis", ylim=(-0.75, 0.5))
        axis.set(title=f"{METHODS[method]}: 10 runs,\nη = {config.learning_rate:g}, {least:.0%} large features")
        axis.legend(fontsize=8.5, loc="lower left")
    for axis, share in zip(axes[1], shares, strict=False):
        stayed = data.stayed.sel(share=share)
        total = stayed.sizes["seed"]
        for method, label in METHODS.items():
            counts = stayed.sel({"method": method}).sum("seed").values
            edges = np.array([bounds(int(count), total) for count in counts]).T
            style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": COLORS[method], "label": label}
            axis.errorbar(data.learning_rate, counts / total, abs(edges - counts / total), **style)
        axis.set(xscale="log", xlabel="learning rate η", ylim=(-0.03, 1.03), title=f"{share:.0%} large features")
        axis.set(ylabel=f"in the sharp basin after {config.num_steps} steps (share)")
        axis.set_xticks(data.learning_rate.values, [f"{rate:g}" for rate in data.learning_rate.values])
        axis.minorticks_off()
    for axis in axes[0, 3:]:
        axis.axis("off")
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    drawn.suptitle(
        f"Paper 003, remark 2.2: features of norm 1 and {config.large:g}, f = tanh; "
        f"{data.sizes['seed']} runs, a data set each, bars: 95 % intervals",
        fontsize=11,
    )
    return drawn

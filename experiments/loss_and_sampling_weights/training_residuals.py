"""Tests what paper 000 says against FGLS on training residuals (section 3.1) and of early estimates (section 5.1).

Two studies measure the weight that FGLS would give domain one. In the first, least squares is solved exactly on a few
to many examples, and residuals are those of the training examples or of a hold-out. In the second, vanilla SGD trains
on section 5.1's problem, and the weight is estimated after each round. One seed is one draw of everything.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.loss_and_sampling_weights import glm, linear
from experiments.loss_and_sampling_weights.exact_fits import PRIOR, draw, ratio
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import grid, points, quantile_band
from experiments.shared.sentences import text
from mixjax import rules
from mixjax.runner import configs
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

__all__ = ["EARLY", "SETTINGS", "TrainingResiduals", "training_residuals"]

SOURCES = {"train": "training residuals", "hold_out": "hold-out residuals"}
SETTINGS = {"(100, 1)": (100.0, 1.0), "(1, 100)": (1.0, 100.0)}
EARLY = glm.GaussianProblem(
    dim=100,
    num_examples=200,
    num_steps=200,
    learning_rate=5e-4,
    probe_every=4,
    estimation_size=50,
    gradient_size=0,
)
# FGLS to the letter: no floor that float32 could notice
_FLOOR = 1e-30


@dataclasses.dataclass(frozen=True)
class TrainingResiduals(glm.LinearModel):
    """Holds the settings; the paper gives the noise only.

    Attributes:
        small_sizes: examples a domain of the exact fits; from below ``d / 2`` upwards.
        hold_out_size: points a domain of the hold-out that training residuals are compared with.
        early: SGD on section 5.1's problem, for the quality of early estimates; scales and noise are set here.
    """

    small_sizes: tuple[int, ...] = (2, 4, 6, 8, 10, 15, 25, 50, 100, 250)
    hold_out_size: int = 100
    early: glm.GaussianProblem = EARLY

    def __post_init__(self):
        """Raises a ValueError where no fit is over-parameterised."""
        if 2 * min(self.small_sizes) >= self.dim:
            raise ValueError(f"small_sizes must begin below dim / 2 = {self.dim / 2:g}, got {self.small_sizes}.")


# One fit after the other, also under vmap: XLA decomposes a batch in several threads of a pool, and waits for them in
# another one. When the devices of a CPU do so at once no thread may be left, and the sweep stands still.
@jax.custom_batching.sequential_vmap
def _minimum_norm_fit(x, y):
    return jnp.linalg.lstsq(x, y)[0]


def residuals(key: jax.Array, config: TrainingResiduals) -> dict[str, jax.Array]:
    """Measures squared residuals and FGLS weights of the unweighted (minimum-norm) fit to the first few examples.

    Returns:
        One row for each of ``small_sizes``. ``residual`` ``[size, source]``, the mean over domains;
        ``relative_residual`` ``[size]``, the training residual over the noise, the larger one of the domains;
        ``estimate`` ``[size, source]``, domain one's FGLS weight; ``reordered`` ``[size, source]``, the same with the
        coordinates in reverse order, which changes rounding and nothing else.
    """
    train_key, hold_out_key = jax.random.split(key)
    x, y = draw(train_key, config, max(config.small_sizes))
    far_x, far_y = draw(hold_out_key, config, config.hold_out_size)
    rule = rules.fgls(min_loss=_FLOOR)

    def measure(num, order):
        # rows of zeros leave the minimum-norm fit as it is, and give all sizes one shape
        used = jnp.arange(x.shape[1]) < num
        near_x, near_y = used[:, None] * x[..., order], used * y
        params = _minimum_norm_fit(near_x.reshape(-1, config.dim), near_y.reshape(-1))
        train = jnp.square(near_x @ params - near_y).sum(axis=1) / num
        losses = jnp.stack([train, jnp.square(far_x[..., order] @ params - far_y).mean(axis=1)])
        update = jax.vmap(lambda row: rule.update(rule.init(PRIOR), counts=jnp.ones(2), losses=row).weights[0])
        return losses, update(losses)

    sizes, forward = jnp.asarray(config.small_sizes), jnp.arange(config.dim)
    losses, estimates = jax.vmap(jax.vmap(measure, (0, None)), (None, 0))(sizes, jnp.stack([forward, forward[::-1]]))
    return {
        "residual": losses[0].mean(axis=-1),
        "relative_residual": (losses[0, :, 0] / jnp.asarray(config.noise)).max(axis=-1),
        "estimate": estimates[0],
        "reordered": estimates[1],
    }


def early_estimates(key: jax.Array, config: TrainingResiduals) -> jax.Array:
    """Estimates domain one's FGLS weight after each round of vanilla SGD, ``[setting, source, round]``."""
    rule, vanilla = rules.fgls(), glm.Method(rules.fixed(), rules.fixed())
    data_key, hold_out_key, train_key = jax.random.split(key, 3)

    def run(scales):
        problem = dataclasses.replace(config.early, scales=scales, noise=config.noise)
        source = glm.finite(glm.data_set(data_key, problem, linear.label), problem)
        held_out = dataclasses.replace(problem, num_examples=problem.estimation_size)
        ids = jnp.repeat(jnp.arange(2), problem.estimation_size)
        points = [source.probe(jax.random.key(0)), (glm.data_set(hold_out_key, held_out, linear.label), ids)]

        def evaluate(params):
            found = [glm.measure(linear.squared_error, params, *chosen) for chosen in points]
            return {"estimate": jnp.stack([rule.update(rule.init(PRIOR), **row).weights[0] for row in found])}

        return glm.train_methods(train_key, problem, [vanilla], linear.squared_error, source, evaluate)["estimate"][0].T

    return jax.lax.map(run, jnp.asarray(list(SETTINGS.values())))


def training_residuals(config: TrainingResiduals) -> Experiment:
    """Makes the experiment on training residuals (section 3.1) and early estimates (section 5.1)."""

    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        return {
            **residuals(jax.random.fold_in(key, 1), settings),
            "early_estimate": early_estimates(jax.random.fold_in(key, 3), settings),
        }

    return Experiment(
        train=train,
        data=None,
        dims={
            "residual": ("small_n", "source"),
            "relative_residual": ("small_n",),
            "estimate": ("small_n", "source"),
            "reordered": ("small_n", "source"),
            "early_estimate": ("setting", "source", "step"),
        },
        coords={
            "small_n": list(config.small_sizes),
            "source": list(SOURCES),
            "setting": list(SETTINGS),
            "step": glm.steps(config.early),
        },
        units={
            "residual": "squared label units",
            "relative_residual": "1",
            "estimate": "share",
            "reordered": "share",
            "early_estimate": "share",
        },
        figure=lambda results: draw_figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def claims(data, config: TrainingResiduals) -> list:
    """Judges sections 3.1's and 5.1's sentences, and early estimates from a hold-out."""
    below = [num for num in config.small_sizes if 2 * num < config.dim]
    ill = data.sel(small_n=below[-1])
    vanished = ill.relative_residual <= 1e-6
    change = np.abs(ill.estimate - ill.reordered)
    spread = [f"{float(ill.estimate.sel(source=source).std('seed')):.3g}" for source in SOURCES]

    few = min(config.small_sizes, key=lambda num: abs(2 * num / config.dim - 2.0))
    residual = data.residual.sel(small_n=few)
    return [
        versus(
            "fgls_ill_defined",
            change.sel(source="train").where(vanished, 0.0),
            ">=",
            0.01,
            **quote("fgls_ill_defined"),
            note=f"change of domain one's weight when the coordinates are put in another order, which alters rounding "
            f"only, at |S| = {2 * below[-1]} < d = {config.dim}, counted as 0 unless training residuals are below 1e-6 "
            f"of the noise (they are in {float(vanished.mean()):.0%} of the seeds, median "
            f"{float(ill.relative_residual.median()):.1g}); with hold-out residuals it is "
            f"{float(change.sel(source='hold_out').max()):.1g} at most; standard deviation of the weight over seeds "
            f"{spread[0]} from training, {spread[1]} from hold-out residuals",
        ),
        versus(
            "training_residuals_deviate",
            ratio(residual.sel(source="train"), residual.sel(source="hold_out")),
            "<=",
            0.5,
            **quote("training_residuals_deviate"),
            note=f"mean squared training residual over that of {config.hold_out_size} held-out points a domain, at "
            f"|S| / d = {2 * few / config.dim:.3g}",
        ),
        early_claim(
            "early_estimates_poor",
            data.early_estimate.sel(source="train"),
            config,
            **quote("early_estimates_poor"),
            note="; late training residuals are of points that have been fitted: see the next row",
        ),
        early_claim(
            "early_estimates_poor_hold_out",
            data.early_estimate.sel(source="hold_out"),
            config,
            statement=f"ours: the same for estimates from {config.early.estimation_size} held-out points a domain",
            source="paper 000, section 5.1",
        ),
    ]


def early_claim(name: str, estimate, config: TrainingResiduals, *, note: str = "", **sentence):
    """Claims that early estimates of the weight are farther from Aitken's than late ones, in both settings."""
    fifth = max(estimate.sizes["step"] // 5, 1)
    parts = [estimate.isel(step=part) for part in (slice(fifth), slice(-fifth, None))]
    early, late = (np.abs(part - config.best).mean("step") for part in parts)
    noise = [part.std("seed").mean("step") for part in parts]
    told = [
        f"{s}: {text(early.sel(setting=s), 4)} against {text(late.sel(setting=s), 4)}, standard deviation over seeds "
        f"{float(noise[0].sel(setting=s)):.2g} against {float(noise[1].sel(setting=s)):.2g}"
        for s in SETTINGS
    ]
    first = (
        "distance of the estimated weight from Aitken's in the first fifth of the steps less that in the last fifth, "
        "the smaller one of the two settings; "
    )
    return versus(name, (early - late).min("setting"), ">=", 0.0, note=first + "; ".join(told) + note, **sentence)


def draw_figure(data, config: TrainingResiduals):
    """Draws estimated weights by source of the residuals: against the number of examples, and over training."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained", sharey=True)
    x = 2 * np.asarray(config.small_sizes) / config.dim
    panels = [(x, data.estimate)] + [(data.step, data.early_estimate.sel(setting=name)) for name in SETTINGS]
    for axis, (at, estimate) in zip(axes, panels, strict=True):
        for number, (source, label) in enumerate(SOURCES.items()):
            values, color = estimate.sel(source=source), f"C{number}"
            quantile_band(axis, at, values, color=color, label=f"10 to 90 % of the seeds, {label}")
            points(axis, at, values, ms=3, capsize=0, color=color, label=label)
        axis.axhline(config.best, color="0.4", lw=1, ls=":", label=f"Aitken's weight, {config.best:.3g}")
    grid(axes)
    limits = (x[0] / 1.15, x[-1] * 1.15)
    axes[0].axvspan(limits[0], 1.0, color="0.9", zorder=0, label="d > |S|: training residuals vanish")
    axes[0].set(xlabel="examples per dimension, |S| / d", xscale="log", xlim=limits, ylim=(0, 1))
    axes[0].set(ylabel="estimated loss weight, domain one", title=f"(a) exact fits, d = {config.dim}")
    for axis, name, letter in zip(axes[1:], SETTINGS, "bc", strict=True):
        axis.set(xlabel="training steps", title=f"({letter}) vanilla SGD, scales {name}, d = {config.early.dim}")
    entries = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    figure.suptitle(
        f"FGLS weights by source of the residuals, noise variances ({config.noise[0]:g}, {config.noise[1]:g}), paper "
        f"000 sections 3.1 and 5.1; {data.sizes['seed']} seeds; error bars: ±2 standard errors",
        fontsize=11,
    )
    return figure

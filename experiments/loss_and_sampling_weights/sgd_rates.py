"""Measures SGD's error against the variance of its gradients: paper 000's table 1, on a strongly convex quadratic."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import finish, points
from mixjax.runner import configs
from mixjax.runner.claims import near
from mixjax.runner.experiment import Experiment

__all__ = ["SGDRates", "errors", "log_slope", "sgd_rates"]

SCHEDULES = {"constant": "constant step", "decaying": "step 1 / (μ t)"}


@dataclasses.dataclass(frozen=True)
class SGDRates:
    """Holds the settings of SGD on ``½ θᵀ H θ`` from ``|θ| = 1``.

    The gradients have Gaussian noise of total variance ``σ²``.

    Attributes:
        variances: values of ``σ²``.
        dim: number of parameters; ``H``'s eigenvalues are evenly spaced on a log scale.
        curvature: ``(μ, L)``, the smallest and the largest eigenvalue.
        step_size: the constant schedule's step, in units of 1 / L.
        num_steps: ``T``.
        num_records: evenly spaced times at which the error is kept.
    """

    variances: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    dim: int = 20
    curvature: tuple[float, float] = (0.1, 1.0)
    step_size: float = 0.2
    num_steps: int = 2000
    num_records: int = 20


def errors(key: jax.Array, config: SGDRates) -> jax.Array:
    """Returns the excess loss ``½ θᵀ H θ``, ``[schedule, variance, record]``.

    Each record is the mean over one of ``num_records`` stretches of the steps.
    """
    low, high = config.curvature
    eigenvalues = jnp.geomspace(low, high, config.dim)
    scale = jnp.sqrt(jnp.asarray(config.variances) / config.dim)[:, None]
    start = jnp.full((2, len(config.variances), config.dim), config.dim**-0.5)

    def step(params, t):
        noise = jax.random.normal(jax.random.fold_in(key, t), params.shape)
        rates = jnp.stack([jnp.asarray(config.step_size / high), 1.0 / (low * t + high)])
        params = params - rates[:, None, None] * (eigenvalues * params + scale * noise)
        return params, 0.5 * jnp.sum(eigenvalues * jnp.square(params), axis=-1)

    found = jax.lax.scan(step, start, jnp.arange(config.num_steps))[1]
    found = found.reshape(config.num_records, -1, *found.shape[1:]).mean(axis=1)
    return jnp.moveaxis(found, 0, -1)


def sgd_rates(config: SGDRates) -> Experiment:
    """Makes the experiment on table 1."""

    def train(key, hparams, data):
        del data
        return {"error": errors(jax.random.fold_in(key, 0), configs.replace(config, hparams))}

    stretch = config.num_steps // config.num_records
    return Experiment(
        train=train,
        data=None,
        dims={"error": ("schedule", "variance", "time")},
        coords={
            "schedule": list(SCHEDULES),
            "variance": list(config.variances),
            "time": [stretch * (i + 0.5) for i in range(config.num_records)],
        },
        units={"error": "loss units"},
        figure=lambda results: figure(next(iter(results.values()))),
        claims=lambda results: claims(next(iter(results.values()))),
    )


def later(data):
    """Returns the errors after the first quarter of the steps."""
    return data.error.isel(time=slice(data.sizes["time"] // 4, None))


def log_slope(x, values) -> np.ndarray:
    """Returns the slope of ``log mean(values)`` against ``log x``, as values a seed with its mean and standard error.

    Args:
        x: ``[point]``.
        values: ``[seed, point]``, positive on average.
    """
    x, values = np.log(np.asarray(x, np.float64)), np.asarray(values, np.float64)
    mean = values.mean(axis=0)
    coefficients = (x - x.mean()) / np.square(x - x.mean()).sum()
    return coefficients @ np.log(mean) + (values / mean - 1.0) @ coefficients


def claims(data) -> list:
    """Judges table 1's sentence, and its rates in the variance and in time."""
    error = later(data)
    by_variance = {name: log_slope(data.variance, error.sel(schedule=name).mean("time")) for name in SCHEDULES}
    relative = (error / error.variance).mean("variance")
    by_time = {name: log_slope(error.time, relative.sel(schedule=name)) for name in SCHEDULES}

    def ours(name, slope, target, tolerance, statement):
        source = "paper 000, section 4, table 1"
        return near(name, slope, target, tolerance, statement=f"ours: {statement}", source=source)

    return [
        near(
            "variance_sets_rate",
            by_variance["constant"],
            1.0,
            0.05,
            **quote("variance_sets_rate"),
            note="SGD on a strongly convex quadratic at a constant step: slope of log excess loss against log σ² after "
            "the first quarter of the steps; table 1 says 1",
        ),
        ours(
            "variance_sets_rate_decaying",
            by_variance["decaying"],
            1.0,
            0.05,
            "the same with step 1 / (μ t), table 1's σ² / (μ T)",
        ),
        ours(
            "rate_decaying_time",
            by_time["decaying"],
            -1.0,
            0.1,
            "with step 1 / (μ t) the excess loss falls as 1 / T [slope against log t]",
        ),
        ours(
            "rate_constant_time",
            by_time["constant"],
            0.0,
            0.05,
            "at a constant step it stays, at a level that σ² sets [slope against log t]",
        ),
    ]


def figure(data):
    """Draws the excess loss against the variance and, in units of it, against time; dotted: table 1's slopes."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    by_variance, by_time = later(data).mean("time"), (data.error / data.variance).mean("variance")
    panels = ((left, by_variance, (1, 1)), (right, by_time, (0, -1)))
    for axis, values, slopes in panels:
        x = values.variance if axis is left else values.time
        for number, (name, slope) in enumerate(zip(SCHEDULES, slopes, strict=True)):
            points(axis, x, values.sel(schedule=name), fmt="o", color=f"C{number}", label=SCHEDULES[name])
            level = np.exp(np.log(values.sel(schedule=name).mean("seed")) - slope * np.log(x))[len(x) // 4 :].mean()
            axis.plot(x, level * x**slope, color=f"C{number}", lw=1, ls=":")
        axis.plot([], [], color="0.4", lw=1, ls=":", label="table 1's slope")
        axis.set(xscale="log", yscale="log")
    left.set(
        xlabel=r"gradient variance $\sigma^2$ (squared gradient units)",
        ylabel="excess loss after a quarter of the steps\n(loss units)",
        title="(a) error against variance",
    )
    right.set(
        xlabel="training steps",
        ylabel=r"excess loss / $\sigma^2$, mean over $\sigma^2$",
        title="(b) error against time",
    )
    seeds = data.sizes["seed"]
    return finish(drawn, f"SGD on a strongly convex quadratic; {seeds} seeds, error bars: ±2 standard errors")

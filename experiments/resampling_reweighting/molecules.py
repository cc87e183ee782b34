"""The experiment on minima of potential energy surfaces: paper 003, section 4.2 and figure 4."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting import schemes, surfaces
from experiments.resampling_reweighting.runs import Run, by_rate, interval
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.sentences import text
from experiments.shared.statistics import share_error_bars
from mixjax import grad_norms
from mixjax.runner import configs
from mixjax.runner.claims import paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["FAR", "METHODS", "Molecules", "chosen", "claims", "figure", "molecules", "train"]

METHODS = {"gd": "gradient descent", "sgd": "SGD", "rr": "RR (eq. 3.5)", "defensive": "RR, δ = 0.1"}
SURFACES = {"mueller_brown": surfaces.mueller_brown, "large_system": surfaces.large_system}
# The limits of the coordinates in the figure.
LIMITS = {"mueller_brown": ((-1.6, 1.3), (-0.5, 2.1)), "large_system": ((-2, 4.2), (-2, 3.2))}
# A step that would lead to a larger coordinate is not taken. Term 4 of the Mueller-Brown surface grows without
# bound, so one such step would end in infinity.
FAR = 10.0


@dataclasses.dataclass(frozen=True)
class Molecules(Run):
    """Holds the settings of section 4.2's problems.

    Attributes:
        surface: the surface of eq. C.1 or of eq. C.2.
        first: the first position.
        minimum: the position of the global minimum.
        radius: the distance from the minimum within which a run counts as being in the global basin.
        last_rate: the learning rate at the end. It falls linearly from ``learning_rate`` at the start.
    """

    learning_rate: float = 0.002
    num_steps: int = 1000
    record_every: int = 10
    surface: Literal["mueller_brown", "large_system"] = "mueller_brown"
    first: tuple[float, float] = (-0.8, 1.0)
    minimum: tuple[float, float] = (-0.558, 1.442)
    radius: float = 0.35
    last_rate: float = 0.002


def train(key: jax.Array, config: Molecules, surface: surfaces.Surface) -> dict[str, jax.Array]:
    """Runs every method from the same position with the same random numbers.

    Returns:
        A dict of:

        - ``z`` ``[method, step, 2]``, the position.
        - ``energy`` ``[method, step]``.
        - ``at_minimum`` ``[method, step]``, 1 where the run is in the global basin and 0 elsewhere.
    """
    n = surface.height.size
    prior = jnp.full(n, 1.0 / n)
    rates = jnp.linspace(1.0, config.last_rate / config.learning_rate, config.num_steps) * config.learning_rate

    def direction(method, key, z):
        grads = surfaces.gradients(surface, z)
        if method == "gd":
            return grads.mean(0)
        if method == "sgd":
            return schemes.estimate(key, grads, prior, prior)
        q = schemes.probabilities(grad_norms.norm(grads), prior, 0.1 if method == "defensive" else 0.0)
        return schemes.estimate(key, grads, prior, q)

    def step(method, z, inputs):
        key, rate = inputs
        new = z - rate * direction(method, key, z)
        # A position that is not finite would stay so for the rest of the run.
        return jnp.where(jnp.isfinite(new).all() & (jnp.abs(new).max() < FAR), new, z), None

    def run(method):
        def stage(z, inputs):
            z, _ = jax.lax.scan(functools.partial(step, method), z, inputs)
            return z, z

        inputs = jax.tree.map(
            lambda x: x.reshape(-1, config.record_every, *x.shape[1:]), (jax.random.split(key, config.num_steps), rates)
        )
        return jax.lax.scan(stage, jnp.float32(config.first), inputs)[1]

    z = jnp.stack([run(method) for method in METHODS])
    return {
        "z": z,
        "energy": jax.lax.map(lambda z: jax.lax.map(functools.partial(surfaces.energy, surface), z), z),
        "at_minimum": (jnp.linalg.norm(z - jnp.float32(config.minimum), axis=-1) < config.radius).astype(jnp.float32),
    }


def molecules(config: Molecules) -> Experiment:
    """Builds the experiment on one surface of figure 4."""
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams), data),
        data=SURFACES[config.surface](),
        dims={"z": ("method", "step", "axis"), "energy": ("method", "step"), "at_minimum": ("method", "step")},
        coords={"method": list(METHODS), "step": config.steps, "axis": ["x", "y"]},
        units={"z": "1", "energy": "energy", "at_minimum": "1"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def chosen(data, config: Molecules):
    """Returns the runs at the config's own learning rate."""
    if "learning_rate" not in data.dims:
        return data
    return data.sel(learning_rate=config.learning_rate, method="nearest")


def claims(data, config: Molecules) -> list:
    """Judges which methods are in the global basin at the end of a run."""
    name, source = config.surface, "paper 003, section 4.2"
    own, last = chosen(data, config), {"step": -1}
    ends = {method: own.at_minimum.sel({"method": method}).isel(last) for method in METHODS}
    energies = {method: own.energy.sel({"method": method}).isel(last) for method in METHODS}
    shares = ", ".join(f"{method} {interval(ends[method])}" for method in METHODS)
    medians = ", ".join(f"{method} {float(energies[method].median()):.4g}" for method in METHODS)
    where = f"within {config.radius:g} of the global minimum after {config.num_steps} steps"
    table = ""
    if "learning_rate" in data.dims:
        table = f"by learning rate, {' / '.join(METHODS)}: {by_rate(data.at_minimum.isel(last))}"
    return [
        paired(
            name,
            ends["rr"],
            ">",
            ends["sgd"],
            **quote(name),
            note=f"share of runs {where}: {shares}; median energy {medians}. Gradient descent is there too: what is "
            "seen is which noise leaves the basin that the drift leads to, not who finds it",
        ),
        versus(
            f"{name}_sgd_leaves",
            ends["sgd"],
            "<=",
            0.15,
            statement="ours: SGD ends elsewhere",
            source=source,
            note=table,
        ),
        versus(
            f"{name}_rr_stays",
            ends["rr"],
            ">=",
            0.85,
            statement="ours: RR ends in the global basin",
            source=source,
        ),
        versus(
            f"{name}_gradient_descent",
            ends["gd"],
            ">=",
            0.85,
            statement="ours: so does gradient descent without noise",
            source=source,
            note="one run, the same for every seed",
        ),
        paired(
            f"{name}_lower_energy",
            energies["rr"],
            "<",
            energies["sgd"],
            statement="ours: RR ends at a lower energy than SGD",
            source=source,
            note=f"{text(energies['rr'])} against {text(energies['sgd'])}",
        ),
    ]


def figure(data, config: Molecules):
    """Draws contours with one run of SGD and of RR, energies of ten runs, and the share of runs in the global basin."""
    data = chosen(data, config)
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    surface = SURFACES[config.surface]()
    (left, right), (bottom, top) = LIMITS[config.surface]
    x, y = np.meshgrid(np.linspace(left, right, 160), np.linspace(bottom, top, 160))
    z = jnp.stack([x.ravel(), y.ravel()], 1)
    height = np.asarray(jax.lax.map(functools.partial(surfaces.energy, surface), jnp.float32(z))).reshape(x.shape)
    # The energy has steep walls that would take all of the colours.
    height = np.minimum(height, height.min() + 0.9 * abs(height.min()))
    contour = axes[0].contourf(x, y, height, 24, cmap="Greys_r")
    drawn.colorbar(contour, ax=axes[0], label="energy, cut at the top")
    seeds, colors = data.sizes["seed"], {"gd": "C7", "sgd": "C0", "rr": "C1", "defensive": "C2"}
    for method in ("sgd", "rr"):
        path = data.z.sel({"method": method}).isel(seed=0)
        axes[0].plot(*path.T, ".-", ms=2.5, lw=0.5, color=colors[method], label=METHODS[method])
        runs = data.energy.sel({"method": method}).isel(seed=slice(0, 10))
        axes[1].plot(data.step, runs.T, color=colors[method], lw=0.5, alpha=0.7)
        axes[1].plot([], [], color=colors[method], label=METHODS[method])
    axes[0].plot(*config.first, "k^", ms=7, label="start")
    axes[0].plot(*config.minimum, "k*", ms=11, label="global minimum")
    axes[0].set(xlabel="x", ylabel="y", xlim=(left, right), ylim=(bottom, top), title="one run")
    axes[0].legend(fontsize=8.5, loc="lower left")
    axes[1].set(xlabel="steps", ylabel="energy", title="10 runs")
    axes[1].legend(fontsize=8.5)
    for method, label in METHODS.items():
        share, error = share_error_bars(data.at_minimum.sel({"method": method}))
        axes[2].plot(data.step, share, color=colors[method], lw=1.4, label=label)
        axes[2].fill_between(data.step, share - error, share + error, color=colors[method], alpha=0.25, lw=0)
    axes[2].set(
        xlabel="steps", ylabel="in the global basin (share)", ylim=(-0.03, 1.03), title=f"{seeds} runs, ±2 errors"
    )
    axes[2].legend(fontsize=8.5)
    for axis in axes[1:]:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.suptitle(
        f"Paper 003, figure 4: {config.surface.replace('_', ' ')}, learning rate {config.learning_rate:g}", fontsize=11
    )
    return drawn

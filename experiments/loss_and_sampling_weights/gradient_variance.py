"""Measures the gradient's variance: paper 000's eq. 14, its dependence on the features' scale, and its signals' cost.

At a fixed parameter of section 5.1's linear regression, many batches are drawn with each allocation of the batch to the
two domains. The variance of their stratified estimates is compared with eq. 14. One seed is one draw of everything.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments.loss_and_sampling_weights import glm, linear
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import finish, points
from experiments.shared.sentences import text
from mixjax import objectives, rules, samplers, signals
from mixjax.runner import configs
from mixjax.runner.claims import Claim, near, paired, versus
from mixjax.runner.experiment import Experiment

__all__ = [
    "GradientVariance",
    "all_counts",
    "allocation_variances",
    "data_set",
    "expected_std",
    "gradient_variance",
    "scale_stds",
    "signal_costs",
]

ALLOCATIONS = {"va": "VA", "uniform": "uniform", "proportional": "proportional to π"}


@dataclasses.dataclass(frozen=True)
class GradientVariance:
    """Holds the settings; the paper gives none of them.

    Attributes:
        prior: ``π``, also the loss weights.
        scales: ``C_d``.
        noise: label-noise variances.
        dim: number of parameters.
        num_examples: examples a domain.
        distance: ``|θ - θ_gt|``.
        batch_size: ``B``.
        num_batches: batches an allocation.
        num_counts: allocations measured besides the named ones, evenly spaced.
        first_scales: values of ``C_1`` at which domain one's ``v`` is measured.
    """

    prior: tuple[float, float] = (0.7, 0.3)
    scales: tuple[float, float] = (1.0, 4.0)
    noise: tuple[float, float] = (1.0, 4.0)
    dim: int = 20
    num_examples: int = 200
    distance: float = 1.0
    batch_size: int = 32
    num_batches: int = 100
    num_counts: int = 11
    first_scales: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)


def data_set(key: jax.Array, config: GradientVariance, scales) -> tuple[glm.Batch, np.ndarray]:
    """Draws section 5.1's data at this size, domain by domain, and the domain ids."""
    problem = glm.GaussianProblem(scales=scales, noise=config.noise, dim=config.dim, num_examples=config.num_examples)
    return glm.data_set(key, problem, linear.label), np.repeat(np.arange(2), config.num_examples)


def apart(config: GradientVariance) -> jax.Array:
    """Returns a parameter at ``distance`` from the true one."""
    signs = jnp.where(jnp.arange(config.dim) % 2 == 0, 1.0, -1.0)
    return glm.truth(config.dim) + config.distance * config.dim**-0.5 * signs


def grid_counts(config: GradientVariance) -> list[int]:
    """Returns domain one's counts on the grid."""
    return np.unique(np.linspace(1, config.batch_size - 1, config.num_counts).round().astype(int)).tolist()


def all_counts(config: GradientVariance, grad_stds: jax.Array) -> jax.Array:
    """Returns the counts ``[allocation, 2]``: variance-aware, uniform and proportional sampling, then the grid."""
    prior = jnp.asarray(config.prior)
    rule = rules.variance_aware()
    va = rule.update(rule.init(prior), counts=jnp.ones(2), loss_weights=prior, grad_stds=grad_stds).weights
    named = [samplers.allocate(share, config.batch_size) for share in (va, jnp.ones(2), prior)]
    first = jnp.asarray(grid_counts(config))
    return jnp.concatenate([jnp.stack(named), jnp.stack([first, config.batch_size - first], axis=1)])


def allocation_variances(key: jax.Array, config: GradientVariance) -> dict[str, jax.Array]:
    """Measures and predicts the variance of the stratified gradient estimate.

    Returns:
        ``measured``, ``predicted`` (eq. 14) and domain one's ``counts``, ``[allocation]``; ``grad_stds`` ``[domain]``,
        the population value over ``S_d``, as in eq. 15.
    """
    data_key, batch_key = jax.random.split(key)
    data, ids = data_set(data_key, config, config.scales)
    groups, prior, params = samplers.partition(ids), jnp.asarray(config.prior), apart(config)
    stds = glm.measure(linear.squared_error, params, data, jnp.asarray(ids))["grad_stds"]
    # eq. 15 divides by n where measure divides by n - 1
    stds *= math.sqrt(1.0 - 1.0 / config.num_examples)

    def gradient(rows, domain_ids, counts):
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        weights = objectives.example_weights(prior, domain_ids, counts)
        return jax.grad(lambda p: weights @ linear.squared_error(glm.predict(p, batch), batch.target))(params)

    whole = gradient(jnp.arange(ids.size), jnp.asarray(ids), jnp.full(2, config.num_examples))

    def variance(key, counts):
        domain_ids = samplers.counts_to_ids(counts, config.batch_size)

        def one(key):
            rows = samplers.with_replacement(key, groups, domain_ids)
            return jnp.sum(jnp.square(gradient(rows, domain_ids, counts) - whole))

        return jax.vmap(one)(jax.random.split(key, config.num_batches)).mean()

    counts = all_counts(config, stds)
    return {
        "measured": jax.vmap(variance)(jax.random.split(batch_key, len(counts)), counts),
        "predicted": jnp.sum(jnp.square(prior * stds) / counts, axis=1),
        "counts": counts[:, 0],
        "grad_stds": stds,
    }


def scale_stds(key: jax.Array, config: GradientVariance) -> jax.Array:
    """Measures ``v`` of domain one ``[scale]`` as ``C_1`` grows, on the same normals."""

    def one(scale):
        data, ids = data_set(key, config, jnp.stack([scale, jnp.float32(config.scales[1])]))
        return glm.measure(linear.squared_error, apart(config), data, jnp.asarray(ids))["grad_stds"][0]

    return jax.lax.map(one, jnp.asarray(config.first_scales))


def expected_std(config: GradientVariance, scale: np.ndarray) -> np.ndarray:
    """Returns domain one's ``v`` in closed form: ``v² = 4 [C² (d + 1) s + C d σ²]``, ``s = |θ - θ_gt|²``."""
    return 2.0 * np.sqrt(scale**2 * (config.dim + 1) * config.distance**2 + scale * config.dim * config.noise[0])


def signal_costs(num: int = 200, pixels: int = 784, units: int = 100, classes: int = 10) -> dict[str, float]:
    """Counts FLOPs of the losses' moments, of the forward pass and of a step of section 5.3's network.

    The compiler counts them.
    """

    def losses(params, images, labels):
        hidden = jax.nn.relu(images @ params[0] + params[1])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ params[2] + params[3], labels)

    def flops(function, *args):
        return float(jax.jit(function).lower(*args).compile().cost_analysis()["flops"])

    params = [jnp.zeros((pixels, units)), jnp.zeros(units), jnp.zeros((units, classes)), jnp.zeros(classes)]
    batch = jnp.zeros((num, pixels)), jnp.zeros(num, int)
    return {
        "moments": flops(lambda x, ids: signals.moments(x, ids, 2).signals(), jnp.zeros(num), jnp.arange(num) % 2),
        "forward": flops(losses, params, *batch),
        "step": flops(jax.grad(lambda *args: losses(*args).mean()), params, *batch),
    }


def gradient_variance(config: GradientVariance) -> Experiment:
    """Makes the experiment on section 4's eq. 14, section 5.1's sentence on scales and section 3.2's on cost."""

    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        # streams apart from those of sgd_rates (0), redundancy (3) and gap_sign (4)
        keys = [jax.random.fold_in(key, i) for i in (1, 2)]
        return {**allocation_variances(keys[0], settings), "scale_std": scale_stds(keys[1], settings)}

    allocations = dict.fromkeys(("measured", "predicted", "counts"), ("allocation",))
    return Experiment(
        train=train,
        data=None,
        dims={**allocations, "grad_stds": ("domain",), "scale_std": ("scale",)},
        coords={
            "allocation": [*ALLOCATIONS, *map(str, grid_counts(config))],
            "domain": ["one", "two"],
            "scale": list(config.first_scales),
        },
        units={
            **dict.fromkeys(("measured", "predicted"), "squared gradient units"),
            **dict.fromkeys(("grad_stds", "scale_std"), "gradient units"),
            "counts": "examples",
        },
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values()))),
    )


def claims(data) -> list:
    """Judges the three sentences, and that eq. 14 is the variance."""
    va, uniform, proportional = (data.measured.sel(allocation=name) for name in ALLOCATIONS)
    match = data.measured / data.predicted
    worst = float(np.abs(match.mean("seed") - 1.0).max())
    cost = signal_costs()
    value, probe = cost["moments"] / cost["forward"], cost["forward"] / 40 / (cost["step"] * 16 / 200)
    return [
        paired(
            "va_minimises_variance",
            va,
            "<",
            np.minimum(uniform, proportional),
            **quote("va_minimises_variance"),
            note="measured variance of the stratified estimate, VA's counts against the better one of uniform and "
            f"proportional, seed by seed; means {text(va)}, {text(uniform)}, {text(proportional)}",
        ),
        near(
            "variance_is_eq_14",
            match.mean("allocation"),
            1.0,
            0.02,
            statement="ours: the measured variance is that of eq. 14 [ratio, mean over allocations]",
            source="paper 000, section 4, eq. 14",
            note=f"largest deviation of an allocation's mean over seeds {worst:.2g}",
        ),
        versus(
            "scale_raises_variance",
            np.log(data.scale_std).diff("scale").min("scale"),
            ">=",
            0.0,
            **quote("scale_raises_variance"),
            note="smallest increase of log v of domain one between neighbouring C; v is "
            + ", ".join(f"{text(data.scale_std.sel(scale=c))} at C = {c:g}" for c in data.scale.values),
        ),
        Claim(
            "signals_are_cheap",
            **quote("signals_are_cheap"),
            value=value,
            stderr=None,
            threshold=0.02,
            num_seeds=0,
            holds=bool(value <= 0.02),
            note="no seeds: FLOPs of the losses' means and variances over FLOPs of the forward pass that makes the "
            "losses, 784-100-10 network, compiler's count. This is the cost where the losses are there anyway; a "
            f"separate hold-out needs its own forward pass, {probe:.2g} of the training FLOPs for 200 points every 40 "
            "steps of 16",
        ),
    ]


def figure(data, config: GradientVariance):
    """Draws eq. 14 against the allocation, and ``v`` against the scale of the features."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    size = config.batch_size
    share = np.linspace(0.7, size - 0.7, 300) / size
    first, second = np.square(np.asarray(config.prior) * data.grad_stds).mean("seed").values / size
    left.plot(share, first / share + second / (1 - share), color="0.3", lw=1.2, label="eq. 14, mean over seeds")
    grid = data.isel(allocation=slice(len(ALLOCATIONS), None))
    points(left, grid.counts.mean("seed") / size, grid.measured, fmt=".", color="0.4", label="measured")
    for name, label in ALLOCATIONS.items():
        row = data.sel(allocation=name)
        points(left, float(row.counts.mean()) / size, row.measured, fmt="s", ms=7, mfc="none", label=label)
    left.set(
        yscale="log",
        xlabel="share of the batch, domain one",
        ylabel="variance of the gradient estimate\n(squared gradient units)",
        title=f"(a) eq. 14, B = {size}, π = ({config.prior[0]:g}, {config.prior[1]:g})",
    )
    left.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    left.set_yticks([], minor=True)
    x = np.geomspace(min(config.first_scales), max(config.first_scales), 100)
    right.plot(x, expected_std(config, x), color="0.3", lw=1.2, label="closed form")
    points(right, data.scale.values, data.scale_std, fmt="o", color="C0", label="measured")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="scale of domain one's features, $C_1$",
        ylabel="domain one's gradient standard deviation\n$v$ (gradient units)",
        title="(b) spread of gradients against scale",
    )
    seeds = data.sizes["seed"]
    return finish(drawn, f"Linear regression, the gradient's variance; {seeds} seeds, error bars: ±2 standard errors")

"""The gradient's variance: what paper 000's sections 3.2, 4 and 6 claim and its figures do not show.

Five small studies, all in one train function: SGD's error against the variance of its gradients; the stratified
estimate's variance against the allocation of the batch; the spread of gradients against the scale of the features, and
against redundancy on real digits; the sign of ERMA's ``G(t)``. One seed is one draw of everything.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments import glm, linear, logistic
from experiments.sentences import quote
from mixjax import estimation, objectives, rules, samplers, signals, training
from mixjax.claims import Claim, near, paired, versus
from mixjax.data import load
from mixjax.experiment import Experiment

GAP_SETTINGS = {"(100, 100)": (100.0, 100.0), "(10, 100)": (10.0, 100.0)}
ALLOCATIONS = {"va": "VA", "uniform": "uniform", "proportional": "proportional to π"}
SCHEDULES = {"constant": "constant step", "decaying": "step 1 / (μ t)"}


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """SGD on ``½ θᵀ H θ`` with Gaussian gradient noise of total variance ``σ²``, from ``|θ| = 1``.

    Attributes:
        variances: values of ``σ²``.
        dim: number of parameters; ``H``'s eigenvalues are evenly spaced on a log scale.
        curvature: ``(μ, L)``, the smallest and the largest eigenvalue.
        step_size: of the constant schedule, in units of 1 / L.
        num_steps: ``T``.
        num_records: evenly spaced times at which the error is kept.
    """

    variances: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    dim: int = 20
    curvature: tuple[float, float] = (0.1, 1.0)
    step_size: float = 0.2
    num_steps: int = 2000
    num_records: int = 20


@dataclasses.dataclass(frozen=True)
class Allocation:
    """Two domains of linear regression, a fixed parameter and many batches.

    Attributes:
        prior: ``π``, also the loss weights.
        scales: ``C_d``.
        noise: label-noise variances.
        dim: number of parameters.
        num_examples: examples a domain.
        gap: ``|θ - θ_gt|``.
        batch_size: ``B``.
        num_batches: batches an allocation.
        num_counts: allocations measured besides the named ones, evenly spaced.
    """

    prior: tuple[float, float] = (0.7, 0.3)
    scales: tuple[float, float] = (1.0, 4.0)
    noise: tuple[float, float] = (1.0, 4.0)
    dim: int = 20
    num_examples: int = 200
    gap: float = 1.0
    batch_size: int = 32
    num_batches: int = 100
    num_counts: int = 11


@dataclasses.dataclass(frozen=True)
class Redundancy:
    """Softmax regression on the digits under VA, where domain two repeats a few images.

    Attributes:
        distinct: numbers of distinct images in domain two; both domains hold ``num_examples``.
        num_examples: examples a domain.
        jitter: standard deviation of the noise added to every pixel of a copy, in grey values from 0 to 1.
        batch_size: ``B``.
        num_steps: ``T``.
        learning_rate: of SGD.
        probe_every: ``T₁``.
        gradient_size: points a domain for each estimate of ``v``.
    """

    distinct: tuple[int, ...] = (3, 10, 30, 100, 300, 690)
    num_examples: int = 690
    jitter: float = 0.05
    batch_size: int = 32
    num_steps: int = 400
    learning_rate: float = 0.5
    probe_every: int = 20
    gradient_size: int = 64


def _gap() -> logistic.Logistic:
    return logistic.Logistic(
        dim=100,
        num_examples=0,
        batch_size=32,
        num_steps=300,
        learning_rate=1e-3,
        probe_every=2,
        estimation="whole_hold_out",
        estimation_size=100,
        gradient_size=0,
        gamma1=0.1,
        gamma2=0.5,
    )


@dataclasses.dataclass(frozen=True)
class GradientVariance:
    """The settings of the five studies; the paper gives none of them.

    Attributes:
        quadratic: SGD's error against ``σ²``.
        allocation: eq. 14 against the batch's allocation.
        scales: values of ``C`` for the spread of gradients, in ``allocation``'s problem.
        redundancy: on the digits.
        gap: ERMA in section 5.2's problem, for ``G(t)``.
        gap_size: fresh points a domain on which ``G``'s losses are measured.
    """

    quadratic: Quadratic = Quadratic()
    allocation: Allocation = Allocation()
    scales: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    redundancy: Redundancy = Redundancy()
    gap: logistic.Logistic = dataclasses.field(default_factory=_gap)
    gap_size: int = 1000

    def __post_init__(self):
        """Raises a ValueError where the hold-out ERMA updates on could not be looked at."""
        if self.gap.num_examples or self.gap.estimation == "fresh":
            raise ValueError("gap needs num_examples = 0 and a fixed hold-out, estimation = 'whole_hold_out'.")


def sgd_errors(key: jax.Array, config: Quadratic) -> jax.Array:
    """Excess loss ``½ θᵀ H θ``, mean over each of ``num_records`` stretches: ``[schedule, variance, record]``."""
    low, high = config.curvature
    eigenvalues = jnp.geomspace(low, high, config.dim)
    scale = jnp.sqrt(jnp.asarray(config.variances) / config.dim)[:, None]
    start = jnp.full((2, len(config.variances), config.dim), config.dim**-0.5)

    def step(params, t):
        noise = jax.random.normal(jax.random.fold_in(key, t), params.shape)
        rates = jnp.stack([jnp.asarray(config.step_size / high), 1.0 / (low * t + high)])
        params = params - rates[:, None, None] * (eigenvalues * params + scale * noise)
        return params, 0.5 * jnp.sum(eigenvalues * jnp.square(params), axis=-1)

    errors = jax.lax.scan(step, start, jnp.arange(config.num_steps))[1]
    errors = errors.reshape(config.num_records, -1, *errors.shape[1:]).mean(axis=1)
    return jnp.moveaxis(errors, 0, -1)


def problem(config: Allocation, scales) -> glm.Problem:
    """The linear regression of section 5.1 at this size."""
    return glm.Problem(scales=scales, noise=config.noise, dim=config.dim, num_examples=config.num_examples)


def apart(config: Allocation) -> jax.Array:
    """A parameter at distance ``gap`` from the true one."""
    signs = jnp.where(jnp.arange(config.dim) % 2 == 0, 1.0, -1.0)
    return glm.truth(config.dim) + config.gap * config.dim**-0.5 * signs


def named_counts(config: Allocation, grad_stds: jax.Array) -> dict[str, jax.Array]:
    """Counts ``[2]`` of variance-aware, uniform and proportional sampling."""
    prior = jnp.asarray(config.prior)
    rule = rules.variance_aware()
    va = rule.update(rule.init(prior), counts=jnp.ones(2), loss_weights=prior, grad_stds=grad_stds).weights
    shares = {"va": va, "uniform": jnp.ones(2), "proportional": prior}
    return {name: samplers.allocate(share, config.batch_size) for name, share in shares.items()}


def grid_counts(config: Allocation) -> list[int]:
    """Domain one's counts on the grid."""
    return np.unique(np.linspace(1, config.batch_size - 1, config.num_counts).round().astype(int)).tolist()


def eq14(weights: jax.Array, grad_stds: jax.Array, counts: jax.Array) -> jax.Array:
    """``Σ c_d² v_d² / b_d``."""
    return jnp.sum(jnp.square(weights * grad_stds) / counts, axis=-1)


def allocation_variances(key: jax.Array, config: Allocation) -> dict[str, jax.Array]:
    """Measured and predicted variance of the stratified gradient estimate.

    Returns:
        ``measured`` and ``predicted``, ``[allocation]``: the named ones, then the grid. ``va_share``: domain one's
        share under VA, before rounding to counts. ``v`` is the population value over ``S_d``, as in eq. 15.
    """
    data_key, batch_key = jax.random.split(key)
    data = glm.data_set(data_key, problem(config, config.scales), linear.label)
    ids = np.repeat(np.arange(2), config.num_examples)
    groups, prior, params = samplers.partition(ids), jnp.asarray(config.prior), apart(config)
    stds = glm.measure(linear.squared_error, params, data, jnp.asarray(ids))["grad_stds"]
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

    first = jnp.asarray(grid_counts(config))
    named = jnp.stack(list(named_counts(config, stds).values()))
    counts = jnp.concatenate([named, jnp.stack([first, config.batch_size - first], axis=1)])
    product = prior * stds
    return {
        "measured": jax.vmap(variance)(jax.random.split(batch_key, len(counts)), counts),
        "predicted": eq14(prior, stds, counts),
        "counts": counts[:, 0],
        "va_share": product[0] / product.sum(),
        "grad_stds": stds,
    }


def scale_stds(key: jax.Array, config: GradientVariance) -> jax.Array:
    """``v`` of domain one ``[scale]`` as ``C_1`` grows, on the same normals."""
    ids = jnp.repeat(jnp.arange(2), config.allocation.num_examples)

    def one(scale):
        scales = jnp.stack([scale, jnp.float32(config.allocation.scales[1])])
        data = glm.data_set(key, problem(config.allocation, scales), linear.label)
        return glm.measure(linear.squared_error, apart(config.allocation), data, ids)["grad_stds"][0]

    return jax.lax.map(one, jnp.asarray(config.scales))


def expected_std(config: Allocation, scale: float | np.ndarray, noise: float) -> float | np.ndarray:
    """``v`` of one domain in closed form: ``v² = 4 [C² (d + 1) s + C d σ²]``, ``s = |θ - θ_gt|²``."""
    return 2.0 * np.sqrt(scale**2 * (config.dim + 1) * config.gap**2 + scale * config.dim * noise)


def cross_entropies(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Losses ``[B]`` of softmax regression, parameters ``[pixels + 1, classes]``, in nats."""
    images, labels = batch
    logits = images @ params[:-1] + params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def redundancy(key: jax.Array, config: Redundancy, data: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """Trains under VA for each number of distinct images.

    Returns:
        ``grad_std`` ``[distinct, domain, round]``, exact over the whole domains; ``sampling_share``
        ``[distinct, round]``, domain two's; ``first_std`` ``[distinct, domain]``, before the first step.
    """
    images, labels = data
    shuffle_key, jitter_key, train_key = jax.random.split(key, 3)
    order = jax.random.permutation(shuffle_key, len(labels))
    ids = np.repeat(np.arange(2), config.num_examples)
    groups, position = samplers.partition(ids), jnp.arange(config.num_examples)
    noise = config.jitter * jax.random.normal(jitter_key, (ids.size, images.shape[1]))
    num_classes = 10
    optimizer = optax.sgd(config.learning_rate)
    loss_rule, sampling_rule = rules.fixed(), rules.variance_aware()
    choose = estimation.fresh_draws(groups, config.gradient_size)
    step = training.make_step(cross_entropies, optimizer)

    def run(distinct):
        rows = order[jnp.concatenate([position, config.num_examples + position % distinct])]
        x, y = images[rows] + noise, labels[rows]

        def stds(params, chosen, domain_ids):
            """Exact ``v`` of the chosen points: the gradient of one is ``(p - onehot) x'``, an outer product."""
            inputs = jnp.concatenate([x[chosen], jnp.ones((len(chosen), 1))], axis=1)
            slopes = jax.nn.softmax(inputs @ params) - jax.nn.one_hot(y[chosen], num_classes)
            belongs = jax.nn.one_hot(domain_ids, 2, axis=0)
            counts = belongs.sum(axis=1)
            means = jnp.einsum("kn,ni,nj->kij", belongs, inputs, slopes) / counts[:, None, None]
            squares = belongs @ (jnp.square(inputs).sum(axis=1) * jnp.square(slopes).sum(axis=1))
            spread = squares - counts * jnp.square(means).sum(axis=(1, 2))
            return jnp.sqrt(jnp.maximum(spread, 0.0) / (counts - 1.0))

        def probe_signals(params, key):
            chosen, domain_ids = choose(key)
            counts = jnp.full(2, config.gradient_size)
            return {"counts": counts, "grad_stds": stds(params, chosen, domain_ids)}

        def draw(key, domain_ids):
            rows = samplers.with_replacement(key, groups, domain_ids)
            return (x[rows], y[rows]), domain_ids

        def plan(weights):
            return samplers.counts_to_ids(samplers.allocate(weights, config.batch_size), config.batch_size)

        everything = (jnp.arange(ids.size), jnp.asarray(ids))

        def record(state):
            return stds(state.params, *everything), state.sampling_state.weights[1]

        start = jnp.zeros((images.shape[1] + 1, num_classes))
        state = training.init_state(start, optimizer, (0.5, 0.5), loss_rule, sampling_rule)
        probe = training.make_probe(probe_signals, loss_rule, sampling_rule)
        spread, share = training.fit(
            step,
            probe,
            plan,
            draw,
            state,
            train_key,
            num_steps=config.num_steps,
            probe_every=config.probe_every,
            record=record,
        )[1]
        return {"grad_std": spread.T, "sampling_share": share, "first_std": stds(start, *everything)}

    return jax.lax.map(run, jnp.asarray(config.distinct))


def gaps(key: jax.Array, config: logistic.Logistic, num: int) -> dict[str, jax.Array]:
    """Eq. 12's ``G(t)`` at each update of ERMA, ``[setting, round]``: this round's losses, last round's weights.

    Returns:
        ``gap``, from the losses of ``num`` fresh points a domain, in place of the population's, and ``gap_losses``
        ``[setting, domain, round]``; ``gap_estimate``, from the hold-out ERMA updates on; ``gap_weight``, domain
        one's loss weight after the update.
    """
    source_key, fresh_key, train_key = jax.random.split(key, 3)

    def run(scales):
        settings = dataclasses.replace(config, scales=scales)
        source, ids = glm.stream(source_key, settings, logistic.label), jnp.repeat(jnp.arange(2), num)
        points = [(glm.generate(fresh_key, settings, logistic.label, ids), ids), source.probe(source_key)]

        def evaluate(params):
            found = [glm.measure(logistic.cross_entropy, params, *chosen)["losses"] for chosen in points]
            return {"fresh": found[0], "hold_out": found[1]}

        erma = logistic.methods(settings, ("erma",))
        found = glm.train_methods(train_key, settings, erma, logistic.cross_entropy, source, evaluate)
        found = {name: rows[0] for name, rows in found.items()}
        before = jnp.concatenate([jnp.full(1, 0.5), found["loss_weight"][:-1]])
        weights = jnp.stack([before, 1.0 - before], axis=1)  # c = π w
        return {
            "gap": jnp.sum((0.5 - weights) * found["fresh"], axis=1),
            "gap_estimate": jnp.sum((0.5 - weights) * found["hold_out"], axis=1),
            "gap_losses": found["fresh"].T,
            "gap_weight": found["loss_weight"],
        }

    return jax.lax.map(run, jnp.asarray(list(GAP_SETTINGS.values())))


def train(key: jax.Array, config: GradientVariance, images: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """Everything, for one seed."""
    keys = jax.random.split(key, 5)
    return {
        "error": sgd_errors(keys[0], config.quadratic),
        **allocation_variances(keys[1], config.allocation),
        "scale_std": scale_stds(keys[2], config),
        **redundancy(keys[3], config.redundancy, images),
        **gaps(keys[4], config.gap, config.gap_size),
    }


def gradient_variance(config: GradientVariance) -> Experiment:
    """Section 4's claims, section 6's on redundancy and section 3.2's on ``G(t)`` and on cost."""
    digits = load("digits")

    def train_seed(key, hparams, data):
        return train(key, dataclasses.replace(config, **hparams), data)

    stretch = config.quadratic.num_steps // config.quadratic.num_records
    rounds = config.redundancy.num_steps // config.redundancy.probe_every
    gradient = "gradient units"
    return Experiment(
        train=train_seed,
        data=(digits.train_images, digits.train_labels),
        dims={
            "error": ("schedule", "variance", "time"),
            "measured": ("allocation",),
            "predicted": ("allocation",),
            "counts": ("allocation",),
            "va_share": (),
            "grad_stds": ("domain",),
            "scale_std": ("scale",),
            "grad_std": ("distinct", "domain", "round"),
            "sampling_share": ("distinct", "round"),
            "first_std": ("distinct", "domain"),
            "gap": ("setting", "step"),
            "gap_estimate": ("setting", "step"),
            "gap_losses": ("setting", "domain", "step"),
            "gap_weight": ("setting", "step"),
        },
        coords={
            "schedule": list(SCHEDULES),
            "variance": list(config.quadratic.variances),
            "time": [stretch * (i + 0.5) for i in range(config.quadratic.num_records)],
            "allocation": [*ALLOCATIONS, *map(str, grid_counts(config.allocation))],
            "domain": ["one", "two"],
            "scale": list(config.scales),
            "distinct": list(config.redundancy.distinct),
            "round": [config.redundancy.probe_every * (r + 1) for r in range(rounds)],
            "setting": list(GAP_SETTINGS),
            "step": glm.steps(config.gap),
        },
        units={
            "error": "loss units",
            "measured": f"squared {gradient}",
            "predicted": f"squared {gradient}",
            "counts": "examples",
            "va_share": "share",
            "grad_stds": gradient,
            "scale_std": gradient,
            "grad_std": gradient,
            "sampling_share": "share",
            "first_std": gradient,
            "gap": "nats",
            "gap_estimate": "nats",
            "gap_losses": "nats",
            "gap_weight": "share",
        },
        figure=lambda results: draw_figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def log_slope(x, values) -> np.ndarray:
    """Slope of ``log mean(values)`` against ``log x``, as values a seed with its mean and its standard error.

    Args:
        x: ``[point]``.
        values: ``[seed, point]``, positive on average.
    """
    x, values = np.log(np.asarray(x, np.float64)), np.asarray(values, np.float64)
    mean = values.mean(axis=0)
    coefficients = (x - x.mean()) / np.square(x - x.mean()).sum()
    return coefficients @ np.log(mean) + (values / mean - 1.0) @ coefficients


def flops(function, *args) -> float:
    """Floating-point operations of the compiled function, by the compiler's own count."""
    return float(jax.jit(function).lower(*args).compile().cost_analysis()["flops"])


def signal_costs(num: int = 200, pixels: int = 784, units: int = 100, classes: int = 10) -> dict[str, float]:
    """FLOPs of the losses' moments, of the forward pass and of a training step of section 5.3's network."""

    def losses(params, images, labels):
        hidden = jax.nn.relu(images @ params[0] + params[1])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ params[2] + params[3], labels)

    params = [jnp.zeros((pixels, units)), jnp.zeros(units), jnp.zeros((units, classes)), jnp.zeros(classes)]
    batch = jnp.zeros((num, pixels)), jnp.zeros(num, int)
    ids = jnp.arange(num) % 2
    return {
        "moments": flops(lambda values, ids: signals.moments(values, ids, 2).signals(), jnp.zeros(num), ids),
        "forward": flops(losses, params, *batch),
        "step": flops(jax.grad(lambda *args: losses(*args).mean()), params, *batch),
    }


def claims(data, config: GradientVariance) -> list:
    """Sections 4 and 6, the two sentences of section 3.2, and what they leave to be said."""
    return [
        *_rate_claims(data),
        *_allocation_claims(data),
        versus(
            "scale_raises_variance",
            np.log(data.scale_std).diff("scale").min("scale"),
            ">=",
            0.0,
            **quote("scale_raises_variance"),
            note="smallest increase of log v of domain one between neighbouring C; v is "
            + ", ".join(f"{_text(data.scale_std.sel(scale=c))} at C = {c:g}" for c in data.scale.values),
        ),
        *_redundancy_claims(data, config.redundancy),
        _cost_claim(),
        *_gap_claims(data, config.gap),
    ]


def _text(values) -> str:
    values = np.asarray(values, np.float64)
    return f"{values.mean():.3g} ± {values.std(ddof=1) / math.sqrt(values.size):.1g}"


def _rate_claims(data) -> list:
    later = data.error.isel(time=slice(data.sizes["time"] // 4, None))
    noise, times = data.variance.values, later.time.values
    constant, decaying = (later.sel(schedule=name) for name in SCHEDULES)
    relative = {name: (later / later.variance).sel(schedule=name).mean("variance") for name in SCHEDULES}
    source = "paper 000, section 4, table 1"
    return [
        near(
            "variance_sets_rate",
            log_slope(noise, constant.mean("time")),
            1.0,
            0.05,
            **quote("variance_sets_rate"),
            note="SGD on a strongly convex quadratic at a constant step: slope of log excess loss against log σ² after "
            "the first quarter of the steps; table 1 says 1",
        ),
        near(
            "variance_sets_rate_decaying",
            log_slope(noise, decaying.mean("time")),
            1.0,
            0.05,
            statement="ours: the same with step 1 / (μ t), table 1's σ² / (μ T)",
            source=source,
        ),
        near(
            "rate_decaying_time",
            log_slope(times, relative["decaying"]),
            -1.0,
            0.1,
            statement="ours: with step 1 / (μ t) the excess loss falls as 1 / T [slope against log t]",
            source=source,
        ),
        near(
            "rate_constant_time",
            log_slope(times, relative["constant"]),
            0.0,
            0.05,
            statement="ours: at a constant step it stays, at a level that σ² sets [slope against log t]",
            source=source,
        ),
    ]


def _allocation_claims(data) -> list:
    va, uniform, proportional = (data.measured.sel(allocation=name) for name in ALLOCATIONS)
    match = data.measured / data.predicted
    worst = np.abs(match.mean("seed") - 1.0)
    return [
        paired(
            "va_minimises_variance",
            va,
            "<",
            np.minimum(uniform, proportional),
            **quote("va_minimises_variance"),
            note="measured variance of the stratified estimate, VA's counts against the better one of uniform and "
            f"proportional, seed by seed; means {_text(va)}, {_text(uniform)}, {_text(proportional)}",
        ),
        near(
            "variance_is_eq_14",
            match.mean("allocation"),
            1.0,
            0.02,
            statement="ours: the measured variance is that of eq. 14 [ratio, mean over allocations]",
            source="paper 000, section 4, eq. 14",
            note=f"largest deviation of an allocation's mean over seeds {float(worst.max()):.2g}",
        ),
    ]


def _redundancy_claims(data, config) -> list:
    distinct = np.log2(data.distinct.values)
    slope = (distinct - distinct.mean()) / np.square(distinct - distinct.mean()).sum()
    spread = data.grad_std.sel(domain="two").mean("round")
    share = data.sampling_share.mean("round")
    first = data.first_std.sel(domain="two")

    def ends(values):
        return ", ".join(f"{_text(values.isel(distinct=i))} with {int(data.distinct[i])}" for i in (0, -1))

    setting = f"domain two holds {config.num_examples} digits, copies of a few, each with pixel noise {config.jitter:g}"
    return [
        versus(
            "redundancy_lowers_variance",
            np.log(spread).values @ slope,
            ">=",
            0.0,
            **quote("redundancy_lowers_variance"),
            note=f"{setting}; slope of log v, mean over training, against log2 of the distinct images; v is "
            f"{ends(spread)} distinct images, and {ends(first)} before the first step: most of the effect is that few "
            "images are soon fitted",
        ),
        versus(
            "redundancy_lowers_va_share",
            share.values @ slope,
            ">=",
            0.0,
            **quote("redundancy_lowers_va_share"),
            note=f"{setting}; slope of its VA share, mean over training, against log2 of the distinct images; the "
            f"share is {ends(share)} distinct images",
        ),
    ]


def _cost_claim() -> Claim:
    cost = signal_costs()
    value = cost["moments"] / cost["forward"]
    probe = cost["forward"] / 40 / (cost["step"] * 16 / 200)
    return Claim(
        "signals_are_cheap",
        **quote("signals_are_cheap"),
        value=value,
        stderr=None,
        threshold=0.02,
        num_seeds=0,
        holds=bool(value <= 0.02),
        note="no seeds: FLOPs of the losses' means and variances over FLOPs of the forward pass that makes the losses, "
        "784-100-10 network, compiler's count. This is the cost where the losses are there anyway; a separate hold-out "
        f"needs its own forward pass, {probe:.2g} of the training FLOPs for 200 points every 40 steps of 16",
    )


def _gap_claims(data, config) -> list:
    moving = data.isel(step=slice(config.warmup_rounds + 1, None))
    fifth = max(moving.sizes["step"] // 5, 1)
    ends = slice(fifth), slice(-fifth, None)

    def changes(gap):
        early, late = (np.sign(gap.isel(step=part).mean("step")) for part in ends)
        return (early != late).astype(float)

    def signs(setting):
        parts = [(moving.gap.sel(setting=setting).isel(step=part).mean("step") > 0).mean() for part in ends]
        return f"{setting}: G > 0 early in {float(parts[0]):.0%} of the seeds, late in {float(parts[1]):.0%}"

    def share(name, sign):
        values = (sign * moving.gap > 0).astype(float).mean("step")
        return versus(
            name,
            values.mean("setting"),
            ">=",
            0.05,
            **quote(name),
            note="share of the updates after warm-up, mean over the settings; "
            + ", ".join(f"{_text(values.sel(setting=s))} in {s}" for s in GAP_SETTINGS),
        )

    return [
        share("gap_positive", 1.0),
        share("gap_negative", -1.0),
        versus(
            "gap_sign_over_training",
            changes(moving.gap).sel(setting="(10, 100)"),
            ">=",
            0.5,
            **quote("gap_sign_over_training"),
            note="share of the seeds in which G's means over the first and the last fifth of the updates after warm-up "
            "differ in sign, in (10, 100). G > 0 raises the weight of the domain with the higher loss, G < 0 of that "
            f"with the lower one; {'; '.join(map(signs, GAP_SETTINGS))}. With losses from the {config.estimation_size} "
            "held-out points a domain in place of fresh ones, whose sampling error is as large as the difference of "
            f"the losses, the share is {_text(changes(moving.gap_estimate).sel(setting='(10, 100)'))}",
        ),
        versus(
            "gap_stays_positive_100_100",
            (moving.gap.sel(setting="(100, 100)") > 0).astype(float).mean("step"),
            ">=",
            0.95,
            statement="ours: where only the label noise differs, (100, 100), G stays positive",
            source="paper 000, section 3.2",
            note="share of the updates after warm-up: the clean domain has the lower loss and the higher weight from "
            "the first update on",
        ),
    ]


def _mean(values):
    """Mean and two standard errors over seeds."""
    return values.mean("seed"), 2 * values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])


def _points(axis, x, values, **style):
    mean, error = _mean(values)
    axis.errorbar(x, mean, error, **{"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, **style})


def draw_figure(data, config: GradientVariance):
    """Redundancy (two panels), eq. 14, ``G(t)``, SGD's error and the scale of the features."""
    figure, axes = plt.subplots(2, 3, figsize=(14.5, 8.4), layout="constrained")
    _draw_redundancy(axes[0, 0], axes[0, 1], data, config.redundancy)
    _draw_allocation(axes[0, 2], data, config.allocation)
    _draw_gap(axes[1, 0], data, config.gap)
    _draw_rates(axes[1, 1], data)
    _draw_scales(axes[1, 2], data, config)
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
        axis.legend(loc="best", fontsize=8.5)
    figure.suptitle(
        "The gradient's variance and ERMA's G(t), paper 000 sections 3.2, 4 and 6; "
        f"{data.sizes['seed']} seeds; error bars: ±2 standard errors",
        fontsize=11,
    )
    return figure


def _ticks(axis, values):
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def _draw_redundancy(left, right, data, config):
    x = data.distinct.values
    for number, domain in enumerate(("one", "two")):
        text = {"one": "domain one, all distinct", "two": "domain two, repeated images"}[domain]
        _points(left, x, data.grad_std.sel(domain=domain).mean("round"), color=f"C{number}", label=text)
    _points(
        left, x, data.first_std.sel(domain="two"), color="C1", fmt="o:", mfc="none", label="domain two, before training"
    )
    left.set(
        xscale="log",
        yscale="log",
        xlabel=f"distinct images in domain two, of {config.num_examples}",
        ylabel=r"gradient standard deviation $v$ (gradient units)",
        title="(a) digits: spread of gradients, mean over training",
    )
    _ticks(left.yaxis, [0.1, 0.2, 0.5, 1, 2, 4])
    _points(right, x, data.sampling_share.mean("round"), color="C1", label="mean over training")
    _points(right, x, data.sampling_share.isel(round=-1), color="C3", label="at the end")
    right.axhline(0.5, color="0.4", lw=1, ls=":", label="no redundancy")
    right.set(
        xscale="log",
        ylim=(0, 0.6),
        xlabel=f"distinct images in domain two, of {config.num_examples}",
        ylabel="VA sampling weight, domain two",
        title="(b) digits: VA's share of the redundant domain",
    )


def _draw_allocation(axis, data, config):
    size = config.batch_size
    first = np.linspace(0.7, size - 0.7, 300)
    counts = np.stack([first, size - first])[:, None]
    squares = np.square(np.asarray(config.prior) * data.grad_stds.values).T[:, :, None]
    axis.plot(first / size, (squares / counts).sum(0).mean(0), color="0.3", lw=1.2, label="eq. 14, mean over seeds")
    grid = data.isel(allocation=slice(len(ALLOCATIONS), None))
    _points(axis, grid.counts.mean("seed") / size, grid.measured, fmt=".", color="0.4", label="measured")
    for number, (name, label) in enumerate(ALLOCATIONS.items()):
        row = data.sel(allocation=name)
        _points(
            axis,
            float(row.counts.mean()) / size,
            row.measured,
            fmt="s",
            ms=7,
            mfc="none",
            color=f"C{number}",
            label=label,
        )
    axis.set(
        yscale="log",
        xlabel="share of the batch, domain one",
        ylabel="variance of the gradient estimate\n(squared gradient units)",
        title=f"(c) eq. 14, B = {size}, π = ({config.prior[0]:g}, {config.prior[1]:g})",
    )
    _ticks(axis.yaxis, [20, 50, 100, 200])


def _draw_gap(axis, data, config):
    for number, setting in enumerate(GAP_SETTINGS):
        values = data.gap.sel(setting=setting)
        low, high = (values.quantile(q, "seed") for q in (0.1, 0.9))
        axis.fill_between(data.step, low, high, color=f"C{number}", alpha=0.2, lw=0)
        axis.plot(data.step, values.mean("seed"), color=f"C{number}", lw=1.4, label=f"scales {setting}")
    axis.axhline(0.0, color="0.2", lw=1, ls=":")
    warmup = config.warmup_rounds * config.probe_every
    axis.axvspan(0, warmup, color="0.92", zorder=0, label="warm-up, w = 1")
    axis.set(
        xlabel="training steps",
        ylabel="G(t) (nats)",
        xlim=(0, config.num_steps),
        title="(d) ERMA, logistic: mean, band 10 to 90 % of the seeds",
    )
    axis.set_yscale("symlog", linthresh=0.002)


def _draw_rates(axis, data):
    later = data.error.isel(time=slice(data.sizes["time"] // 4, None)).mean("time")
    x = data.variance.values
    for number, (name, label) in enumerate(SCHEDULES.items()):
        values = later.sel(schedule=name)
        _points(axis, x, values, fmt="o", color=f"C{number}", label=label)
        middle = math.exp(float((np.log(values.mean("seed")) - np.log(values.variance)).mean()))
        axis.plot(x, middle * x, color=f"C{number}", lw=1, ls=":")
    axis.plot([], [], color="0.4", lw=1, ls=":", label="slope 1, table 1")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel=r"gradient variance $\sigma^2$ (squared gradient units)",
        ylabel="excess loss after a quarter of the steps\n(loss units)",
        title="(e) SGD on a strongly convex quadratic",
    )


def _draw_scales(axis, data, config):
    x = np.geomspace(min(config.scales), max(config.scales), 100)
    axis.plot(
        x, expected_std(config.allocation, x, config.allocation.noise[0]), color="0.3", lw=1.2, label="closed form"
    )
    _points(axis, data.scale.values, data.scale_std, fmt="o", color="C0", label="measured")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="scale of the features, C",
        ylabel=r"gradient standard deviation $v$ (gradient units)",
        title="(f) linear regression: spread against scale",
    )

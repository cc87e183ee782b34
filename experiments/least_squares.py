"""Weighted least squares solved exactly: what paper 000's section 3 claims and its figures do not show.

Two domains share a linear model and differ in label noise. Features and noise are uniform, hence bounded as theorem A.4
asks, and every fit is exact, so that its ``Δ_op`` is 0. One seed is one draw of everything.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments import glm, linear
from experiments.sentences import quote
from mixjax import estimation, rules, samplers, signals
from mixjax.claims import near, paired, versus
from mixjax.experiment import Experiment

METHODS = {
    "gls": "GLS (Aitken)",
    "ols": "OLS",
    "fgls": "FGLS",
    "literal": r"One-shot FGLS, $M|S_i|$ points",
    "whole": "One-shot FGLS, whole hold-out",
}
MARKERS = {"gls": "*", "ols": "o", "fgls": "s", "literal": "D", "whole": "v"}
SOURCES = {"train": "training residuals", "hold_out": "hold-out residuals"}
SETTINGS = {"(100, 1)": (100.0, 1.0), "(1, 100)": (1.0, 100.0)}
EARLY = {"early_estimates_poor": "train", "early_estimates_poor_hold_out": "hold_out"}  # claim -> source
PRIOR = (0.5, 0.5)
_UNIT = math.sqrt(3.0)  # uniform on [-_UNIT, _UNIT] has variance 1
_FLOOR = 1e-30  # FGLS to the letter: no floor that float32 could notice


def _early() -> glm.Problem:
    return glm.Problem(
        dim=100,
        num_examples=200,
        num_steps=200,
        learning_rate=5e-4,
        probe_every=4,
        estimation_size=50,
        gradient_size=0,
    )


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """The settings; the paper gives the noise only.

    Attributes:
        noise: label-noise variance of each domain.
        dim: ``d``; features have unit variance, the true parameter is the normalised all-ones vector.
        sizes: examples a domain, for the ratio of mean squared errors.
        shown_size: the one of ``sizes`` at which all loss weights are compared.
        num_shares: loss weights compared there, evenly spaced in [0, 1].
        updates: ``T' = T / T₀`` of one-shot FGLS.
        small_sizes: examples a domain, for the residuals; from below ``d / 2`` upwards.
        hold_out_size: points a domain of the hold-out that training residuals are compared with, and of the
            validation sets of theorem 3.4.
        delta: of theorem 3.4.
        gamma1: of ERMA, whose weights theorem 3.4 is also tried with.
        gamma2: of ERMA.
        early: SGD on section 5.1's problem, for the quality of early estimates.
    """

    noise: tuple[float, float] = (1.0, 20.0)
    dim: int = 10
    sizes: tuple[int, ...] = (30, 100, 300, 1000, 3000, 10000, 30000)
    shown_size: int = 100
    num_shares: int = 41
    updates: int = 5
    small_sizes: tuple[int, ...] = (2, 4, 6, 8, 10, 15, 25, 50, 100, 250)
    hold_out_size: int = 100
    delta: float = 0.05
    gamma1: float = 0.01
    gamma2: float = 0.05
    early: glm.Problem = dataclasses.field(default_factory=_early)

    def __post_init__(self):
        """Raises a ValueError for sizes that do not go together."""
        if self.shown_size not in self.sizes:
            raise ValueError(f"shown_size must be one of sizes {self.sizes}, got {self.shown_size}.")
        if 2 * min(self.small_sizes) >= self.dim:
            raise ValueError(f"small_sizes must begin below dim / 2 = {self.dim / 2:g}, got {self.small_sizes}.")

    @property
    def best(self) -> float:
        """Domain one's share under Aitken's weights."""
        return self.noise[1] / (self.noise[0] + self.noise[1])


class Moments(NamedTuple):
    """What a weighted fit needs: ``gram`` ``[2, d, d]`` and ``cross`` ``[2, d]``, means over a domain's examples."""

    gram: jax.Array
    cross: jax.Array


def draw(key: jax.Array, config: LeastSquares, num: int) -> tuple[jax.Array, jax.Array]:
    """``num`` examples of each domain: ``x`` ``[2, num, d]`` and ``y`` ``[2, num]``."""
    x_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (2, num, config.dim), minval=-_UNIT, maxval=_UNIT)
    noise = jax.random.uniform(noise_key, (2, num), minval=-_UNIT, maxval=_UNIT)
    return x, x @ glm.truth(config.dim) + jnp.sqrt(jnp.asarray(config.noise))[:, None] * noise


def summarise(x: jax.Array, y: jax.Array) -> Moments:
    """The moments of ``x`` ``[2, n, d]`` and ``y`` ``[2, n]``."""
    num = x.shape[1]
    return Moments(jnp.einsum("kni,knj->kij", x, x) / num, jnp.einsum("kni,kn->ki", x, y) / num)


def fit(weights: jax.Array, moments: Moments) -> jax.Array:
    """The minimiser ``[d]`` of ``sum_d c_d mean_{S_d} (θᵀx - y)²``."""
    gram, cross = (jnp.tensordot(weights, part, 1) for part in moments)
    return jnp.linalg.solve(gram, cross)


def expected_error(weights: jax.Array, gram: jax.Array, noise: jax.Array, num: int) -> jax.Array:
    """``E |θ - θ_gt|²`` of :func:`fit` over the label noise, given the features: ``tr A⁻¹ (Σ c² σ² G / n) A⁻¹``."""
    inverse = jnp.linalg.inv(jnp.tensordot(weights, gram, 1))
    spread = jnp.tensordot(jnp.square(weights) * noise, gram, 1) / num
    return jnp.trace(inverse @ spread @ inverse)


def squared_error(params: jax.Array) -> jax.Array:
    """``|θ - θ_gt|²``."""
    return jnp.sum(jnp.square(params - glm.truth(params.size)))


def one_shot(key: jax.Array, choose, x: jax.Array, y: jax.Array, train: Moments, updates: int):
    """Algorithm 1 with exact fits in place of SGD: ``choose(key)`` gives the held-out points of an update.

    Returns:
        ``(params [updates, d], share)``: the fit after each update, and domain one's last loss weight.
    """
    rule, x, y = rules.one_shot_fgls(1.0), x.reshape(-1, x.shape[-1]), y.reshape(-1)

    def update(carry, key):
        params, state = carry
        indices, domain_ids = choose(key)
        losses = jnp.square(x[indices] @ params - y[indices])
        state = rule.update(state, **signals.moments(losses, domain_ids, 2).signals())
        params = fit(state.weights, train)
        return (params, state), params

    state = rule.init(PRIOR)
    first = fit(state.weights, train)
    (_, state), path = jax.lax.scan(update, (first, state), jax.random.split(key, updates))
    return path, state.weights[0]


def compare(key: jax.Array, config: LeastSquares, num: int):
    """All of ``METHODS`` on one data set with ``num`` examples a domain, held-out ones included.

    Returns:
        ``(errors, shares, params, train)``: ``[method]`` each; the iterates of ``literal``; the training moments. All
        methods fit the same training part, ``ρ = 1 - 1/sqrt|S|`` of the data.
    """
    data_key, hold_out_key = jax.random.split(key)
    x, y = draw(data_key, config, num)
    rho = 1.0 - 1.0 / math.sqrt(2 * num)
    kept, held_out = samplers.split(samplers.partition(np.repeat(np.arange(2), num)), rho)
    size = int(kept.sizes[0])
    train = summarise(x[:, :size], y[:, :size])

    aitken, uniform = rules.gls(config.noise).init(PRIOR).weights, rules.fixed().init(PRIOR).weights
    ols = fit(uniform, train)
    residuals = jnp.square(x[:, :size] @ ols - y[:, :size]).mean(axis=1)
    fgls = rules.fgls()
    two_stage = fgls.update(fgls.init(PRIOR), counts=jnp.asarray(kept.sizes), losses=residuals).weights
    literal = estimation.hold_out_draws(held_out, [num] * 2, rho, config.updates)
    whole = estimation.whole_hold_out(held_out)
    (path, literal_share), (whole_path, whole_share) = (
        one_shot(hold_out_key, choose, x, y, train, config.updates) for choose in (literal, whole)
    )
    fits = [fit(aitken, train), ols, fit(two_stage, train), path[-1], whole_path[-1]]
    shares = [aitken[0], uniform[0], two_stage[0], literal_share, whole_share]
    return jnp.stack([squared_error(params) for params in fits]), jnp.stack(shares), path, train


def residuals(key: jax.Array, config: LeastSquares) -> dict[str, jax.Array]:
    """Mean squared residuals and FGLS weights of the unweighted (minimum-norm) fit to the first few examples.

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
        used = jnp.arange(x.shape[1]) < num  # rows of zeros leave the minimum-norm fit as it is
        near_x, near_y = used[:, None] * x[..., order], used * y
        params = jnp.linalg.lstsq(near_x.reshape(-1, config.dim), near_y.reshape(-1))[0]
        losses = jnp.stack(
            [
                jnp.square(near_x @ params - near_y).sum(axis=1) / num,
                jnp.square(far_x[..., order] @ params - far_y).mean(axis=1),
            ]
        )
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


def loss_moments(params: jax.Array, config: LeastSquares) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Population mean ``[2]`` and variance ``[2]`` of the squared loss, and its largest value, in closed form.

    The residual is a sum of independent uniforms ``a_j u_j``; their fourth cumulants are ``-1.2 a_j⁴``, so that the
    square has variance ``2 L² - 1.2 Σ a_j⁴``.
    """
    gap, noise = params - glm.truth(config.dim), jnp.asarray(config.noise)
    mean = jnp.sum(jnp.square(gap)) + noise
    variance = 2.0 * jnp.square(mean) - 1.2 * (jnp.sum(gap**4) + jnp.square(noise))
    return mean, variance, jnp.square(_UNIT * (jnp.abs(gap).sum() + jnp.sqrt(noise.max())))


def bound(key: jax.Array, config: LeastSquares, params: jax.Array) -> dict[str, jax.Array]:
    """Theorem A.5 at every iterate, for ``w = 1`` and for ERMA's weights measured on the validation sets themselves.

    Args:
        key: decides the validation sets.
        config: the settings.
        params: iterates of algorithm 1 ``[m, d]``, independent of the validation sets.

    Returns:
        ``bound_ratio``: the largest of (squared gap) / (bound), which holds where this is at most 1.
        ``needed_size``: the validation points a domain that the theorem asks for.
    """
    num, prior = config.hold_out_size, jnp.asarray(PRIOR)
    x, y = draw(key, config, num)
    log_term = math.log(2 * len(params) / config.delta)
    rule = rules.erma(config.gamma1, config.gamma2, normalised=False)

    def at(state, theta):
        losses, loss_vars, largest = loss_moments(theta, config)
        values = jnp.square(x @ theta - y).reshape(-1)
        probe = signals.moments(values, jnp.repeat(jnp.arange(2), num), 2).signals()
        state = rule.update(state, **probe)
        w = jnp.stack([jnp.ones(2), jnp.exp(state.log_w)])
        gap = jnp.sum(prior * losses) - jnp.sum(prior * w * probe["losses"], axis=1)
        bias = 2.0 * jnp.square(jnp.sum(prior * (1.0 - w) * losses, axis=1))
        noise = 32.0 * log_term * jnp.sum(jnp.square(prior * w) * loss_vars / num, axis=1)  # 16 K, K = 2
        return state, ((jnp.square(gap) / (bias + noise)).max(), loss_vars.max(), largest)

    ratios, variances, largest = jax.lax.scan(at, rule.init(PRIOR), params)[1]
    return {
        "bound_ratio": ratios.max(),
        "needed_size": jnp.square(largest.max()) * log_term / (18.0 * variances.max()),
    }


def early_estimates(key: jax.Array, config: LeastSquares) -> jax.Array:
    """Domain one's FGLS weight, were it estimated after each round of vanilla SGD: ``[setting, source, round]``."""
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


def train(key: jax.Array, config: LeastSquares) -> dict[str, jax.Array]:
    """Everything, for one seed."""
    size_key, small_key, bound_key, early_key = jax.random.split(key, 4)
    rows = {num: compare(jax.random.fold_in(size_key, num), config, num) for num in config.sizes}
    _, _, path, moments = rows[config.shown_size]
    first = jnp.linspace(0.0, 1.0, config.num_shares)
    grid = jnp.stack([first, 1.0 - first], axis=1)
    size = round((1.0 - 1.0 / math.sqrt(2 * config.shown_size)) * config.shown_size)

    def expected(weights):
        return expected_error(weights, moments.gram, jnp.asarray(config.noise), size)

    return {
        "error": jnp.stack([row[0] for row in rows.values()], axis=1),
        "loss_weight": jnp.stack([row[1] for row in rows.values()], axis=1),
        "grid_error": jax.vmap(lambda weights: squared_error(fit(weights, moments)))(grid),
        "grid_expected_error": jax.vmap(expected)(grid),
        "gls_expected_error": expected(rules.gls(config.noise).init(PRIOR).weights),
        **residuals(small_key, config),
        **bound(bound_key, config, path),
        "early_estimate": early_estimates(early_key, config),
    }


def least_squares(config: LeastSquares) -> Experiment:
    """Section 3's claims, with exact fits."""

    def train_seed(key, hparams, data):
        del data
        return train(key, dataclasses.replace(config, **hparams))

    by_source = ("small_n", "source")
    return Experiment(
        train=train_seed,
        data=None,
        dims={
            "error": ("method", "n"),
            "loss_weight": ("method", "n"),
            "grid_error": ("share",),
            "grid_expected_error": ("share",),
            "gls_expected_error": (),
            "residual": by_source,
            "relative_residual": ("small_n",),
            "estimate": by_source,
            "reordered": by_source,
            "bound_ratio": (),
            "needed_size": (),
            "early_estimate": ("setting", "source", "step"),
        },
        coords={
            "method": list(METHODS),
            "n": list(config.sizes),
            "share": np.linspace(0.0, 1.0, config.num_shares),
            "source": list(SOURCES),
            "small_n": list(config.small_sizes),
            "setting": list(SETTINGS),
            "step": glm.steps(config.early),
        },
        units={
            "error": "squared parameter units",
            "loss_weight": "share",
            "grid_error": "squared parameter units",
            "grid_expected_error": "squared parameter units",
            "gls_expected_error": "squared parameter units",
            "residual": "squared label units",
            "relative_residual": "1",
            "estimate": "share",
            "reordered": "share",
            "bound_ratio": "1",
            "needed_size": "examples a domain",
            "early_estimate": "share",
        },
        figure=lambda results: draw_figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def ratio(a, b) -> np.ndarray:
    """Values, one a seed, whose mean is ``mean(a) / mean(b)`` and whose standard error is that of the ratio."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    centre = a.mean() / b.mean()
    return centre + (a - centre * b) / b.mean()


def error_ratio(data, method: str, size: int) -> np.ndarray:
    """Mean squared error over that of GLS on the same training part, as :func:`ratio`."""
    error = data.error.sel(n=size)
    return ratio(error.sel({"method": method}), error.sel({"method": "gls"}))


def _text(values) -> str:
    values = np.asarray(values, np.float64)
    return f"{values.mean():.4g} ± {values.std(ddof=1) / math.sqrt(values.size):.1g}"


def claims(data, config: LeastSquares) -> list:
    """Section 3's sentences, and theorem 3.3's other reading."""
    shown = data.sel(n=config.shown_size)
    weights = shown.loss_weight.sel({"method": ["fgls", "literal", "whole"]})
    excess = data.grid_expected_error / data.gls_expected_error - 1.0
    grid_best = data.share[int(np.argmin(excess.mean("seed").values))]

    below = [num for num in config.small_sizes if 2 * num < config.dim]
    ill = data.sel(small_n=below[-1])
    vanished = ill.relative_residual <= 1e-6
    change = np.abs(ill.estimate - ill.reordered)
    spread = [f"{float(ill.estimate.sel(source=s).std('seed')):.3g}" for s in SOURCES]

    few = min(config.small_sizes, key=lambda num: abs(2 * num / config.dim - 2.0))
    residual = data.residual.sel(small_n=few)
    largest = max(config.sizes)
    by_size = ", ".join(f"{_text(error_ratio(data, 'literal', num))} at n = {num}" for num in config.sizes)
    whole = ", ".join(f"{_text(error_ratio(data, 'whole', num))} at n = {num}" for num in config.sizes)
    return [
        paired(
            "gls_beats_ols",
            shown.error.sel({"method": "gls"}),
            "<",
            shown.error.sel({"method": "ols"}),
            **quote("gls_beats_ols"),
            note=f"squared errors at {config.shown_size} examples a domain; OLS / GLS "
            f"{_text(error_ratio(data, 'ols', config.shown_size))}",
        ),
        versus(
            "gls_is_best",
            excess.min("share"),
            ">=",
            0.0,
            **quote("gls_is_best"),
            note="smallest excess over GLS of any loss weight on the grid, relative, in the error expected over the "
            f"label noise; the grid's best weight of domain one is {float(grid_best):.3g}, Aitken's {config.best:.3g}",
        ),
        versus(
            "noisier_domains_reduced",
            1.0 - weights.min("method"),
            "<=",
            0.5,
            **quote("noisier_domains_reduced"),
            note="the largest weight of the noisy domain among FGLS and both readings of one-shot FGLS, seed by seed, "
            "against its prior share; means "
            + ", ".join(f"{name} {_text(1.0 - weights.sel({'method': name}))}" for name in weights["method"].values),
        ),
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
        near(
            "one_shot_fgls_ratio",
            error_ratio(data, "literal", largest),
            1.0,
            0.02,
            **quote("one_shot_fgls_ratio"),
            note=f"algorithm 1's own draws, M |S_i| points at each of {config.updates} updates, at n = {largest} a "
            f"domain; {by_size}; OLS {_text(error_ratio(data, 'ols', largest))}",
        ),
        near(
            "one_shot_fgls_ratio_whole",
            error_ratio(data, "whole", largest),
            1.0,
            0.02,
            statement="ours: the same where every update measures on the whole hold-out",
            source="paper 000, section 3.1.1, theorem 3.3",
            note=whole,
        ),
        versus(
            "bound_holds",
            (data.bound_ratio <= 1.0).astype(float),
            ">=",
            1.0 - config.delta,
            **quote("bound_holds"),
            note=f"theorem A.5's constants, δ = {config.delta:g}, {config.hold_out_size} validation points a domain "
            f"where it asks for {float(data.needed_size.max()):.3g} at most; all {config.updates} iterates, w = 1 and "
            f"ERMA's; the largest (squared gap) / bound is {float(data.bound_ratio.max()):.2g}: the bound is loose",
        ),
        *[early_claim(data, config, name, source) for name, source in EARLY.items()],
    ]


def early_claim(data, config: LeastSquares, name: str, source: str):
    """Early estimates of the weight are farther from Aitken's than late ones, in both settings."""
    fifth = max(data.sizes["step"] // 5, 1)
    estimate = data.early_estimate.sel(source=source)
    parts = [estimate.isel(step=part) for part in (slice(fifth), slice(-fifth, None))]
    early, late = (np.abs(part - config.best).mean("step") for part in parts)
    noise = [part.std("seed").mean("step") for part in parts]
    ours = {
        "statement": f"ours: the same for estimates from {config.early.estimation_size} held-out points a domain",
        "source": "paper 000, section 5.1",
    }
    return versus(
        name,
        (early - late).min("setting"),
        ">=",
        0.0,
        **(quote(name) if source == "train" else ours),
        note="distance of the estimated weight from Aitken's in the first fifth of the steps less that in the last "
        "fifth, the smaller one of the two settings; "
        + "; ".join(
            f"{s}: {_text(early.sel(setting=s))} against {_text(late.sel(setting=s))}, standard deviation over seeds "
            f"{float(noise[0].sel(setting=s)):.2g} against {float(noise[1].sel(setting=s)):.2g}"
            for s in SETTINGS
        )
        + ("; late training residuals are of points that have been fitted: see the next row" * (source == "train")),
    )


def _mean(values):
    """Mean and standard error over seeds."""
    return values.mean("seed"), values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])


def draw_figure(data, config: LeastSquares):
    """The error against the loss weight, theorem 3.3's ratio, and weights from training and hold-out residuals."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    _draw_errors(axes[0], data, config)
    _draw_ratios(axes[1], data, config)
    _draw_estimates(axes[2], data, config)
    for axis in axes:
        axis.grid(alpha=0.3, lw=0.5)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8.5, frameon=False, ncols=2)
    figure.suptitle(
        f"Weighted least squares, noise variances ({config.noise[0]:g}, {config.noise[1]:g}), d = {config.dim}, "
        f"paper 000 section 3; {data.sizes['seed']} seeds; error bars: ±2 standard errors",
        fontsize=11,
    )
    return figure


def _draw_errors(axis, data, config):
    colors = {name: f"C{number}" for number, name in enumerate(METHODS)}
    axis.plot(data.share, data.grid_expected_error.mean("seed"), color="0.3", lw=1.4, label="expected, given features")
    mean, stderr = _mean(data.grid_error)
    axis.errorbar(data.share, mean, 2 * stderr, fmt=".", color="0.5", ms=4, lw=0.8, label="measured")
    shown = data.sel(n=config.shown_size)
    for name, label in METHODS.items():
        row = shown.sel({"method": name})
        mean, stderr = _mean(row.error)
        axis.errorbar(
            float(row.loss_weight.mean()),
            mean,
            2 * stderr,
            fmt=MARKERS[name],
            ms=8,
            color=colors[name],
            mfc="none",
            label=label,
        )
    axis.set(
        xlabel="loss weight, domain one (methods: mean over seeds)",
        ylabel=r"mean squared error $\|\hat\theta - \theta_{gt}\|^2$",
        yscale="log",
        title=f"(a) error against weight, n = {config.shown_size} a domain",
    )


def _draw_ratios(axis, data, config):
    for number, (name, label) in enumerate(METHODS.items()):
        if name == "gls":
            continue
        values = np.stack([error_ratio(data, name, num) for num in config.sizes])
        stderr = values.std(axis=1, ddof=1) / math.sqrt(values.shape[1])
        axis.errorbar(
            config.sizes,
            values.mean(axis=1),
            2 * stderr,
            fmt=f"{MARKERS[name]}{'--' if name == 'fgls' else '-'}",
            ms=6,
            mfc="none",
            lw=1.2,
            capsize=2,
            color=f"C{number}",
            label=label,
        )
    axis.axhline(1.0, color="0.4", lw=1, ls=":", label="GLS on the training part")
    axis.set(
        xlabel="examples a domain, n",
        ylabel="mean squared error / GLS's",
        xscale="log",
        yscale="log",
        title=f"(b) theorem 3.3: one-shot FGLS, {config.updates} updates",
    )
    axis.set_yticks([1, 2, 3, 5], ["1", "2", "3", "5"])
    axis.minorticks_off()


def _draw_estimates(axis, data, config):
    x = 2 * np.asarray(config.small_sizes) / config.dim
    for number, (source, label) in enumerate(SOURCES.items()):
        values = data.estimate.sel(source=source)
        mean, stderr = _mean(values)
        low, high = (values.quantile(q, "seed") for q in (0.1, 0.9))
        axis.fill_between(
            x,
            low,
            high,
            color=f"C{number}",
            alpha=0.2,
            lw=0,
            label=f"10 to 90 % of the seeds, {source.replace('_', '-')}",
        )
        axis.errorbar(x, mean, 2 * stderr, fmt="o-", ms=4, lw=1.2, color=f"C{number}", label=label)
    axis.axhline(config.best, color="0.4", lw=1, ls=":", label=f"Aitken's weight, {config.best:.3g}")
    axis.axvspan(x[0] / 1.15, 1.0, color="0.9", zorder=0, label="d > |S|: residuals vanish")
    axis.set(
        xlabel="examples per dimension, |S| / d",
        ylabel="estimated loss weight, domain one",
        xscale="log",
        xlim=(x[0] / 1.15, x[-1] * 1.15),
        ylim=(0, 1),
        title="(c) FGLS weight by source of the residuals",
    )

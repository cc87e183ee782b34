"""Tests ERMA's generalisation bound, theorem 3.4 (A.5 in the appendix) of paper 000, of which it shows no figure.

``(Σ π_d L_d - Σ π_d w_d mean_{V_d})² <= 2 (Σ π_d (1 - w_d) L_d)² + 16 K ln(K T / (T₀ δ)) Σ π_d² w_d² Var_d / |V_d|``
with probability at least ``1 - δ``, at all ``T / T₀`` iterates at once, where ``L_d`` and ``Var_d`` are the population
mean and variance of domain ``d``'s losses, ``V_d`` its validation set, and losses are at most ``L_max``.

The theorem wants ``|V_d| >= L_max² ln(K T / (T₀ δ)) / (18 Var_max)``, but its proof needs
``L_max ln(.) / (3 |V_d|) <= sqrt(2 Var_d ln(.) / |V_d|)`` for every domain and iterate, hence the smallest variance in
place of ``Var_max``. As printed it is false: tests/laws/theory/test_theory_bounds.py has a counterexample. The theorem
is tested here under the printed condition, which 100 points meet in every seed. They meet the proof's condition in
none, because the shared ``L_max`` is the noisy domain's and the smallest variance the clean one's. But the proof treats
each domain by itself, so that each domain's own largest loss may stand for ``L_max``, and 100 points meet that
condition in 97 % of the seeds. ``needed_size`` has all three readings.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.loss_and_sampling_weights import glm
from experiments.loss_and_sampling_weights.exact_fits import PRIOR, UNIT, draw, hold_out, one_shot, summarise
from experiments.loss_and_sampling_weights.sentences import quote
from mixjax import probes, rules, signals
from mixjax.runner import configs
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

__all__ = ["GeneralisationBound", "bound", "generalisation_bound", "loss_moments"]

WEIGHTS = {"ones": "w = 1", "erma": "ERMA's w"}
CONDITIONS = {
    "printed": "as printed, with Var_max",
    "proof": "in the proof, with Var_min",
    "own": "in the proof with each domain's own largest loss",
}


@dataclasses.dataclass(frozen=True)
class GeneralisationBound(glm.LinearModel):
    """Holds the settings; the paper gives the noise and ERMA's only.

    Attributes:
        num_examples: examples a domain that one-shot FGLS has for its iterates, held-out ones included.
        updates: ``T / T₀``, the number of iterates.
        hold_out_size: points a domain of the validation sets.
        delta: the theorem's ``δ``.
        gamma1: ERMA's ``gamma1``.
        gamma2: ERMA's ``gamma2``.
    """

    num_examples: int = 100
    updates: int = 5
    hold_out_size: int = 100
    delta: float = 0.05
    gamma1: float = 0.01
    gamma2: float = 0.05


def iterates(key: jax.Array, config: GeneralisationBound) -> jax.Array:
    """Returns algorithm 1's parameters after each update ``[updates, d]``, with exact fits."""
    data_key, hold_out_key = jax.random.split(key)
    x, y = draw(data_key, config, config.num_examples)
    size, held_out, rho = hold_out(config.num_examples)
    choose = probes.hold_out_draws(held_out, [config.num_examples] * 2, rho, config.updates)
    return one_shot(hold_out_key, choose, x, y, summarise(x[:, :size], y[:, :size]), config.updates)[0]


def loss_moments(params: jax.Array, config: glm.LinearModel) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the population mean and variance of the squared loss, and its largest value, ``[2]`` each.

    The residual is a sum of independent uniforms ``a_j u_j``; their fourth cumulants are ``-1.2 a_j⁴``, so that the
    square has variance ``2 L² - 1.2 Σ a_j⁴``.
    """
    gap, noise = params - glm.truth(config.dim), jnp.asarray(config.noise)
    mean = jnp.sum(jnp.square(gap)) + noise
    variance = 2.0 * jnp.square(mean) - 1.2 * (jnp.sum(gap**4) + jnp.square(noise))
    return mean, variance, jnp.square(UNIT * (jnp.abs(gap).sum() + jnp.sqrt(noise)))


def bound(key: jax.Array, config: GeneralisationBound, params: jax.Array) -> dict[str, jax.Array]:
    """Evaluates theorem A.5 at every iterate, for ``w = 1`` and for ERMA's weights.

    ERMA's weights are measured on the validation sets themselves.

    Args:
        key: decides the validation sets.
        config: the settings.
        params: iterates ``[m, d]``, independent of the validation sets.

    Returns:
        ``squared_gap`` and ``bound``, ``[weights, m]``: the theorem's two sides. ``needed_size`` ``[condition]``: the
        validation points a domain that the theorem asks for, by each reading of its condition.
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
        # 16 K = 32 for K = 2 domains
        noise = 32.0 * log_term * jnp.sum(jnp.square(prior * w) * loss_vars / num, axis=1)
        return state, (jnp.square(gap), bias + noise, loss_vars, largest)

    gaps, bounds, variances, largest = jax.lax.scan(at, rule.init(PRIOR), params)[1]
    squares = jnp.square(largest)
    sizes = [squares.max() / variances.max(), squares.max() / variances.min(), (squares / variances).max()]
    return {"squared_gap": gaps.T, "bound": bounds.T, "needed_size": jnp.stack(sizes) * log_term / 18.0}


def generalisation_bound(config: GeneralisationBound) -> Experiment:
    """Makes the experiment that tests theorem 3.4 on the iterates of one-shot FGLS."""

    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        # the key that least_squares draws its data with
        fit_key = jax.random.fold_in(jax.random.fold_in(key, 0), settings.num_examples)
        return bound(jax.random.fold_in(key, 2), settings, iterates(fit_key, settings))

    both = ("weights", "update")
    return Experiment(
        train=train,
        data=None,
        dims={"squared_gap": both, "bound": both, "needed_size": ("condition",)},
        coords={
            "weights": list(WEIGHTS),
            "update": list(range(1, config.updates + 1)),
            "condition": list(CONDITIONS),
        },
        units={"squared_gap": "squared loss", "bound": "squared loss", "needed_size": "examples a domain"},
        figure=lambda results: draw_figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def claims(data, config: GeneralisationBound) -> list:
    """Judges section 3.2's sentence."""
    largest = (data.squared_gap / data.bound).max(["weights", "update"])
    needed = {label: data.needed_size.sel(condition=name) for name, label in CONDITIONS.items()}
    sizes = "; ".join(
        f"{label}, {float(size.max()):.3g} (met in {float((size <= config.hold_out_size).mean()):.1%} of the seeds)"
        for label, size in needed.items()
    )
    return [
        versus(
            "bound_holds",
            (largest <= 1.0).astype(float),
            ">=",
            1.0 - config.delta,
            **quote("bound_holds"),
            note=f"theorem A.5's constants, δ = {config.delta:g}, {config.hold_out_size} validation points a domain; "
            f"its condition asks for, at most over the seeds, {sizes}; all {config.updates} iterates, w = 1 and "
            f"ERMA's; the largest (squared gap) / bound is {float(largest.max()):.2g}: the bound is loose",
        )
    ]


def draw_figure(data, config: GeneralisationBound):
    """Draws the bound's two sides against each other, and how often their ratio exceeds a value."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for number, (name, label) in enumerate(WEIGHTS.items()):
        gaps, bounds = (np.asarray(data[side].sel(weights=name)).ravel() for side in ("squared_gap", "bound"))
        left.plot(bounds, gaps, ".", color=f"C{number}", ms=3, alpha=0.4, mew=0, label=label)
        ratios = np.sort(np.asarray((data.squared_gap / data.bound).sel(weights=name).max("update")))
        right.plot(ratios, 1.0 - np.arange(ratios.size) / ratios.size, color=f"C{number}", label=label)
    ends = [float(np.asarray(data.bound).min()), float(np.asarray(data.bound).max())]
    left.plot(ends, ends, color="0.4", lw=1, ls=":", label="equality: the bound is broken above")
    left.set(xlabel="bound", ylabel="squared gap", xscale="log", yscale="log", title="(a) every iterate of every seed")
    left.set_ylim(1e-4 * ends[0], 3 * ends[1])
    right.axvline(1.0, color="0.4", lw=1, ls=":", label="the bound")
    right.axhline(config.delta, color="0.4", lw=1, ls="--", label=f"δ = {config.delta:g}")
    right.set(xlabel="(squared gap) / bound, largest over the iterates", ylabel="fraction of the seeds at or above")
    right.set(xscale="log", yscale="log", title="(b) how close it comes")
    for axis in (left, right):
        axis.grid(alpha=0.3, lw=0.5)
        axis.legend(fontsize=8.5, loc="lower right" if axis is left else "lower left")
    figure.suptitle(
        f"Theorem 3.4, {config.hold_out_size} validation points a domain, noise variances ({config.noise[0]:g}, "
        f"{config.noise[1]:g}), d = {config.dim}, paper 000 section 3.2; {data.sizes['seed']} seeds",
        fontsize=11,
    )
    return figure

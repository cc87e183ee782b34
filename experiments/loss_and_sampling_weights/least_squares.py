"""Solves weighted least squares exactly: paper 000, section 3.1, theorems 3.1 and 3.3, of which it shows no figure.

Two domains share a linear model and differ in label noise. Features and noise are uniform, hence bounded as theorem A.4
asks, and every fit is exact, so that its ``Δ_op`` is 0. One seed is one draw of everything.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.loss_and_sampling_weights import glm
from experiments.loss_and_sampling_weights.exact_fits import (
    PRIOR,
    Moments,
    draw,
    fit,
    hold_out,
    one_shot,
    ratio,
    squared_error,
    summarise,
)
from experiments.loss_and_sampling_weights.sentences import quote
from experiments.shared.figures import points
from experiments.shared.sentences import text
from mixjax import probes, rules
from mixjax.runner import configs
from mixjax.runner.claims import near, paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["LeastSquares", "expected_error", "least_squares"]

METHODS = {
    "gls": "GLS (Aitken)",
    "ols": "OLS",
    "fgls": "FGLS",
    "literal": r"One-shot FGLS, $M|S_i|$ points",
    "whole": "One-shot FGLS, whole hold-out",
}
STYLES = {name: {"marker": "*osDv"[i], "color": f"C{i}", "mfc": "none"} for i, name in enumerate(METHODS)}


@dataclasses.dataclass(frozen=True)
class LeastSquares(glm.LinearModel):
    """Holds the settings of the comparison.

    Attributes:
        sizes: examples a domain, held-out ones included.
        shown_size: the one of ``sizes`` at which all loss weights are compared.
        num_shares: loss weights compared there, evenly spaced in [0, 1].
        updates: ``T' = T / T₀`` of one-shot FGLS.
    """

    sizes: tuple[int, ...] = (30, 100, 300, 1000, 3000, 10000, 30000)
    shown_size: int = 100
    num_shares: int = 41
    updates: int = 5

    def __post_init__(self):
        """Raises a ValueError for sizes that do not go together."""
        if self.shown_size not in self.sizes:
            raise ValueError(f"shown_size must be one of sizes {self.sizes}, got {self.shown_size}.")


def expected_error(weights: jax.Array, gram: jax.Array, noise: jax.Array, num: int) -> jax.Array:
    """Returns ``E |θ - θ_gt|²`` of :func:`fit` over the label noise, given the features.

    It is ``tr A⁻¹ (Σ c² σ² G / n) A⁻¹``, with ``A`` the weighted mean of the Gram matrices ``G``.
    """
    inverse = jnp.linalg.inv(jnp.tensordot(weights, gram, 1))
    spread = jnp.tensordot(jnp.square(weights) * noise, gram, 1) / num
    return jnp.trace(inverse @ spread @ inverse)


def compare(key: jax.Array, config: LeastSquares, num: int) -> tuple[jax.Array, jax.Array, Moments]:
    """Fits all of ``METHODS`` to the same training part of one data set with ``num`` examples a domain.

    Returns:
        ``(params [method, d], weights [method, 2], training moments)``.
    """
    data_key, hold_out_key = jax.random.split(key)
    x, y = draw(data_key, config, num)
    size, held_out, rho = hold_out(num)
    train = summarise(x[:, :size], y[:, :size])

    gls, uniform, fgls = rules.gls(config.noise).init(PRIOR), rules.fixed().init(PRIOR), rules.fgls()
    ols = fit(uniform.weights, train)
    losses = jnp.square(x[:, :size] @ ols - y[:, :size]).mean(axis=1)
    two_stage = fgls.update(fgls.init(PRIOR), counts=jnp.full(2, size), losses=losses)
    direct = [gls.weights, uniform.weights, two_stage.weights]

    literal = probes.hold_out_draws(held_out, [num] * 2, rho, config.updates)
    chosen = literal, probes.whole_hold_out(held_out)
    shots = [one_shot(hold_out_key, choose, x, y, train, config.updates) for choose in chosen]
    params = [fit(weights, train) for weights in direct] + [path[-1] for path, _ in shots]
    return jnp.stack(params), jnp.stack(direct + [weights for _, weights in shots]), train


def least_squares(config: LeastSquares) -> Experiment:
    """Makes the experiment that tests section 3.1's claims with exact fits."""

    def train(key, hparams, data):
        del data  # each seed draws its own
        settings = configs.replace(config, hparams)
        key = jax.random.fold_in(key, 0)
        found = [compare(jax.random.fold_in(key, num), settings, num) for num in settings.sizes]
        params, weights = (jnp.stack([row[part] for row in found], axis=1) for part in (0, 1))
        moments = found[settings.sizes.index(settings.shown_size)][2]

        def expected(weights):
            size, _, _ = hold_out(settings.shown_size)
            return expected_error(weights, moments.gram, jnp.asarray(settings.noise), size)

        first = jnp.linspace(0.0, 1.0, settings.num_shares)
        grid = jnp.stack([first, 1.0 - first], axis=1)
        return {
            "error": jax.vmap(jax.vmap(squared_error))(params),
            "loss_weight": weights[..., 0],
            "grid_error": jax.vmap(lambda weights: squared_error(fit(weights, moments)))(grid),
            "grid_expected_error": jax.vmap(expected)(grid),
            "gls_expected_error": expected(rules.gls(settings.noise).init(PRIOR).weights),
        }

    dims = {
        "error": ("method", "n"),
        "loss_weight": ("method", "n"),
        "grid_error": ("share",),
        "grid_expected_error": ("share",),
        "gls_expected_error": (),
    }
    shares = np.linspace(0.0, 1.0, config.num_shares)
    return Experiment(
        train=train,
        data=None,
        dims=dims,
        coords={"method": list(METHODS), "n": list(config.sizes), "share": shares},
        units={name: "share" if name == "loss_weight" else "squared parameter units" for name in dims},
        figure=lambda results: draw_figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def error_ratio(data, method: str):
    """Returns the mean squared error over that of GLS on the same training part, as :func:`ratio`, ``[seed, n]``."""
    return ratio(data.error.sel({"method": method}), data.error.sel({"method": "gls"}))


def claims(data, config: LeastSquares) -> list:
    """Judges section 3.1's sentences, and theorem 3.3's other reading."""
    shown, largest = data.sel(n=config.shown_size), max(config.sizes)
    ols, literal, whole = (error_ratio(data, name) for name in ("ols", "literal", "whole"))
    noisy = 1.0 - shown.loss_weight.sel({"method": ["fgls", "literal", "whole"]})
    excess = data.grid_expected_error / data.gls_expected_error - 1.0
    grid_best = data.share[int(np.argmin(excess.mean("seed").values))]

    def by_size(ratios):
        return ", ".join(f"{text(ratios.sel(n=num), 4)} at n = {num}" for num in config.sizes)

    return [
        paired(
            "gls_beats_ols",
            shown.error.sel({"method": "gls"}),
            "<",
            shown.error.sel({"method": "ols"}),
            **quote("gls_beats_ols"),
            note=f"squared errors at {config.shown_size} examples a domain; OLS / GLS "
            f"{text(ols.sel(n=config.shown_size), 4)}",
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
            noisy.max("method"),
            "<=",
            0.5,
            **quote("noisier_domains_reduced"),
            note="the largest weight of the noisy domain among FGLS and both readings of one-shot FGLS, seed by seed, "
            "against its prior share; means "
            + ", ".join(f"{name} {text(noisy.sel({'method': name}), 4)}" for name in noisy["method"].values),
        ),
        near(
            "one_shot_fgls_ratio",
            literal.sel(n=largest),
            1.0,
            0.02,
            **quote("one_shot_fgls_ratio"),
            note=f"algorithm 1's own draws, M |S_i| points at each of {config.updates} updates, at n = {largest} a "
            f"domain; {by_size(literal)}; OLS {text(ols.sel(n=largest), 4)}",
        ),
        near(
            "one_shot_fgls_ratio_whole",
            whole.sel(n=largest),
            1.0,
            0.02,
            statement="ours: the same where every update measures on the whole hold-out",
            source="paper 000, section 3.1.1, theorem 3.3",
            note=by_size(whole),
        ),
    ]


def draw_figure(data, config: LeastSquares):
    """Draws the error against the loss weight, and theorem 3.3's ratio against the number of examples."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    left.plot(data.share, data.grid_expected_error.mean("seed"), color="0.3", lw=1.4, label="expected, given features")
    points(left, data.share, data.grid_error, fmt=".", color="0.5", lw=0.8, capsize=0, label="measured")
    for name, label in METHODS.items():
        row = data.sel({"method": name, "n": config.shown_size})
        style = {"fmt": "", "ms": 8, "lw": 1.5, "ls": "", "capsize": 0, "label": label, **STYLES[name]}
        points(left, float(row.loss_weight.mean()), row.error, **style)
        if name != "gls":
            style = {"fmt": "", "ms": 6, "ls": "--" if name == "fgls" else "-", "label": label, **STYLES[name]}
            points(right, config.sizes, error_ratio(data, name), **style)
    right.axhline(1.0, color="0.4", lw=1, ls=":", label="GLS on the training part")
    left.set(
        xlabel="loss weight, domain one (methods: mean over seeds)",
        ylabel=r"mean squared error $\|\hat\theta - \theta_{gt}\|^2$",
        yscale="log",
        title=f"(a) error against weight, n = {config.shown_size} a domain",
    )
    right.set(xlabel="examples a domain, n", ylabel="mean squared error / GLS's", xscale="log", yscale="log")
    right.set_title(f"(b) theorem 3.3: one-shot FGLS, {config.updates} updates")
    right.set_yticks([1, 2, 3, 5], ["1", "2", "3", "5"])
    right.minorticks_off()
    for axis in (left, right):
        axis.grid(alpha=0.3, lw=0.5)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8.5, frameon=False, ncols=2)
    figure.suptitle(
        f"Weighted least squares, noise variances ({config.noise[0]:g}, {config.noise[1]:g}), d = {config.dim}, "
        f"paper 000 section 3.1\n{data.sizes['seed']} seeds; error bars: ±2 standard errors",
        fontsize=11,
    )
    return figure

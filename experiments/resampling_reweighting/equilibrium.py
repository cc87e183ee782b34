"""The experiment on lemma 2.1 of paper 003: how much time long runs spend near the flat and near the sharp minimum.

The example has two groups with slopes 1 and K (section 2.1).
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting import lattice
from experiments.resampling_reweighting.sentences import quote
from experiments.resampling_reweighting.two_slopes import METHODS, SOURCE, Piecewise, experiment_of, mass_right
from experiments.shared.figures import points
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, near, versus
from mixjax.runner.experiment import Experiment

__all__ = ["claims", "equilibrium", "figure", "lemma_mass", "log_odds"]

# The learning rates at which lemma 2.1 is compared with the exact walk.
SMALL_RATES = (0.2, 0.04)


def equilibrium(config: Piecewise) -> Experiment:
    """Builds the experiment on lemma 2.1: how much time long runs spend on either side of 0."""
    return experiment_of(config, figure, claims)


def lemma_mass(config: Piecewise, learning_rate: float) -> float:
    """Returns the share of time that lemma 2.1 gives above 0. The lemma holds for SGD only."""
    return lattice.gibbs_mass_right(learning_rate, config.share, config.epsilon, config.steepness)


def log_odds(p: float) -> float:
    """Returns the logarithm of p / (1 - p)."""
    # `log1p` keeps the digits of a small probability.
    return float(np.log(p) - np.log1p(-p))


def claims(data, config: Piecewise) -> list:
    """Judges lemma 2.1 against the exact walk and against runs."""
    smallest = data.learning_rate.values[0]
    right = data.right.sel(learning_rate=smallest)
    sgd, static = (right.sel({"method": method}) for method in ("sgd", "static"))
    exact = mass_right("sgd", config, smallest)
    share = f"share of time at theta > 0 in the second half of {config.num_steps} steps, learning rate {smallest:g}"
    return [
        _lemma_against_walk(config, f"In runs, {share}, by learning rate: {_table_of_shares(data, config)}"),
        versus(
            "sgd_prefers_flat",
            sgd,
            "<=",
            0.5,
            **quote("sgd_prefers_flat"),
            note=f"{share}: the side of theta = -1 has the rest",
        ),
        versus(
            "rr_equilibrium",
            static,
            ">=",
            0.5,
            statement="ours: in equilibrium RR with f and w of section 2 prefers the global minimum",
            source=SOURCE,
            note=share,
        ),
        near(
            "exact_equilibrium",
            sgd,
            exact,
            0.02,
            statement="ours: long runs of SGD follow the exact stationary law of the lattice chain",
            source=SOURCE,
            note=f"{share}; exactly {exact:.4f}",
        ),
    ]


def _table_of_shares(data, config) -> str:
    """Writes each learning rate with the share of time above 0: of runs, of the exact walk and of lemma 2.1."""

    def cell(method, eta):
        measured = text(data.right.sel({"method": method}).sel(learning_rate=eta))
        return f"{method} {measured} (exactly {mass_right(method, config, eta):.4f})"

    def row(eta):
        measured = ", ".join(cell(method, eta) for method in METHODS)
        return f"{eta:g}: {measured}, lemma {lattice.gibbs_mass_right(eta):.4f}"

    return "; ".join(map(row, data.learning_rate.values))


def _lemma_against_walk(config, measured: str) -> Claim:
    """Judges whether lemma 2.1's odds are those of the exact walk at small learning rates."""
    walks = {eta: log_odds(mass_right("sgd", config, eta)) for eta in SMALL_RATES}
    laws = {eta: log_odds(lemma_mass(config, eta)) for eta in SMALL_RATES}
    least = min(SMALL_RATES)
    odds = ", ".join(f"{walks[eta]:.4g} against {laws[eta]:.4g} at {eta:g}" for eta in SMALL_RATES)
    return Claim(
        "sgd_equilibrium",
        **quote("sgd_equilibrium"),
        value=walks[least],
        stderr=None,
        threshold=laws[least],
        num_seeds=0,
        holds=abs(walks[least] / laws[least] - 1) < 0.1,
        note=f"log odds of theta > 0 at learning rate {least:g}, of the exact walk, within a tenth of the lemma's: "
        f"{odds}. {measured}. The lemma is the law of its stochastic differential equation, which is not the walk's "
        "however small the learning rate: drift and step are both in proportion to it, so that the wells are always a "
        "few steps wide",
    )


def figure(data, config: Piecewise):
    """Draws the share of time above 0 against the learning rate: of runs, of the exact walk and of lemma 2.1."""
    drawn, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    rates = data.learning_rate.values
    fine = np.geomspace(rates[0], rates[-1], 100)
    for number, (method, label) in enumerate(METHODS.items()):
        style = {"fmt": "o", "lw": 1, "color": f"C{number}", "label": label}
        points(axis, rates, data.right.sel({"method": method}), **style)
        exact = [mass_right(method, config, eta) for eta in rates]
        axis.plot(rates, exact, "_", ms=14, color=f"C{number}", label="exact" if number == 0 else None)
    axis.plot(
        fine, [lattice.gibbs_mass_right(eta) for eta in fine], color="0.3", lw=1, ls="--", label="lemma 2.1 (SGD)"
    )
    axis.set(xscale="log", yscale="log", xlabel="learning rate η", ylabel="share of time at θ > 0")
    axis.grid(alpha=0.3, lw=0.5)
    axis.legend(fontsize=8.5)
    seeds = data.sizes["seed"]
    axis.set_title(
        f"Equilibrium: second half of {config.num_steps} steps, mean of {seeds} runs, ±2 standard errors", fontsize=10
    )
    return drawn

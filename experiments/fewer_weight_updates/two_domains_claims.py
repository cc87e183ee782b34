"""Judges the claims of two_domains.toml."""

import dataclasses
from typing import Any

import numpy as np

from experiments.fewer_weight_updates.sentences import quote
from experiments.fewer_weight_updates.two_domains import METHODS, OTHERS, TwoDomains, excess, last_share
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, near, versus

# The positions of the targets.
INSIDE, VERTEX = 0, 1
# A share of weight equals its closed form if it is this close to it.
CLOSE = 1e-3
OURS = {"source": "paper 001, abstract"}


@dataclasses.dataclass(frozen=True)
class Ends:
    """Gives access to the weights with which the runs end.

    Attributes:
        data: the run's data set.
        config: the settings.
    """

    data: Any
    config: TwoDomains

    @property
    def longest(self) -> int:
        """Returns the largest T."""
        return max(self.config.horizons)

    def share(self, method: str, T: int, where: int = INSIDE):
        """Returns the last ``p`` of a method at a horizon and a target, one value for each seed."""
        return self.data.share.isel(target=where).sel({"method": method, "horizon": T})

    def distance(self, method: str):
        """Returns the largest distance from the closed forms, over targets and T, one value for each seed."""
        config = self.config
        closed = np.array([[last_share(method, u, T, config.epsilon) for T in config.horizons] for u in config.targets])
        shares = self.data.share.sel({"method": method}).transpose("seed", "target", "horizon")
        return abs(shares - closed).max(("target", "horizon"))


def claims(data, config: TwoDomains) -> list[Claim]:
    """Judges the abstract's sentence on T = 1, the closed forms, the vertex and the counterfactual."""
    ends = Ends(data, config)
    return [
        *_horizon(ends),
        _closed_form(ends, "mirror_descent", "mirror descent ends at p_T, whatever T and the start"),
        _closed_form(ends, "projected_gradient", "so does projected gradient"),
        _closed_form(
            ends,
            "reset",
            "with the parameters reset to 0 every round it ends elsewhere, at (u_1 + π_2 u_2) / (1 + π_2²), for T = 1 "
            "further from p*",
        ),
        _closed_form(ends, "alignment", "without the steps' curvature every T ends where T = 1 does"),
        _closed_form(ends, "implicit", "the implicit function theorem's hypergradient is right at every T"),
        _vertex(ends, "mirror_descent"),
        _vertex(ends, "projected_gradient"),
        _counterfactual(ends),
    ]


def _horizon(ends: Ends) -> list[Claim]:
    """Judges the excess loss of T = 1 and of the longest T, in units of that of uniform weights."""
    target, horizons = ends.config.targets[INSIDE], ends.config.horizons
    uniform = excess(0.5, target)
    ratios = {T: excess(ends.share("mirror_descent", T), target) / uniform for T in horizons}
    by_horizon = ", ".join(f"{T}: {text(ratio)}" for T, ratio in ratios.items())
    return [
        versus(
            "one_step_fails",
            ratios[1],
            ">=",
            1.0,
            **quote("one_step_fails"),
            note="excess validation loss of the optimum for the last weights over that of uniform weights "
            f"({uniform:g}), mirror descent, u = {target}, by T: {by_horizon}; the example is ours",
        ),
        versus(
            "long_horizon_learns",
            ratios[ends.longest],
            "<=",
            0.01,
            statement=f"ours: there T = {ends.longest} leaves less than a hundredth of uniform weights' excess loss",
            **OURS,
        ),
    ]


def _closed_form(ends: Ends, method: str, statement: str) -> Claim:
    note = f"largest distance over both targets and T = {', '.join(map(str, ends.config.horizons))}"
    distance = ends.distance(method)
    return versus(f"closed_form_{method}", distance, "<=", CLOSE, statement=f"ours: {statement}", **OURS, note=note)


def _vertex(ends: Ends, method: str) -> Claim:
    wrong, right = ends.share(method, 1, VERTEX), ends.share(method, ends.longest, VERTEX)
    return near(
        f"vertex_{method}",
        wrong - right,
        1.0,
        0.01,
        statement=f"ours: {METHODS[method]} with T = 1 ends at the vertex of the wrong domain, with a long T at the "
        "right one",
        **OURS,
        note=f"p at T = 1 less p at T = {ends.longest}, u = {ends.config.targets[VERTEX]}, where p* = 0: "
        f"{text(wrong)} and {text(right)}",
    )


def _counterfactual(ends: Ends) -> Claim:
    """Judges the exponent of the counterfactual's error in the distance of the weights."""
    inside = ends.data.isel(target=INSIDE)
    # Close to the weights of the run both losses agree, and their difference is rounding.
    far = abs(OTHERS - 0.5) > 0.05
    errors = np.log(abs(inside.predicted - inside.actual).isel(horizon=-1, other=far))
    distances = np.log(abs(OTHERS[far] - 0.5))
    spread = distances - distances.mean()
    return near(
        "counterfactual_order",
        (errors.transpose("seed", "other") * spread).sum("other") / np.square(spread).sum(),
        2.0,
        0.05,
        statement="ours: the loss predicted for other weights errs by the square of their distance",
        **OURS,
        note=f"exponent of the error in |p' - 1/2|, T = {ends.longest}, u = {ends.config.targets[INSIDE]}",
    )

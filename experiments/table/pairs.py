"""Defines pairs of a loss rule and a sampling rule, their grids, and the problems that they cannot run.

Every pair trains by the same loop: rounds of steps with fixed weights, each ended by one probe that moves first ``c``
and then ``q``. The pair's number says which rules, which signals and which estimator it has. The number is the same for
all runs of a compiled call, so that nothing is computed that a pair does not need.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments.table.problems import Problem
from mixjax import WeightRule, rules

__all__ = ["LEFT_OUT", "Pair", "excluded", "points", "reason", "rules_of"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Holds a loss rule, a sampling rule and the values that are tried for their hyperparameters.

    Attributes:
        name: the pair's label in the table.
        loss: the rule for the loss weights, a name of ``mixjax.rules.RULES``.
        sampling: the rule for the sampling weights, likewise.
        estimator: how the gradient is estimated. ``stratified`` goes with exact integer counts, ``horvitz_thompson``
            with independently drawn domains.
        grid: from a hyperparameter to its values. All lists are equally long: their first entries are tried together,
            then their second ones. Each goes to the rule that has it.
    """

    name: str
    loss: str = "fixed"
    sampling: str = "fixed"
    estimator: Literal["stratified", "horvitz_thompson"] = "stratified"
    grid: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises a ValueError for a rule that does not exist, a hyperparameter that neither has, lists that differ."""
        for name in (self.loss, self.sampling):
            if name not in rules.RULES:
                raise ValueError(f"pair {self.name!r}: no rule {name!r}; there are {', '.join(rules.RULES)}.")
        known = {**_parameters(self.loss), **_parameters(self.sampling)}
        unknown = [name for name in self.grid if name not in known]
        if unknown:
            raise ValueError(
                f"pair {self.name!r}: neither rule has {', '.join(unknown)}; they have {', '.join(known)}."
            )
        if len({len(values) for values in self.grid.values()}) > 1:
            raise ValueError(f"pair {self.name!r}: all lists of its grid must be equally long, got {self.grid}.")


def _parameters(rule: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(rules.RULES[rule]).parameters)


class Need(NamedTuple):
    """Describes what some pairs need of a problem.

    Attributes:
        of: tells which pairs need it.
        met: tells which problems meet the need.
        reason: says why the other problems leave these pairs out.
    """

    of: Callable[[Pair], bool]
    met: Callable[[Problem], bool]
    reason: str


NEEDS = (
    Need(
        lambda pair: "gls" in (pair.loss, pair.sampling),
        lambda problem: problem.variances is not None and np.ptp(problem.variances) > 0,
        "needs variances of the label noise that are known and differ",
    ),
    Need(
        lambda pair: pair.loss == "fgls",
        lambda problem: not problem.streams,
        "needs residuals of training points, and a stream shows none twice",
    ),
    Need(
        lambda pair: "temperature" in pair.grid,
        lambda problem: np.ptp(problem.prior) > 0,
        "the prior is uniform, at every temperature",
    ),
)


LEFT_OUT = {
    "ado": "fits scaling laws to losses over thousands of steps of a language model; compared on the live mix",
    "aioli": "probes mixtures in windows of many steps; compared on the live mix",
}
"""Rules that no pair of the table has, and why."""


def excluded(pair: Pair, problem: Problem) -> bool:
    """Tells whether a problem lacks what the pair needs."""
    return any(need.of(pair) and not need.met(problem) for need in NEEDS)


def reason(pair: Pair) -> str:
    """Says why a problem leaves the pair out, if it does."""
    return "; ".join(need.reason for need in NEEDS if need.of(pair))


def points(pairs: Sequence[Pair], learning_rates: Sequence[float]) -> dict[str, list]:
    """Returns everything that is tried, by column: ``pair``, ``learning_rate`` (a factor) and every hyperparameter.

    A pair's grid is crossed with the learning rates. A pair without one tries as many learning rates, between the same
    ends, so that no pair has more tries than another. Hyperparameters that a pair does not have are NaN.

    Raises:
        ValueError: grids of different lengths.
    """
    lengths = {len(values) for pair in pairs for values in pair.grid.values()}
    if len(lengths) > 1:
        raise ValueError(f"the grids of all pairs must be equally long, or some get more tries, got {sorted(lengths)}.")
    tries = max(lengths, default=1)
    finer = np.geomspace(min(learning_rates), max(learning_rates), tries * len(learning_rates)).tolist()
    names = list(dict.fromkeys(name for pair in pairs for name in pair.grid))
    rows = []
    for pair in pairs:
        for number in range(tries if pair.grid else 1):
            own = {name: values[number] for name, values in pair.grid.items()}
            rates = learning_rates if pair.grid else finer
            rows += [(pair.name, rate, *(own.get(name, np.nan) for name in names)) for rate in rates]
    return dict(zip(["pair", "learning_rate", *names], map(list, zip(*rows, strict=True)), strict=True))


def make_rule(name: str, pair: Pair, hparams: dict[str, jax.Array], problem: Problem) -> WeightRule:
    """Makes a rule with its own hyperparameters.

    FGLS is the two-stage one, with one look at the residuals and then its weights.
    """
    if name == "gls":
        return rules.gls(problem.variances)
    known = _parameters(name)
    rule = rules.RULES[name](**{key: hparams[key] for key in pair.grid if key in known})
    return rules.freeze_after(rule, 1) if name == "fgls" else rule


def rules_of(
    pairs: Sequence[Pair], hparams: dict[str, jax.Array], problem: Problem, warmup: int
) -> tuple[WeightRule, WeightRule]:
    """Returns the pair's two rules, chosen by ``hparams["pair"]``; loss weights wait for ``warmup`` probes."""
    chosen = [
        rules.select([make_rule(getattr(pair, kind), pair, hparams, problem) for pair in pairs], hparams["pair"])
        for kind in ("loss", "sampling")
    ]
    return rules.every(chosen[0], 1, start=warmup), chosen[1]

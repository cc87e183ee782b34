"""Judges a proposed mixture by runs on fresh paired seeds: is it better than mixtures that need no design?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mixjax.checks import nearest
from mixjax.design.comparing import difference_text
from mixjax.design.measured import as_losses, as_seeds
from mixjax.design.objectives import Objective, as_objective
from mixjax.statistics import MIN_SEEDS, PairedDifference, holm, mean_stderr, paired_difference

__all__ = ["Validation", "Verdict", "validate"]

_LEVEL = 0.05  # of the corrected p-values
_WORDS = {
    "better": "better than {}",
    "worse": "worse than {}",
    "noise": "not better than noise against {}",
    "undecided": "undecided against {}",
}


class Verdict(NamedTuple):
    """Holds how the proposal compares with another mixture on the same seeds.

    Attributes:
        name: the other mixture's name.
        outcome: "better" or "worse" where the seeds are enough to tell, "noise" where the difference may be chance, and
            "undecided" with fewer than three finite seeds, or where half of them or more diverged.
        gain: how much lower the proposal's objective is, on average over the seeds in which both runs are finite.
        low: lower end of the gain's 95 % interval, alone.
        high: upper end of this interval.
        p_value: two-sided, of no difference, after Holm's correction for all verdicts; NaN where there is no test.
        wins: number of seeds in which the proposal is lower.
        num_seeds: number of seeds in which both are finite.
        left_out: number of the other seeds.
    """

    name: str
    outcome: Literal["better", "worse", "noise", "undecided"]
    gain: float
    low: float
    high: float
    p_value: float
    wins: int
    num_seeds: int
    left_out: int

    def __str__(self) -> str:
        """Says in words whether the proposal is better, with the numbers."""
        text = f"{_WORDS[self.outcome].format(self.name)}: "
        if self.num_seeds < MIN_SEEDS:
            text += f"finite seeds: {self.num_seeds}, and {MIN_SEEDS} are needed"
        else:
            text += difference_text(self.gain, self.low, self.high)
            if math.isnan(self.p_value):
                text += f", the same in all of {self.num_seeds} seeds"
            else:
                text += f", p = {self.p_value:.2g}, lower in {self.wins} of {self.num_seeds} seeds"
        return text + (f"; diverged seeds: {self.left_out}" if self.left_out else "")


@dataclasses.dataclass(frozen=True)
class Validation:
    """Holds the verdicts on a proposal; :func:`validate` makes it.

    Attributes:
        proposal: the proposal's name.
        objective: what was to be low.
        seeds: the seeds.
        values: name -> ``[S]``, the objective of each mixture and seed.
        verdicts: the comparison with each of the other mixtures.
    """

    proposal: str
    objective: Objective
    seeds: tuple[int, ...]
    values: dict[str, np.ndarray]
    verdicts: tuple[Verdict, ...]

    @property
    def is_better(self) -> bool:
        """Tells whether the proposal is better than all other mixtures."""
        return all(verdict.outcome == "better" for verdict in self.verdicts)

    def __str__(self) -> str:
        """Says how low the objective of each mixture is, and how the proposal compares with each."""
        lines = []
        for name, values in self.values.items():
            mean, stderr, num = mean_stderr(values)
            lines.append(f"{name}: {self.objective.name} {mean:.5g} ± {stderr:.2g} over {num} seeds")
        return "\n".join([*lines, *(f"{self.proposal} is {verdict}" for verdict in self.verdicts)])


def validate(
    losses: Any,
    objective: Any = None,
    *,
    proposal: str = "proposal",
    seeds: Sequence[int] | None = None,
    used_seeds: Iterable[int] = (),
    metrics: Sequence[str] | None = None,
) -> Validation:
    r"""Judges a proposal by its losses and those of other mixtures on the same fresh seeds.

    With :math:`O_s` the objective in seed s, the verdict on another mixture is Student's test of the differences

    .. math:: d_s = O_s(\text{other}) - O_s(\text{proposal})

    at 5 %, two-sided, with Holm's correction for the number of other mixtures. The probability of any false "better"
    or "worse" is then at most 5 %. The interval of a gain is not corrected: it may leave out 0 where the verdict is
    "not better than noise". Differences that are the same in all seeds, up to rounding, have no noise, and their sign
    decides.

    A mixture that was chosen for its low losses looks better on the runs that it was chosen by. Its losses on other
    seeds do not; the swarm's best run needs them as much as the proposal does.

    Args:
        losses: name -> ``[S, M]``, or ``[S]`` of a single metric, in the same order of seeds; a data frame with columns
            "mixture", "seed" and the metrics; or what :func:`mixjax.design.read_losses` returns. NaN or infinite where
            a run diverged.
        objective: what is to be low, as :func:`mixjax.design.propose` takes it.
        proposal: the name of the mixture to be judged.
        seeds: ``[S]``, the seeds of the arrays; by default 0 and so on.
        used_seeds: the seeds of the swarm, or of any runs by which a mixture was chosen. None of them may be here.
        metrics: ``[M]``, the names of the metrics of arrays; by default "loss_0" and so on.

    Returns:
        The verdicts; as a string, in words.

    Raises:
        TypeError: losses or an objective that are none.
        ValueError: a proposal that has no losses, seeds that the swarm has used, mixtures with different seeds, fewer
            than two mixtures, or an unknown metric.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(3, 8))
        >>> losses = dict(zip(["proposal", "uniform", "swarm_best"], 1.0 + 0.01 * noise))
        >>> losses["uniform"] = losses["uniform"] + 0.1
        >>> found = validate(losses, seeds=range(1000, 1008), used_seeds=range(2))
        >>> [verdict.outcome for verdict in found.verdicts]
        ['better', 'noise']
        >>> print(found.verdicts[0])
        better than uniform: 0.08764 lower (0.08116 to 0.09412), p = 1.5e-08, lower in 8 of 8 seeds
    """
    measured = as_losses(losses, seeds, metrics)
    wanted = as_objective(objective, measured.metrics)
    if proposal not in measured.names:
        raise ValueError(f"proposal must be one of the mixtures, got {proposal!r}; {nearest(proposal, measured.names)}")
    used = sorted(set(as_seeds("used_seeds", used_seeds)) & set(measured.seeds))
    if used:
        raise ValueError(f"seeds must be fresh, but the swarm has used {', '.join(map(str, used[:10]))}.")
    # A metric that does not count may be missing: 0 times NaN would be NaN.
    counted = np.where(wanted.weights == 0, 0.0, measured.values)
    # In the type of the losses, which tells how far they are rounded.
    objectives = wanted.value(counted).astype(measured.values.dtype)
    values = dict(zip(measured.names, objectives, strict=True))
    own = values[proposal]
    tests = {name: paired_difference(other, own) for name, other in values.items() if name != proposal}
    corrected = holm([test.p_value for test in tests.values()])
    verdicts = [
        Verdict(
            name=name,
            outcome=_outcome(test, p_value, len(own)),
            gain=test.mean,
            low=test.low,
            high=test.high,
            p_value=float(p_value),
            wins=int((own < values[name])[np.isfinite(own) & np.isfinite(values[name])].sum()),
            num_seeds=test.num_seeds,
            left_out=len(own) - test.num_seeds,
        )
        for (name, test), p_value in zip(tests.items(), corrected, strict=True)
    ]
    return Validation(proposal, wanted, measured.seeds, values, tuple(verdicts))


def _outcome(
    test: PairedDifference, p_value: float, num_seeds: int
) -> Literal["better", "worse", "noise", "undecided"]:
    # The mean over those that did not diverge says nothing about a mixture where they are no majority.
    if test.num_seeds < MIN_SEEDS or 2 * test.num_seeds <= num_seeds:
        return "undecided"
    # Losses near the largest float have no standard error.
    if not (math.isfinite(test.mean) and math.isfinite(test.stderr)):
        return "undecided"
    # Without a spread there is no test, and a difference that is always the same is no noise.
    if p_value > _LEVEL:
        return "noise"
    return "better" if test.mean > 0 else "worse"

"""The experiment on choosing settings under group shift: which rule chooses decides how much a method seems to help.

WILDS and SubpopBench tune every method by as many trials, choose a trial by validation rows, and name the rule that
chooses. Here each method has the same trials of learning rate and strength on the data of ``group_shift``. In each
split a method's trial is chosen by one of three rules:

- *worst group*: the highest accuracy of the worst group on validation rows, which needs group labels to validate;
- *average*: the highest average accuracy on validation rows, which needs none;
- *oracle*: the highest accuracy of the worst group on the test rows themselves. Nobody can do so; it bounds the others.

The data are those that package registries have: three tables, and a text whose groups are source and label. The
protocol is that of Koh et al., "WILDS", 2021, and of Yang et al., "Change is Hard: A Closer Look at Subpopulation
Shift", 2023 (SubpopBench). Their own images and texts are not here.
"""

import dataclasses
from typing import Literal

import numpy as np

from experiments.hardness_sampling import group_selection_report
from experiments.hardness_sampling.group_shift import GroupShift, Strengths, group_shift
from mixjax.runner.experiment import Experiment

__all__ = ["GroupSelection", "group_selection", "halton"]

# The middle of each method's range of strengths; a trial multiplies it by a factor.
MIDDLE = Strengths(group_dro=0.1, group_kl=3.0)


@dataclasses.dataclass(frozen=True)
class GroupSelection:
    """Holds the settings of one table and one model.

    Attributes:
        table: the name of the table.
        hidden: the number of ReLU units; 0 is logistic regression.
        batch_size: ``B``, at least the number of groups.
        num_steps: ``T``, the number of steps.
        num_trials: the number of settings that each method tries.
        learning_rates: the least and the largest learning rate.
        factors: the least and the largest factor on a method's strength. ERM and equal group weights have no strength,
            and try as many learning rates.
    """

    table: Literal["adult", "compas", "heart", "opinions"] = "heart"
    hidden: int = 0
    batch_size: int = 120
    num_steps: int = 500
    num_trials: int = 16
    learning_rates: tuple[float, float] = (0.003, 3.0)
    factors: tuple[float, float] = (0.1, 10.0)


def halton(num: int, base: int) -> np.ndarray:
    """Returns numbers that cover (0, 1) evenly, however many are taken: van der Corput's sequence.

    Args:
        num: how many.
        base: 2 and 3 together cover the square.

    Returns:
        float64 ``[num]``.

    Example:
        >>> halton(4, 2).tolist()
        [0.5, 0.25, 0.75, 0.125]
    """
    found = np.zeros(num)
    for place in range(num):
        rest, scale = place + 1, 1.0
        while rest:
            scale /= base
            found[place] += scale * (rest % base)
            rest //= base
    return found


def group_selection(config: GroupSelection) -> Experiment:
    """Builds the experiment on one table.

    Raises:
        ValueError: ``num_trials`` is below 2, a range is not two positive numbers in order, or the batch does not fit.
    """
    if config.num_trials < 2:
        raise ValueError(f"num_trials must be at least 2, got {config.num_trials}.")
    for name in ("learning_rates", "factors"):
        low, high = getattr(config, name)
        if not 0 < low <= high:
            raise ValueError(f"{name} must be two positive numbers in order, got {low} and {high}.")

    def spread(bounds, base):
        low, high = bounds
        return (low * (high / low) ** halton(config.num_trials, base)).tolist()

    base = GroupShift(config.table, config.hidden, config.batch_size, config.num_steps, strengths=MIDDLE)
    return dataclasses.replace(
        group_shift(base),
        points={"learning_rate": spread(config.learning_rates, 2), "factor": spread(config.factors, 3)},
        figure=group_selection_report.figure,
        claims=group_selection_report.claims,
        summary=group_selection_report.summary,
    )

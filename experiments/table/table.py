"""Compares pairs of a loss rule and a sampling rule on many problems, each at its best hyperparameters, in one table.

Every pair has the same number of tries on every problem, the points of its grid. The point with the lowest mean
validation loss over the first seeds is judged, by the test error, on the other seeds. Both sets of seeds are in the one
call, and every comparison is with no weighting on the same seeds.
"""

import dataclasses
from typing import Literal

from experiments.table import report
from experiments.table.pairs import Pair, excluded, points
from experiments.table.problems import Gaussians, Groups, Images, Problem, gaussians, groups, images
from experiments.table.runs import run
from mixjax.runner.experiment import Experiment

__all__ = ["Table", "load", "table"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Holds the pairs and, in each run, one problem.

    Attributes:
        pairs: the pairs compared. The first one is no weighting, which all others are compared with.
        learning_rates: factors of the problem's learning rate, crossed with each pair's grid.
        selection_seeds: how many of the first seeds choose each pair's point; the others judge it.
        gaussians: the problem, if it is two Gaussian domains. Exactly one of the three is given.
        images: the problem, if it is an image set in two halves.
        groups: the problem, if it is the groups of a table.
        batch_size: ``B``.
        num_steps: ``T``.
        learning_rate: SGD's step size for the factor 1.
        schedule: constant, or falling to zero along a cosine.
        probe_every: steps between two probes, ``T₀``; the weights move at a probe.
        warmup: fraction of the steps before loss weights move; sampling weights do not wait.
        held_out: points a domain that the rules look at.
        validation: points a domain for the validation loss.
    """

    pairs: tuple[Pair, ...]
    learning_rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    selection_seeds: int = 8
    gaussians: Gaussians | None = None
    images: Images | None = None
    groups: Groups | None = None
    batch_size: int = 16
    num_steps: int = 200
    learning_rate: float = 5e-4
    schedule: Literal["constant", "cosine"] = "constant"
    probe_every: int = 4
    warmup: float = 0.2
    held_out: int = 32
    validation: int = 100


def load(config: Table) -> Problem:
    """Loads the run's problem.

    Raises:
        ValueError: none, or more than one of them.
    """
    makers = {"gaussians": gaussians, "images": images, "groups": groups}
    given = [name for name in makers if getattr(config, name) is not None]
    if len(given) != 1:
        raise ValueError(f"a run needs one of {', '.join(makers)}, got {' and '.join(given) or 'none'}.")
    return makers[given[0]](getattr(config, given[0]), config.held_out, config.validation)


def table(config: Table) -> Experiment:
    """Makes the experiment that trains all pairs on one problem.

    Raises:
        ValueError: no problem or several; grids of different lengths.
    """
    problem = load(config)
    pairs = [pair for pair in config.pairs if not excluded(pair, problem)]

    def train(key, hparams, data):
        return run(key, hparams, data, problem=problem, pairs=pairs, settings=config)

    by_domain = dict.fromkeys(("loss_weights", "sampling_weights"), ("domain",))
    return Experiment(
        train=train,
        data=problem.data,
        points=points(pairs, config.learning_rates),
        dims={"validation": (), "test": (), **by_domain},
        coords={"domain": list(problem.domains)},
        units={"test": problem.error[1], "validation": "loss", "loss_weights": "share", "sampling_weights": "share"},
        figure=lambda results: report.figure(results, config.selection_seeds),
        claims=lambda results: report.claims(results, config.selection_seeds),
        summary=lambda results: report.markdown(results, config.pairs, config.selection_seeds),
    )

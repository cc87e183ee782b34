"""The experiment on imbalanced MNIST with the paper's own model, WRN-16-1: paper 004, section 4.1 and appendix 8.1.

Each step is a program of its own, since convolutions in a compiled loop are many times slower on a CPU. The run may be
killed at any time: the same command goes on from the last saved round.

Batch normalisation meets hardness weighted sampling here. A training batch is normalised by its own statistics, and the
running statistics follow the batches, hence the distribution that is sampled and not that of the data. Frameworks do so
by default, so this is what "accuracy" means here. The metrics ``*_fresh_statistics`` are those of the same network with
statistics measured on training images that are drawn uniformly. The difference between the two is what normalisation
adds to the effect of sampling.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import imbalanced, rare_class
from experiments.hardness_sampling.schemes import Scheme, hardness, shuffled
from experiments.hardness_sampling.wrn_report import METHODS, claims, figure
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop, HostRun, in_rounds

__all__ = ["Wrn", "schemes", "train", "wrn"]


@dataclasses.dataclass(frozen=True)
class Wrn(rare_class.Problem):
    """Holds the settings of the experiment on WRN-16-1.

    Attributes:
        beta: the inverse temperature of both methods of hardness weighted sampling, in 1 / nats.
    """

    beta: float = 10.0


def schemes(config: Wrn, images: rare_class.Images) -> dict[str, Scheme]:
    """Builds the scheme by which each method draws."""
    n, size = rare_class.num_kept(config, images), config.batch_size
    return {
        "erm": shuffled(n, size),
        "wr": hardness(n, size, config.beta, replacement=True),
        "nr": hardness(n, size, config.beta, replacement=False),
    }


def train(run: HostRun, config: Wrn) -> dict[str, np.ndarray]:
    """Trains the methods one after the other, from the last saved round on if the run was killed.

    Returns:
        Metrics ``[method, step]``.
    """
    images, key = jax.tree.map(jnp.asarray, run.data), jax.random.key(run.seed)
    begin = jax.jit(imbalanced.start, static_argnums=(1, 3))
    evaluate = jax.jit(imbalanced.evaluate, static_argnums=(1, 4))
    # Not a scan of steps: in a loop, XLA's convolutions are 15 times slower on a CPU.
    step = jax.jit(imbalanced.step, static_argnums=(1, 4), donate_argnums=0)
    drawn, found = schemes(config, run.data), []
    for number, method in enumerate(METHODS):
        scheme = drawn[method]
        # The split is equal for all methods.
        parts, carry = begin(key, config, images, scheme)

        def advance(carry, _, scheme=scheme, parts=parts):
            batches = []
            for _ in range(config.record_every):
                carry, batch = step(carry, config, images, parts, scheme)
                batches.append(batch)
            seen = jax.tree.map(lambda *values: np.mean(values), *batches)
            return carry, seen | evaluate(carry, config, images, parts, scheme)

        part = run._replace(report=lambda done, number=number: run.report((number + done) / len(METHODS)))
        num = config.num_steps // config.record_every
        found.append(in_rounds(part, lambda carry=carry: carry, advance, num, name=method)[1])
    return {name: np.stack([records[name] for records in found]) for name in found[0]}


def wrn(config: Wrn) -> Experiment:
    """Builds the experiment."""
    fresh = {f"{name}_fresh_statistics": unit for name, unit in imbalanced.EVALUATED.items()}
    units = {**imbalanced.UNITS, **fresh}
    return Experiment(
        train=HostLoop(lambda run: train(run, configs.replace(config, run.hparams))),
        data=rare_class.load(config.rare_class),
        dims=dict.fromkeys(units, ("method", "step")),
        coords={"method": list(METHODS), "step": range(config.record_every, config.num_steps + 1, config.record_every)},
        units=units,
        figure=figure,
        claims=claims,
    )

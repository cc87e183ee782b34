"""The experiment on imbalanced MNIST with the paper's own model, WRN-16-1: paper 004, section 4.1 and appendix 8.1.

There are two ways to run it. On a GPU, ``mixjax run`` computes everything in one go. On a CPU, convolutions in a
compiled loop are many times slower, so that each step is a program of its own, which takes a core a sixth of a second::

    python -m experiments.hardness_sampling.wrn configs/hardness_sampling/wrn.toml

This command may be stopped at any time. It trains the methods in turn, ``record_every`` steps each. After every round
it writes the result so far, and the state from which it goes on when it is called again.

Batch normalisation meets hardness weighted sampling here. A training batch is normalised by its own statistics, and the
running statistics follow the batches, hence the distribution that is sampled and not that of the data. Frameworks do so
by default, so this is what "accuracy" means here. The metrics ``*_fresh_statistics`` are those of the same network with
statistics measured on training images that are drawn uniformly. The difference between the two is what normalisation
adds to the effect of sampling.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import xarray

from experiments.hardness_sampling import imbalanced, rare_class
from experiments.hardness_sampling.schemes import Scheme, hardness, shuffled
from experiments.hardness_sampling.wrn_report import METHODS, claims, figure
from mixjax.runner import configs, results
from mixjax.runner.claims import rows
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import checkpoints
from mixjax.sweeps.keys import bits

__all__ = ["Wrn", "main", "run", "schemes", "train", "write", "wrn"]


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


def train(key, config: Wrn, images: rare_class.Images, drawn: dict[str, Scheme]) -> dict[str, jax.Array]:
    """Trains the methods one after the other, and returns metrics ``[method, step]``."""

    def one(scheme):
        parts, carry = imbalanced.start(key, config, images, scheme)

        def advance(carry, _):
            carry, seen = jax.lax.scan(
                lambda carry, _: imbalanced.step(carry, config, images, parts, scheme),
                carry,
                length=config.record_every,
            )
            return carry, jax.tree.map(jnp.mean, seen) | imbalanced.evaluate(carry, config, images, parts, scheme)

        return jax.lax.scan(advance, carry, length=config.num_steps // config.record_every)[1]

    return jax.tree.map(lambda *records: jnp.stack(records), *(one(drawn[method]) for method in METHODS))


def wrn(config: Wrn) -> Experiment:
    """Builds the experiment that ``mixjax run`` runs in one go."""
    fresh = {f"{name}_fresh_statistics": unit for name, unit in imbalanced.EVALUATED.items()}
    units = {**imbalanced.UNITS, **fresh}
    images = rare_class.load(config.rare_class)
    drawn = schemes(config, images)
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams), data, drawn),
        data=images,
        dims=dict.fromkeys(units, ("method", "step")),
        coords={"method": list(METHODS), "step": range(config.record_every, config.num_steps + 1, config.record_every)},
        units=units,
        figure=figure,
        claims=claims,
    )


def run(path: Path, out: Path, overrides=(), report=print) -> Path:
    """Trains in rounds from where an earlier call stopped, and writes the result after every round.

    Args:
        path: the config.
        out: the result's folder. The state is kept beside it, as a checkpoint in ``<out>.chunks``.
        overrides: changes to the config, as ``mixjax run --set`` takes them.
        report: a function that is called with one line for each round.

    Returns:
        ``out``.

    Raises:
        mixjax.sweeps.checkpoints.ChangedError: ``<out>.chunks`` holds the state of another config.
    """
    config = configs.load(path, overrides)
    values = config.runs[0].values
    experiment = wrn(values)
    rounds = _Rounds(values, experiment, config.sweep.first_seed)
    identity = {"config": configs.as_json(values), "first_seed": config.sweep.first_seed}
    store = checkpoints.Chunks(out.with_name(f"{out.name}.chunks"), identity)
    done, progress = _restore(store, rounds.start())
    steps = np.asarray(experiment.coords["step"])
    for number in range(done, len(steps)):
        begun = time.perf_counter()
        for row, method in enumerate(METHODS):
            found = rounds.advance(progress["carries"], method)
            for name, value in found.items():
                progress["records"][name][row, number] = value
        progress["seconds"] += time.perf_counter() - begun
        _save(store, number + 1, progress)
        write(config, experiment, out, progress, number + 1)
        accuracies = progress["records"]["rare_accuracy"][:, number]
        told = ", ".join(f"{method} {value:.1f}" for method, value in zip(METHODS, accuracies, strict=True))
        report(f"step {steps[number]}, {progress['seconds']:.0f} s: class 3 {told} %", flush=True)
    return out


class _Rounds:
    """Trains the methods a round at a time, each step by a program of its own."""

    def __init__(self, values: Wrn, experiment: Experiment, seed: int):
        self.values, self.experiment = values, experiment
        self.images, self.key = jax.tree.map(jnp.asarray, experiment.data), jax.random.key(seed)
        self.drawn = schemes(values, experiment.data)
        self.step = jax.jit(imbalanced.step, static_argnums=(1, 4))
        self.evaluate = jax.jit(imbalanced.evaluate, static_argnums=(1, 4))
        self.parts = None

    def start(self) -> dict:
        """Returns the progress before the first round: every method's state, no records, and no time spent."""
        begin = jax.jit(imbalanced.start, static_argnums=(1, 3))
        carries = {}
        for method in METHODS:
            # The split is equal for all methods.
            self.parts, carries[method] = begin(self.key, self.values, self.images, self.drawn[method])
        shape = (len(METHODS), len(self.experiment.coords["step"]))
        records = {name: np.full(shape, np.nan, np.float32) for name in self.experiment.units}
        return {"carries": carries, "records": records, "seconds": 0.0}

    def advance(self, carries: dict, method: str) -> dict:
        """Trains a method for one round, writes its new state into ``carries``, and returns its metrics."""
        fixed = self.values, self.images, self.parts, self.drawn[method]
        seen = []
        # Not a scan: in a loop, XLA's convolutions are 15 times slower on a CPU.
        for _ in range(self.values.record_every):
            carries[method], batch = self.step(carries[method], *fixed)
            seen.append(batch)
        found = self.evaluate(carries[method], *fixed)
        return found | jax.tree.map(lambda *x: np.mean(x), *seen)


def _as_tree(progress: dict) -> dict:
    """Returns the progress with arrays as leaves."""
    return progress | {"seconds": np.float64(progress["seconds"])}


def _restore(store: checkpoints.Chunks, progress: dict) -> tuple[int, dict]:
    """Returns the number of rounds done and the progress that was saved, or 0 and the given progress."""
    saved = store.read_carry(0)
    if saved is None:
        return 0, progress
    done, arrays = saved
    leaves, structure = jax.tree.flatten(_as_tree(progress))
    found = structure.unflatten([_like(leaf, arrays[str(i)]) for i, leaf in enumerate(leaves)])
    # Records and seconds are changed in place, on the host.
    records = {name: np.array(values) for name, values in found["records"].items()}
    return done, {"carries": found["carries"], "records": records, "seconds": float(found["seconds"])}


def _save(store: checkpoints.Chunks, done: int, progress: dict) -> None:
    """Saves the progress after a number of rounds."""
    leaves = jax.tree.leaves(_as_tree(progress))
    store.write_carry(0, done, {str(i): bits(leaf) for i, leaf in enumerate(leaves)})


def _like(leaf, array):
    """Returns a saved array as a leaf of the same kind; a key is saved as its bits."""
    return jax.random.wrap_key_data(array) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(array)


def write(config, experiment: Experiment, out: Path, progress: dict, done: int) -> None:
    """Writes the result of the first ``done`` rounds to the folder ``out``."""
    seed = [config.sweep.first_seed]
    coords = {"seed": seed, "method": list(METHODS), "step": list(experiment.coords["step"][:done])}
    variables = {
        name: (("seed", "method", "step"), values[None, :, :done], {"units": experiment.units[name]})
        for name, values in progress["records"].items()
    }
    attrs = {"num_runs": 1, "num_computed": 1, "compile_seconds": 0.0, "run_seconds": progress["seconds"]}
    found = {config.runs[0].name: xarray.Dataset(variables, coords, attrs)}
    results.write(out, config, found, figure=results.render(figure(found)), claims=rows(claims(found)))


def main() -> None:
    """Runs the command ``python -m experiments.hardness_sampling.wrn CONFIG [--out DIR] [--set KEY=VALUE]``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/wrn"))
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    arguments = parser.parse_args()
    # Figures are written to files, on machines without a display as well.
    matplotlib.use("Agg")
    run(arguments.config, arguments.out, arguments.overrides)


if __name__ == "__main__":
    main()

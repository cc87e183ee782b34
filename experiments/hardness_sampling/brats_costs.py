"""Measures what a training step of ``brats.toml`` costs on this machine, and what saving its state costs.

``python -m experiments.hardness_sampling.brats_costs 32 64`` trains the config's network on random volumes, in patches
of 32³ and 64³ voxels. Of the config's own patch it only compiles the step, and estimates the time from the operations,
which XLA counts: on most machines without a GPU that step does not fit the memory.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling.segmentation_training import Segmentation, epoch, start
from mixjax.data.segmentation import CHANNELS, Cases
from mixjax.runner import configs
from mixjax.runner.texts import markdown_table
from mixjax.sweeps.checkpoints import Chunks

__all__ = ["Cost", "main", "save_seconds", "step_cost"]

CONFIG = Path(__file__).parents[2] / "configs" / "hardness_sampling" / "brats.toml"
_CASES, _BETA = 2, 100.0


class Cost(NamedTuple):
    """Holds what a training step costs.

    Attributes:
        patch: the edge of a patch, in voxels.
        operations: floating-point operations, as XLA counts them.
        num_bytes: the memory that the step needs beside its arguments, as XLA plans it.
        seconds: the processor time of each step that was taken.
    """

    patch: int
    operations: float
    num_bytes: int
    seconds: list[float]


def step_cost(settings: Segmentation, patch: int, num_steps: int) -> Cost:
    """Compiles a training step, and takes some.

    Args:
        settings: those of the config.
        patch: the edge of a patch, in voxels.
        num_steps: steps to take; 0 only compiles.
    """
    settings = dataclasses.replace(settings, grid=patch, patch=patch, batches=1, batch_size=min(2, _CASES))

    def step(carry, images, labels):
        cases = Cases(images, labels, jnp.zeros(_CASES, jnp.int32))
        return epoch(carry, settings, cases, jnp.arange(_CASES), _BETA, jnp.bool_(True))

    def begin(key):
        return start(key, settings, _CASES, _BETA)

    key, shape = jax.random.key(0), (_CASES, patch, patch, patch)
    images = jax.ShapeDtypeStruct((*shape, len(CHANNELS)), jnp.float32)
    labels = jax.ShapeDtypeStruct(shape, jnp.int8)
    carry = jax.eval_shape(begin, key)
    program = jax.jit(step, donate_argnums=0).lower(carry, images, labels).compile()
    cost = Cost(patch, program.cost_analysis()["flops"], program.memory_analysis().temp_size_in_bytes, [])
    if num_steps:
        image_key, label_key = jax.random.split(key)
        drawn = jax.random.normal(image_key, images.shape), jax.random.randint(label_key, shape, 0, 4, jnp.int8)
        carry = jax.block_until_ready(jax.jit(begin)(key))
        for _ in range(num_steps):
            begun = time.process_time()
            carry, _ = jax.block_until_ready(program(carry, *drawn))
            cost.seconds.append(time.process_time() - begun)
    return cost


def save_seconds(settings: Segmentation, times: int) -> tuple[int, list[float]]:
    """Saves the state of training as a sweep does.

    Returns:
        The bytes of the state, and the seconds of each save, on the wall.
    """
    carry = jax.eval_shape(lambda key: start(key, settings, _CASES, _BETA), jax.random.key(0))
    sizes = [leaf.size for leaf in jax.tree.leaves(carry)]
    arrays = {f"carry {i}": np.full((1, size), 0.5, np.float32) for i, size in enumerate(sizes)}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        store = Chunks(Path(folder, "chunks"), {"of": "brats_costs"})
        for number in range(times):
            begun = time.perf_counter()
            store.write_carry(0, number + 1, arrays)
            seconds.append(time.perf_counter() - begun)
    return sum(array.nbytes for array in arrays.values()), seconds


def _row(cost: Cost, seconds: str) -> list[str]:
    return [f"{cost.patch}³", f"{cost.operations / 1e9:.3g}", f"{cost.num_bytes / 1e9:.2g}", seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.hardness_sampling.brats_costs", description=__doc__)
    parser.add_argument("patches", type=int, nargs="*", default=[32, 64], help="edges of patches to train on")
    parser.add_argument("--steps", type=int, default=3, help="steps of each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in mixjax run")
    options = parser.parse_args(arguments)
    settings = configs.load(CONFIG, ['folder="none"', *options.set]).runs[0].values
    measured = [step_cost(settings, patch, options.steps) for patch in options.patches]
    rows = [_row(cost, f"{np.median(cost.seconds):.3g}") for cost in measured]
    whole = step_cost(settings, settings.patch, 0)
    estimate = np.median(measured[-1].seconds) * whole.operations / measured[-1].operations
    rows.append(_row(whole, f"{estimate:.2g} (estimate)"))
    header = ["patch", "10⁹ operations a step", "GB", "seconds of processor time a step"]
    num_bytes, seconds = save_seconds(settings, options.steps)
    print("\n".join(markdown_table(header, rows)))
    print(f"\nstate: {num_bytes / 1e6:.0f} MB; a save takes {min(seconds):.2g} to {max(seconds):.2g} s")


if __name__ == "__main__":
    main()

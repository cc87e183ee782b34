"""Times ways to draw hard examples for a PyTorch loader: ``HostBatchSampler``, and ``torch.multinomial``.

The clock counts processor time, since the machine may be doing other work. PyTorch has one thread.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from experiments.benchmarks import draws, pytorch, timing
from mixjax import samplers

__all__ = ["LARGEST_MULTINOMIAL", "batch_sampler", "host_sampler", "run", "torch_softmax", "torch_weights"]

BATCH, SIZES = 64, (10**4, 10**6)
LARGEST_MULTINOMIAL = 2**24
"""The most categories that ``torch.multinomial`` takes."""


def fresh(indices: np.ndarray) -> np.ndarray:
    """Returns the "new losses" of a batch, numbers that depend on its indices and cost little."""
    return np.sin(indices, dtype=np.float32)


def batch_sampler(n: int, replacement: bool) -> Callable[[int], None]:
    """Draws by :class:`mixjax.samplers.HostBatchSampler`, as a loop with a loader does."""
    host = samplers.HostSampler(n, draws.losses_of(n), beta=draws.BETA, replacement=replacement)
    batches = samplers.HostBatchSampler(host, BATCH, 10**9)
    indices = iter(batches)

    def run_steps(steps):
        for _ in range(steps):
            next(indices)
            batch = batches.batch()
            batches.update(batch.step, fresh(batch.indices))

    return run_steps


def host_sampler(n: int, replacement: bool) -> Callable[[int], None]:
    """Draws by :class:`mixjax.samplers.HostSampler` itself."""
    host, key = samplers.HostSampler(n, draws.losses_of(n), beta=draws.BETA, replacement=replacement), 0

    def run_steps(steps):
        nonlocal key
        for _ in range(steps):
            indices, _ = host.sample(key, BATCH)
            host.update(indices, fresh(indices))
            key += 1

    return run_steps


def torch_softmax(n: int, replacement: bool) -> Callable[[int], None]:
    """Draws by ``torch.multinomial`` from the softmax of all losses, computed anew."""
    torch = pytorch.load()
    losses, generator = torch.from_numpy(draws.losses_of(n)), torch.Generator().manual_seed(0)

    def run_steps(steps):
        for _ in range(steps):
            weights = torch.softmax(draws.BETA * losses, 0)
            indices = torch.multinomial(weights, BATCH, replacement, generator=generator)
            losses[indices] = torch.from_numpy(fresh(indices.numpy()))

    return run_steps


def torch_weights(n: int, replacement: bool) -> Callable[[int], None]:
    """Draws by ``torch.multinomial`` from stored weights, of which a batch changes its own: the quickest way."""
    torch = pytorch.load()
    largest = float(draws.losses_of(n).max())
    weights = torch.exp(draws.BETA * (torch.from_numpy(draws.losses_of(n)) - largest))
    generator = torch.Generator().manual_seed(0)

    def run_steps(steps):
        for _ in range(steps):
            indices = torch.multinomial(weights, BATCH, replacement, generator=generator)
            weights[indices] = torch.exp(draws.BETA * (torch.from_numpy(fresh(indices.numpy())) - largest))

    return run_steps


SIDES = {
    "HostBatchSampler": batch_sampler,
    "HostSampler": host_sampler,
    "torch.multinomial, softmax of all losses": torch_softmax,
    "torch.multinomial, stored weights": torch_weights,
}


def beyond(n: int) -> str:
    """Says what ``torch.multinomial`` does with ``n`` categories."""
    torch = pytorch.load()
    try:
        torch.multinomial(torch.ones(n), 1)
    except RuntimeError as error:
        return f"raises: {str(error).splitlines()[0]}"
    return "draws"


def timed(n: int, replacement: bool, repeats: int, seconds: float) -> dict[str, list[float]]:
    """Times the sides in turns, each for about as long; returns microseconds a step."""
    sides, steps = {name: make(n, replacement) for name, make in SIDES.items()}, {}
    for name, side in sides.items():
        side(2)  # the first call compiles where numba is installed
        start = time.process_time()
        side(3)
        steps[name] = max(3, round(3 * seconds / max(time.process_time() - start, 1e-6)))
    took = timing.interleave(
        {name: (lambda side=side, name=name: side(steps[name])) for name, side in sides.items()},
        repeats,
        time.process_time,
    )
    return {name: [1e6 * value / steps[name] for value in values] for name, values in took.items()}


def run(quick: bool) -> timing.Report:
    """Measures all sides, with and without replacement.

    Args:
        quick: small sizes.

    Returns:
        The report, in microseconds of processor time a step.
    """
    torch = pytorch.load()
    torch.set_num_threads(1)
    sizes, repeats, seconds = ((10**3,), 3, 0.01) if quick else (SIZES, 7, 0.15)
    took = {(n, replacement): timed(n, replacement, repeats, seconds) for replacement in (True, False) for n in sizes}
    columns = [f"{'with' if replacement else 'without'} replacement, n = {n:,}" for n, replacement in took]
    rows = [(name, *(timing.summarize(values[name]) for values in took.values())) for name in SIDES]
    n = sizes[-1]
    rival, ours = "torch.multinomial, stored weights", "HostBatchSampler"
    times = {
        replacement: timing.ratios(took[n, replacement][rival], took[n, replacement][ours])
        for replacement in (True, False)
    }
    over = timing.ratios(took[n, True][ours], took[n, True]["HostSampler"])
    text = "\n\n".join(
        [
            f"**A batch of {BATCH}** drawn by stale losses, and its new losses written back. Microseconds of processor "
            f"time, one thread. `HostSampler` ran {'compiled by numba' if 'numba' in sys.modules else 'in NumPy'}:",
            timing.table(["side", *columns], rows),
            f"**More than 2^24 examples**: `torch.multinomial` over {LARGEST_MULTINOMIAL + 1:,} weights "
            f"{beyond(LARGEST_MULTINOMIAL + 1)}. `HostSampler` has no such limit.",
            f"At n = {n:,} the queue of `HostBatchSampler` makes a step take {over} times as long as `HostSampler` "
            "alone. "
            "Trees in C++ and Cython stand in the table of `samplers`.",
        ]
    )
    targets = [
        timing.Target(
            f"quicker than torch.multinomial at n = {n:,}, {'with' if replacement else 'without'} replacement",
            f"the other takes {summary} times as long",
            None if quick else summary.median > 1,
        )
        for replacement, summary in times.items()
    ]
    data = {
        f"n={n} replacement={replacement}": {name: timing.summarize(each)._asdict() for name, each in values.items()}
        for (n, replacement), values in took.items()
    }
    return timing.Report("Hard examples for a PyTorch loader", text, data, targets)

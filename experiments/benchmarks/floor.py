"""Measures how much of the sweep's time is unavoidable: the bytes a run must read, the operations it must do.

The clock is the processor time of all threads, for the sweep as for the memory and the arithmetic.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import figure_1, timing, workers
from experiments.loss_and_sampling_weights import linear

__all__ = ["measure", "rows_and_flops", "run"]

TARGET = 3.0
ROWS = "rows", "copied row by row in random order, NumPy, one core"


def rows_and_flops(config: linear.Linear) -> tuple[int, int]:
    """Counts the rows of ``d`` features that a run reads, and the floating point operations on them.

    A row of a batch is multiplied with the parameters and added to the gradient: ``4 d``. A row of the losses' probe is
    multiplied with the parameters: ``2 d``. One of the probe for ``v`` is also added to a mean gradient, and squared:
    ``6 d``.
    """
    rounds = config.num_steps // config.probe_every
    steps = config.num_steps * config.batch_size
    losses = rounds * 2 * min(config.estimation_size, config.num_examples)
    gradients = rounds * 2 * config.gradient_size
    return steps + losses + gradients, config.dim * (4 * steps + 2 * losses + 6 * gradients)


def readers(array: jax.Array, times: int) -> dict[str, Callable[[], None]]:
    """Returns functions that read the whole matrix ``times`` times, each in its own way."""
    matvec = jax.jit(lambda matrix, vector: matrix @ vector)
    host, ones = np.asarray(array), jnp.ones(array.shape[1])
    host_ones = np.asarray(ones)
    ways = {"JAX matrix times vector": lambda: jax.block_until_ready(matvec(array, ones))}
    if jax.default_backend() == "cpu":
        ways |= {"NumPy matrix times vector": lambda: host @ host_ones, "NumPy sum": host.sum}

    def repeated(way):
        def read():
            for _ in range(times):
                way()

        way()
        return read

    return {name: repeated(way) for name, way in ways.items()}


def row_reader(array: jax.Array, times: int, batch: int = 96) -> Callable[[], None]:
    """Returns a function that copies all rows ``times`` times in random order, a batch at a time, as a gather does.

    NumPy copies them, on one core.
    """
    host, order = np.asarray(array), np.random.default_rng(0).permutation(len(array))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    space = np.empty((batch, array.shape[1]), array.dtype)

    def read():
        for _ in range(times):
            for rows in batches:
                np.take(host, rows, axis=0, out=space[: len(rows)], mode="clip")

    return read


def run(quick: bool = False) -> timing.Report:
    """Measures the sweep, the memory and the arithmetic in turns, in a process of a device a core."""
    with workers.worker(len(workers.cores()), quick) as call:
        return timing.Report("The share of the time that is unavoidable", *call(measure, quick))


def measure(quick: bool) -> tuple[str, dict[str, Any], list[timing.Target]]:
    """Measures all sides, and returns text, data and targets."""
    config, chunk = figure_1.settings(quick)
    data = figure_1.data_sets(config, figure_1.DATA_SETS)
    seeds, repeats, total = (4, 2, 2**24) if quick else (2 * chunk, 7, 2**31)
    cached = jnp.array(data.x[0])
    large = jnp.ones((2**10 if quick else 2**18, 1024))
    square = jnp.ones((1024, 1024))
    multiply = jax.jit(jnp.matmul)
    products = 1 if quick else 50

    def matmul():
        for _ in range(products):
            jax.block_until_ready(multiply(square, square))

    matmul()
    sides = {"sweep": figure_1.sweep_side(config, data, seeds, chunk=chunk), "matmul": matmul}
    sizes = {}
    for kind, array in (("data set", cached), ("large", large)):
        times = max(total // array.nbytes, 1)
        for name, reader in readers(array, times).items():
            sides[kind, name] = reader
            sizes[kind, name] = times * array.nbytes
    times = max(total // 4 // cached.nbytes, 1)
    sides[ROWS], sizes[ROWS] = row_reader(cached, times), times * cached.nbytes
    seconds = timing.interleave(sides, repeats, clock=time.process_time)
    return _report(config, cached, large, seconds, sizes, 6 * seeds, products * 2 * 1024**3)


def _report(config, cached, large, seconds, sizes, runs, matmul_flops):
    rows, flops = rows_and_flops(config)
    run_bytes = 4 * config.dim * rows
    speeds = {key: [size / s for s in seconds[key]] for key, size in sizes.items()}
    best = {
        kind: [max(turn) for turn in zip(*(values for (k, _), values in speeds.items() if k == kind), strict=True)]
        for kind in ("data set", "large")
    }
    rate = [matmul_flops / s for s in seconds["matmul"]]
    per_run = [s / runs for s in seconds["sweep"]]

    last_cache = max(timing.caches().values(), default=0)
    kind = "large" if 0 < last_cache < cached.nbytes else "data set"
    why = "fits" if kind == "data set" else "does not fit"
    floors = [max(run_bytes / b, flops / r) for b, r in zip(best[kind], rate, strict=True)]
    ratio = timing.ratios(per_run, floors)
    lines = [
        (f"read {_mega(array.nbytes)} MB, {name}", f"{_giga(speeds[k, name])} GB/s a core")
        for k, array in (("data set", cached), ("large", large), (ROWS[0], cached))
        for key, name in speeds
        if key == k
    ]
    lines += [
        ("float32 matmul, 1024", f"{_giga(rate)} GFLOP/s a core"),
        ("floor by bytes", f"{timing.summarize([1e3 * run_bytes / b for b in best[kind]])} ms of processor time a run"),
        ("floor by operations", f"{timing.summarize([1e3 * flops / r for r in rate])} ms of processor time a run"),
        ("sweep", f"{timing.summarize([1e3 * s for s in per_run])} ms of processor time a run"),
        ("sweep / floor, within a turn", str(ratio)),
        (
            "for comparison: sweep / copying the run's rows in random order",
            str(timing.ratios(per_run, [run_bytes / speed for speed in speeds[ROWS]])),
        ),
    ]
    text = "\n\n".join(
        [
            f"A run of the benchmark `figure_1` reads {rows} rows of {config.dim} float32 features, "
            f"{_mega(run_bytes)} MB (batches and probes, counted from the config), and does {_mega(flops)} MFLOP on "
            "them. The floor is the larger of the bytes over the bandwidth and the operations over the arithmetic "
            "rate, both measured in the same process in turns with the sweep, by the fastest of the ways tried. All "
            "times are processor time, summed over threads; divided by the cores they are time on all of them. The "
            "bandwidth is that of reading an array as large as "
            f"{'the data set' if kind == 'data set' else '1 GiB'}, in order: a data set ({_mega(cached.nbytes)} MB) "
            f"{why} the last cache ({_mega(last_cache)} MB), and a seed's methods train on it together, one seed after "
            "another. The batches' rows are read in random order. Methods of a seed share their draws, so a row "
            "counted for each of them may come from a nearer cache.",
            timing.table(["measured", "median (least to most)"], lines),
        ]
    )
    data = {
        "rows": rows,
        "bytes": run_bytes,
        "flops": flops,
        "bytes_per_second": {f"{k}, {name}": timing.summarize(v)._asdict() for (k, name), v in speeds.items()},
        "flops_per_second": timing.summarize(rate)._asdict(),
        "sweep_seconds_per_run": timing.summarize(per_run)._asdict(),
        "sweep_over_floor": ratio._asdict(),
        "bandwidth_used": kind,
    }
    target = timing.Target(f"sweep within {TARGET:.0f} times the floor", f"{ratio} times", ratio.median <= TARGET)
    return text, data, [target]


def _mega(value):
    return timing.number(value / 1e6)


def _giga(values):
    return timing.summarize([value / 1e9 for value in values])

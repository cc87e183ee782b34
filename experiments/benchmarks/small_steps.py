"""Takes two sweeps of small steps apart: what their gathers, products, rules, draws and probes take.

The sweeps are the batches of 16 examples of the benchmark ``throughput``, and figure 1's of ``figure_1``. Each part is
left out, or runs alone in a sweep of its own, of the same shapes and as many steps. The clock is the processor time of
all threads.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import mixjax
from experiments.benchmarks import figure_1, roofline, short_runs, timing, workers
from mixjax import rules
from mixjax.sweeps import lowering

__all__ = ["batch_sides", "batch_train", "figure_sides", "gather_bytes", "measure", "run"]

SHARE = 0.5
GATHER, PRODUCTS = "gather alone", "products alone, on rows in the cache"
WHOLE, WITH_TASKS = "whole", "whole, loops cut into XLA's tasks"

TRIED = """What was tried:

- To compile without XLA's tasks within a loop, where each core has a device. The sweep does it now. In a process of one
  device on several cores it would save more, and take the other cores from large arrays.
- To gather the rows that a draw has in each domain once for all methods of figure 1, a third of the bytes, and multiply
  them by the parameters of all methods. That multiplies twice as many rows, and takes as long within a few per cent.
- Not to copy a seed's data set out of all of them, and to compute the norms of a probe's rows as a product: no
  difference.
- Several seeds at once on a device, by `vmap`: slower.
- Products of the batches written as sums: longer, up to twice as long. Compiled for vectors of 512 bits: a few per cent
  less on this processor, and not right for every other."""


def batch_train(problem: short_runs.Problem, gathers: bool, learns: bool) -> Callable:
    """Returns ``problem.train`` with parts left out.

    Args:
        problem: a linear problem with batches.
        gathers: False takes the rows of a run's first step in all steps; no rows are drawn then.
        learns: False takes the mean loss, without domains and a rule.
    """

    def train(key, hparams, data):
        params, rows = problem.start(key)
        state = rules.erma().init(jnp.ones(problem.domains))
        first = jax.tree.map(lambda leaf: leaf[rows[0]], data)

        def step(carry, rows):
            batch = jax.tree.map(lambda leaf: leaf[rows], data) if gathers else first
            if learns:
                return problem.descend(carry, batch, hparams["gamma1"]), None
            params, state = carry
            grads = jax.grad(lambda params: problem.losses(params, *batch).mean())(params)
            return (params - problem.learning_rate * grads, state), None

        (params, state), _ = jax.lax.scan(step, (params, state), rows)
        return {"norm": jnp.linalg.norm(params), "loss_weights": state.weights}

    return train


def _draws(problem):
    return lambda key, hparams, data: {"sum": problem.start(key)[1].sum()}


def _gathers(problem):
    def train(key, hparams, data):
        rows = problem.start(key)[1]
        # carried, so that each step's rows are written
        x, _ = jax.lax.scan(lambda x, rows: (data[0][rows], None), data[0][rows[0]], rows)
        return {"sum": x.sum()}

    return train


def gather_bytes(problem: short_runs.Problem) -> int:
    """Counts the bytes that a step's gather of features reads and writes."""
    return 2 * 4 * problem.rows * problem.widths[0]


def with_tasks(side: Callable[[], Any]) -> Callable[[], Any]:
    """Returns the side, whose program is compiled on its first call, here, as for a device without cores of its own."""
    with mock.patch.object(lowering, "compiler_options", lambda devices: {}):
        side()
    return side


def batch_sides(problem: short_runs.Problem, runs: int, chunk: int) -> dict[str, Callable[[], Any]]:
    """Returns the sides of the problem with batches; each sweeps ``runs`` runs."""

    def side(train):
        axes = {"gamma1": short_runs.GAMMA1}
        seeds, data = runs // len(short_runs.GAMMA1), short_runs.data(problem)
        return functools.partial(mixjax.sweep, train, seeds=seeds, axes=axes, data=data, chunk=chunk, vectorize="vmap")

    return {
        WHOLE: side(batch_train(problem, gathers=True, learns=True)),
        WITH_TASKS: with_tasks(side(batch_train(problem, gathers=True, learns=True))),
        "without the gather and the draws": side(batch_train(problem, gathers=False, learns=True)),
        "without the rule": side(batch_train(problem, gathers=True, learns=False)),
        "without gather, draws and rule": side(batch_train(problem, gathers=False, learns=False)),
        "draws alone": side(_draws(problem)),
        "draws and gather alone": side(_gathers(problem)),
    }


def figure_sides(config: Any, data: Any, seeds: int, chunk: Any) -> dict[str, Callable[[], Any]]:
    """Returns the sides of figure 1's sweep; each sweeps ``seeds`` seeds of 6 methods."""
    methods, batch = 6, config.batch_size

    def side(train):
        return functools.partial(mixjax.sweep, train, seeds=seeds, data=data, chunk=chunk, vectorize="map")

    def own(key, data):
        return data.x[jax.random.key_data(key)[-1] % len(data.x)]

    def gather(key, hparams, data):
        x, size = own(key, data), config.num_examples
        places = jax.random.randint(key, (config.num_steps, batch), 0, size)
        # as methods with different counts share their draws
        first = size * (jnp.arange(batch) >= batch // 3 + jnp.arange(methods)[:, None])
        taken, _ = jax.lax.scan(lambda _, place: (x[first + place], None), x[first], places)
        return {"sum": taken.sum()}

    def products(key, hparams, data):
        x = own(key, data)[: methods * batch].reshape(methods, batch, -1)

        def step(carry, _):
            params, x = carry
            slopes = jnp.einsum("mbd,md->mb", x, params)
            return (params - 1e-9 * jnp.einsum("mb,mbd->md", slopes, x), x), None

        (params, _), _ = jax.lax.scan(step, (jnp.ones((methods, config.dim)), x), length=config.num_steps)
        return {"sum": params.sum()}

    def sweep(config):
        # a function of its own, so that each side has a program of its own
        train = figure_1.trainer(config)
        return side(lambda key, hparams, data: train(key, hparams, data))

    return {
        WHOLE: sweep(config),
        WITH_TASKS: with_tasks(sweep(config)),
        "without probes but one": sweep(dataclasses.replace(config, probe_every=config.num_steps)),
        GATHER: side(gather),
        PRODUCTS: side(products),
    }


def run(quick: bool = False) -> timing.Report:
    """Measures in a process of a device a core."""
    with workers.worker(len(workers.cores()), quick) as call:
        return timing.Report("Small steps, taken apart", *call(measure, quick))


def measure(quick: bool) -> tuple[str, dict[str, Any], list[timing.Target]]:
    """Measures all sides in turns, and returns text, data and targets."""
    problem = short_runs.Problem("batches", 2, (20, 1), 20, 4, 10, 5e-4) if quick else short_runs.problems(False)[1]
    config, chunk = figure_1.settings(quick)
    runs, batch_chunk, seeds, repeats = (8, 8, 2, 2) if quick else (4096, 256, 2 * chunk, 5)
    # warmed up one after the other, since a sweep keeps the last eight programs: the two are timed apart
    need = roofline.demand(problem, max(batch_chunk // len(jax.devices()), 1))
    space = next(4**k for k in range(7, 20) if 4**k >= need.working_set)
    sides = batch_sides(problem, runs, batch_chunk)
    products, product_flops = roofline.product_side(64 if quick else 1024, quick)
    triad, triad_bytes = roofline.triad_side(space, quick)
    batches = _seconds(sides | {"products": products, "triad": triad}, repeats)
    flops = [product_flops / s for s in batches.pop("products")]
    speed = [triad_bytes / s for s in batches.pop("triad")]
    nanoseconds = {name: [1e9 * s / runs / problem.num_steps for s in taken] for name, taken in batches.items()}
    attainable = [1e9 * max(need.flops / f, need.bytes / v) * len(jax.devices()) / batch_chunk
                  for f, v in zip(flops, speed, strict=True)]  # fmt: skip
    share = timing.ratios(attainable, nanoseconds[WHOLE])
    moving = [a - b for a, b in zip(nanoseconds["draws and gather alone"], nanoseconds["draws alone"], strict=True)]
    gathered = timing.summarize([gather_bytes(problem) / ns for ns in moving])

    figure = _seconds(figure_sides(config, figure_1.data_sets(config, figure_1.DATA_SETS), seeds, chunk), repeats)
    each = {name: [1e3 * s / 6 / seeds for s in taken] for name, taken in figure.items()}
    unavoidable = [a + b for a, b in zip(each[GATHER], each[PRODUCTS], strict=True)]
    text = [
        f"**Batches.** {runs} runs of {problem.num_steps} steps of {problem.rows} rows of {problem.widths[0]} "
        f"features, {batch_chunk} runs a call, on {len(jax.devices())} devices, by `vmap`. Nanoseconds of processor "
        "time a step of a run:",
        _table("ns a step of a run", nanoseconds),
        f"The attainable time, the roofline, is {timing.summarize(attainable)} ns, measured in the same turns: XLA's "
        f"count of bytes, at the bandwidth of a triad in as much memory, {timing.summarize([v / 1e9 for v in speed])} "
        f"GB/s a core, or the products at {timing.summarize([f / 1e9 for f in flops])} GFLOP/s a core, whichever takes "
        f"longer. The gather alone moves its bytes at {gathered} GB/s a core: it reads rows of "
        f"{4 * problem.widths[0]} bytes in random order, which a triad does not.",
        f"**Figure 1.** {seeds} seeds of 6 methods, one seed at a time on each device. Milliseconds of processor time "
        "a run:",
        _table("ms a run", each),
        f"Gather and products alone take {timing.summarize(unavoidable)} ms together. A probe reads 264 rows and "
        "multiplies them by the parameters of all methods. Little is left to other parts of a step."
        if not quick
        else "",
        TRIED,
    ]
    data = {
        "batches_ns": _summaries(nanoseconds),
        "attainable_ns": timing.summarize(attainable)._asdict(),
        "gather_gigabytes_per_second": gathered._asdict(),
        "figure_1_ms": _summaries(each),
    }
    statement = f"batches of {problem.rows}: at least {SHARE} of the attainable rate, the roofline"
    return "\n\n".join(text), data, [timing.Target(statement, str(share), share.median >= SHARE)]


def _seconds(sides, repeats):
    for side in sides.values():
        side()
    return timing.interleave(sides, repeats, clock=time.process_time)


def _summaries(values):
    return {name: timing.summarize(one)._asdict() for name, one in values.items()}


def _table(unit, values):
    rows = [(name, timing.summarize(one), timing.ratios(one, values[WHOLE])) for name, one in values.items()]
    return timing.table(["side", unit, "of the whole"], rows)

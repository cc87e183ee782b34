"""Times figure 1's sweep beside a Python loop of jitted steps and beside PyTorch, checked equal on one seed.

PyTorch runs seed by seed, by hand and by autograd, in one process and by joblib in a process a core, and with the seeds
as one batch, by hand, by ``torch.func.vmap`` and by ``torch.compile``. The clock is the processor time of all threads
and processes: time on all cores is what counts, and the clock does not see what else the machine does.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mixjax
from experiments.benchmarks import jitted_loop, joblib_runs, pytorch, timing, torch_batches, workers
from experiments.loss_and_sampling_weights import glm, linear
from mixjax.runner import configs

__all__ = ["DATA_SETS", "data_sets", "describe", "differences", "measure", "run", "settings", "sweep_side", "trainer"]

CONFIG = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights" / "linear.toml"
SETTING = "(100, 1)"
DATA_SETS = 4
TOLERANCE = 1e-3


def settings(quick: bool = False) -> tuple[linear.Linear, int | None]:
    """Returns the configured problem, scaled down where ``quick``, and the sweep's ``chunk``."""
    config = configs.load(CONFIG)
    problem = next(run.values for run in config.runs if run.name == SETTING)
    small = {"dim": 50, "num_examples": 100, "num_steps": 60, "learning_rate": 1e-3, "probe_every": 4}
    small |= {"estimation_size": 20, "gradient_size": 8}
    return dataclasses.replace(problem, **small) if quick else problem, config.sweep.chunk


@functools.cache
def _generator(config: linear.Linear) -> Callable[[jax.Array], glm.Batch]:
    return jax.jit(lambda seed: glm.data_set(jax.random.key(seed), config, linear.label))


def data_sets(config: linear.Linear, number: int) -> glm.Batch:
    """Returns ``number`` data sets, stacked."""
    sets = [_generator(config)(seed) for seed in range(number)]
    return jax.block_until_ready(jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))


_loop = functools.cache(jitted_loop.make)


@functools.cache
def trainer(config: linear.Linear, keep_params: bool = False) -> Callable:
    """Returns ``train(key, hparams, data)`` for ``mixjax.sweep``, which trains all methods on one of the data sets.

    The data set is the one at ``seed mod number of sets``.
    """

    def train(key, hparams, data):
        del hparams
        index = jax.random.key_data(key)[-1] % len(data.target)
        data = jax.tree.map(lambda leaf: leaf[index], data)
        if not keep_params:
            return linear.train_on(data, key, config)
        # as train_on does, which keeps the distance from the truth instead of the parameters
        return glm.train_methods(
            jax.random.split(key)[1],
            config,
            linear.methods(config),
            linear.squared_error,
            glm.finite(data, config),
            lambda params: {"params": params},
        )

    return train


def uniforms(config: linear.Linear, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the uniform random numbers that ``linear.train_on`` uses with ``key``, for steps and for probes."""
    step_key, probe_key = jax.random.split(jax.random.split(key)[1])

    def step(t):
        return jax.random.uniform(jax.random.fold_in(step_key, t), (config.batch_size,))

    def probe(r):
        key = jax.random.split(jax.random.fold_in(probe_key, (r + 1) * config.probe_every))[1]
        return jax.random.uniform(key, (2 * config.gradient_size,))

    rounds = config.num_steps // config.probe_every
    return np.asarray(jax.vmap(step)(jnp.arange(config.num_steps))), np.asarray(jax.vmap(probe)(jnp.arange(rounds)))


def final_params(config: linear.Linear, side: str, data: glm.Batch, key: jax.Array) -> dict[str, np.ndarray]:
    """Returns each method's final parameters, with the random numbers that ``key`` gives the sweep.

    Args:
        config: the problem.
        side: ``"loop"``, ``"PyTorch"`` or ``"PyTorch autograd"``.
        data: one data set.
        key: a ``jax.random.key``.

    Returns:
        ``[d]`` for each key of ``linear.METHODS``.
    """
    if side == "loop":
        return {name: train(data, key)["params"] for name, train in _loop(config).items()}
    torch, autograd = pytorch.load(), side == "PyTorch autograd"
    arrays, draws = (
        tuple(torch.from_numpy(np.array(array)) for array in pair)
        for pair in ((data.x, data.target), uniforms(config, key))
    )
    return {name: pytorch.train(config, name, arrays, draws, autograd=autograd)["params"] for name in linear.METHODS}


def differences(config: linear.Linear, sides: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Returns how far each side's final parameters are from the sweep's, on the same data and random numbers.

    Args:
        config: the problem.
        sides: as :func:`final_params` takes them.
        seed: the seed.

    Returns:
        The largest ``|difference|`` over methods and coordinates, relative to the method's largest coordinate.

    Raises:
        AssertionError: a difference above ``TOLERANCE``: the sides do not do the same.
    """
    data = data_sets(config, 1)
    result = mixjax.sweep(trainer(config, True), seeds=1, first_seed=seed, data=data, chunk=1)
    sweep = dict(zip(linear.METHODS, result.params.values[0, :, -1], strict=True))
    one, found = jax.tree.map(lambda leaf: leaf[0], data), {}
    for side in sides:
        params = final_params(config, side, one, jax.random.key(seed))
        found[side] = max(float(np.abs(params[m] - sweep[m]).max() / np.abs(sweep[m]).max()) for m in linear.METHODS)
        if not found[side] <= TOLERANCE:
            raise AssertionError(f"{side} does not train as the sweep does: largest relative difference {found[side]}.")
    return found


def sweep_side(config: linear.Linear, data: glm.Batch, seeds: int, chunk: int | str) -> Callable[[], Any]:
    """Returns a function that runs the sweep, compiled beforehand."""
    run = functools.partial(mixjax.sweep, trainer(config), data=data, chunk=chunk)
    run(seeds=1)
    return functools.partial(run, seeds=seeds)


def loop_side(config: linear.Linear, data: glm.Batch) -> Callable[[], Any]:
    """Returns a function that runs one seed of all methods in a Python loop of jitted steps, compiled beforehand."""
    trainers, seeds = _loop(config), itertools.count()

    def side():
        key = jax.random.key(next(seeds))
        for train in trainers.values():
            train(data, key)

    side()
    return side


def torch_side(config: linear.Linear, data: Any, autograd: bool) -> Callable[[], Any]:
    """Returns a function that runs one seed of all methods in PyTorch, on one thread."""

    def side():
        for name in linear.METHODS:
            pytorch.train(config, name, data, pytorch.uniforms(config), autograd=autograd)

    return side


def torch_batch_side(config: linear.Linear, data: Any, seeds: int, step: str) -> Callable[[], Any]:
    """Returns a function that runs some seeds of one method at once in PyTorch, on one thread, compiled beforehand."""

    def side(config=config):
        torch_batches.train(config, "fgls_va", data, torch_batches.uniforms(config, seeds), step)

    side(dataclasses.replace(config, num_steps=config.probe_every))
    return side


class Side(NamedTuple):
    """Holds one side of the comparison.

    Attributes:
        call: a function of one turn.
        runs: how many runs a turn has, one seed of one method each.
    """

    call: Callable[[], Any]
    runs: int


def all_sides(
    config: linear.Linear, chunk: int | str, seeds: int, batches: Sequence[int], crew: joblib_runs.Crew
) -> dict[str, Side]:
    """Returns the sweep, the Python loop, and PyTorch seed by seed, by joblib and with some seeds at once."""
    data, torch_data = data_sets(config, DATA_SETS), pytorch.generate(config, 0)
    first = jax.tree.map(lambda leaf: jnp.array(leaf[0]), data)
    sides = {
        "mixjax.sweep": Side(sweep_side(config, data, seeds, chunk), 6 * seeds),
        "Python loop of jitted steps": Side(loop_side(config, first), 6),
        "PyTorch, gradient by hand": Side(torch_side(config, torch_data, False), 6),
        "PyTorch, autograd": Side(torch_side(config, torch_data, True), 6),
    }
    crew.start(config)
    # two seeds for each process
    call = functools.partial(crew.run, config, 2 * crew.processes)
    sides["PyTorch by joblib, gradient by hand"] = Side(call, 12 * crew.processes)
    torch = pytorch.load()
    sets = [torch_data, *(pytorch.generate(config, seed) for seed in range(1, DATA_SETS))]
    stacked = tuple(torch.cat(parts) for parts in zip(*sets, strict=True))
    for number in batches:
        for step in torch_batches.STEPS:
            call = torch_batch_side(config, stacked, number, step)
            sides[f"PyTorch, {number} seeds at once, {step}"] = Side(call, number)
    return sides


def compare(times: dict[str, timing.Summary], speedups: dict[str, timing.Summary]) -> list[timing.Target]:
    """Compares what was asked for with the fastest side of each kind."""
    targets = []
    for kind, threshold in (("loop", 10), ("PyTorch", 8)):
        fastest = min((name for name in times if kind in name), key=lambda name: times[name].median)
        statement = f"a sweep's run takes at most 1/{threshold} of the processor time of the fastest: {fastest}"
        holds = speedups[fastest].median >= threshold
        targets.append(timing.Target(statement, f"{speedups[fastest]} times", holds))
    return targets


def generation_times(config: linear.Linear) -> dict[str, timing.Summary]:
    """Measures milliseconds that a data set takes to draw, by JAX and by PyTorch."""
    sides = {
        "JAX": lambda: jax.block_until_ready(_generator(config)(0)),
        "PyTorch": lambda: pytorch.generate(config, 0),
    }
    seconds = timing.interleave(sides, 3, clock=time.process_time)
    return {name: timing.summarize([1e3 * s for s in values]) for name, values in seconds.items()}


def run(quick: bool = False) -> timing.Report:
    """Checks that the sides train the same, then times them in turns, in a process of a device a core."""
    # fails before anything is measured where PyTorch is missing
    pytorch.load()
    with workers.worker(len(workers.cores()), quick) as call:
        return timing.Report("Figure 1's sweep, side by side", *call(measure, quick))


def measure(quick: bool) -> tuple[str, dict[str, Any], list[timing.Target]]:
    """Measures all sides, and returns text, data and targets."""
    pytorch.load().set_num_threads(1)
    config, chunk = settings(quick)
    seeds, repeats, batches = (8, 2, (2,)) if quick else (24, 3, (4, 16))
    same = differences(config, ("loop", "PyTorch", "PyTorch autograd"))
    crew = joblib_runs.Crew(len(workers.cores()))
    sides = all_sides(config, chunk, seeds, batches, crew)
    seconds = timing.interleave({name: side.call for name, side in sides.items()}, repeats, clock=crew.seconds)
    crew.close()

    per_run = {name: [1e3 * s / sides[name].runs for s in values] for name, values in seconds.items()}
    times = {name: timing.summarize(values) for name, values in per_run.items()}
    speedups = {name: timing.ratios(values, per_run["mixjax.sweep"]) for name, values in per_run.items()}
    generation = generation_times(config)
    text = [
        f"Figure 1, setting {SETTING}: {describe(config)}. A run is one seed of one method. The sweep runs {seeds} "
        f"seeds of 6 methods, {chunk} seeds a compiled call, on {DATA_SETS} data sets in turn (its time "
        f"includes picking the data set, a copy), on {len(jax.devices())} devices. The others run one seed of the 6 "
        "methods, or some seeds of one method at once, on one thread. The times are processor time, summed over "
        "threads and processes: divided by the cores they are what a run takes where all cores are at work, the rivals "
        f"in a process a core. joblib has {crew.processes} processes, and its time includes handing the runs out. "
        "Compilation, the start of its processes and warm-up are not timed. Ratios are within a turn.",
        timing.table(
            ["side", "runs a turn", "ms of processor time a run, median (least to most)", "times the sweep's"],
            [(name, side.runs, times[name], speedups[name]) for name, side in sides.items()],
        ),
        "Same mathematics: fed the same uniform random numbers on one seed, the final parameters of all 6 methods "
        "differ from the sweep's by at most (relative to the largest coordinate) "
        + ", ".join(f"{value:.1e} ({side})" for side, value in same.items())
        + ". For timing each side draws its own. Seeds at once in PyTorch are tested to equal its runs one by one.",
        "Data generation, timed apart, ms a data set: "
        + ", ".join(f"{name} {value}" for name, value in generation.items())
        + ".",
    ]
    data = {
        "ms_per_run": {name: value._asdict() for name, value in times.items()},
        "times_the_sweep": {name: value._asdict() for name, value in speedups.items()},
        "largest_relative_difference": same,
        "generation_ms": {name: value._asdict() for name, value in generation.items()},
        "seeds": seeds,
        "config": dataclasses.asdict(config),
    }
    return "\n\n".join(text), data, compare(times, speedups)


def describe(config: linear.Linear) -> str:
    """Returns the problem's sizes, for a reader."""
    return (
        f"d = {config.dim}, {config.num_examples} examples a domain, {config.num_steps} steps of B = "
        f"{config.batch_size}, a probe every {config.probe_every} (losses on {config.estimation_size} points a domain, "
        f"v on {config.gradient_size})"
    )

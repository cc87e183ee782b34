"""(a) Figure 1's sweep beside a Python loop of jitted steps and beside PyTorch eager, checked equal on one seed."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mixjax
from experiments import glm, linear
from experiments.benchmarks import jitted_loop, pytorch, timing
from mixjax import configs

CONFIG = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights" / "linear.toml"
SETTING = "(100, 1)"
DATA_SETS = 4
TOLERANCE = 1e-3


def settings(quick: bool = False) -> tuple[linear.Linear, int | None]:
    """The configured problem (scaled down where ``quick``) and the sweep's ``batch_size``."""
    config = configs.load(CONFIG)
    problem = next(run.values for run in config.runs if run.name == SETTING)
    small = {"dim": 50, "num_examples": 100, "num_steps": 60, "learning_rate": 1e-3, "probe_every": 4}
    small |= {"estimation_size": 20, "gradient_size": 8}
    return dataclasses.replace(problem, **small) if quick else problem, config.sweep.batch_size


@functools.cache
def _generator(config: linear.Linear) -> Callable[[jax.Array], glm.Batch]:
    return jax.jit(lambda seed: glm.data_set(jax.random.key(seed), config, linear.label))


def data_sets(config: linear.Linear, number: int) -> glm.Batch:
    """``number`` data sets, stacked."""
    sets = [_generator(config)(seed) for seed in range(number)]
    return jax.block_until_ready(jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))


@functools.cache
def trainer(config: linear.Linear, keep_params: bool = False) -> Callable:
    """``train(key, hparams, data)`` for ``mixjax.sweep``: all methods on the data set ``seed mod number of sets``."""

    def train(key, hparams, data):
        del hparams
        index = jax.random.key_data(key)[-1] % len(data.target)
        data = jax.tree.map(lambda leaf: leaf[index], data)
        if not keep_params:
            return linear.train_on(data, key, config)
        return glm.train_methods(  # as train_on, which keeps the distance from the truth instead
            jax.random.split(key)[1],
            config,
            linear.methods(config),
            linear.squared_error,
            glm.finite(data, config),
            lambda params: {"params": params},
        )

    return train


def uniforms(config: linear.Linear, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The uniform random numbers that ``linear.train_on`` uses with ``key``: for the steps, and for the probes."""
    step_key, probe_key = jax.random.split(jax.random.split(key)[1])

    def step(t):
        return jax.random.uniform(jax.random.fold_in(step_key, t), (config.batch_size,))

    def probe(r):
        key = jax.random.split(jax.random.fold_in(probe_key, r))[1]
        return jax.random.uniform(key, (2 * config.gradient_size,))

    rounds = config.num_steps // config.probe_every
    return np.asarray(jax.vmap(step)(jnp.arange(config.num_steps))), np.asarray(jax.vmap(probe)(jnp.arange(rounds)))


def final_params(config: linear.Linear, side: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Each method's final parameters on the data set and with the random numbers of one seed.

    Args:
        config: the problem.
        side: ``"sweep"``, ``"loop"``, ``"pytorch"`` or ``"pytorch autograd"``.
        seed: the seed.

    Returns:
        ``[d]`` for each key of ``linear.METHODS``.
    """
    data, key = data_sets(config, 1), jax.random.key(seed)
    one = jax.tree.map(lambda leaf: leaf[0], data)
    if side == "sweep":
        result = mixjax.sweep(trainer(config, True), seeds=1, first_seed=seed, data=data, batch_size=1)
        return dict(zip(linear.METHODS, result.params.values[0, :, -1], strict=True))
    if side == "loop":
        return {name: train(one, key)["params"] for name, train in jitted_loop.make(config).items()}
    torch = pytorch.load()
    arrays, draws = (
        tuple(torch.from_numpy(np.array(array)) for array in pair)
        for pair in ((one.x, one.target), uniforms(config, key))
    )
    autograd = side == "pytorch autograd"
    return {name: pytorch.train(config, name, arrays, draws, autograd=autograd)["params"] for name in linear.METHODS}


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest ``|a - b|`` over methods and coordinates, relative to the largest ``|b|`` of the method."""
    return max(float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in linear.METHODS)


def sweep_side(config: linear.Linear, data: glm.Batch, seeds: int, **options: Any) -> Callable[[], Any]:
    """A function that runs the sweep; compiled beforehand."""
    run = functools.partial(mixjax.sweep, trainer(config), data=data, **options)
    run(seeds=1)
    return functools.partial(run, seeds=seeds)


def run(quick: bool = False) -> timing.Report:
    """Checks the sides equal, then times them in turns."""
    torch = pytorch.load()
    config, batch_size = settings(quick)
    seeds, repeats = (8, 2) if quick else (100, 5)

    reference = final_params(config, "sweep")
    differences = {
        side: largest_difference(final_params(config, side), reference)
        for side in ("loop", "pytorch", "pytorch autograd")
    }
    if max(differences.values()) > TOLERANCE:
        raise AssertionError(f"the sides do not train the same: largest relative differences {differences}.")

    data = data_sets(config, DATA_SETS)
    one = jax.tree.map(lambda leaf: jnp.array(leaf[0]), data)
    loop = jitted_loop.make(config)
    torch_data = pytorch.generate(config, 0)
    keys = iter(range(10**9))

    def loop_side():
        key = jax.random.key(next(keys))
        for train in loop.values():
            train(one, key)

    def torch_side(threads, autograd, methods):
        def side():
            torch.set_num_threads(threads)
            for name in methods:
                pytorch.train(config, name, torch_data, pytorch.uniforms(config), autograd=autograd)

        return side

    everything, two = tuple(linear.METHODS), ("vanilla", "fgls_va")
    sides = {  # name: (function, runs in a call)
        "mixjax.sweep": (sweep_side(config, data, seeds, batch_size=batch_size), 6 * seeds),
        "mixjax.sweep, vmap": (sweep_side(config, data, seeds // 4, batch_size=batch_size, vectorize="vmap"), 6 * (seeds // 4)),
        "Python loop of jitted steps": (loop_side, 6),
        "PyTorch, gradient by hand, 1 thread": (torch_side(1, False, everything), 6),
        "PyTorch, gradient by hand, 2 threads": (torch_side(2, False, two), 2),
        "PyTorch, autograd, 1 thread": (torch_side(1, True, everything), 6),
        "PyTorch, autograd, 2 threads": (torch_side(2, True, two), 2),
    }
    for name, (side, _) in sides.items():
        if "sweep" not in name:
            side()  # compiles, warms up
    seconds = timing.interleave({name: side for name, (side, _) in sides.items()}, repeats)
    per_run = {name: [1e3 * s / sides[name][1] for s in values] for name, values in seconds.items()}
    ours = per_run["mixjax.sweep"]
    summaries = {name: timing.summarize(values) for name, values in per_run.items()}
    speedups = {name: timing.ratios(values, ours) for name, values in per_run.items()}

    fastest = {
        kind: min((name for name in sides if kind in name), key=lambda name: summaries[name].median)
        for kind in ("loop", "by hand", "autograd")
    }
    targets = [
        timing.Target(
            "a",
            f"sweep at least {threshold} times faster than {fastest[kind]}",
            f"{speedups[fastest[kind]]} times",
            speedups[fastest[kind]].median >= threshold,
        )
        for kind, threshold in (("loop", 10), ("by hand", 80), ("autograd", 80))
    ]
    rows = [(name, sides[name][1], summaries[name], speedups[name]) for name in sides]
    generation = {"JAX": _seconds(lambda: jax.block_until_ready(_generator(config)(0)))}
    generation["PyTorch"] = _seconds(lambda: pytorch.generate(config, 0))
    text = "\n\n".join(
        [
            f"Figure 1, setting {SETTING}: {describe(config)}. A run is one seed of one method. The sweep runs {seeds} "
            f"seeds of 6 methods, {batch_size} seeds a compiled call, on {DATA_SETS} data sets in turn (its time "
            "includes picking the data set, a copy). The others run one seed of the methods (2 of 6 methods where the "
            "runs in a call say so), since they take one run at a time: their cost does not depend on the number of "
            "runs. Compilation and warm-up are not timed. Ratios are within a turn.",
            timing.table(["side", "runs a turn", "ms a run: median (least to most)", "times the sweep's"], rows),
            "Same mathematics: fed the same uniform random numbers on one seed, the final parameters of all 6 methods "
            "differ from the sweep's by at most (relative to the largest coordinate) "
            + ", ".join(f"{value:.1e} ({side})" for side, value in differences.items())
            + ". For timing each side draws its own.",
            "Data generation, timed apart, ms a data set: "
            + ", ".join(f"{name} {timing.number(value)}" for name, value in generation.items())
            + ".",
        ]
    )
    data = {
        "ms_per_run": {name: value._asdict() for name, value in summaries.items()},
        "times_the_sweep": {name: value._asdict() for name, value in speedups.items()},
        "largest_relative_difference": differences,
        "generation_ms": generation,
        "seeds": seeds,
        "config": dataclasses.asdict(config),
    }
    return timing.Report("Figure 1's sweep, side by side", text, data, targets)


def describe(config):
    return (
        f"d = {config.dim}, {config.num_examples} examples a domain, {config.num_steps} steps of B = "
        f"{config.batch_size}, a probe every {config.probe_every} (losses on {config.estimation_size} points a domain, "
        f"v on {config.gradient_size})"
    )


def _seconds(function):
    function()
    start = time.perf_counter()
    for _ in range(3):
        function()
    return 1e3 * (time.perf_counter() - start) / 3

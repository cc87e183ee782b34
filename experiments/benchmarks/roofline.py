"""Measures what the machine can do at most, and draws the sweeps' steps below it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mixjax
from experiments.benchmarks import short_runs, timing
from experiments.benchmarks.short_runs import Problem

__all__ = ["Point", "bandwidth", "demand", "figure", "peaks", "product_side", "sweep_alone"]


class Point(NamedTuple):
    """Places a sweep in the figure.

    Attributes:
        label: for the legend.
        intensity: floating point operations a byte.
        rate: floating point operations a second.
    """

    label: str
    intensity: float
    rate: float


class Demand(NamedTuple):
    """Holds what a step of all runs of a device asks of the machine.

    Attributes:
        flops: the operations of its matrix products.
        bytes: what its operations read and write, by XLA's analysis, from whatever cache.
        working_set: bytes of arguments, results and temporaries.
    """

    flops: float
    bytes: float
    working_set: float


def demand(problem: Problem, rows: int) -> Demand:
    """Returns what one step asks for, compiled alone.

    XLA's analysis counts a loop's body once, so the step is measured outside its loop.

    Args:
        problem: the problem whose step it is.
        rows: runs under one ``vmap``, as many as a device has; 1 for ``"map"``.
    """

    keys = jax.random.split(jax.random.key(0), rows)
    params, chosen = jax.vmap(problem.start)(keys)
    state = jax.vmap(lambda _: mixjax.rules.erma().init(jnp.ones(problem.domains)))(keys)
    arguments = (params, state), chosen[:, 0], jnp.zeros(rows), short_runs.data(problem)
    step = jax.jit(jax.vmap(problem.step, in_axes=(0, 0, 0, None)), donate_argnums=0)
    compiled = step.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return Demand(rows * problem.product_flops, compiled.cost_analysis()["bytes accessed"], held)


@functools.cache
def products_alone(problem: Problem) -> Callable:
    """Returns a ``train`` that does the matrix products of ``problem``'s steps, of the same shapes, and nothing else.

    Each product's result is an operand of the next step's, so that XLA can leave none out. All numbers are 0. The
    operands are a run's own where they are a run's own in ``problem``.
    """
    sizes = list(zip(problem.widths[:-1], problem.widths[1:], strict=True))

    def train(key, hparams, data):
        del hparams
        # a zero that depends on the key, so that vmap gives every run operands of its own
        own = data["zero"] * jax.random.uniform(key)

        def full(*shape):
            return jnp.broadcast_to(own, shape[: 1 if problem.linear and shape[1:] == (1,) else 2])

        layers = [(full(problem.rows, m), full(m, n), full(problem.rows, n)) for m, n in sizes]
        if not problem.batch:
            layers[0] = (data["x"], *layers[0][1:])

        def step(layers, _):
            return [
                (cotangent @ kernel.T if i else x, x.T @ cotangent, x @ kernel)
                for i, (x, kernel, cotangent) in enumerate(layers)
            ], None

        layers, _ = jax.lax.scan(step, layers, length=problem.num_steps)
        return {"sum": sum(kernel.sum() + cotangent.sum() for _, kernel, cotangent in layers)}

    return train


def sweep_alone(problem: Problem, runs: int, chunk: int, vectorize: str):
    """Runs a sweep of :func:`products_alone`."""
    x = jnp.zeros((problem.rows, problem.widths[0]))
    given = {"zero": jnp.float32(0), "x": x}
    return mixjax.sweep(products_alone(problem), seeds=runs, data=given, chunk=chunk, vectorize=vectorize)


@functools.cache
def _on_devices(function, times):
    """Compiles ``function(times, arrays)`` for the arrays of each device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    split = jax.sharding.PartitionSpec("rows")

    def own(arrays):
        return function(times, arrays[0])[None]

    return jax.jit(jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split, check_vma=False))


def _side(function, times, arrays):
    run = _on_devices(function, times)
    jax.block_until_ready(run(arrays))
    return lambda: jax.block_until_ready(run(arrays))


def _multiplied(times, matrix):
    return jax.lax.fori_loop(0, times, lambda _, x: x @ x, matrix)


def _triad(times, arrays):
    return jax.lax.fori_loop(0, times, lambda _, xz: (xz[0], xz[0] + 0.5 * xz[1]), (arrays[0], arrays[1]))[1]


def product_side(size: int, quick: bool) -> tuple[Callable[[], Any], float]:
    """Returns a function that multiplies float32 matrices, ``x <- x x``, on every device, and its operations."""
    count = len(jax.devices())
    times = 2 if quick else max(2 * 10**10 // (2 * size**3), 1)
    return _side(_multiplied, times, jnp.full((count, size, size), 1 / size)), count * times * 2 * size**3


def triad_side(space: int, quick: bool) -> tuple[Callable[[], Any], float]:
    """Returns a function that computes the triad ``z <- x + s z`` on every device, and the bytes it moves.

    The arrays take ``space`` bytes on a device, and a number moves 12.
    """
    count, length = len(jax.devices()), space // 8
    times = max((10**7 if quick else 4 * 10**9) // (12 * length), 1)
    return _side(_triad, times, jnp.ones((count, 2, length))), count * times * 12 * length


def peaks(quick: bool) -> dict[str, dict[int, dict[str, Any]]]:
    """Measures operations a second of matrix products by size, and bytes a second of triads by bytes a device."""
    sizes, spaces = ((64, 128), (2**14, 2**20)) if quick else ((512, 1024, 2048), tuple(4**k for k in range(7, 15)))
    sides = {("products", size): product_side(size, quick) for size in sizes}
    sides |= {("triad", space): triad_side(space, quick) for space in spaces}
    seconds = timing.interleave({key: side for key, (side, _) in sides.items()}, 2 if quick else 5)
    found = {"products": {}, "triad": {}}
    for key, values in seconds.items():
        found[key[0]][key[1]] = timing.summarize([sides[key][1] / s for s in values])._asdict()
    return found


def bandwidth(triads: dict[int, dict[str, Any]], working_set: float) -> float:
    """Returns the bandwidth of the least space measured that holds a working set, or of the largest."""
    space = min((space for space in triads if space >= working_set), default=max(triads))
    return triads[space]["median"]


def figure(points: Sequence[Point], ceilings: dict[str, float], bandwidths: dict[str, float], device: str) -> Any:
    """Draws the roofline, ``min(product rate, intensity times bandwidth)``, and the sweeps below it.

    Args:
        points: the sweeps.
        ceilings: rates of products, operations a second, by name.
        bandwidths: bytes a second, by name.
        device: for the title.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(9, 5), layout="constrained")
    axes = made.subplots()
    left = min(point.intensity for point in points) / 3
    right = max(3 * max(point.intensity for point in points), 3 * max(ceilings.values()) / min(bandwidths.values()))
    x, top = np.geomspace(left, right, 200), max(ceilings.values())
    for number, (name, speed) in enumerate(bandwidths.items()):
        line = np.minimum(top, x * speed) / 1e9
        axes.plot(x, line, f"C{number}", label=f"{name}: {timing.number(speed / 1e9)} GB/s")
    for style, (name, rate) in zip(("-", "--"), ceilings.items(), strict=False):
        axes.axhline(rate / 1e9, color="black", ls=style, lw=1, label=f"{name}: {timing.number(rate / 1e9)} GFLOP/s")
    # points come in pairs, one problem's "map" and "vmap"
    for number, point in enumerate(points):
        style = {"ls": "", "color": f"C{4 + number // 2}"}
        style |= {"marker": "o", "ms": 6} if number % 2 == 0 else {"marker": "s", "ms": 9, "mfc": "none"}
        axes.plot(point.intensity, point.rate / 1e9, label=point.label, **style)
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    axes.set(xlabel="matrix products' operations a byte moved, FLOP/byte", ylabel="matrix products, GFLOP/s")
    axes.set_title(f"Sweeps under the roofline of {device}")
    axes.grid(alpha=0.3)
    made.legend(loc="outside right upper", fontsize="small", handlelength=1.5)
    return made

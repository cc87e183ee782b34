"""Compares a training step that is called from the host with the same steps in a compiled loop, for four networks."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.benchmarks import timing
from experiments.hardness_sampling import classifiers, dice, unet

__all__ = ["NETWORKS", "SIDES", "Network", "programs", "run"]

SIDES = ("one call a step", "`lax.scan`", "`lax.scan`, unrolled")
UNROLLED = 4
LEARNING_RATE = 1e-3
PATCH, CHANNELS, CLASSES = 24, 4, 4


class Network(NamedTuple):
    """Describes a network to train.

    Attributes:
        loss: ``loss(params, x, y) -> scalar``.
        params: pytree.
        x: the inputs of a batch.
        y: its labels.
        steps: number of steps in the compiled loop.
    """

    loss: Callable
    params: Any
    x: jax.Array
    y: jax.Array
    steps: int


def _classifier(name: str, batch_size: int, steps: int) -> Network:
    model = classifiers.build(name)
    params, stats = model.init(jax.random.key(0))

    def loss(params, x, y):
        return model.train_losses(params, stats, x, y)[0].mean()

    x = jax.random.normal(jax.random.key(1), (batch_size, classifiers.SIDE**2))
    return Network(loss, params, x, jnp.arange(batch_size) % classifiers.NUM_CLASSES, steps)


def _convolutions(batch_size: int, steps: int) -> Network:
    """Makes a network of two 3 x 3 convolutions of stride 2, by XLA's own convolution, and a linear layer."""
    shapes = (3, 3, 1, 16), (3, 3, 16, 32), (7 * 7 * 32, classifiers.NUM_CLASSES)
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = [0.1 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def loss(params, x, y):
        *kernels, last = params
        for kernel in kernels:
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=dims))
        scores = x.reshape(len(x), -1) @ last
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    x = jax.random.normal(jax.random.key(1), (batch_size, classifiers.SIDE, classifiers.SIDE, 1))
    return Network(loss, params, x, jnp.arange(batch_size) % classifiers.NUM_CLASSES, steps)


def _volumes(batch_size: int, steps: int) -> Network:
    """Makes the U-Net of the segmentation experiment; on a CPU it convolves by planes, with gradients of its own."""
    net = unet.UNet(CHANNELS, CLASSES, unet.widths(3, 8), 2, jax.random.key(0))
    graph, params = nnx.split(net)

    def loss(params, x, y):
        return dice.losses(nnx.merge(graph, params)(x), y).mean()

    shape = (batch_size, PATCH, PATCH, PATCH)
    x = jax.random.normal(jax.random.key(1), (*shape, CHANNELS))
    return Network(loss, params, x, jnp.zeros(shape, jnp.int8), steps)


NETWORKS: dict[str, Callable[[], Network]] = {
    "MLP 784-256-10, 64 images": lambda: _classifier("mlp", 64, 64),
    "two convolutions, 64 images": lambda: _convolutions(64, 8),
    "WRN-16-1, 16 images": lambda: _classifier("wrn", 16, 2),
    "3-D U-Net, 2 patches of 24³": lambda: _volumes(2, 2),
}
"""The first one has no convolutions."""


def programs(network: Network) -> dict[str, tuple[Callable, int]]:
    """Makes the programs of the three sides: ``program(params, x, y) -> params``, and the number of its steps."""
    gradient = jax.grad(network.loss)

    def step(params, x, y):
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient(params, x, y))

    def loop(params, x, y, length, unroll):
        return jax.lax.scan(lambda params, _: (step(params, x, y), None), params, length=length, unroll=unroll)[0]

    lengths = 1, network.steps, UNROLLED
    functions = (
        step,
        functools.partial(loop, length=network.steps, unroll=1),
        # Of a loop that is as long as it is unrolled, no loop is left.
        functools.partial(loop, length=UNROLLED, unroll=UNROLLED),
    )
    return {
        side: (jax.jit(function, donate_argnums=0), length)
        for side, function, length in zip(SIDES, functions, lengths, strict=True)
    }


def measured(network: Network, seconds: float, repeats: int) -> dict[str, Any]:
    """Measures each side of one network.

    Args:
        network: the network.
        seconds: how long a turn of each side takes, at least one call.
        repeats: number of turns.

    Returns:
        "compile": seconds by side. "step": processor time of a step by side, milliseconds, one number a turn.
    """
    compile_seconds, turns, num_steps = {}, {}, {}
    for side, (program, length) in programs(network).items():
        start = time.perf_counter()
        compiled = program.lower(network.params, network.x, network.y).compile()
        compile_seconds[side] = time.perf_counter() - start
        held = [jax.tree.map(jnp.copy, network.params)]

        def call(count, compiled=compiled, held=held):
            for _ in range(count):
                held[0] = compiled(held[0], network.x, network.y)
            jax.block_until_ready(held[0])

        call(1)
        start = time.perf_counter()
        call(1)
        count = max(round(seconds / (time.perf_counter() - start)), 1)
        turns[side], num_steps[side] = functools.partial(call, count), count * length
    found = timing.interleave(turns, repeats, time.process_time)
    return {
        "compile": compile_seconds,
        "step": {side: [1e3 * value / num_steps[side] for value in values] for side, values in found.items()},
    }


def run(quick: bool) -> timing.Report:
    """Measures all networks, or the small ones where it is to be quick."""
    names = list(NETWORKS)[:2] if quick else list(NETWORKS)
    seconds, repeats = (0.01, 2) if quick else (1.0, 5)
    found = {name: measured(NETWORKS[name](), seconds, repeats) for name in names}
    called, looped, unrolled = SIDES
    slower = {
        name: {side: timing.ratios(one["step"][side], one["step"][called]) for side in (looped, unrolled)}
        for name, one in found.items()
    }
    with_convolutions = names[1:]
    worst = min(with_convolutions, key=lambda name: slower[name][looped].median)
    least = slower[worst][looped]
    target = timing.Target(
        "a step of a network with convolutions takes no longer in a call of its own than in a compiled loop",
        f"in a loop it takes {least} times as long, or longer ({worst})",
        None if quick else least.median >= 1,
    )
    rows = [
        (name, *(timing.summarize(one["step"][side]) for side in SIDES), *slower[name].values())
        for name, one in found.items()
    ]
    compiling = [(name, *(timing.number(one["compile"][side]) for side in SIDES)) for name, one in found.items()]
    text = [
        "A training step with plain SGD: called from the host, its parameters donated; the same steps in `lax.scan`; "
        f"and {UNROLLED} of them in `lax.scan(unroll={UNROLLED})`, which leaves no loop. Processor time of all "
        "threads, milliseconds a step, and how many times as long as the call:",
        timing.table(["network", *SIDES, f"{looped}, times", f"{unrolled}, times"], rows),
        "Seconds to compile:",
        timing.table(["network", *SIDES], compiling),
        "Outside of loops XLA rewrites convolutions and their gradients for the fast kernel that it has on a CPU. "
        "Inside it does not. The U-Net has its gradients written out in the form that this kernel takes, see "
        "`unet.convolve_planes`.",
    ]
    return timing.Report("Steps called from the host, and in a compiled loop", "\n\n".join(text), found, [target])

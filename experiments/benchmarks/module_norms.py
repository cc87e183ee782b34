"""Times norms of flax modules beside a plain backward pass and vmap(grad), and counts the memory they take."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.benchmarks import norms, timing
from mixjax import grad_norms

__all__ = ["Decoder", "Images", "Perceptron", "run"]


class Perceptron(nnx.Module):
    """Classifies vectors by ReLU layers."""

    def __init__(self, widths: tuple[int, ...], rngs: nnx.Rngs):
        """Makes a layer between each two widths."""
        pairs = itertools.pairwise(widths)
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits."""
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class Images(nnx.Module):
    """Classifies images by convolutions of stride 1 and 2 with group norms, and a mean over places."""

    def __init__(self, widths: tuple[int, ...], channels: int, rngs: nnx.Rngs):
        """Makes a convolution and a norm for each width; the first has stride 1."""
        sizes = zip((channels, *widths[:-1]), widths, strict=True)
        strides = (1, *[2] * (len(widths) - 1))
        self.convs = nnx.List(
            [nnx.Conv(*pair, (3, 3), strides=stride, rngs=rngs) for pair, stride in zip(sizes, strides, strict=True)]
        )
        self.norms = nnx.List([nnx.GroupNorm(width, num_groups=4, rngs=rngs) for width in widths])
        self.head = nnx.Linear(widths[-1], 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return self.head(x.mean(axis=(1, 2)))


class Block(nnx.Module):
    """Mixes tokens by attention, and their features by two layers."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        """Makes a layer of a decoder."""
        self.first, self.second = nnx.RMSNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the features after the layer."""
        x = x + self.attention(self.first(x), is_causal=True)
        return x + self.down(nnx.gelu(self.up(self.second(x))))


class Decoder(nnx.Module):
    """Predicts the next token; the head is tied to the table of tokens."""

    def __init__(self, layers: int, width: int, heads: int, length: int, vocabulary: int, rngs: nnx.Rngs):
        """Makes a decoder with learned positions."""
        self.tokens, self.positions = nnx.Embed(vocabulary, width, rngs=rngs), nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(layers)])

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Returns logits."""
        x = self.tokens(ids) + self.positions(jnp.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.tokens.attend(x)


class Task(NamedTuple):
    """Holds a module and a batch.

    Attributes:
        name: for the tables.
        model: the module.
        batch: inputs and labels.
    """

    name: str
    model: nnx.Module
    batch: tuple[jax.Array, jax.Array]


def losses_of(model: nnx.Module, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Returns cross entropies ``[B]``, means over the places."""
    x, y = batch
    losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
    return losses.reshape(len(losses), -1).mean(axis=1)


def tasks(quick: bool) -> list[Task]:
    """Returns the three modules with random data."""
    rngs, key = nnx.Rngs(0), jax.random.key(0)
    widths, size = ((16, 32, 10), 8) if quick else ((784, 512, 512, 10), 128)
    labels = jax.random.randint(key, (size,), 0, 10)
    x = jax.random.normal(key, (size, widths[0]))
    found = [Task(f"MLP {'-'.join(map(str, widths))}, batch {size}", Perceptron(widths, rngs), (x, labels))]
    widths, side, size = ((4, 8), 6, 4) if quick else ((32, 64, 128), 32, 32)
    x = jax.random.normal(key, (size, side, side, 3))
    name = f"CNN, {side} x {side} x 3, 3 x 3 windows, widths {'-'.join(map(str, widths))}, batch {size}"
    found.append(Task(name, Images(widths, 3, rngs), (x, labels[:size])))
    layers, width, length, vocabulary, size = (1, 16, 8, 32, 4) if quick else (2, 128, 64, 512, 32)
    ids = jax.random.randint(key, (size, length + 1), 0, vocabulary)
    name = f"decoder, {layers} layers, width {width}, {length} tokens, {vocabulary} words, tied head, batch {size}"
    model = Decoder(layers, width, 4, length, vocabulary, rngs)
    return [*found, Task(name, model, (ids[:, :-1], ids[:, 1:]))]


def passes(task: Task) -> dict[str, Callable[..., Any]]:
    """Returns compiled ways to compute the gradient of the mean loss, and with it the norms."""
    graphdef, params, rest = nnx.split(task.model, nnx.Param, ...)

    def one(params, example):
        model = nnx.merge(graphdef, params, rest)
        return losses_of(model, jax.tree.map(lambda x: x[None], example))[0]

    def alone(params, batch):
        return jax.grad(lambda params: losses_of(nnx.merge(graphdef, params, rest), batch).mean())(params)

    def direct(params, batch):
        grads = jax.vmap(jax.grad(one), (None, 0))(params, batch)
        return jax.tree.map(lambda g: g.mean(axis=0), grads), grad_norms.norm(grads)

    def by_factors(params, batch):
        return grad_norms.nnx.value_grads_and_norms(losses_of, nnx.merge(graphdef, params, rest), batch)[1:]

    sides = {"gradient alone": alone, "gradient and norms, grad_norms.nnx": by_factors, "both, vmap(grad)": direct}
    return {name: jax.jit(side).lower(params, task.batch).compile() for name, side in sides.items()}


def run(quick: bool) -> timing.Report:
    """Measures the three modules.

    Args:
        quick: tiny sizes.

    Returns:
        The report.
    """
    text, data, targets = [], {}, []
    for task in tasks(quick):
        params = nnx.state(task.model, nnx.Param)
        compiled = passes(task)
        sides = {
            name: lambda f=side, p=params, b=task.batch: jax.block_until_ready(f(p, b))
            for name, side in compiled.items()
        }
        seconds = norms.measured(sides, 3 if quick else 11)
        plain = seconds["gradient alone"]
        megabytes = {name: side.memory_analysis().temp_size_in_bytes / 1e6 for name, side in compiled.items()}
        rows = [
            (name, norms.milliseconds(taken), timing.ratios(taken, plain), f"{megabytes[name]:.0f}")
            for name, taken in seconds.items()
        ]
        text += [f"**{task.name}**", timing.table(["pass", "ms", "times the gradient alone", "MB"], rows)]
        data[task.name] = {
            name: {"ms": ms._asdict(), "ratio": ratio._asdict(), "megabytes": megabytes[name]}
            for name, ms, ratio, _ in rows
        }
        ratio = timing.ratios(seconds["gradient and norms, grad_norms.nnx"], seconds["both, vmap(grad)"])
        statement = f"all norms and the gradient in less time than by vmap(grad) ({task.name.split(',')[0]})"
        targets.append(timing.Target(statement, f"{ratio} times its time", ratio.median < 1))
    note = "A pass is one call on one batch. MB is XLA's count of what a pass needs beside its arguments and results."
    return timing.Report("Gradient norms of flax modules", "\n\n".join([note, *text]), data, targets)

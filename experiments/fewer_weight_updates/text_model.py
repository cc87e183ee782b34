"""Defines a small decoder of bytes, and measures how its losses on the bytes of one sequence depend on each other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx

VOCABULARY = 256


class Block(nnx.Module):
    """Applies causal attention and an MLP of 4 widths, each with a norm before it and its input added."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        """Creates the parameters, without biases."""
        self.heads = heads
        self.norms = nnx.List([nnx.RMSNorm(width, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.mix = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[n, length, width]`` to the same shape."""
        heads = self.qkv(self.norms[0](x)).reshape(*x.shape[:-1], self.heads, -1)
        mixed = jax.nn.dot_product_attention(*jnp.split(heads, 3, axis=-1), is_causal=True)
        x += self.mix(mixed.reshape(x.shape))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Decoder(nnx.Module):
    """Maps bytes ``[n, length]`` to logits of the next bytes ``[n, length, 256]``, with learned positions."""

    def __init__(self, layers: int, width: int, heads: int, length: int, *, rngs: nnx.Rngs):
        """Creates the parameters for windows of ``length`` bytes."""
        self.bytes = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, VOCABULARY, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits; the logits of a place depend only on the bytes up to it."""
        x = self.bytes(x.astype(jnp.int32)) + self.positions(jnp.arange(x.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


def byte_losses(model: Decoder, windows: jax.Array) -> jax.Array:
    """Returns the cross-entropy of each byte given the bytes before it in its window, in nats.

    Args:
        model: a decoder of ``length`` bytes.
        windows: uint8 ``[n, length + 1]``.

    Returns:
        ``[n, length]``.
    """
    logits = model(windows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:].astype(jnp.int32))


def loss_variances(losses: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the variance of a sequence's mean loss: as it is, and as it would be if its bytes were independent.

    Args:
        losses: ``[..., n, length]``, the losses of n sequences.

    Returns:
        ``[...]``, in nats²: the variance over the sequences of their means, and that of all bytes over ``length``.
    """
    every_byte = losses.reshape(*losses.shape[:-2], -1)
    return losses.mean(axis=-1).var(axis=-1, ddof=1), every_byte.var(axis=-1, ddof=1) / losses.shape[-1]


def design_effects(losses: jax.Array, sizes: Sequence[int]) -> jax.Array:
    r"""Returns how much more the mean loss of k bytes in a row varies than that of k independent bytes.

    .. math:: e_k = k \operatorname{Var}(\bar\ell_{\text{block of } k}) / \operatorname{Var}(\ell)

    It is 1 for independent bytes and k for equal ones; a sample of n bytes in such blocks is worth ``n / e_k``.

    Args:
        losses: ``[..., n, length]``.
        sizes: each ``k``, a divisor of ``length``.

    Returns:
        ``[..., len(sizes)]``.
    """

    def variance(size):
        blocks = losses.reshape(*losses.shape[:-1], -1, size).mean(axis=-1)
        return blocks.reshape(*losses.shape[:-2], -1).var(axis=-1, ddof=1)

    return jnp.stack([size * variance(size) for size in sizes], axis=-1) / variance(1)[..., None]

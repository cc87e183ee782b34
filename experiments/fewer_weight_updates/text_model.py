"""Measures how the losses of a decoder on the bytes of one sequence depend on each other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from experiments.shared.decoder import Decoder

__all__ = ["Decoder", "byte_losses", "design_effects", "loss_variances"]


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

"""Defines a small decoder of tokens, and the optimizer that trains it."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

__all__ = ["Decoder", "adamw"]


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

    def __call__(self, x: jax.Array, segments: jax.Array | None = None) -> jax.Array:
        """Maps ``[n, length, width]`` to the same shape; attention stays within segments, integers ``[n, length]``."""
        heads = self.qkv(self.norms[0](x)).reshape(*x.shape[:-1], self.heads, -1)
        mask = None if segments is None else (segments[:, None, :, None] == segments[:, None, None, :])
        mixed = jax.nn.dot_product_attention(*jnp.split(heads, 3, axis=-1), mask=mask, is_causal=True)
        x += self.mix(mixed.reshape(x.shape))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Decoder(nnx.Module):
    """Maps tokens ``[n, length]`` to logits of the next tokens ``[n, length, vocabulary]``, with learned positions."""

    def __init__(self, layers: int, width: int, heads: int, length: int, *, vocabulary: int = 256, rngs: nnx.Rngs):
        """Creates the parameters for windows of ``length`` tokens; 256 tokens are bytes."""
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, vocabulary, rngs=rngs)

    def __call__(
        self, x: jax.Array, segments: jax.Array | None = None, positions: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits; the logits of a place depend only on the tokens of its segment up to it.

        Args:
            x: ``[n, length]``, tokens.
            segments: integers ``[n, length]``, which tokens belong together, such as those of one document; all of a
                row when None.
            positions: integers ``[n, length]``, the place of each token in its segment; its place in the row when None.
        """
        positions = jnp.arange(x.shape[-1]) if positions is None else positions
        x = self.tokens(x.astype(jnp.int32)) + self.positions(positions)
        for block in self.blocks:
            x = block(x, segments)
        return self.out(self.norm(x))


def adamw(num_steps: int, learning_rate: float, warmup: float, clip: float) -> optax.GradientTransformation:
    """Makes AdamW whose gradients are clipped, with a rate that rises and then falls along a cosine.

    Args:
        num_steps: optimizer steps.
        learning_rate: the highest rate.
        warmup: share of the steps in which the rate rises.
        clip: largest norm of a gradient.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(int(warmup * num_steps), 1), num_steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(schedule))

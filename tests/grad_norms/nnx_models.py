"""Modules of flax, and their losses, gradients and norms by vmap(grad)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mixjax import grad_norms

B = 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def squares(model, batch):
    """Losses ``[B]`` of any module of one argument."""
    y = jnp.sin(model(batch)).astype(jnp.float32)
    return jnp.square(y).sum(axis=tuple(range(1, y.ndim)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _direct(loss, graphdef, params, rest, batch, weights):
    def one(params, example):
        model = nnx.merge(graphdef, params, jax.tree.map(lambda x: x, rest))
        return loss(model, jax.tree.map(lambda x: x[None], example))[0]

    losses, grads = jax.vmap(jax.value_and_grad(one), (None, 0))(params, batch)
    mean = jax.tree.map(lambda g: jnp.tensordot(weights.astype(g.dtype), g, 1) / len(weights), grads)
    return losses, mean, grad_norms.norm(grads)


def direct(loss, model, batch, weights=None, wrt=nnx.Param):
    """Losses, mean gradient and norms by ``vmap(grad)``, without anything of mixjax but the norm of an array."""
    graphdef, params, rest = nnx.split(model, wrt, ...)
    weights = jnp.ones(len(jax.tree.leaves(batch)[0])) if weights is None else jnp.asarray(weights)
    return _direct(loss, graphdef, params, rest, batch, weights)


def measured(loss, model, batch, **options):
    """The same by mixjax, in one program."""

    @nnx.jit
    def run(model, batch):
        return grad_norms.nnx.value_grads_and_norms(loss, model, batch, **options)

    return run(model, batch)


def assert_close(found, expected, rtol=2e-4, atol=1e-5):
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(np.float32(got), np.float32(want), rtol=rtol, atol=atol)


class Block(nnx.Module):
    """A layer of a decoder."""

    def __init__(self, width, rngs):
        self.first, self.second = nnx.LayerNorm(width, rngs=rngs), nnx.RMSNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 2 * width, rngs=rngs), nnx.Linear(2 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.first(x), is_causal=True)
        return x + self.dropout(self.down(nnx.gelu(self.up(self.second(x)))))


class Decoder(nnx.Module):
    """Tokens, positions of which there is no batch, a free parameter, and a head that is tied to the tokens."""

    def __init__(self, rngs, width=8, length=5):
        self.tokens, self.positions = nnx.Embed(7, width, rngs=rngs), nnx.Embed(length, width, rngs=rngs)
        self.start = nnx.Param(0.1 * jnp.ones((1, 1, width)))
        self.blocks = nnx.List([Block(width, rngs)])

    def __call__(self, ids):
        x = self.tokens(ids) + self.positions(jnp.arange(ids.shape[1])) + self.start
        for block in self.blocks:
            x = block(x)
        return self.tokens.attend(x)


def next_token_losses(model, ids):
    logits = jax.nn.log_softmax(model(ids)[:, :-1])
    return -jnp.take_along_axis(logits, ids[:, 1:, None], axis=-1).sum(axis=(1, 2))


class Images(nnx.Module):
    """A small convolutional network with a group norm and a batch norm."""

    def __init__(self, rngs):
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm, self.batch_norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), strides=2, feature_group_count=2, padding="VALID", rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.batch_norm(self.norm(self.first(x))))
        return self.head(self.second(x).mean(axis=(1, 2)))


IDS = np.random.default_rng(0).integers(7, size=(B, 5))

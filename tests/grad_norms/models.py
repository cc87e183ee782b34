"""Models on a tape, and their losses, gradients and norms: measured from one backward pass, and directly."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms import Tape, backward, norm, value_grads_and_norms

B, T, V, D = 6, 4, 5, 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def alone(losses_fn):
    """The loss of one example of the same model on a tape that changes nothing."""
    return lambda params, example: losses_fn(Tape(), params, jax.tree.map(lambda x: x[None], example))[0]


def compiled(losses_fn, params, batch):
    return jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)


def mlp(tape, params, x):
    hidden = jnp.tanh(tape.dense(x, params["in"]["kernel"], params["in"]["bias"]))
    hidden = jax.nn.relu(tape.dense(hidden, params["mid"]))
    return tape.dense(hidden, params["out"])


def mlp_losses(tape, params, batch):
    x, y = batch
    return jnp.square(mlp(tape, params, x) - y).sum(axis=-1)


MLP = {"in": {"kernel": normal(0, 3, 8), "bias": normal(1, 8)}, "mid": normal(2, 8, 8), "out": normal(3, 8, 2)}
MLP_BATCH = normal(4, B, 3), normal(5, B, 2)


def bag_losses(tape, params, ids):
    """An embedding, summed over places, and dense layers: repeated tokens add before they are squared."""
    hidden = jnp.tanh(tape.embed(ids, params["table"]).sum(axis=1))
    return jnp.square(tape.dense(hidden, params["kernel"], params["bias"])).sum(axis=-1)


def normalised(x):
    return (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def sequence(tape, params, ids):
    """Embedding, positions, layer norm, causal attention and a two-layer perceptron, with a residual."""
    x = tape.add(tape.embed(ids, params["table"]), params["positions"])
    h = tape.scale(normalised(x), params["gamma"], params["beta"])
    q, k, v = (tape.dense(h, params[name]) for name in "qkv")
    scores = jnp.where(jnp.tri(T, dtype=bool), jnp.einsum("btd,bsd->bts", q, k), -jnp.inf)
    x = x + jax.nn.softmax(scores) @ v
    h = tape.scale(normalised(x), params["gamma2"])
    return x + tape.dense(jax.nn.gelu(tape.dense(h, params["up"], params["up_bias"])), params["down"])


def tied_losses(tape, params, ids):
    logits = tape.attend(sequence(tape, params, ids), params["table"])
    return -jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), ids[:, 1:, None], axis=-1).sum(axis=(1, 2))


def shared_losses(tape, params, batch):
    """One kernel and one bias three times, a scale twice, on arrays of two ranks."""
    x, z, y = batch
    x, z = (tape.scale(jnp.tanh(tape.dense(x, params["kernel"], params["bias"])), params["gamma"]) for x in (x, z))
    x = tape.add(tape.dense(x, params["kernel"]), params["bias"])
    return jnp.square(x.sum(1) + z.sum((1, 2, 3)) - y)


IDS = np.random.default_rng(0).integers(V, size=(B, T))
IDS[0], IDS[1, :3] = 2, 0
WIDTH = 24  # 2 T² = 32 against D² = 16 and D · WIDTH = 96: direct sums and Gram matrices
SEQUENCE = {
    "table": (V, D),
    "positions": (T, D),
    **dict.fromkeys(["gamma", "beta", "gamma2"], (D,)),
    **dict.fromkeys("qkv", (D, D)),
    **{"up": (D, WIDTH), "up_bias": (WIDTH,), "down": (WIDTH, D)},
}
MODELS = {
    "mlp": (mlp_losses, MLP, MLP_BATCH),
    "bag": (bag_losses, {"table": normal(0, V, D), "kernel": normal(1, D, 3), "bias": normal(2, 3)}, IDS),
    "tied": (tied_losses, {name: 0.5 * normal(i, *shape) for i, (name, shape) in enumerate(SEQUENCE.items())}, IDS),
    "shared": (
        shared_losses,
        {"kernel": normal(0, 3, 3), "bias": normal(1, 3), "gamma": normal(2, 3)},
        (normal(3, B, 3), normal(5, B, 2, 5, 3), normal(4, B)),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)
UNEVEN, ONES = np.linspace(0.0, 3.0, B, dtype=np.float32), np.ones(B, np.float32)


@functools.cache
def program(name):
    """``run(params, batch, weights, factor)``: losses times ``factor``, gradient, norms and norms by leaf."""
    losses_fn, norms_of = MODELS[name][0], backward.norms_of

    @jax.jit
    def run(params, batch, weights, factor):
        shares = []

        def listen(leaves):
            shares.extend(norms_of([terms]) for terms in leaves)
            return norms_of(leaves)

        with mock.patch.object(backward, "norms_of", listen):
            found = value_grads_and_norms(lambda *a: factor * losses_fn(*a), params, batch, weights=weights)
        return *found, [share / jnp.where(weights == 0, 1, weights) for share in shares]

    return run


def measured(name, params=None, batch=None, weights=UNEVEN, factor=ONES):
    """One program a model, whatever it is called with."""
    _, own_params, own_batch = MODELS[name]
    params, batch = own_params if params is None else params, own_batch if batch is None else batch
    return program(name)(params, batch, weights, factor)


@functools.cache
def direct(name):
    """The same, with uneven weights, from the gradients themselves."""
    losses_fn, params, batch = MODELS[name]

    @jax.jit
    def run(params, batch):
        losses, grads = jax.vmap(jax.value_and_grad(alone(losses_fn)), in_axes=(None, 0))(params, batch)
        mean = jax.tree.map(lambda g: jnp.tensordot(UNEVEN, g, 1) / B, grads)
        return losses, mean, norm(grads), [norm(g) for g in jax.tree.leaves(grads)]

    return run(params, batch)


def slope_losses(tape, params, batch):
    """Losses whose derivative by a dense layer's output is a factor of the example."""
    return sum(factor * tape.dense(x, params[name])[:, 0].astype(factor.dtype) for name, (x, factor) in batch.items())

"""Holds the sides of the benchmark ``samplers``: ways to draw a batch by stale losses and to write new ones back.

Each maker, called with the number of examples and the batch size, returns ``run(steps)``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import classifiers
from mixjax import samplers

__all__ = [
    "BETA",
    "DISTINCT",
    "INDEPENDENT",
    "NUMPY",
    "OURS",
    "categorical_draw",
    "cumsum_draw",
    "loop",
    "losses_of",
    "mixjax_side",
    "stateless_side",
    "wrn_side",
]

BETA = 10.0
OURS = {True: "mixjax, in jit", False: "mixjax, in jit, distinct"}
NUMPY = "NumPy choice(replace=False, p), losses written one by one"
# bytes of the draws' matrix above which a side is left out
_LARGEST_MATRIX = 10**9


def losses_of(n: int) -> np.ndarray:
    """Returns stale losses of ``n`` examples, float32 ``[n]``."""
    return np.random.default_rng(n).normal(size=n).astype(np.float32)


def fresh(indices):
    """Returns the "new losses" of a batch, numbers that depend on its indices and cost nothing."""
    return jnp.sin(indices.astype(jnp.float32))


def loop(step: Callable, state: Any, seeds: int | None = None) -> Callable[[int], None]:
    """Returns ``run(steps)``, which takes that many steps in one compiled program.

    Every call goes on from the state in which the last one ended.
    """
    one = jax.vmap(step) if seeds else step

    @functools.partial(jax.jit, donate_argnums=0)
    def program(state, key, steps):
        def body(i, state):
            own = jax.random.fold_in(key, i)
            return one(state, jax.random.split(own, seeds) if seeds else own)

        return jax.lax.fori_loop(0, steps, body, state)

    # buffers of its own: the program donates them
    state = jax.tree.map(lambda x: jnp.repeat(x[None], seeds, 0) if seeds else jnp.copy(x), state)
    seed = 0

    def run_steps(steps):
        nonlocal state, seed
        state = jax.block_until_ready(program(state, jax.random.key(seed), steps))
        seed += 1

    return run_steps


def mixjax_side(n, batch, replacement, fanout=8, seeds=None):
    """Draws from the tree of ``samplers.hardness``, in jit."""
    sampler = samplers.hardness(n, BETA, replacement=replacement, fanout=fanout)

    def step(state, key):
        indices, _ = sampler.sample(state, key, batch)
        return sampler.update(state, indices, fresh(indices))

    return loop(step, sampler.init(losses_of(n)), seeds)


def block_side(n, batch, replacement):
    """Draws from a tree of two levels, with ``√n`` children each, in jit."""
    return mixjax_side(n, batch, replacement, fanout=math.ceil(n**0.5))


def host_side(n, batch, replacement):
    """Draws by ``HostSampler``, without JAX."""
    sampler, key = samplers.HostSampler(n, losses_of(n), beta=BETA, replacement=replacement), 0

    def run_steps(steps):
        nonlocal key
        for _ in range(steps):
            indices, _ = sampler.sample(key, batch)
            sampler.update(indices, np.sin(indices, dtype=np.float32))
            key += 1

    return run_steps


def stateless_side(n, batch, draw, seeds=None):
    """Draws by JAX without a tree, from the whole softmax in every step; None where that needs too much memory."""
    if draw in (categorical_draw, top_k_draw) and n * batch * 4 * (seeds or 1) > _LARGEST_MATRIX:
        return None

    def step(losses, key):
        indices = draw(losses, key, batch)
        return losses.at[indices].set(fresh(indices))

    return loop(step, jnp.asarray(losses_of(n)), seeds)


def cumsum_draw(losses, key, batch):
    """Draws by the inverse of the cumulative sum over all examples, with one float32 uniform for each draw."""
    cdf = jnp.cumsum(jnp.exp(BETA * (losses - losses.max())))
    return jnp.searchsorted(cdf, jax.random.uniform(key, (batch,)) * cdf[-1])


def categorical_draw(losses, key, batch):
    """Draws by ``jax.random.categorical``, which makes a Gumbel variable for every draw and example."""
    return jax.random.categorical(key, BETA * losses, shape=(batch,))


def top_k_draw(losses, key, batch):
    """Draws distinct examples: the largest of the losses with Gumbel noise."""
    return jax.lax.top_k(BETA * losses + jax.random.gumbel(key, losses.shape), batch)[1]


def numpy_side(n, batch, draw):
    """Draws by NumPy, with ``draw(rng, losses, batch)``, and writes new losses by one assignment."""
    losses, rng = losses_of(n), np.random.default_rng(0)

    def run_steps(steps):
        for _ in range(steps):
            indices = draw(rng, losses, batch)
            losses[indices] = np.sin(indices, dtype=np.float32)

    return run_steps


def softmax(losses):
    """Returns the probabilities in float64, as ``choice`` wants them."""
    p = np.exp(BETA * (losses - losses.max()), dtype=np.float64)
    return p / p.sum()


def numpy_one_by_one(n, batch):
    """Draws as a plain NumPy sampler does: softmax, floor, ``choice``, and losses written in a Python loop."""
    losses, rng = losses_of(n), np.random.default_rng(0)

    def run_steps(steps):
        for _ in range(steps):
            p = np.maximum(softmax(losses), 1e-4 / n)
            indices = rng.choice(n, batch, replace=False, p=p / p.sum())
            for i in indices:
                losses[i] = math.sin(i)

    return run_steps


def torch_side(n, batch, replacement):
    """Draws by PyTorch's softmax and ``multinomial``, which stops at 2^24 examples."""
    from experiments.benchmarks import pytorch

    torch = pytorch.load()
    losses = torch.from_numpy(losses_of(n))

    def run_steps(steps):
        for _ in range(steps):
            indices = torch.multinomial(torch.softmax(BETA * losses, 0), batch, replacement)
            losses[indices] = torch.sin(indices.float())

    return run_steps


def wrn_side(batch):
    """Trains WRN-16-1 by plain SGD on one batch of noise, with one call for each step."""
    model = classifiers.build("wrn")
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.random((batch, 784)), jnp.float32), jnp.asarray(rng.integers(10, size=batch))

    # one call for each step: XLA's convolutions on CPU are slow inside a loop
    @jax.jit
    def step(params, stats):
        def objective(params):
            losses, new = model.train_losses(params, stats, images, labels)
            return losses.mean(), new

        grads, new = jax.grad(objective, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), new

    held = model.init(jax.random.key(0))

    def run_steps(steps):
        nonlocal held
        for _ in range(steps):
            held = jax.block_until_ready(step(*held))

    return run_steps


def numpy_draws(draw):
    """Returns the maker of a side that draws by NumPy."""
    return functools.partial(numpy_side, draw=draw)


INDEPENDENT = {
    OURS[True]: functools.partial(mixjax_side, replacement=True),
    "mixjax, in jit, two levels of sqrt(n)": functools.partial(block_side, replacement=True),
    "mixjax, on the host": functools.partial(host_side, replacement=True),
    "NumPy choice(p)": numpy_draws(lambda rng, x, b: rng.choice(x.size, b, p=softmax(x))),
    "NumPy cumsum + searchsorted": numpy_draws(
        # the last sum may round to less than 1, and a draw then fall behind the last example
        lambda rng, x, b: np.searchsorted(np.cumsum(softmax(x)), rng.random(b)).clip(max=x.size - 1)
    ),
    "PyTorch multinomial": functools.partial(torch_side, replacement=True),
    "JAX cumsum + searchsorted": functools.partial(stateless_side, draw=cumsum_draw),
    "JAX categorical": functools.partial(stateless_side, draw=categorical_draw),
}
DISTINCT = {
    OURS[False]: functools.partial(mixjax_side, replacement=False),
    "mixjax, on the host, distinct": functools.partial(host_side, replacement=False),
    NUMPY: numpy_one_by_one,
    "NumPy Gumbel + argpartition": numpy_draws(
        lambda rng, x, b: np.argpartition(BETA * x + rng.gumbel(size=x.size), -b)[-b:]
    ),
    "PyTorch multinomial, distinct": functools.partial(torch_side, replacement=False),
    "JAX Gumbel + top_k": functools.partial(stateless_side, draw=top_k_draw),
}

"""Losses, batches and optimizers that the tests of hypergradients share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax.hypergrad import hypergrad

D, T, SIZE = 3, 7, 6
WEIGHTS = np.array([0.2, 0.5, 0.3])
OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.3),
    "momentum": lambda: optax.sgd(0.3, momentum=0.9, nesterov=True),
    "adam": lambda: optax.adam(0.05),
    "adamw": lambda: optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.inject_hyperparams(optax.rmsprop)(0.01)),
}
CENTERS = np.random.default_rng(5).normal(size=(D, 4))
CURVATURES = np.array([1.0, 0.7, 0.4, 0.2])
TARGET = np.array([0.3, -0.2, 0.5, 0.1])


def loss(params, batch):
    """Not convex, so that every part of the Hessian matters."""
    x, y = batch
    return jnp.mean(jnp.tanh(x @ params["w"] + params["b"] - y) ** 2) + 0.01 * jnp.sum(params["w"] ** 2)


def problem(seed=0, num_steps=T):
    rng = np.random.default_rng(seed)
    params = {"w": jnp.asarray(rng.normal(size=4)), "b": jnp.zeros(())}
    batches = rng.normal(size=(num_steps, D, SIZE, 4)), rng.normal(size=(num_steps, D, SIZE))
    return params, jax.tree.map(jnp.asarray, batches), (rng.normal(size=(9, 4)), rng.normal(size=9))


def difference(function, weights, step=1e-6):
    """Central differences."""
    rows = step * np.eye(len(weights))
    return np.array([(function(weights + row) - function(weights - row)) / (2 * step) for row in rows])


def quadratic(x, center):
    return 0.5 * jnp.sum(CURVATURES * (x - center) ** 2)


def distance(x, target):
    return 0.5 * jnp.sum((x - target) ** 2)


def at_the_optimum(num_steps, mode, **options):
    optimizer, optimum = optax.sgd(1.0), jnp.asarray(WEIGHTS @ CENTERS)
    batches = jnp.broadcast_to(CENTERS, (num_steps, *CENTERS.shape))
    gradient = jax.jit(hypergrad(quadratic, distance, optimizer, mode=mode, **options))
    return gradient(WEIGHTS, optimum, optimizer.init(optimum), batches, jnp.asarray(TARGET)).hypergrads

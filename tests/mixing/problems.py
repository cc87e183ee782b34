"""The problem in two dimensions on which the tests of data mixing run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

CENTERS = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)
EPS = 0.1  # the flat direction's curvature; the stiff one's is 1
TARGET = np.array([1.0, -0.5], np.float32)
SGD = optax.sgd(1.0)


def loss(x, center):
    return 0.5 * jnp.sum(jnp.array([1.0, EPS]) * (x - center) ** 2)


def val_loss(x, target):
    return 0.5 * jnp.sum((x - target) ** 2)


def draw(key):
    return jnp.asarray(CENTERS)


def draw_val(key):
    return jnp.asarray(TARGET)


def noisy(key):
    return jnp.asarray(CENTERS) + 0.3 * jax.random.normal(key, (2, 2))

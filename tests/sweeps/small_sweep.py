"""A small sweep that several tests run, in other processes too."""

import jax
import jax.numpy as jnp

import mixjax


def train(key, hparams, data):
    return {"error": hparams["scale"] * jax.random.normal(key, (3,)) + data}


def sweep(folder=None, **changes):
    arguments = {"seeds": 5, "axes": {"scale": [1.0, 2.0]}, "data": jnp.float32(1.0), "chunk": 2} | changes
    return mixjax.sweep(train, checkpoint=folder, **arguments)

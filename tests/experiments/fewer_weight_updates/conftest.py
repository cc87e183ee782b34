"""MNIST's domains on made-up images."""

import jax
import jax.numpy as jnp
import pytest

import mixjax.data
from experiments.fewer_weight_updates import mnist_domains
from tests.experiments.fewer_weight_updates.made_up_mnist import SMALL, fake_images


@pytest.fixture(scope="module")
def data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        yield mnist_domains.load()


@pytest.fixture(scope="module")
def problem(data):
    compiled = jax.jit(lambda key, images: split(key, SMALL, images))
    with pytest.MonkeyPatch.context() as patch:
        split = mnist_domains.split
        patch.setattr(mnist_domains, "split", lambda key, config, images: compiled(key, images))
        beginning = mnist_domains.begin(jax.random.key(3), SMALL, jax.tree.map(jnp.asarray, data))
        return mnist_domains.setup(beginning, SMALL)

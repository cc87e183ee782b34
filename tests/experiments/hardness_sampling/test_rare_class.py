"""Tests MNIST with a rare class: the split, and the samples that stand for a set."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import rare_class
from tests.experiments.hardness_sampling.cases import PROBLEM

split = jax.jit(rare_class.split, static_argnums=1)


def test_split_keeps_all_but_most_of_the_rare_class(images):
    parts = split(jax.random.key(0), PROBLEM, images)
    labels = images.train_labels[parts.kept]
    assert rare_class.num_rare(PROBLEM, images) == 6 and len(labels) == rare_class.num_kept(PROBLEM, images) == 546
    assert len(np.unique(parts.kept)) == 546 and (labels[-6:] == 3).all() and (labels[:-6] != 3).all()
    assert (labels[parts.probe.ids[-6:]] == 3).all() and len(np.unique(parts.probe.ids)) == 106
    assert len(np.unique(parts.test.ids)) == 120 and (images.test_labels[parts.test.ids] == 3).sum() == 20
    other = split(jax.random.key(1), PROBLEM, images)
    assert set(np.asarray(parts.kept[-6:])) != set(np.asarray(other.kept[-6:]))


def test_a_sample_stands_for_its_set(images):
    parts = split(jax.random.key(0), PROBLEM, images)
    rare = (jnp.arange(106) >= 100).astype(jnp.float32)
    share = 6 / 546
    np.testing.assert_allclose(parts.probe.mean(jnp.ones(106)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.mean(rare), share, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.std(rare), (share * (1 - share)) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(parts.test.mean((jnp.arange(120) >= 100) * 1.0), 0.1, rtol=1e-5)
    np.testing.assert_allclose(parts.probe.correlation(rare, 1.0 - 2.0 * rare), -1.0, rtol=1e-4)
    assert float(parts.probe.correlation(rare, jnp.ones(106))) == 0.0

"""Tests the classifiers: their sizes, the convolution by patches, and batch normalisation."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import classifiers


def test_numbers_of_weights():
    assert [classifiers.num_weights(name) for name in ("mlp", "cnn", "wrn")] == [203_530, 55_338, 174_778]


def test_patches_make_a_convolution_of_stride_two():
    key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 8, 6, 3))
    kernel = jax.random.normal(key, (3, 3, 3, 5))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(classifiers.patches(x) @ kernel.reshape(27, 5), expected, rtol=1e-4, atol=1e-4)


def test_batch_normalisation_by_the_batch_by_running_and_by_fresh_statistics(small_wrn):
    model = classifiers.build("wrn")
    model = model._replace(**{name: jax.jit(getattr(model, name)) for name in model._fields})
    params, stats = model.init(jax.random.key(0))
    images, labels = jax.random.uniform(jax.random.key(1), (16, 784)), jnp.arange(16) % 10
    losses, moved = model.train_losses(params, stats, images, labels)
    fresh = model.refresh(params, stats, images)
    np.testing.assert_allclose(model.losses(params, fresh, images, labels)[0], losses, rtol=1e-4)
    assert not np.allclose(model.losses(params, stats, images, labels)[0], losses, rtol=1e-2)
    for before, after, batch in zip(*map(jax.tree.leaves, (stats, moved, fresh)), strict=True):
        np.testing.assert_allclose(after, 0.9 * before + 0.1 * batch, rtol=1e-4, atol=1e-6)
    assert classifiers.build("mlp").refresh is None

"""Tests images with flipped labels: the split, the signals, and claims at several points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from experiments.loss_and_sampling_weights import noisy_images
from experiments.loss_and_sampling_weights.noisy_images import Batch
from mixjax import signals
from mixjax.runner.claims import versus

flip_labels, split, measure = map(jax.jit, (noisy_images.flip_labels, noisy_images.split, noisy_images.measure))
init = jax.jit(noisy_images.init, static_argnums=(1, 2))


def images(num, seed=0, pixels=12):
    rng = np.random.default_rng(seed)
    return rng.random((num, pixels), np.float32), rng.integers(0, 10, num).astype(np.int32)


@pytest.fixture
def batches():
    return {"train": Batch(*map(jnp.asarray, images(60))), "test": Batch(*map(jnp.asarray, images(40, 1)))}


def test_flipped_labels_are_wrong_uniformly_and_as_often_as_asked():
    labels = jnp.tile(jnp.arange(10), 5000)
    flipped = flip_labels(jax.random.key(0), labels, 0.2)
    rate = float((flipped != labels).mean())
    assert abs(rate - 0.2) < 4 * (0.2 * 0.8 / labels.size) ** 0.5
    shift = np.asarray((flipped - labels) % 10)
    counts = np.bincount(shift, minlength=10)[1:]
    assert (abs(counts - counts.mean()) < 4.5 * counts.mean() ** 0.5).all()
    assert (flip_labels(jax.random.key(0), labels, 0.0) == labels).all()
    assert (flip_labels(jax.random.key(0), labels, 1.0) != labels).all()


def test_split_is_disjoint_and_leaves_the_clean_half_alone():
    pixels, labels = images(1001)
    whole = Batch(jnp.asarray(pixels), jnp.asarray(labels))
    one, again, other = (split(jax.random.key(seed), whole, 0.5) for seed in (0, 0, 1))
    assert one.indices.shape == one.labels.shape == (2, 500)
    assert len(np.unique(one.indices)) == 1000
    np.testing.assert_array_equal(one.labels[0], labels[one.indices[0]])
    wrong = float((one.labels[1] != labels[one.indices[1]]).mean())
    assert abs(wrong - 0.5) < 4 * (0.25 / 500) ** 0.5
    np.testing.assert_array_equal(one.indices, again.indices)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert 0.4 < np.isin(one.indices[0], other.indices[0]).mean() < 0.6


def test_signals_equal_those_of_the_library():
    params = init(jax.random.key(0), 12, 7)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    pixels, labels = images(2 * 9)
    batch = Batch(jnp.asarray(pixels).reshape(2, 9, -1), jnp.asarray(labels).reshape(2, 9))
    flat, ids = Batch(pixels, jnp.asarray(labels)), jnp.repeat(jnp.arange(2), 9)

    @jax.jit
    def expect(params):
        found = signals.moments(noisy_images.losses(params, flat), ids, 2).signals()
        return found | {"grad_stds": signals.grad_stds(noisy_images.losses, params, flat, ids, 2)}

    found, expected = measure(params, batch), expect(params)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_duplicates_have_no_spread():
    params = init(jax.random.key(0), 12, 7)
    batch = Batch(jnp.ones((2, 5, 12)), jnp.full((2, 5), 3))
    np.testing.assert_allclose(measure(params, batch)["grad_stds"], 0.0, atol=1e-2)


def test_claims_are_judged_at_the_first_point_and_tell_the_others():
    one = xarray.Dataset(
        {"loss_weight": (("gamma2", "seed"), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}, {"gamma2": [0.1, 1.0]}
    )

    def judge(dataset):
        return versus("name", dataset.loss_weight, ">=", -1.0, statement="statement", source="source")

    claim = noisy_images.judged({"run": one}, judge, "why")
    assert claim.value == 2.0 and claim.note == "why; gamma2 1: 5 ± 0.58, holds"
    claim = noisy_images.judged({"a": one, "b": one}, judge)
    assert claim.note.count("holds") == 3 and "b, gamma2 0.1: 2 ± 0.58" in claim.note
    assert list(noisy_images.points({"run": one.isel(gamma2=0)})) == [""]

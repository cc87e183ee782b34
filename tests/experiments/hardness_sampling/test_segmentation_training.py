"""Tests the optimizer, and training on patches by algorithm 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness_sampling import dice, segmentation_training
from experiments.hardness_sampling.segmentation_training import Segmentation
from mixjax.data.segmentation import Cases


def updates(config, gradient, num):
    optimizer = segmentation_training.make_optimizer(config)
    state, found = optimizer.init(gradient), []
    for _ in range(num):
        update, state = optimizer.update(gradient, state)
        found.append(float(update))
    return np.array(found)


def test_the_learning_rate_falls_from_epoch_to_epoch():
    config = Segmentation(learning_rate=0.5, momentum=0.0, num_epochs=4, batches=2)
    expected = [-0.5 * (1 - t / 4) ** 0.9 * 3.0 for t in (0, 0, 1, 1, 2, 2, 3, 3)]
    np.testing.assert_allclose(updates(config, jnp.float32(3.0), 8), expected, rtol=1e-5)


def test_nesterov_momentum_and_gradient_clipping():
    config = Segmentation(learning_rate=0.1, momentum=0.99, num_epochs=1000, batches=250)
    traces = [1.0, 1.99]  # g + 0.99 * trace, trace = g, then 1.99 g
    np.testing.assert_allclose(
        updates(config, jnp.float32(1.0), 2), [-0.1 * (1 + 0.99 * trace) for trace in traces], rtol=1e-5
    )
    np.testing.assert_allclose(updates(config, jnp.float32(600.0), 1), [-0.1 * 12 * 1.99], rtol=1e-5)


def fit(key, config, cases, train, beta, importance):
    """Trains all epochs in one program; returns the function of scores, the parameters and the records by epoch."""
    carry, records = jax.lax.scan(
        lambda carry, _: segmentation_training.epoch(carry, config, cases, train, beta, importance),
        segmentation_training.start(key, config, len(train), beta),
        length=config.num_epochs,
    )
    return segmentation_training.scores_of(config), carry.params, records


TINY = Segmentation(grid=8, patch=8, num_levels=2, width=4, num_heads=1, num_epochs=1, batches=1, momentum=0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Turns augmentation off: compiling it takes longer than the tests do."""
    monkeypatch.setattr(segmentation_training.augmentation, "augment", lambda key, image, label: (image, label))


@pytest.fixture(scope="module")
def cases():
    """Six cases in which a bright cube is the tumour."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 8, 8, 8), np.int8)
    for label in labels:
        x, y, z = rng.integers(0, 4, 3)
        label[x : x + 5, y : y + 5, z : z + 5] = 1
        label[x + 1 : x + 4, y + 1 : y + 4, z + 1 : z + 4] = 2
        label[x + 1 : x + 3, y + 1 : y + 3, z + 1 : z + 3] = 3
    images = labels[..., None] + rng.normal(0, 0.3, (*labels.shape, 4))
    return jax.tree.map(jnp.asarray, Cases(images.astype(np.float32), labels, np.array([0, 0, 0, 0, 1, 1])))


@pytest.fixture(scope="module")
def change(cases):
    """By how much one step moves the parameters, as a function of initial loss, beta and importance sampling."""

    @jax.jit
    def moved(initial_loss, beta, importance):
        config = dataclasses.replace(TINY, initial_loss=initial_loss, max_gradient=1e9)
        key, two = jax.random.key(3), jnp.arange(2)
        _, before = segmentation_training.make_net(config, jax.random.split(key, 3)[0])
        _, after, _ = fit(key, config, cases, two, beta, importance)
        return jax.tree.map(lambda a, b: b - a, before, after)

    return moved


@pytest.mark.parametrize(("initial_loss", "factor"), [(50.0, 0.1), (0.0, 10.0)])
def test_importance_weights_are_clipped_and_scale_the_step(change, initial_loss, factor):
    """Both cases are in the batch, whose losses are near 2: far below the stale ones, or far above."""
    plain, weighted = (change(initial_loss, 100.0, importance) for importance in (False, True))
    for a, b in zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (plain, weighted)), strict=True):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(b, factor * a, rtol=1e-2, atol=1e-5)


def test_beta_zero_ignores_importance_sampling(change):
    plain, weighted = (change(2.0, 0.0, importance) for importance in (False, True))
    jax.tree.map(np.testing.assert_array_equal, plain, weighted)


def compiled_fit(config, cases, importance):
    """Returns a compiled function of beta that trains on all cases and returns the records."""
    key, train = jax.random.key(0), jnp.arange(6)
    return jax.jit(lambda beta: fit(key, config, cases, train, beta, importance)[2])


def test_hard_sampling_sees_every_case_once_before_any_twice(cases):
    config = dataclasses.replace(TINY, initial_loss=20.0, batches=3)
    records = compiled_fit(config, cases, importance=True)(100.0)
    assert records["draws"].tolist() == [[1.0] * 6]


def test_hard_sampling_prefers_the_case_that_cannot_be_learned(cases, monkeypatch):
    def patches(key, cases, indices, patch):
        """The labels of case 0 are noise, another one each time."""
        labels = cases.labels[indices]
        noise = jax.random.randint(key, labels.shape, 0, 4, labels.dtype)
        return cases.images[indices], jnp.where((indices == 0)[:, None, None, None], noise, labels)

    monkeypatch.setattr(segmentation_training, "patches", patches)
    config = dataclasses.replace(TINY, learning_rate=0.1, momentum=0.9, num_epochs=3, batches=30)
    trained = compiled_fit(config, cases, importance=False)
    share, size = {}, {}
    for beta in (0.0, 10.0):
        found = trained(beta)
        share[beta], size[beta] = found["draws"][-1, 0] / 60, found["effective_sample_size"][-1]
    assert share[0.0] < 0.3 and share[10.0] > 0.4  # 1/6, and at most 1/2, without replacement
    np.testing.assert_allclose(size[0.0], 6, rtol=1e-4)
    assert size[10.0] < 3


def test_the_loss_falls_and_the_tumour_is_found(cases):
    config = dataclasses.replace(TINY, learning_rate=0.1, momentum=0.9, num_epochs=4, batches=30)

    @jax.jit
    def run(beta):
        key, image = jax.random.key(0), cases.images[5]
        apply, params, records = fit(key, config, cases, jnp.arange(4), beta, False)
        found = dice.predict(lambda x: apply(params, x[None])[0][0], image, 8)
        return records["loss"], dice.dice(found, cases.labels[5])

    losses, score = run(0.0)
    assert losses[-1] < 0.6 * losses[0]
    assert score[0] > 0.7

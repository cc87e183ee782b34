"""What MNIST's domains hold, their batches, and the models."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fewer_weight_updates import mnist_domains
from experiments.fewer_weight_updates.mnist_methods import Mnist
from tests.experiments.fewer_weight_updates.made_up_mnist import SMALL


def numbered(data):
    """The training images, each of which shows its own number."""
    return data["train"]._replace(images=np.tile(np.arange(len(data["train"].labels))[:, None], (1, 2)))


def test_pooling_averages_two_by_two():
    image = np.arange(784.0).reshape(1, 784)
    pooled = mnist_domains.pool(image)
    assert pooled.shape == (1, 196)
    np.testing.assert_allclose(pooled[0, [0, 1, 14]], [(0 + 1 + 28 + 29) / 4, (2 + 3 + 30 + 31) / 4, 56 + 14.5])


def test_domains_are_what_they_say(data):
    images = numbered(data)
    split = jax.jit(lambda key, images: mnist_domains.split(key, SMALL, images))
    parts = split(jax.random.key(0), images)
    ids, held_out = np.asarray(parts.train.images[:, 0]), np.asarray(parts.validation.images[:, 0])
    assert len(np.unique([*ids, *held_out])) == 490 + 50
    truth, labels = np.asarray(images.labels)[ids], np.asarray(parts.train.labels)
    noisy, skewed, swapped, clean = np.split(np.arange(490), [300, 360, 450])
    wrong = (truth != labels)[noisy].mean()
    assert abs(wrong - 0.6) < 3 * (0.6 * 0.4 / 300) ** 0.5
    assert len(np.unique(truth[noisy])) == len(np.unique(truth[clean])) == 10  # what comes after skewed is not skewed
    assert (truth[skewed] < 4).all() and (truth == labels)[skewed].all()
    pairs = {1: 7, 7: 1, 3: 8, 8: 3, 4: 9, 9: 4, 5: 6, 6: 5, 0: 0, 2: 2}
    assert labels[swapped].tolist() == [pairs[y] for y in truth[swapped]] and len(set(truth[swapped])) == 10
    assert (truth == labels)[clean].all()
    np.testing.assert_array_equal(parts.validation.labels, np.asarray(images.labels)[held_out])
    other = split(jax.random.key(1), images)
    assert set(np.asarray(other.train.images[:, 0])) != set(ids)


def test_every_row_of_a_batch_comes_from_its_domain(data):
    @jax.jit
    def draw(train):
        problem = mnist_domains.setup(mnist_domains.begin(jax.random.key(0), SMALL, data | {"train": train}), SMALL)
        return problem.split.train.images[:, 0], problem.draw(jax.random.key(1))

    ids, batch = draw(numbered(data))
    assert batch.images.shape == (4, 32, 2) and batch.labels.shape == (4, 32)
    for row, part in zip(batch.images[..., 0], np.split(np.asarray(ids), [300, 360, 450]), strict=True):
        assert set(np.asarray(row)) <= set(part) and len(set(np.asarray(row))) > 15


def test_sizes_of_the_models():
    sizes = {}
    for model in ("logistic", "mlp"):
        params = jax.eval_shape(lambda key, m=model: mnist_domains.init(key, Mnist(model=m), 196), jax.random.key(0))
        sizes[model] = sum(x.size for x in jax.tree.leaves(params))
    assert sizes == {"logistic": 1970, "mlp": 13_258}


def test_scores_and_loss_by_hand(problem):
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(196, 3)), rng.normal(size=(3, 10))
    params = jax.tree.map(jnp.asarray, [(w, np.ones(3)), (v, np.zeros(10))])
    x, y = rng.random((5, 196)), np.arange(5)
    cross_entropy, loss = jax.jit(mnist_domains.cross_entropy), jax.jit(problem.loss)
    expected = np.maximum(x @ w + 1, 0) @ v
    np.testing.assert_allclose(jax.jit(mnist_domains.scores)(params, x), expected, rtol=1e-4, atol=1e-4)
    value = np.mean(np.log(np.exp(expected).sum(axis=1)) - expected[np.arange(5), y])
    batch = mnist_domains.Batch(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(cross_entropy(params, batch), value, rtol=1e-4)
    squares = (w**2).sum() + 3 + (v**2).sum()
    np.testing.assert_allclose(loss(params, batch), value + 0.0005 * squares, rtol=1e-4)


def test_training_on_the_validation_images_alone(problem):
    grad = jax.jit(jax.grad(problem.loss))
    params = problem.params
    for _ in range(2):
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad(params, problem.split.validation))

    @jax.jit
    def train(state):
        # In two pieces.
        for _ in range(2):
            state = mnist_domains.on_validation_alone(problem, state, 1)
        return state[0]

    found = train((problem.params, problem.optimizer.init(problem.params)))
    for a, b in zip(*map(jax.tree.leaves, (found, params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)

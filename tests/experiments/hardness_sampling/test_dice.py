"""Tests the training loss, the Dice score of each region, and prediction by windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness_sampling import dice

LN4 = np.log(4.0)


def test_soft_dice_and_cross_entropy_by_hand():
    labels = jnp.zeros((1, 2, 2, 2), int).at[0, 0].set(1).at[0, 1, 0].set(2)  # 4, 2 and no voxels of labels 1, 2, 3
    scores = jnp.zeros((1, 2, 2, 2, 4))  # probability 1/4 everywhere
    expected = 1 - (2 * 1 / (2 + 4) + 2 * 0.5 / (2 + 2) + 0) / 3
    np.testing.assert_allclose(dice.soft_dice_losses(scores, labels), [expected], rtol=1e-4)
    np.testing.assert_allclose(dice.losses([scores], labels), [expected + LN4], rtol=1e-4)
    perfect = 100.0 * jax.nn.one_hot(labels, 4)
    np.testing.assert_allclose(dice.losses([perfect], labels), [0.0], atol=1e-5)  # absent and not predicted is right


def test_deep_supervision_weighs_two_to_one_and_takes_every_other_voxel():
    labels = jnp.zeros((1, 4, 4, 4), int).at[0, ::2, ::2, ::2].set(1)
    fine, coarse = 100.0 * jax.nn.one_hot(labels, 4), jnp.zeros((1, 2, 2, 2, 4))  # right, and undecided
    at_coarse = 1 - (2 * 2 / (2 + 8)) / 3 + LN4
    np.testing.assert_allclose(dice.losses([fine, coarse], labels), [at_coarse / 3], rtol=1e-4)
    with pytest.raises(
        ValueError, match=r"scores\[1\] must have the shape \(1, 2, 2, 2, 'classes'\), got \(1, 4, 4, 4, 4\)"
    ):
        dice.losses([fine, fine], labels)


def test_losses_are_one_number_an_example_whatever_the_batch():
    key = jax.random.key(0)
    scores = [jax.random.normal(key, (3, n, n, n, 4)) for n in (4, 2)]
    labels = jax.random.randint(key, (3, 4, 4, 4), 0, 4)
    losses = jax.jit(dice.losses)
    together = losses(scores, labels)
    assert together.shape == (3,) and len(set(together.tolist())) == 3
    for i in range(3):
        alone = losses([s[i : i + 1] for s in scores], labels[i : i + 1])
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=1e-5)
    jacobian = jax.jit(jax.jacobian(lambda s: dice.losses([s], labels)))(scores[0])  # [loss of, x, y, z, class]
    reach = jnp.abs(jacobian).sum((2, 3, 4, 5))
    np.testing.assert_array_equal(reach > 0, np.eye(3, dtype=bool))


def test_dice_of_regions_by_hand():
    truth = jnp.array([0, 1, 1, 2, 3, 3]).reshape(1, 1, 6)
    found = jnp.array([1, 1, 0, 3, 3, 2]).reshape(1, 1, 6)
    np.testing.assert_allclose(dice.dice(found, truth), [2 * 4 / (5 + 5), 2 * 3 / (3 + 3), 2 * 1 / (2 + 2)])


def test_empty_regions_score_as_in_brats():
    empty, oedema = jnp.zeros((2, 2, 2), int), jnp.ones((2, 2, 2), int)
    np.testing.assert_array_equal(dice.dice(empty, empty), [1, 1, 1])
    np.testing.assert_array_equal(dice.dice(oedema, empty), [0, 1, 1])
    np.testing.assert_array_equal(dice.dice(oedema, oedema + 2), [1, 0, 0])


@pytest.mark.parametrize(
    ("size", "patch", "starts"), [(32, 24, [0, 8]), (24, 24, [0]), (48, 24, [0, 12, 24]), (49, 24, [0, 8, 17, 25])]
)
def test_windows_cover_the_side_and_overlap_by_half(size, patch, starts):
    assert dice.window_starts(size, patch) == starts


def test_prediction_from_windows_is_that_of_the_whole_where_scores_are_local():
    image = jax.random.normal(jax.random.key(0), (7, 6, 9, 3))
    found = jax.jit(lambda image: dice.predict(lambda x: 5 * x, image, 4))(image)
    np.testing.assert_array_equal(found, image.argmax(-1))
    with pytest.raises(ValueError, match="patch must be at most the side of 7 voxels, got 8"):
        dice.predict(lambda x: x, image, 8)


def test_the_middle_of_a_window_counts_most():
    image = jnp.zeros((6, 4, 4, 1))  # two windows along x, from 0 and from 2

    def score(window):  # sure of class 1 near its beginning, less sure of class 2 elsewhere
        return jnp.zeros((4, 4, 4, 3)).at[:1, ..., 1].set(9.0).at[1:, ..., 2].set(2.0)

    assert dice.predict(score, image, 4)[:, 0, 0].tolist() == [1, 2, 2, 2, 2, 2]  # at 2 the first window's 2 wins

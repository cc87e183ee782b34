"""Tests the EXP3 bandit against the paper's algorithm in float64."""

import jax
import numpy as np
import pytest

from mixjax.rules import exp3

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def bandit(rewards, c, losses, drawn, t, decay):
    """One round of algorithm 1 in float64: the new rewards and weights."""
    size = len(c)

    def exploration(t):
        return min(1 / size, np.sqrt(np.log(size) / (size * max(t, 1))))

    rewards = rewards.copy()
    rewards[drawn] = decay * rewards[drawn] + (1 - decay) * losses[drawn] / c[drawn]
    scores = PRIOR * np.exp(exploration(t - 1) * (rewards - rewards.max()))
    explored = size * exploration(t)
    return rewards, (1 - explored) * scores / scores.sum() + explored * PRIOR


def test_exp3_over_60_draws():
    rng, rule = np.random.default_rng(2), exp3(0.9)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    rewards, c = np.zeros(3), PRIOR.copy()
    for t in range(1, 61):
        losses, drawn = rng.uniform(0, 3, 3) * [1, 1, 20], rng.choice(3, p=c / c.sum())
        state = update(state, counts=8 * np.eye(3)[drawn], losses=np.where(np.arange(3) == drawn, losses, np.nan))
        rewards, c = bandit(rewards, c, losses, drawn, t, 0.9)
        np.testing.assert_allclose(state.weights, c, rtol=1e-4)
        np.testing.assert_allclose(state.rewards, rewards, rtol=1e-4)
    assert int(state.step) == 60 and c[2] > 0.3


def test_exp3_with_perplexities_over_40_mixed_batches():
    rng, rule = np.random.default_rng(3), exp3(0.5, reward="perplexity")
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    rewards = np.zeros(3)
    for t in range(1, 41):
        losses, counts = rng.uniform(0, 3, 3) + np.arange(3), np.array([8, 8, 8 * (t % 3 == 0)])
        state = update(state, counts=counts, losses=np.where(counts > 0, losses, np.nan))
        rewards = np.where(counts > 0, 0.5 * rewards + 0.5 * np.exp(losses), rewards)
        explored = 3 * min(1 / 3, np.sqrt(np.log(3) / (3 * t)))
        c = (1 - explored) * PRIOR * rewards / (PRIOR @ rewards) + explored * PRIOR
        np.testing.assert_allclose(state.weights, c, rtol=1e-5)
    assert c[2] > 0.3


def test_exp3_keeps_the_reward_of_a_domain_not_drawn_and_explores_it_for_ever():
    rule = exp3(0.5)
    state = rule.init(PRIOR)
    for _ in range(50):
        new = rule.update(state, counts=np.array([8, 0, 8]), losses=np.array([5.0, np.nan, 9.0]))
        assert new.rewards[1] == state.rewards[1] == 0
        state = new
    assert state.weights[1] >= 0.3 * 3 * np.sqrt(np.log(3) / (3 * 50)) * (1 - 1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: exp3(1.5), "decay"),
        (lambda: exp3(reward="loss"), "reward"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()

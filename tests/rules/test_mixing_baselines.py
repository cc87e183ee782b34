"""The baselines of data mixing against their papers' recursions in float64: DoReMi, DoGE and the EXP3 bandit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import doge, doremi, exp3

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def test_doremi_over_20_steps():
    rng, rule = np.random.default_rng(0), doremi(0.5, floor=0.01)
    state, c = rule.init(PRIOR), PRIOR.copy()
    for _ in range(20):
        losses, reference = rng.uniform(0, 3, (2, 3))
        state = rule.update(state, counts=COUNTS, losses=losses, reference_losses=reference)
        c = c * np.exp(0.5 * np.maximum(losses - reference, 0))
        c = 0.99 * c / c.sum() + 0.01 * PRIOR
        np.testing.assert_allclose(state.weights, c, rtol=2e-5)


def test_doremi_stays_at_the_prior_where_no_loss_is_in_excess():
    rule = doremi()
    state = rule.update(rule.init(PRIOR), counts=COUNTS, losses=np.ones(3), reference_losses=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(state.weights, PRIOR, rtol=1e-6)


def test_doremi_smooths_within_the_rows_seen():
    rule = doremi(0.0, floor=0.5)
    state = rule.init(PRIOR)._replace(weights=jnp.array([0.1, 0.3, 0.6]), log_w=jnp.log(jnp.array([0.2, 1.0, 3.0])))
    state = rule.update(
        state, counts=np.array([8, 0, 8]), losses=np.array([1, np.nan, 1]), reference_losses=np.zeros(3)
    )
    np.testing.assert_allclose(state.weights, [0.5 * (0.1 + 0.5), 0.3, 0.5 * (0.6 + 0.2)], rtol=1e-6)


def test_doge_over_20_steps():
    rng, rule = np.random.default_rng(1), doge(0.3, max_score=1.0)
    state, c, clipped = rule.init(PRIOR), PRIOR.copy(), set()
    for _ in range(20):
        g, norms = rng.normal(size=3), rng.uniform(0.2, 1.5, 3)
        state = rule.update(state, counts=COUNTS, hypergrads=g, grad_norms=norms)
        raw = -g / norms.mean()
        clipped |= set(np.sign(raw[(raw < 0) | (raw > 1)]))
        c = c * np.exp(0.3 * np.clip(raw, 0, 1))
        c /= c.sum()
        np.testing.assert_allclose(state.weights, c, rtol=2e-5)
    assert clipped == {-1.0, 1.0}


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
        (lambda: doremi(-1.0), "step_size"),
        (lambda: doremi(floor=2.0), "floor"),
        (lambda: doremi(max_log_step=0.0), "max_log_step"),
        (lambda: doge(-1.0), "step_size"),
        (lambda: doge(max_score=0.0), "max_score"),
        (lambda: doge(max_log_step=0.0), "max_log_step"),
        (lambda: exp3(1.5), "decay"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()

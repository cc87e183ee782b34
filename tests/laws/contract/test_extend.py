"""Tests that domains can be added to every rule's state in the middle of a run, and taken out again."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mixjax
from mixjax import rules
from mixjax.rules.resizing import carry_over
from mixjax.types import WeightRule, WeightState
from tests.laws.contract.cases import (
    CASES,
    PRIOR,
    ROWS,
    advance,
    assert_simplex,
    draw_signals,
    every_case,
    jitted,
    moved_state,
    state_type,
    unseen,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

MORE_ROWS = (0, 1, 2, 0)
SHARE = 0.8
MORE = np.append(SHARE * PRIOR, np.float32(0.2))
# What these rules do depends on the size of priors or weights, or on the number of domains.
RESCALED = ("erma", "mirror_descent", "projected_gradient", "exp3", "aioli", "cap")


def extended(name, state, prior=MORE):
    return rules.extend(CASES[name].make(np.array(MORE_ROWS)), state, prior)


def memories(state):
    """What a state holds beside weights, priors and raw weights, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    derived = ("weights", "prior", "log_w", "loss_weights", "credit", "preference", "mixture")
    return {path: np.asarray(leaf) for path, leaf in leaves if path[-1].name not in derived}


@every_case
def test_old_domains_keep_ratios_and_memories_and_new_ones_are_fresh(name):
    state, fresh = moved_state(name), jitted(name, MORE_ROWS).init(MORE)
    more = extended(name, state)
    assert state_type(more) == state_type(fresh)
    assert_simplex(more.weights, MORE)
    np.testing.assert_allclose(more.weights[:3] / more.weights[:3].sum(), state.weights, rtol=1e-5)
    np.testing.assert_allclose(more.weights[3], fresh.weights[3], rtol=1e-6)
    np.testing.assert_allclose(more.prior, MORE / MORE.sum(), rtol=1e-6)
    old, new = memories(state), memories(fresh)
    for path, leaf in memories(more).items():
        kept = tuple(slice(size) for size in old[path].shape)
        np.testing.assert_array_equal(leaf[kept], old[path])
        added = leaf.copy()
        added[kept] = new[path][kept]
        np.testing.assert_array_equal(added, new[path] if leaf.ndim else added)
    addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((more, state))]
    assert len(set(addresses)) == len(addresses)


@every_case
def test_raw_weights_stay_consistent_with_weights(name):
    more = extended(name, moved_state(name))
    states = [more, *(node for node in jax.tree.leaves(more, is_leaf=lambda x: hasattr(x, "log_w")))]
    for state in states:
        if hasattr(state, "log_w") and not isinstance(state, rules.states.RawWeightState):
            np.testing.assert_allclose(state.weights, jax.nn.softmax(jnp.log(MORE) + state.log_w), rtol=1e-5)


@pytest.mark.parametrize("name", ["literal_erma", "slow_one_shot_fgls"])
def test_raw_weights_keep_their_scale(name):
    state = moved_state(name)
    more = extended(name, state)
    np.testing.assert_allclose(more.log_w[:3], state.log_w, atol=1e-5)
    less = rules.remove(CASES[name].make(ROWS[1:]), state, [0])
    np.testing.assert_allclose(less.log_w, state.log_w[1:], atol=1e-5)


@every_case
def test_extend_and_then_remove_gives_the_old_state_back(name):
    state = moved_state(name)
    back = rules.remove(CASES[name].make(ROWS), extended(name, state), [3])
    assert state_type(back) == state_type(state)
    chex.assert_trees_all_close(back, state, rtol=1e-5, atol=1e-6)


@every_case
def test_the_next_update_without_the_new_domain_moves_the_old_ones_as_before(name):
    state, signals = moved_state(name), draw_signals(2)
    more, rule = extended(name, state), jitted(name, MORE_ROWS)
    wider = {key: np.append(value, value[:1]).astype(value.dtype) for key, value in signals.items()}
    wider["loss_weights"] = np.append(SHARE * signals["loss_weights"], np.float32(0.2))
    new, want = more, advance(name, state, signals)
    for _ in range(CASES[name].period):
        new = rule.update(new, **unseen(wider, 3))
    assert_simplex(new.weights, MORE)
    if CASES[name].unseen == "multiplicative":
        np.testing.assert_array_equal(new.weights[3], more.weights[3])
    if name == "constant mirror_descent" or not any(rescaled in name for rescaled in RESCALED):
        old = np.asarray(new.weights[:3])
        np.testing.assert_allclose(old / old.sum(), want.weights, rtol=2e-5, atol=1e-7)


@every_case
def test_domains_of_zero_prior_get_nothing_and_those_that_had_zero_start_afresh(name):
    prior = np.float32([0.7, 0.0, 0.3])
    state = advance(name, jitted(name).init(prior), draw_signals(1))
    revived = np.float32([0.4, 0.3, 0.0, 0.3])
    more = extended(name, state, revived)
    assert_simplex(more.weights, revived)
    np.testing.assert_allclose(more.weights[1], jitted(name, MORE_ROWS).init(revived).weights[1], rtol=1e-5)
    for seed in range(3):
        more = jitted(name, MORE_ROWS).update(more, **draw_signals(seed, 4))
        assert_simplex(more.weights, revived)


@pytest.mark.parametrize("name", ["fgls", "erma", "exp3", "floor(erma)", "select(erma)", "kl_to_prior(mirror_descent)"])
def test_runs_under_jit_and_can_be_donated(name):
    rule, state = CASES[name].make(np.array(MORE_ROWS)), moved_state(name)
    kept = jax.tree.map(np.array, state)
    more = jax.jit(lambda state, prior: rules.extend(rule, state, prior))(state, MORE)
    chex.assert_trees_all_close(more, extended(name, state), rtol=1e-6)
    jax.jit(rule.update, donate_argnums=0)(extended(name, state), **draw_signals(0, 4))
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, state), kept)  # the old state has lost nothing
    less = jax.jit(lambda state: rules.remove(CASES[name].make(ROWS[[0, 2]]), state, [1]))(state)
    assert less.weights.shape == (2,)


@every_case
def test_all_the_weight_on_a_domain_that_goes_leaves_the_prior(name):
    rule = CASES[name].make(ROWS[1:])
    state = moved_state(name)._replace(weights=jnp.array([1.0, 0.0, 0.0]))
    less = rules.remove(rule, state, [0])
    assert_simplex(less.weights, PRIOR[1:])


def test_a_rule_of_your_own_with_the_plain_state():
    def update(state, *, counts, losses, **signals):
        return state._replace(weights=losses / losses.sum())

    rule = WeightRule(lambda prior: WeightState(jnp.asarray(prior), jnp.asarray(prior)), update)
    state = rule.update(rule.init(PRIOR), counts=np.ones(3), losses=jnp.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(rules.extend(rule, state, MORE).weights, [0.2, 0.2, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(rules.remove(rule, state, [0]).weights, [1 / 3, 2 / 3], rtol=1e-6)


def test_weights_that_never_move_follow_the_new_prior():
    rule = rules.fixed()
    more = rules.extend(rule, rule.init([0.5, 0.5]), [0.2, 0.5, 0.3])
    np.testing.assert_allclose(more.weights, [0.2, 0.5, 0.3], rtol=1e-6)


def test_a_whole_optimizer_state_can_be_carried_over():
    params, signals = jnp.zeros(5), draw_signals(0)

    def chain(rows, prior):
        rule = CASES["floor(erma)"].make(np.array(rows))
        return optax.chain(optax.clip(1.0), mixjax.track(rule, prior), optax.adam(0.1))

    old, new = chain(ROWS, PRIOR), chain(MORE_ROWS, MORE)
    _, state = old.update(jnp.ones(5), old.init(params), params, **signals)
    more = carry_over(new.init(params), state, range(3))
    chex.assert_trees_all_equal(more[2], state[2])  # Adam's moments and count
    weights = mixjax.get_weights(more)
    np.testing.assert_allclose(weights[:3] / weights[:3].sum(), mixjax.get_weights(state), rtol=1e-5)
    new.update(jnp.ones(5), more, params, **draw_signals(1, 4))


def test_mistakes_are_named():
    rule = rules.erma()
    state = rule.init(PRIOR)
    with pytest.raises(ValueError, match="prior must have an entry for each of the state's 3 domains"):
        rules.extend(rule, state, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"prior must be \[D\]"):
        rules.extend(rule, state, [[0.5, 0.5]])
    with pytest.raises(TypeError, match="state must be one of the given rule"):
        rules.extend(rules.fgls(), state, MORE)
    with pytest.raises(TypeError, match="state must be a rule's state"):
        rules.extend(rule, state.weights, MORE)
    with pytest.raises(ValueError, match="domains must leave at least one"):
        rules.remove(rule, state, [0, 1, 2])
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match=r"domains must be in \[0, 3\)"):
            rules.remove(rule, state, wrong)
    with pytest.raises(TypeError, match="domains must be integers"):
        rules.remove(rule, state, [0.5])
    with pytest.raises(ValueError, match="variances"):
        rules.extend(rules.gls([1.0, 2.0, 3.0]), rules.gls([1.0, 2.0, 3.0]).init(PRIOR), MORE)

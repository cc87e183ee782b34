"""Samplers whose examples come and go: they draw as samplers made anew with what the slots hold."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import HostSampler, hardness, proportional, when_it_pays, with_ages
from mixjax.samplers.scored import host
from tests.samplers.scored.host_cases import assert_states_agree

SLOTS, BATCH = 24, 7
SETTINGS = [
    (1.5, {}),
    (1.5, {"floor": 0.2, "decay": 0.5}),
    (1.5, {"replacement": False}),
    (None, {}),
    (None, {"floor": 0.3, "replacement": False}),
]


def maker(beta):
    return proportional if beta is None else functools.partial(hardness, beta=beta)


def ring(steps):
    """Batches that go round the slots, with weights of which some are 0; a loss is not finite now and then."""
    random = np.random.default_rng(0)
    for step in range(steps):
        indices = (step * BATCH + np.arange(BATCH)) % SLOTS
        yield indices, random.gamma(2.0, 1.0, BATCH).astype(np.float32), random.choice([0.0, 1.0, 2.0], BATCH)


@pytest.mark.parametrize(("beta", "settings"), SETTINGS)
def test_draws_are_those_of_a_sampler_made_anew(beta, settings):
    make = maker(beta)
    sampler = make(SLOTS, growing=True, **settings)
    insert, sample = jax.jit(sampler.insert), jax.jit(sampler.sample, static_argnums=2)
    # One program for all contents.
    anew = jax.jit(lambda prior, values, key: _look(make(SLOTS, prior=prior, **settings), values, key))
    ways = [False] if host._kernels(None) is None else [False, True]
    hosts = [HostSampler(SLOTS, [], beta, growing=True, compiled=way, **settings) for way in ways]
    state, prior, values = sampler.init([]), np.zeros(SLOTS), np.zeros(SLOTS, np.float32)
    for step, (indices, fresh, weights) in enumerate(ring(6)):
        prior[indices], values[indices] = weights, fresh
        state, key = insert(state, indices, fresh, weights), jax.random.key(step)
        log_probs, (wanted, wanted_weights) = anew(prior, values, key)
        np.testing.assert_allclose(np.exp(sampler.log_probs(state)), np.exp(log_probs), rtol=1e-5)
        assert (np.exp(log_probs)[prior == 0] == 0).all()
        drawn, drawn_weights = sample(state, key, 4)
        np.testing.assert_array_equal(drawn, wanted)
        np.testing.assert_allclose(drawn_weights, wanted_weights, rtol=1e-4)
        for ours in hosts:
            ours.insert(indices, fresh, weights)
            assert_states_agree(ours.state, state)
            assert ours.sample(step, 4)[0].tolist() == drawn.tolist()
            np.testing.assert_allclose(ours.sample(step, 4)[1], drawn_weights, rtol=1e-4)
            np.testing.assert_allclose(np.exp(ours.log_probs()), np.exp(log_probs), rtol=1e-5)
    again = pickle.loads(pickle.dumps(hosts[-1]))
    again.insert([0, 1], [1.0, 2.0])
    hosts[-1].insert([0, 1], [1.0, 2.0])
    assert again.sample(0, 4)[0].tolist() == hosts[-1].sample(0, 4)[0].tolist()
    hosts[0].state = state
    assert hosts[0].sample(step, 4)[0].tolist() == drawn.tolist()


def _look(sampler, values, key):
    state = sampler.init(values)
    return sampler.log_probs(state), sampler.sample(state, key, 4)


def test_the_first_examples_can_be_given_at_the_start():
    values = jnp.array([1.0, 2.0, 3.0])
    state = hardness(5, 1.0, growing=True).init(values)
    ours, full = hardness(5, 1.0, growing=True).log_probs(state), hardness(3, 1.0)
    np.testing.assert_allclose(ours[:3], full.log_probs(full.init(values)), rtol=1e-6)
    assert np.isneginf(ours[3:]).all()
    np.testing.assert_allclose(HostSampler(5, values, 1.0, growing=True).log_probs(), ours, rtol=1e-6)
    assert np.allclose(hardness(5, 1.0, growing=True).log_probs(hardness(5, 1.0, growing=True).init(2.0)), -np.log(5))


@pytest.mark.parametrize(("beta", "settings"), SETTINGS)
def test_draws_of_no_example_have_no_meaning_and_touch_no_other_memory(beta, settings):
    for slots in (5, 100):
        ways = [HostSampler(slots, [], beta, growing=True, compiled=way, **settings) for way in (False, None)]
        for indices, weights in (ours.sample(0, 4) for ours in ways):
            assert indices.tolist() == [0] * 4 and not (weights > 0).any()


def test_what_is_inserted_forgets_the_example_before_it():
    sampler = with_ages(hardness(4, 1.0, growing=True, decay=0.9))
    state = sampler.update(sampler.init(1.0), jnp.array([0, 1]), jnp.array([5.0, 5.0]))
    state = sampler.insert(state, jnp.array([1, 9, -1]), jnp.array([7.0, 1.0, jnp.nan]))
    assert state.values.tolist()[1] == 7.0 and state.visits.tolist() == [1, 0, 0, 0]
    assert state.ages.tolist() == [0, 1, 1, 1]
    # Of the batch's losses, 7 is the largest finite one.
    state = sampler.insert(state, jnp.array([2, 3]), jnp.array([jnp.inf, 7.0]))
    assert state.values.tolist()[2:] == [7.0, 7.0]


def test_the_hardest_are_examples_not_empty_slots():
    slots = HostSampler(4, [5.0, -1.0, -2.0], growing=True)
    slots.insert([0], [9.0], 0.0)
    indices, values = slots.hardest(3)
    assert indices.tolist() == [1, 2, 0] and values.tolist() == [-1.0, -2.0, -np.inf]


def test_what_does_not_fit_is_named():
    for insert in (functools.partial(hardness(4, 1.0).insert, hardness(4, 1.0).init(1.0)), HostSampler(4, 1.0).insert):
        with pytest.raises(ValueError, match="insert needs a sampler that was made with growing=True"):
            insert([0], [1.0])
    growing = hardness(4, 1.0, growing=True)
    for insert in (functools.partial(growing.insert, growing.init([])), HostSampler(4, [], growing=True).insert):
        with pytest.raises(ValueError, match=r"prior must be a scalar or have shape \(1,\), got \(2,\)"):
            insert(np.array([0]), np.array([1.0]), np.ones(2))
        with pytest.raises(ValueError, match="indices must be a vector"):
            insert(np.array(0), np.array(1.0))
        for weight in (-1.0, np.inf, np.nan):
            with pytest.raises(ValueError, match="prior must be"):
                insert(np.array([0]), np.array([1.0]), weight)
    for make in (lambda **k: hardness(4, 1.0, **k), lambda **k: HostSampler(4, 1.0, **k)):
        with pytest.raises(ValueError, match="a growing sampler takes no prior"):
            make(growing=True, prior=np.ones(4))
    state, slots = growing.init([]), HostSampler(4, [], growing=True)
    for extend in (lambda: growing.extend(state, 1.0), lambda: slots.extend([1.0])):
        with pytest.raises(ValueError, match="extend is for samplers of fixed examples: a growing one has insert"):
            extend()
    for remove in (lambda: growing.remove(state, [0]), lambda: slots.remove([0])):
        with pytest.raises(ValueError, match="remove is for samplers of fixed examples"):
            remove()
    with pytest.raises(ValueError, match=r"initial values must be a scalar or have shape \(4,\), got \(5,\)"):
        growing.init(np.ones(5))
    with pytest.raises(ValueError, match="the sampler's prior must be uniform too"):
        when_it_pays(proportional(4, growing=True)).init(1.0)


def test_weights_below_the_normal_floats_count_as_zero_on_the_host_and_on_a_device():
    tiny = np.finfo(np.float32).tiny
    weights = np.array([0.0, np.finfo(np.float32).smallest_subnormal, tiny / 2, tiny, 2 * tiny], np.float32)
    slots = np.arange(weights.size)
    for beta in (None, 1.0):
        sampler, fallback = maker(beta)(SLOTS, growing=True), HostSampler(SLOTS, [], beta=beta, growing=True)
        state = sampler.insert(sampler.init([]), slots, 1.0, weights)
        fallback.insert(slots, 1.0, weights)
        assert_states_agree(fallback.state, state)
        np.testing.assert_array_equal(np.asarray(state.log_prior)[slots] > -np.inf, weights >= tiny)


@pytest.mark.parametrize("size", [0, 1])
def test_a_list_without_examples_changes_nothing(size):
    """An empty list is a batch like any other; a batch of padding alone changes nothing either."""
    batch = [SLOTS] * size, [1.0] * size
    sampler, host_sampler = proportional(SLOTS, growing=True), HostSampler(SLOTS, [1.0, 2.0], growing=True)
    first = sampler.init([1.0, 2.0])
    for state in (sampler.insert(first, *batch), sampler.update(first, *batch)):
        jax.tree.map(np.testing.assert_array_equal, state, first)
    before = host_sampler.state
    host_sampler.insert(*batch)
    host_sampler.update(*batch)
    jax.tree.map(np.testing.assert_array_equal, host_sampler.state, before)


def test_a_fixed_sampler_refuses_weights_that_are_no_shares():
    """A growing sampler's state has the shapes of a fixed one's with a prior and a floor."""
    settings = {"beta": 1.0, "floor": 0.5}
    growing, prior = HostSampler(SLOTS, 1.0, growing=True, **settings), np.arange(SLOTS) + 1.0
    fixed = HostSampler(SLOTS, 1.0, prior=prior, **settings)
    before = fixed.state
    with pytest.raises(ValueError, match=r"^state must have a prior that adds up to 1, got 24: is it a growing one's"):
        fixed.state = growing.state
    jax.tree.map(np.testing.assert_array_equal, fixed.state, before)
    # Its own state, and that of a sampler of another prior, are taken.
    fixed.state = HostSampler(SLOTS, 1.0, prior=prior[::-1], **settings).state
    growing.state = fixed.state

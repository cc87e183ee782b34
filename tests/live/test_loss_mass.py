"""Tests that each domain's rows get the sum of its loss weights over many steps, however weights and counts move."""

import jax
import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.live.loss_mass import share_mass
from mixjax.live.tokens_carried import carry_tokens
from mixjax.samplers import carry, start_carry

NUM_STEPS = 100_000


def walk(rng, num_steps, num_domains, size=0.05):
    """Returns weights that drift, ``[steps, D]``."""
    steps = size * rng.normal(size=(num_steps, num_domains))
    logits = 2.0 * np.sin(np.cumsum(steps, axis=0))
    weights = np.exp(2.0 * logits)
    return weights / weights.sum(axis=1, keepdims=True)


def by_turns(weights, period, rng):
    """Takes the weight of some domains away, others every few steps."""
    gone = np.repeat(rng.random((len(weights) // period + 1, weights.shape[1])) < 0.4, period, axis=0)[: len(weights)]
    gone[:, 0] &= ~gone[:, 1:].all(axis=1)
    kept = np.where(gone, 0.0, weights)
    return kept / kept.sum(axis=1, keepdims=True)


def pattern(name, num_steps=NUM_STEPS):
    """Returns loss weights and sampling weights ``[steps, D]``, and the batch size."""
    rng = np.random.default_rng(len(name))
    if name == "by two":
        turns = np.arange(num_steps) % 2
        q = np.where(turns, 0.02, 0.48)
        return np.tile([0.3, 0.7], (num_steps, 1)), np.stack([q, 1 - q], axis=1), 2
    if name == "drifting":
        return walk(rng, num_steps, 3), walk(rng, num_steps, 3), 4
    if name == "more domains than rows":
        return rng.dirichlet(np.full(7, 0.3), num_steps), rng.dirichlet(np.full(7, 0.3), num_steps), 2
    if name == "weights of zero by turns":
        return walk(rng, num_steps, 4), by_turns(walk(rng, num_steps, 4), 37, rng), 5
    c = by_turns(walk(rng, num_steps, 4), 11, rng)
    return c, by_turns(walk(rng, num_steps, 4), 5, rng), 3


PATTERNS = ("by two", "drifting", "more domains than rows", "weights of zero by turns", "both zero by turns")


@jax.jit(static_argnums=1)
def counts_of(q, batch_size):
    """Draws the counts as the plan does: the test of ``carry`` has that the two are equal to the bit."""

    def step(state, weights):
        counts, state = carry(state, weights, batch_size)
        return state, counts

    return jax.lax.scan(step, start_carry(q.shape[1]), q)[1]


def shared(c, amounts):
    """Yields the loss weight of a row, or token, of each domain and step."""
    waiting = np.zeros(c.shape[1])
    for weights, amount in zip(c, amounts, strict=True):
        factors, waiting = share_mass(waiting, weights, amount)
        yield factors


def assert_law(c, amounts, factors):
    carried, due = np.cumsum(factors * amounts, axis=0), np.cumsum(c, axis=0)
    gap = due - carried
    # Nothing waits where a domain has just had rows, and no domain is ever ahead.
    np.testing.assert_allclose(gap[amounts > 0], 0.0, atol=1e-8 * len(c))
    assert gap.min() > -1e-8 * len(c)


@pytest.mark.parametrize(
    "name", [PATTERNS[3], *(pytest.param(name, marks=pytest.mark.slow) for name in PATTERNS if name != PATTERNS[3])]
)
def test_rows_get_the_sum_of_the_loss_weights(name):
    c, q, batch_size = pattern(name)
    counts = np.asarray(counts_of(q.astype(np.float32), batch_size))
    factors = np.array(list(shared(c, counts)))
    assert_law(c, counts, factors)
    # No part of the pattern is idle: every domain has had rows often, and not in every batch.
    assert ((counts > 0).mean(axis=0) > 0.01).all() and (counts == 0).any()


def test_a_correction_by_the_weights_in_force_gives_half_of_the_loss_weight():
    c, q, batch_size = pattern("by two", 20_000)
    counts = np.asarray(counts_of(q.astype(np.float32), batch_size))
    corrected = (c / (batch_size * q) * counts).mean(axis=0)
    assert corrected[0] == pytest.approx(0.156, abs=1e-3)
    carried = (np.array(list(shared(c, counts))) * counts).mean(axis=0)
    assert carried[0] == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        ("more domains than rows", 3000),
        ("both zero by turns", 3000),
        pytest.param("weights of zero by turns", NUM_STEPS, marks=pytest.mark.slow),
    ],
)
def test_tokens_get_the_sum_of_the_loss_weights(name, num_steps):
    c, q, batch_size = pattern(name, num_steps)
    lengths = np.random.default_rng(0).integers(1, 4096, 1009).tolist()
    owed, tokens, place = np.zeros(c.shape[1], np.int64), [], 0
    for weights in q:
        split = carry_tokens(owed, weights, batch_size, lambda domain, number, at=place: lengths[(at + number) % 1009])
        owed, place = split.carry, place + 17
        tokens.append(split.tokens)
    tokens = np.array(tokens)
    assert_law(c, tokens, np.array(list(shared(c, tokens))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_steps", "lengths"), [(NUM_STEPS, None), (NUM_STEPS // 10, [np.arange(1, 101), np.arange(1, 51) * 7])]
)
def test_a_plan_follows_the_law(num_steps, lengths):
    c, q, batch_size = pattern("by two", num_steps)
    moving = np.random.default_rng(0).dirichlet([1.0, 1.0], num_steps)
    plan = Plan([100, 50], batch_size, q[0], c[0], lag=1, lengths=lengths)
    carried, due, largest = np.zeros(2), np.zeros(2), 0.0
    for step in range(num_steps):
        batch = next(plan)
        np.add.at(carried, batch.domain_ids, batch.row_weights.astype(np.float64))
        due += c[0] if step == 0 else moving[step - 1]
        largest = max(largest, batch.row_weights.max())
        plan.publish(step, q[(step + 1) % num_steps], moving[step])
    # float32 rounds each row's weight, by less than 1e-7 of it.
    assert (np.abs(carried - due) <= largest + 1e-7 * num_steps).all()

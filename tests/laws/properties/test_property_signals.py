"""Signals of any values under any split into parts: what is merged is what the whole would have given."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

import mixjax
from mixjax import checks, signals
from mixjax.types import WeightRule
from tests.laws.properties.cases import FLOAT, cases, rows

D, B, PARTS = 3, 16, 4
EPS = float(FLOAT.eps)


@jax.jit
def measure(values, ids, parts, order):
    """Moments of all values, of the parts merged in an order and in a tree, and of the parts on devices."""

    def of_part(part):
        return signals.moments(values, jnp.where(parts == part, ids, -1), D)

    split = [of_part(part) for part in order]
    chain = functools.reduce(signals.merge, split)
    pairs = signals.merge(signals.merge(split[0], split[1]), signals.merge(split[2], split[3]))
    devices = jax.vmap(lambda part: signals.psum(of_part(part), "devices"), axis_name="devices")(order)
    whole = signals.moments(values, ids, D)
    return [whole, chain, pairs, jax.tree.map(lambda x: x[0], devices)], whole.signals()


def exact(values, ids):
    """Counts, means and sums of squared deviations of the domains in float64, and each one's largest magnitude."""
    table = np.zeros((4, D))
    for d in range(D):
        x = np.float64(values[ids == d])
        if x.size:
            table[:, d] = x.size, x.mean(), np.square(x - x.mean()).sum(), np.abs(x).max()
    return table


def assert_moments(moments, values, ids, slack=8.0):
    """Means within a few roundings of the domain's largest magnitude; squares as far off as such a mean makes them."""
    count, mean, m2, largest = exact(values, ids)
    error = slack * EPS * largest
    np.testing.assert_array_equal(moments[0], count)
    assert (np.abs(moments[1] - mean) <= error + FLOAT.tiny).all(), (moments[1], mean)
    allowed = 1e-5 * m2 + 2 * np.sqrt(count * m2) * error + count * error**2
    assert (np.abs(moments[2] - m2) <= allowed + FLOAT.tiny * B).all(), (moments[2], m2)


VALUES = st.sampled_from([1.0, 1e-15, 1e6, 1e15]).flatmap(
    lambda scale: rows(B, 0.0, 1.0, 1.0 + 2**-23, -1.0, 1e3, low=-2.0, high=2.0).map(lambda x: x * np.float32(scale))
)
IDS = st.lists(st.integers(-1, D), min_size=B, max_size=B).map(np.array)  # -1 and D are padding
LABELS = st.lists(st.integers(0, PARTS - 1), min_size=B, max_size=B).map(np.array)


@cases(500, values=VALUES, ids=IDS, parts=LABELS, order=st.permutations(range(PARTS)))
def test_moments_do_not_depend_on_the_split_nor_on_the_order(values, ids, parts, order):
    results, read = jax.tree.map(np.asarray, measure(values, ids, parts, np.array(order)))
    for moments in results:
        assert_moments(moments, values, ids)
    count, mean, _, largest = exact(values, ids)
    np.testing.assert_array_equal(np.isinf(read["losses"]), count == 0)
    np.testing.assert_array_equal(np.isinf(read["loss_vars"]), count < 2)
    assert (read["loss_vars"][count > 1] >= 0).all()
    assert (np.abs(read["losses"] - mean)[count > 0] <= 8 * EPS * largest[count > 0] + FLOAT.tiny).all()


@cases(
    150,
    values=VALUES,
    ids=IDS,
    parts=LABELS,
    order=st.permutations(range(PARTS)),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    place=st.integers(0, B - 1),
)
def test_a_value_that_is_not_finite_spoils_its_own_domain_only(values, ids, parts, order, bad, place):
    spoilt = values.copy()
    spoilt[place] = bad
    clean, _ = jax.tree.map(np.asarray, measure(values, ids, parts, np.array(order)))
    results, read = jax.tree.map(np.asarray, measure(spoilt, ids, parts, np.array(order)))
    others = np.arange(D) != ids[place]
    for before, after in zip(clean, results, strict=True):
        np.testing.assert_array_equal(np.stack(after)[:, others], np.stack(before)[:, others])
    assert not np.isfinite(read["losses"][~others]).any()


class Heard(NamedTuple):
    """State of a rule whose weights are the prior and that keeps the signals it got."""

    weights: jax.Array
    prior: jax.Array
    counts: jax.Array
    losses: jax.Array
    loss_vars: jax.Array


def listener():
    def init(prior):
        prior = checks.as_simplex("prior", prior)
        return Heard(prior, prior, *[jnp.zeros_like(prior)] * 3)

    def update(state, *, counts, losses, loss_vars, **others):
        return Heard(state.weights, state.prior, counts, losses, loss_vars)

    return WeightRule(init, update)


@jax.jit
def accumulated(prior, values, grads, ids, parts):
    """What the rule hears, and the update, after as many microbatches as there are parts; and the updates before."""
    tx = mixjax.accumulate(optax.chain(mixjax.aggregate(listener(), prior), optax.sgd(1.0)), PARTS)
    state, updates = tx.init(jnp.zeros(2)), []
    for part in range(PARTS):
        own = jnp.where(parts == part, ids, -1)
        sums = jax.ops.segment_sum(grads, jnp.where((own < 0) | (own >= D), D, own), D + 1)[:D]
        measured = signals.moments(values, own, D).signals()
        means = sums / jnp.maximum(measured["counts"], 1.0)[:, None]
        update, state = tx.update(means, state, jnp.zeros(2), **measured)
        updates.append(update)
    return mixjax.transforms.find_states(state)[0][1].rule_state, updates[-1], jnp.stack(updates[:-1])


@cases(
    400,
    prior=rows(D, 0.0, 1.0, low=0.125).filter(any),
    values=VALUES,
    grads=rows(2 * B, 0.0, low=-3.0, high=3.0),
    ids=IDS,
    parts=LABELS,
)
def test_accumulated_microbatches_are_one_batch(prior, values, grads, ids, parts):
    grads = grads.reshape(B, 2)
    heard, update, before = jax.tree.map(np.asarray, accumulated(prior, values, grads, ids, parts))
    assert (before == 0).all()
    count = exact(values, ids)[0]
    np.testing.assert_array_equal(heard.counts, count)
    np.testing.assert_array_equal(np.isinf(heard.losses), count == 0)
    np.testing.assert_array_equal(np.isinf(heard.loss_vars), count < 2)
    m2 = np.where(count > 1, heard.loss_vars, 0.0) * np.maximum(count - 1, 0)
    assert_moments((count, np.where(count > 0, heard.losses, 0.0), m2), values, ids, slack=16.0)
    means = np.stack([np.float64(grads[ids == d]).mean(axis=0) if count[d] else np.zeros(2) for d in range(D)])
    np.testing.assert_allclose(update, -(np.float64(prior) / np.float64(prior).sum()) @ means, rtol=1e-4, atol=1e-5)

"""Tests training on a fixed mix: which rows it draws, and that it learns what it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared.token_training import Proxy, Rows, drawn_rows, train
from mixjax import live

SIZES = (5, 12, 40)


def domains_of(rows, sizes=SIZES):
    return np.searchsorted(np.cumsum(sizes), np.asarray(rows), side="right")


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.0, 0.02, 0.98), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
def test_each_step_draws_what_a_live_plan_draws(weights):
    drawn = drawn_rows(jax.random.key(0), jnp.asarray(weights), SIZES, 7, 20)
    plan = live.Plan(SIZES, 7, np.asarray(weights), lag=1)
    for rows in domains_of(drawn):
        batch = next(plan)
        assert np.bincount(rows, minlength=3).tolist() == batch.counts.tolist()
        plan.keep(batch.step)


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.9, 0.1, 0.0)])
def test_no_row_comes_again_before_its_domain_has_been_drawn_through(weights):
    drawn = np.asarray(drawn_rows(jax.random.key(1), jnp.asarray(weights), SIZES, 8, 25)).reshape(-1)
    starts, domains = np.cumsum([0, *SIZES[:-1]]), domains_of(drawn)
    for d, size in enumerate(SIZES):
        own = drawn[domains == d] - starts[d]
        for first in range(0, len(own) - size + 1, size):
            assert sorted(own[first : first + size]) == list(range(size))
        rest = own[len(own) // size * size :]
        assert len(set(rest)) == len(rest)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [np.asarray(drawn_rows(jax.random.key(i), jnp.ones(1), (40,), 40, 2)) for i in range(2)]
    assert not np.array_equal(orders[0][0], orders[0][1])
    assert not np.array_equal(orders[0], orders[1])


def test_a_mix_learns_the_domain_that_it_draws():
    rng = np.random.default_rng(0)
    # Two domains of a token each, which a model of one knows nothing of the other.
    texts = {name: np.full((30, 9), token, np.uint8) for name, token in (("a", 1), ("b", 2))}
    rows = Rows.of(texts, {name: text[:4] for name, text in texts.items()})
    proxy = Proxy(width=8, layers=1, heads=2, batch_size=4, num_steps=40, learning_rate=0.03)
    run = jax.jit(lambda key, weights: train(key, weights, rows, sizes=(30, 30), proxy=proxy, vocabulary=4))
    key = jax.random.key(int(rng.integers(100)))
    only_a, only_b, both = (np.asarray(run(key, jnp.array(q))) for q in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert only_a[0] < 0.3 < only_a[1] and only_b[1] < 0.3 < only_b[0]
    assert both.max() < 0.8

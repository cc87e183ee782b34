"""Compares draws on the device with the live plan, to the bit where both are exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared.device_plan import draw, shuffled_rows, start_draws
from mixjax import live


@pytest.mark.filterwarnings("ignore:.*come near one domain")
@pytest.mark.parametrize(("num_domains", "batch_size"), [(3, 8), (8, 16), (20, 7)])
@pytest.mark.parametrize("are_equal", [True, False], ids=["c is q", "c moves on its own"])
def test_counts_and_row_weights_are_those_of_a_live_plan(num_domains, batch_size, are_equal):
    rng = np.random.default_rng(num_domains)
    q = rng.dirichlet(np.full(num_domains, 0.5), 60).astype(np.float32)
    c = rng.dirichlet(np.full(num_domains, 4.0), 60).astype(np.float32)
    # A domain without any sampling weight for a while, whose loss weight has to wait.
    q[20:30, 0] = 0.0
    q /= q.sum(axis=1, keepdims=True)
    plan = live.Plan([50] * num_domains, batch_size, q[0], None if are_equal else c[0], lag=1)
    state, drawn = start_draws(num_domains), np.zeros(num_domains, int)
    compiled = jax.jit(functools.partial(draw, batch_size=batch_size))
    for step in range(59):
        expected = next(plan)
        batch, state = compiled(state, jnp.asarray(expected.weights), None if are_equal else jnp.asarray(c[step]))
        np.testing.assert_array_equal(batch.counts, expected.counts)
        np.testing.assert_array_equal(batch.domain_ids, expected.domain_ids)
        np.testing.assert_allclose(batch.row_weights, expected.row_weights, rtol=1e-5)
        within = np.concatenate([np.arange(count) for count in expected.counts])
        np.testing.assert_array_equal(batch.row_numbers, drawn[expected.domain_ids] + within)
        drawn += expected.counts
        plan.publish(step, q[step + 1], None if are_equal else c[step + 1])
    np.testing.assert_array_equal(state.drawn, drawn)


def test_each_epoch_goes_once_through_a_domain_in_a_new_order():
    sizes = [5, 12, 40]
    rows = np.asarray(shuffled_rows(jax.random.key(0), sizes, 50))
    assert rows.shape == (3, 50)
    for size, of_domain in zip(sizes, rows, strict=True):
        epochs = [of_domain[start : start + size] for start in range(0, 50 - size + 1, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    # The unfinished epoch at the end is drawn from all of the domain's rows.
    assert rows[2, 40:].max() >= 10
    assert not np.array_equal(rows, shuffled_rows(jax.random.key(1), sizes, 50))

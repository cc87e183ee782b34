"""The tree of log-sums: sums, updates, drift, and the laws of both kinds of draw."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mixjax.samplers.scored import levels, tree

FANOUT = 4


HEAT = 0.5  # of losses that are twice the logs


def masses_of(leaves, sums, fanout):
    def masses(level, parents):
        return tree.relative(tree.take(leaves if level == 0 else sums[level - 1], parents, fanout), ONE, HEAT)

    return masses


ONE = levels.Nodes(0.0, 0.0)


def nodes_of(logs):
    """The same masses, written half as losses and half as factors."""
    logs = jnp.asarray(logs, jnp.float32)
    zero = logs == -jnp.inf
    return levels.Nodes(jnp.where(zero, 7.0, logs), jnp.where(zero, -jnp.inf, (1 - HEAT) * logs))


@jax.jit
def _logs_of(nodes):
    return tree.relative(nodes, ONE, HEAT)


def logs_of(nodes):
    return np.asarray(_logs_of(nodes))


def build(logs, fanout=FANOUT):
    return _build(jnp.asarray(logs, jnp.float32), fanout, levels.WIDEST)


def root_of(leaves, sums, heat=HEAT):
    return tree.combine(sums[-1] if sums else leaves, heat)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _build(logs, fanout, widest):
    leaves = nodes_of(logs)
    return leaves, tree.build(leaves, HEAT, fanout)


@jax.jit
def refreshed(logs, sums, ids):
    leaves = nodes_of(logs)
    return tree.refresh(sums, lambda parents: tree.take(leaves, parents, FANOUT), ids, HEAT, FANOUT)


def draw(key, leaves, sums, fanout, size, runs=1):
    return _draw(key, leaves, sums, levels.sizes(leaves.log.size, fanout), fanout, size, runs)


def draw_distinct(key, leaves, sums, fanout, size, runs=1):
    return _draw_distinct(key, leaves, sums, levels.sizes(leaves.log.size, fanout), fanout, size, runs)


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _draw(key, leaves, sums, sizes, fanout, size, runs):
    keys = jax.random.split(key, runs)
    return jax.vmap(lambda k: tree.draw(k, masses_of(leaves, sums, fanout), sizes, fanout, size))(keys)


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _draw_distinct(key, leaves, sums, sizes, fanout, size, runs):
    keys = jax.random.split(key, runs)
    return jax.vmap(lambda k: tree.draw_distinct(k, masses_of(leaves, sums, fanout), sizes, fanout, size))(keys)


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@pytest.mark.parametrize("n", [1, 2, 4, 5, 64, 65, 1000])
@pytest.mark.parametrize("fanout", [2, 8, 32])
def test_levels_shrink_to_few_nodes_that_hold_everything(n, fanout):
    logs = np.random.default_rng(n).normal(size=n) * 5
    leaves, sums = build(logs, fanout)
    sizes = levels.sizes(n, fanout)
    assert sizes == (n, *(level.log.size for level in sums))
    assert sizes[-1] <= max(levels.WIDEST, fanout)
    assert all(above == -(-count // fanout) and count > sizes[-1] for count, above in itertools.pairwise(sizes))
    np.testing.assert_allclose(logs_of(root_of(leaves, sums)), np.logaddexp.reduce(logs), rtol=1e-5)
    for nodes, above in itertools.pairwise([leaves, *sums]):
        below = logs_of(nodes)
        padded = np.pad(np.float64(below), (0, -below.size % fanout), constant_values=-np.inf)
        np.testing.assert_allclose(
            logs_of(above), np.logaddexp.reduce(padded.reshape(-1, fanout), axis=1), rtol=1e-5, atol=1e-5
        )


def test_zero_masses_stay_zero_and_do_not_spread():
    leaves, sums = build([-np.inf, -np.inf, -np.inf, -np.inf, 0.0, -np.inf])
    assert logs_of(sums[0]).tolist() == [-np.inf, 0.0]
    assert logs_of(root_of(leaves, sums)) == 0.0
    assert (draw(jax.random.key(0), leaves, sums, FANOUT, 64)[0] == 4).all()
    empty, sums = build([-np.inf] * 5)
    root = root_of(empty, sums)
    assert root.log == -np.inf and np.isfinite(root.top)
    assert not np.isnan(draw_distinct(jax.random.key(0), empty, sums, FANOUT, 3)[2]).any()


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.floats(-50, 50, width=32)), min_size=6, max_size=6))
def test_refresh_is_build(changes):
    _, sums = build(np.linspace(-3, 3, 30))
    ids = jnp.array([i for i, _ in changes])
    logs = np.linspace(-3, 3, 30)
    for i, value in changes:
        logs[i] = value
    chex.assert_trees_all_close(refreshed(logs, sums, ids), build(logs)[1], rtol=1e-6, atol=1e-6)


def test_ids_past_the_end_change_nothing():
    _, sums = build(np.arange(10.0))
    ids = jnp.array([10, 11, 400])
    chex.assert_trees_all_close(refreshed(np.arange(10.0), sums, ids), sums, rtol=1e-6)


@pytest.mark.slow
def test_a_million_updates_do_not_drift():
    n, batch, steps = 20_000, 64, 15_625  # 10^6 updates

    def step(carry, key):
        logs, sums = carry
        id_key, value_key = jax.random.split(key)
        ids = jax.random.randint(id_key, (batch,), 0, n)
        logs = logs.at[ids].set(5 * jax.random.normal(value_key, (batch,)))
        # An index that occurs twice: whichever value stays, the sums are those of the leaves.
        return (logs, tree.refresh(sums, lambda parents: tree.take(nodes_of(logs), parents, 8), ids, HEAT, 8)), None

    carry = jnp.zeros(n), build(np.zeros(n), 8)[1]
    logs, sums = jax.jit(lambda c, k: jax.lax.scan(step, c, jax.random.split(k, steps))[0])(carry, jax.random.key(0))
    exact = np.logaddexp.reduce(np.float64(logs))
    assert abs(logs_of(root_of(nodes_of(logs), sums)) - exact) < 2e-6 * abs(exact)
    chex.assert_trees_all_close(sums, build(logs, 8)[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("heat", [0.0, 1.0, 1e30])
@pytest.mark.parametrize("scale", [1e-3, 1e30])
def test_no_heat_overflows_and_ties_share_evenly(heat, scale):
    losses = np.float32([1, 1, 1, 1, 1, -1, 0.5, 1, 1]) * np.float32(scale)  # seven of nine tie, in blocks of 4, 2, 1
    leaves = levels.Nodes(jnp.asarray(losses), jnp.zeros(9))
    root = root_of(leaves, tree.build(leaves, jnp.float32(heat), FANOUT), jnp.float32(heat))
    assert np.isfinite(root.top)
    assert np.isfinite(root.log)
    p = np.exp(tree.relative(leaves, root, heat))
    expected = np.exp(np.maximum(heat * (np.float64(losses) - losses.max()), -1e300))
    np.testing.assert_allclose(p, expected / expected.sum(), rtol=1e-6, atol=1e-30)


LOSSES = {
    "flat": np.zeros(50),
    "skewed": np.linspace(0, 12, 50),
    "one holds almost all": np.r_[20.0, np.zeros(49)],
    "spread over twenty decades": np.linspace(-46, 0, 50),
}


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("fanout", [2, 50])
def test_draws_follow_the_masses(name, fanout):
    leaves, sums = build(LOSSES[name], fanout)
    p = np.exp(LOSSES[name] - np.logaddexp.reduce(LOSSES[name]))
    ids, logs = draw(jax.random.key(1), leaves, sums, fanout, 200_000)
    np.testing.assert_allclose(logs, logs_of(leaves)[ids], rtol=1e-5)
    assert goodness_of_fit(np.bincount(ids[0], minlength=50), p) > 1e-4


def test_draws_through_wide_nodes_follow_the_masses():
    logs = np.linspace(0, 6, 300)
    leaves, sums = build(logs, 100)
    assert levels.sizes(300, 100) == (300, 3)
    ids, _ = draw(jax.random.key(3), leaves, sums, 100, 200_000)
    assert goodness_of_fit(np.bincount(ids[0], minlength=300), np.exp(logs - np.logaddexp.reduce(logs))) > 1e-4


def goodness_of_fit(counts, p):
    """p-value of a chi-square test; cells of fewer than 5 expected draws are one."""
    expected = p * counts.sum()
    small = expected < 5
    merged = [(counts[small].sum(), expected[small].sum())] if expected[small].sum() > 0 else []
    cells = np.array([*zip(counts[~small], expected[~small], strict=True), *merged])
    if len(cells) == 1:
        return 1.0
    return stats.chi2.sf(((cells[:, 0] - cells[:, 1]) ** 2 / cells[:, 1]).sum(), len(cells) - 1)


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("fanout", [8])
def test_distinct_draws_are_gumbel_top_k(name, fanout):
    k, runs = 6, 40_000
    leaves, sums = build(LOSSES[name], fanout)
    ids, logs, perturbed = draw_distinct(jax.random.key(2), leaves, sums, fanout, k, runs)
    ids = np.asarray(ids)
    assert (np.sort(ids, 1)[:, 1:] > np.sort(ids, 1)[:, :-1]).all()
    assert (np.diff(perturbed, axis=1) <= 0).all()
    np.testing.assert_allclose(logs, logs_of(leaves)[ids], rtol=1e-5)
    reference = LOSSES[name] + np.random.default_rng(0).gumbel(size=(runs, 50))
    order = np.argsort(-reference, axis=1)[:, :k]
    for position in range(k):  # the law of each successive draw, and so of their order
        ours, theirs = (np.bincount(x[:, position], minlength=50) for x in (ids, order))
        assert two_samples(ours, theirs) > 1e-4, position
    # The perturbed log-masses themselves: largest and smallest of the k.
    for column in (0, k - 1):
        expected = np.sort(reference, axis=1)[:, -1 - column]
        assert stats.ks_2samp(np.asarray(perturbed)[:, column], expected).pvalue > 1e-4


def two_samples(a, b):
    """p-value of a chi-square test that two rows of counts have one law."""
    keep = a + b >= 10
    rows = np.array([np.r_[x[keep], x[~keep].sum()] for x in (a, b)])
    rows = rows[:, rows.sum(0) > 0]
    return 1.0 if rows.shape[1] < 2 else stats.chi2_contingency(rows).pvalue


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
def test_fewer_leaves_than_asked_for():
    leaves, sums = build([0.0, -np.inf, 1.0])
    ids, _, perturbed = draw_distinct(jax.random.key(0), leaves, sums, FANOUT, 5)
    assert set(np.asarray(ids)[np.asarray(perturbed) > -np.inf].tolist()) == {0, 2}
    assert (np.asarray(perturbed) > -np.inf).sum() == 2


@pytest.mark.parametrize("widest", [1024], indirect=True)
def test_every_one_of_many_items_can_be_drawn():
    """One float32 uniform has 2^23 values and reaches only even items of 2^24; a uniform a level reaches all."""
    n = 2**24
    sizes = levels.sizes(n, 8)

    @jax.jit
    def drawn(key, log_8):  # an argument: constants would be folded, which takes seconds
        def masses(level, parents):
            return jnp.full(sizes[-1] if parents is None else (parents.size, 8), level * log_8)

        return tree.draw(key, masses, sizes, 8, 10_000)

    ids, _ = drawn(jax.random.key(0), np.float32(np.log(8.0)))
    odd = float((ids % 2).mean())
    assert abs(odd - 0.5) < 5 * 0.5 / 10_000**0.5
    single = (jax.random.uniform(jax.random.key(0), (10_000,)) * n).astype(jnp.int32)
    assert not (single % 2).any()  # the disease this guards against

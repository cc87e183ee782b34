"""The tree in NumPy against the tree in JAX: the same sums, and the same leaves for a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers.scored import host_tree, threefry, tree
from mixjax.samplers.scored.levels import Nodes
from mixjax.samplers.scored.levels import sizes as sizes_of

N, FANOUT = 50, 4
RANDOM = np.random.default_rng(0)
TOPS = RANDOM.normal(size=N).astype(np.float32)
LOGS = np.where(np.arange(N) % 9 == 0, -np.inf, RANDOM.normal(size=N)).astype(np.float32)
HEAT = np.float32(0.7)
NODES = Nodes(jnp.asarray(TOPS), jnp.asarray(LOGS))
ROWS = host_tree.nodes_as_rows(Nodes(TOPS, LOGS), FANOUT)


@pytest.fixture(autouse=True)
def silent():
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        yield


def levels():
    return len(sizes_of(N, FANOUT)) - 1


def test_rows_are_filled_up():
    assert host_tree.as_rows(np.arange(5.0), 3, -1.0).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, -1.0]]
    assert (ROWS.log.reshape(-1)[N:] == -np.inf).all()


def test_levels_are_jaxs():
    theirs, ours = tree.build(NODES, HEAT, FANOUT), host_tree.build(ROWS, levels(), HEAT)
    assert len(theirs) == len(ours) > 1
    for a, b in zip(ours, theirs, strict=True):
        for x, y in ((a.top, b.top), (a.log, b.log)):
            np.testing.assert_allclose(x.reshape(-1)[: y.size], y, rtol=1e-6)
    root = host_tree.root(ours[-1], HEAT)
    np.testing.assert_allclose(root, tree.combine(theirs[-1], HEAT), rtol=1e-6)


def test_refresh_is_build_and_can_be_undone():
    sums = host_tree.build(ROWS, levels(), HEAT)
    before = jax.tree.map(np.copy, sums)
    changed = ROWS.log.copy()
    changed.reshape(-1)[[3, 30]] = [2.0, -np.inf]
    leaves = Nodes(ROWS.top, changed)
    undo = host_tree.refresh(sums, lambda rows: Nodes(*(x[rows] for x in leaves)), np.array([3, 30]), HEAT)
    jax.tree.map(np.testing.assert_array_equal, sums, host_tree.build(leaves, levels(), HEAT))
    for array, positions, old in undo:
        array[positions] = old
    jax.tree.map(np.testing.assert_array_equal, sums, before)


def masses(host):
    """The log-masses by which draws descend, for either tree."""
    sums = host_tree.build(ROWS, levels(), HEAT) if host else tree.build(NODES, HEAT, FANOUT)

    def of_host(level, rows):
        nodes = sums[level - 1] if level else ROWS
        return host_tree.relative(Nodes(nodes.top[rows], nodes.log[rows]), 0.0, 0.0, HEAT)

    def of_jax(level, parents):
        nodes = tree.take(sums[level - 1] if level else NODES, parents, FANOUT)
        return tree.relative(nodes, Nodes(0.0, 0.0), HEAT)

    return of_host if host else of_jax


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_jaxs(seed):
    sizes = sizes_of(N, FANOUT)
    ours = host_tree.draw(threefry.key(seed), masses(True), sizes, FANOUT, 20)
    theirs = tree.draw(jax.random.key(seed), masses(False), sizes, FANOUT, 20)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)


@pytest.mark.parametrize("k", [1, 7, N])
def test_distinct_draws_are_jaxs(k):
    sizes = sizes_of(N, FANOUT)
    ours = host_tree.draw_distinct(threefry.key(k), masses(True), sizes, FANOUT, k)
    theirs = tree.draw_distinct(jax.random.key(k), masses(False), sizes, FANOUT, k)
    real = np.asarray(theirs[2]) > -np.inf  # fewer than k have a mass where k is n
    np.testing.assert_array_equal(ours[2] > -np.inf, real)
    np.testing.assert_array_equal(ours[0][real], np.asarray(theirs[0])[real])
    np.testing.assert_allclose(ours[2][real], np.asarray(theirs[2])[real], rtol=1e-4)


@pytest.mark.parametrize("k", [1, 4, 9, 10])
def test_top_k_is_jaxs_with_ties(k):
    x = np.float32([1, 3, 3, 0, -np.inf, 3, 2, 2, 1, 1])
    np.testing.assert_array_equal(host_tree.top_k(x, k), jax.lax.top_k(x, k)[1])

"""Counts and ids of any weights: exact apportionment, how far random counts stray, epochs without replacement."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from mixjax import samplers
from tests.laws.properties.cases import FLOAT, cases, rows

D, MANY = 5, 40  # allocate bisects from 33 domains on
TINY, HUGE = float(FLOAT.tiny), float(FLOAT.max)


def weights(size):
    """Zeros, ties, and whatever a float32 can be; the largest may be anywhere."""
    entries = rows(size, 0.0, 0.0, TINY, 1e-20, 1e-6, 0.25, 0.25, 1.0, 1e30, HUGE)
    return entries.filter(lambda q: q.max() >= TINY)


def exact(q):
    """The shares in float64."""
    q = np.float64(q)
    return q / q.sum()


allocated = jax.jit(samplers.allocate, static_argnums=1)
to_ids = jax.jit(samplers.counts_to_ids, static_argnums=1)


def check_counts(q, counts, batch_size):
    """What :func:`mixjax.samplers.allocate` says of its counts."""
    assert counts.dtype == np.int32 and counts.sum() == batch_size
    assert ((counts > 0) == (q > 0)).all()
    # Equal proportions: some multiplier of q is rounded to all counts at the geometric mean of its neighbours.
    there = q > 0
    share, n = np.maximum(exact(q), TINY)[there], np.float64(counts[there])  # as in float32, tiny ones are not zero
    lowest, highest = np.sqrt(n * (n - 1)) / share, np.sqrt(n * (n + 1)) / share
    assert lowest.max() <= highest.min() * (1 + 1e-5)
    ties = (q[:, None] == q) & (np.arange(len(q))[:, None] < np.arange(len(q)))
    difference = (counts[:, None] - counts)[ties]
    assert ((difference == 0) | (difference == 1)).all()  # the lower index gets the odd one


@cases(400, q=weights(D), batch_size=st.sampled_from([D, 6, 23, 1000]))
def test_allocate_is_the_method_of_equal_proportions(q, batch_size):
    counts = np.asarray(allocated(q, batch_size))
    check_counts(q, counts, batch_size)
    ids = np.asarray(to_ids(counts, batch_size))
    np.testing.assert_array_equal(ids, np.repeat(np.arange(D), counts))


@cases(100, q=weights(MANY), batch_size=st.sampled_from([MANY, 64, 5000]))
def test_allocate_among_many_domains(q, batch_size):
    check_counts(q, np.asarray(allocated(q, batch_size)), batch_size)


DRAWS = {"systematic": samplers.systematic, "stratified": samplers.stratified, "multinomial": samplers.multinomial}
STRAYS = {"systematic": 1, "stratified": 2, "multinomial": np.inf}


@functools.partial(jax.jit, static_argnames=("name", "n"))
def draw(seed, q, name, n):
    return DRAWS[name](jax.random.key(seed), q, n)


@pytest.mark.parametrize("name", DRAWS)
@cases(200, q=weights(D), seed=st.integers(0, 2**31 - 1), n=st.sampled_from([1, 7, 64]))
def test_draws_are_of_positive_weights_and_stray_no_further_than_promised(name, q, seed, n):
    ids = np.asarray(draw(seed, q, name, n))
    assert ids.shape == (n,) and ids.dtype == np.int32
    assert ((ids >= 0) & (ids < D)).all() and (q[ids] > 0).all()
    counts = np.bincount(ids, minlength=D)
    assert (np.abs(counts - n * exact(q)) < STRAYS[name] + 1e-5).all()
    assert name == "multinomial" or (np.diff(ids) >= 0).all()


N = 12


@jax.jit
def draw_epochs(seed, groups, ids):
    """Example indices of a few batches ``[batches, B]`` without replacement, and the state after them."""
    state = samplers.start_epochs(jax.random.key(seed), 3)

    def step(state, ids):
        indices, state = samplers.without_replacement(state, groups, ids)
        return state, indices

    return jax.lax.scan(step, state, ids)


@st.composite
def domains(draw):
    """Domain ids of N examples, none of three domains empty."""
    rest = draw(st.lists(st.integers(0, 2), min_size=N - 3, max_size=N - 3))
    return np.array(draw(st.permutations([0, 1, 2, *rest])))


@cases(
    200,
    domain_ids=domains(),
    seed=st.integers(0, 2**31 - 1),
    ids=st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
def test_every_epoch_of_a_domain_is_a_permutation_of_it(domain_ids, seed, ids):
    groups = samplers.partition(domain_ids, 3)
    state, indices = draw_epochs(seed, groups, np.array(ids).reshape(4, 5))
    indices = np.asarray(indices).ravel()
    np.testing.assert_array_equal(domain_ids[indices], ids)
    for domain in range(3):
        own, drawn = np.flatnonzero(domain_ids == domain), indices[np.array(ids) == domain]
        epochs, rest = divmod(len(drawn), len(own))
        for epoch in range(epochs):
            np.testing.assert_array_equal(np.sort(drawn[epoch * len(own) : (epoch + 1) * len(own)]), own)
        last = drawn[epochs * len(own) :]
        assert len(set(last)) == rest == state.position[domain] and epochs == state.epoch[domain]


with_replacement = jax.jit(lambda seed, groups, ids: samplers.with_replacement(jax.random.key(seed), groups, ids))


@cases(
    150,
    domain_ids=domains(),
    seed=st.integers(0, 2**31 - 1),
    ids=st.lists(st.integers(0, 2), min_size=7, max_size=7),
    fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_examples_are_of_their_domain_and_a_split_shares_them_out(domain_ids, seed, ids, fraction):
    groups = samplers.partition(domain_ids)
    parts = [groups]
    if groups.sizes.min() > 1:
        parts = samplers.split(groups, fraction)
    for domain in range(3):
        members = [part.order[part.starts[domain] :][: part.sizes[domain]] for part in parts]
        assert min(map(len, members)) >= 1
        np.testing.assert_array_equal(np.concatenate(members), np.flatnonzero(domain_ids == domain))
    for part in parts:
        indices = np.asarray(with_replacement(seed, part, jnp.array(ids)))
        np.testing.assert_array_equal(domain_ids[indices], ids)
        for index, domain in zip(indices, ids, strict=True):
            assert index in part.order[part.starts[domain] :][: part.sizes[domain]]

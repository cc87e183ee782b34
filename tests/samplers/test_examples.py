"""Domain ids to example indices: partitions, draws with replacement, and epochs that miss nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import (
    Partition,
    extend_epochs,
    partition,
    split,
    start_epochs,
    with_replacement,
    without_replacement,
)

SIZES = (1, 2, 3, 5, 1000)
SHUFFLED = np.random.default_rng(0).permutation(np.repeat(np.arange(5), SIZES))


draw_without = jax.jit(without_replacement)
draw_with = jax.jit(with_replacement)


def owner(index):
    return SHUFFLED[np.asarray(index)]


def test_partition_by_hand():
    groups = partition([1, 0, 1, 1])
    assert [np.asarray(x).tolist() for x in groups] == [[1, 0, 2, 3], [0, 1], [1, 3]]


def test_partition_groups_every_example_once_in_order():
    groups = partition(SHUFFLED)
    assert np.asarray(groups.sizes).tolist() == list(SIZES)
    for d, (start, size) in enumerate(zip(groups.starts, groups.sizes, strict=True)):
        np.testing.assert_array_equal(groups.order[start : start + size], np.flatnonzero(d == SHUFFLED))


@pytest.mark.parametrize(
    ("ids", "num_domains", "message"),
    [
        ([0, 2, 2], None, r"domains \[1\] have no examples"),
        ([0, 1], 4, r"domains \[2, 3\] have no examples"),
        ([0, 3], 2, r"must be in \[0, 2\)"),
        ([0, -1], None, r"must be in \[0, 1\)"),
        ([], None, "non-empty integer vector"),
        ([[0, 1]], None, "non-empty integer vector"),
        ([0.0, 1.0], None, "non-empty integer vector"),
    ],
)
def test_partition_errors(ids, num_domains, message):
    with pytest.raises(ValueError, match=message):
        partition(np.array(ids), num_domains)


def test_split_by_hand():
    train, rest = split(partition([0] * 10 + [1] * 4), 0.7)
    assert np.asarray(train.sizes).tolist() == [7, 3] and np.asarray(rest.sizes).tolist() == [3, 1]
    assert np.asarray(train.starts).tolist() == [0, 10] and np.asarray(rest.starts).tolist() == [7, 13]


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.5, 0.999])
def test_split_is_a_partition_of_every_domain(fraction):
    ids = np.sort(SHUFFLED[SHUFFLED > 0]) - 1  # sizes 2, 3, 5, 1000
    groups = partition(ids)
    train, rest = split(groups, fraction)
    for d in range(4):
        parts = [part.order[part.starts[d] : part.starts[d] + part.sizes[d]] for part in (train, rest)]
        assert len(parts[0]) and len(parts[1])
        np.testing.assert_array_equal(np.concatenate(parts), np.flatnonzero(ids == d))
    assert abs(train.sizes[3] - np.clip(1000 * fraction, 1, 999)) <= 1


def test_split_errors():
    with pytest.raises(ValueError, match=r"domains \[0\] have fewer than two examples"):
        split(partition(SHUFFLED), 0.5)
    for fraction in (0.0, 1.0, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
            split(partition([0, 0]), fraction)


@pytest.mark.parametrize("part", [0, 1])
def test_draws_stay_inside_a_split(part):
    groups = split(partition(np.repeat([0, 1], 10)), 0.6)[part]
    allowed = [set(range(6)) | set(range(10, 16)), set(range(6, 10)) | set(range(16, 20))][part]
    ids = np.tile([0, 1], 200)
    assert set(draw_with(jax.random.key(0), groups, ids).tolist()) == allowed
    index, _ = draw_without(start_epochs(jax.random.key(0), 2), groups, ids)
    assert set(np.asarray(index).tolist()) == allowed


def test_with_replacement_is_uniform_within_each_domain():
    groups, ids = partition(SHUFFLED), np.repeat(np.arange(4), 10_000)
    index = np.asarray(draw_with(jax.random.key(0), groups, ids))
    np.testing.assert_array_equal(owner(index), ids)
    for d in range(4):
        counts = np.bincount(index[ids == d], minlength=len(SHUFFLED))[d == SHUFFLED]
        spread = np.sqrt(10_000 / SIZES[d] * (1 - 1 / SIZES[d]))
        assert (np.abs(counts - 10_000 / SIZES[d]) <= 4 * spread).all()


def test_with_replacement_draws_independently():
    index = np.asarray(draw_with(jax.random.key(1), partition([0] * 3), np.zeros(30_000, int)))
    pairs = np.bincount(3 * index[:-1] + index[1:], minlength=9)
    assert (np.abs(pairs - 30_000 / 9) < 5 * np.sqrt(30_000 / 9)).all()


def test_with_replacement_under_jit_and_vmap():
    groups, keys = partition(SHUFFLED), jax.random.split(jax.random.key(2), 3)
    ids = np.array([[4, 0, 1], [2, 2, 2], [3, 4, 4]])
    batched = jax.jit(jax.vmap(with_replacement, in_axes=(0, None, 0)))(keys, groups, ids)
    np.testing.assert_array_equal(batched[0], with_replacement(keys[0], groups, ids[0]))
    for run in range(3):
        np.testing.assert_array_equal(batched[run], draw_with(keys[run], groups, ids[run]))
        np.testing.assert_array_equal(owner(batched[run]), ids[run])


# Epochs.

SMALL_AND_LARGE = np.random.default_rng(1).permutation(np.repeat(np.arange(5), [2, 3, 4, 7, 250]))
STEPS = 12


@functools.partial(jax.jit, static_argnames="steps")
def draw_steps(state, groups, ids, steps=STEPS):
    """The same ids in each of ``steps`` batches."""

    def step(state, _):
        index, state = without_replacement(state, groups, ids)
        return state, index

    return jax.lax.scan(step, state, None, length=steps)


@functools.cache
def drawn():
    state, index = draw_steps(start_epochs(jax.random.key(0), 5), partition(SHUFFLED), SMALL_AND_LARGE)
    return state, np.asarray(index)


def test_draws_come_from_the_asked_domain():
    np.testing.assert_array_equal(owner(drawn()[1]), np.broadcast_to(SMALL_AND_LARGE, (STEPS, 266)))


@pytest.mark.parametrize("d", range(5))
def test_each_epoch_visits_each_example_exactly_once(d):
    state, index = drawn()
    sequence = index.reshape(-1)[np.tile(d == SMALL_AND_LARGE, STEPS)]
    epochs, left = divmod(len(sequence), SIZES[d])
    assert epochs >= 3  # batches span several epochs of the small domains
    members = np.flatnonzero(d == SHUFFLED)
    for epoch in sequence[: epochs * SIZES[d]].reshape(epochs, SIZES[d]):
        np.testing.assert_array_equal(np.sort(epoch), members)
    tail = sequence[epochs * SIZES[d] :]
    assert len(set(tail.tolist())) == len(tail) == left
    assert (int(state.epoch[d]), int(state.position[d])) == (epochs, left)


def test_epochs_and_keys_differ():
    large = np.tile(SMALL_AND_LARGE == 4, STEPS)
    sequence = drawn()[1].reshape(-1)[large].reshape(3, 1000)
    fixed_points = [np.sum(sequence[a] == sequence[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert max(fixed_points) < 10  # 1 expected
    _, other = draw_steps(start_epochs(jax.random.key(1), 5), partition(SHUFFLED), SMALL_AND_LARGE)
    assert np.sum(np.asarray(other).reshape(-1)[large][:1000] == sequence[0]) < 10


def test_domains_of_one_size_are_shuffled_apart():
    groups = partition(np.repeat([0, 1], 200))
    state = start_epochs(jax.random.key(0), 2)
    index, _ = draw_without(state, groups, np.repeat([0, 1], 200))
    assert np.sum(np.asarray(index[:200]) == np.asarray(index[200:]) - 200) < 10


def test_batch_size_does_not_change_the_order():
    groups = partition(np.repeat([0, 1], [7, 50]))
    ids = np.random.default_rng(0).integers(0, 2, 48)
    whole, end = draw_without(start_epochs(jax.random.key(3), 2), groups, ids)
    state, parts = start_epochs(jax.random.key(3), 2), []
    for part in ids.reshape(6, 8):
        index, state = draw_without(state, groups, part)
        parts.append(index)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(state.epoch, end.epoch)
    np.testing.assert_array_equal(state.position, end.position)


@pytest.mark.parametrize("size", [*range(1, 18), 31, 33, 63, 64, 65, 100, 255, 257, 999])
def test_one_epoch_of_any_size_is_a_permutation(size):
    index = epoch_of(size, jax.random.split(jax.random.key(size), 4))
    assert (np.sort(index, axis=1)[:, :size] == np.arange(size)).all()


def epoch_of(size, keys, length=1000):
    """The first ``size`` draws from one domain of that size, padded to one shape for all sizes."""
    starts, ids = np.array([0, size]), np.where(np.arange(length) < size, 0, 1)
    sizes = np.array([size, length], np.int32)
    index = np.array(_epoch(keys, (np.arange(2 * length, dtype=np.int32), starts.astype(np.int32), sizes), ids))
    index[:, size:] = 10**6
    return index


@jax.jit
def _epoch(keys, groups, ids):
    groups = Partition(*groups)
    return jax.vmap(lambda key: without_replacement(start_epochs(key, groups.sizes.size), groups, ids)[0])(keys)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_shuffles_are_uniform_over_keys(size):
    runs = 4000
    keys = jax.random.split(jax.random.key(10 + size), runs)
    groups = (np.arange(8, dtype=np.int32), np.zeros(1, np.int32), np.array([size], np.int32))
    index = np.asarray(_epoch(keys, groups, np.zeros(16, int)))[:, : 2 * size]
    spread = np.sqrt(runs / size * (1 - 1 / size))
    for place in range(2 * size):  # every place of two epochs holds every example equally often
        assert (np.abs(np.bincount(index[:, place], minlength=size) - runs / size) < 5 * spread).all()
    same = index[:, size - 1] == index[:, size]  # the last of an epoch and the first of the next are independent
    assert abs(same.sum() - runs / size) < 5 * spread
    if size == 3:
        orders = np.unique(index[:, :3], axis=0, return_counts=True)[1]
        assert len(orders) == 6 and (np.abs(orders - runs / 6) < 5 * np.sqrt(runs * 5 / 36)).all()


def test_without_replacement_under_vmap():
    groups, ids = partition(SHUFFLED), np.array([4, 1, 1, 1, 0, 3, 2, 4])
    keys = jax.random.split(jax.random.key(5), 3)
    states = jax.vmap(lambda key: start_epochs(key, 5))(keys)
    draw = jax.jit(jax.vmap(without_replacement, in_axes=(0, None, None)))
    index, states = draw(states, groups, ids)
    index, states = draw(states, groups, ids)
    eager, _ = without_replacement(start_epochs(keys[0], 5), groups, ids)
    np.testing.assert_array_equal(eager, draw_without(start_epochs(keys[0], 5), groups, ids)[0])
    for run in range(3):
        state = start_epochs(keys[run], 5)
        _, state = draw_without(state, groups, ids)
        expected, state = draw_without(state, groups, ids)
        np.testing.assert_array_equal(index[run], expected)
        np.testing.assert_array_equal(states.position[run], state.position)


def test_state_is_a_fixpoint():
    state = start_epochs(jax.random.key(0), 5)
    _, new = jax.eval_shape(without_replacement, state, partition(SHUFFLED), jnp.array([0, 4, 4]))
    assert new == jax.eval_shape(lambda: state)


@pytest.mark.parametrize("size", [2, 3, 5, 6, 8])
def test_small_domains_are_shuffled_evenly(size):
    """Every place is equally likely for the first draw, and every other place for the second."""
    groups = partition([0] * size)

    def first_two(key):
        state = start_epochs(key, 1)
        return without_replacement(state, groups, jnp.zeros(2, jnp.int32))[0]

    draws = np.asarray(jax.jit(jax.vmap(first_two))(jax.random.split(jax.random.key(0), 40_000)))
    pairs = np.bincount(draws[:, 0] * size + draws[:, 1], minlength=size * size).reshape(size, size)
    assert (np.diag(pairs) == 0).all()
    p = 1 / (size * (size - 1))
    off_diagonal = pairs[~np.eye(size, dtype=bool)]
    assert (np.abs(off_diagonal - 40_000 * p) < 5 * np.sqrt(40_000 * p * (1 - p))).all()


def test_epochs_of_old_domains_go_on_when_domains_are_added():
    before, after = partition(np.array([0] * 5 + [1] * 3)), partition(np.array([0] * 5 + [1] * 4 + [2] * 2))
    state = start_epochs(jax.random.key(3), 2)
    seen, state = without_replacement(state, before, jnp.array([0, 0, 0, 1]))
    state = extend_epochs(state, before, after)
    assert state.epoch.tolist() == [0, 1, 0] and state.position.tolist() == [3, 0, 0]
    rest, state = without_replacement(state, after, jnp.array([0, 0, 1, 1, 1, 1, 2, 2]))
    assert sorted([*seen[:3].tolist(), *rest[:2].tolist()]) == [0, 1, 2, 3, 4]
    assert sorted(rest[2:6].tolist()) == [5, 6, 7, 8] and sorted(rest[6:].tolist()) == [9, 10]
    assert state.epoch.tolist() == [1, 2, 1] and state.position.tolist() == [0, 0, 0]


def test_epochs_are_extended_to_more_domains_only():
    small, large = partition(np.array([0, 1])), partition(np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="before must have the state's 2 domains"):
        extend_epochs(start_epochs(jax.random.key(0), 2), large, large)
    with pytest.raises(ValueError, match="after at least as many, got 3 and 2"):
        extend_epochs(start_epochs(jax.random.key(0), 3), large, small)

"""The bookkeeping of sweeps: any axes, points, seeds and done runs; and random points of any space."""

import itertools

import jax
import numpy as np
from hypothesis import strategies as st

from mixjax.sweeps import random_points
from mixjax.sweeps.runs import Runs
from tests.laws.properties.cases import cases

NUMBER = st.integers(-(2**31) + 1, 2**31 - 1) | st.floats(-1e6, 1e6, width=32)
LABEL = st.sampled_from(["erma", "fgls", "a", "", "b"])


def columns(size):
    """Values of one hyperparameter: numbers, or labels."""
    return st.lists(NUMBER, min_size=size[0], max_size=size[1]) | st.lists(LABEL, min_size=size[0], max_size=size[1])


@st.composite
def sweeps(draw):
    """Axes, points, number of seeds and the first one."""
    axes = draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), columns((1, 3)), max_size=2))
    length = draw(st.integers(1, 4))
    points = draw(st.dictionaries(st.sampled_from(["p", "q"]), columns((length, length)), max_size=2))
    return axes, points, draw(st.integers(1, 3)), draw(st.integers(0, 2**31))


def expected_runs(axes, points, seeds, first_seed):
    """Every run in the order of the result, as a dict of its hyperparameters and its seed."""
    rows = [dict(zip(points, row, strict=True)) for row in zip(*points.values(), strict=True)] or [{}]
    grid = itertools.product(*axes.values())
    return [
        dict(zip(axes, values, strict=True)) | row | {"seed": seed}
        for values, row, seed in itertools.product(grid, rows, range(first_seed, first_seed + seeds))
    ]


@cases(500, sweep=sweeps(), bits=st.integers(0, 2**60), size=st.integers(1, 12))
def test_chunks_cover_what_is_not_done_and_never_cross_labels(sweep, bits, size):
    runs, expected = Runs(*sweep), expected_runs(*sweep)
    assert runs.num == len(expected) == np.prod(runs.shape) and len(runs.dims) == len(runs.shape)
    done = np.array([bits >> i % 60 & 1 for i in range(runs.num)], bool)
    chunks = runs.chunks(done, size)
    covered = [i for first, stop in chunks for i in range(first, stop)]
    assert covered == np.flatnonzero(~done).tolist()
    labels = [name for name, values in (sweep[0] | sweep[1]).items() if isinstance(values[0], str)]
    for first, stop in chunks:
        assert 0 < stop - first <= min(size, runs.largest_group)
        one = runs.labels(first)
        assert set(one) == set(labels)
        for i in range(first, stop):
            jax.tree.map(np.testing.assert_array_equal, runs.labels(i), one)

    saved = {first: {"metric": np.zeros(stop - first)} for first, stop in chunks}
    np.testing.assert_array_equal(runs.covered(saved), ~done)
    everything = runs.chunks(np.zeros(runs.num, bool), runs.num)
    assert len(everything) == len({tuple(runs.labels(first).values()) for first, _ in everything})  # one for each label
    assert max(stop - first for first, stop in everything) == runs.largest_group


@cases(300, sweep=sweeps(), bits=st.integers(0, 2**60))
def test_joined_gives_every_run_its_own_hyperparameters(sweep, bits):
    runs, expected = Runs(*sweep), expected_runs(*sweep)
    cuts = [0, *(i for i in range(1, runs.num) if bits >> i % 60 & 1), runs.num]

    def joined(column):
        """From the order of computation, in any chunks."""
        chunks = {a: {"m": column[a:b]} for a, b in itertools.pairwise(cuts)}
        array = runs.joined("m", dict(sorted(chunks.items(), key=lambda item: hash((item[0], bits)))))
        assert array.shape[: len(runs.shape)] == runs.shape and array.dtype == column.dtype
        return array.reshape(runs.num, *column.shape[1:])

    np.testing.assert_array_equal(joined(runs.seeds), [run["seed"] for run in expected])
    for name, values in (sweep[0] | sweep[1]).items():
        own = [run[name] for run in expected]
        if isinstance(values[0], str):
            positions = joined(np.array([runs.labels(i)[name] for i in range(runs.num)]))
            assert [list(dict.fromkeys(values))[i] for i in positions] == own
        else:
            column = runs.batched[name]
            assert column.dtype == runs.batched_spec[name].dtype and column.dtype in (np.int32, np.float32)
            np.testing.assert_array_equal(joined(column), np.array(own).astype(column.dtype))
    order = joined(np.arange(runs.num))
    np.testing.assert_array_equal(np.sort(order), np.arange(runs.num))
    table = np.stack([np.arange(runs.num), -np.arange(runs.num)], axis=1)  # further dimensions go with their run
    np.testing.assert_array_equal(joined(table), np.stack([order, -order], axis=1))


BOUNDS = st.floats(-1e300, 1e300) | st.sampled_from([1.0, 1 + 2**-50, 0.1 + 0.2, 123456.789])


@cases(
    400,
    bounds=st.tuples(BOUNDS, BOUNDS).map(sorted),
    scale=st.sampled_from(["linear", "log", "integer"]),
    num=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    choices=st.lists(NUMBER, min_size=1, max_size=3) | st.lists(LABEL, min_size=1, max_size=3),
)
def test_random_points_are_in_range(bounds, scale, num, seed, choices):
    low, high = bounds
    if scale == "log":
        low, high = sorted(abs(x) + 1e-300 for x in bounds)
    if scale == "integer":
        low, high = (int(np.clip(x, -(2**31), 2**31 - 1)) for x in bounds)
    points = random_points({"x": (scale, low, high), "y": choices}, num, seed)
    assert points == random_points({"x": (scale, low, high), "y": choices}, num, seed)
    assert len(points["x"]) == len(points["y"]) == num
    assert all(low <= x <= high for x in points["x"]), points
    assert all(isinstance(x, int if scale == "integer" else float) for x in points["x"])
    assert all(any(y is choice for choice in choices) for y in points["y"])

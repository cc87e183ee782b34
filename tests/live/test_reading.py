"""Tests how rows of different kinds of data sets become one batch."""

from typing import NamedTuple

import grain
import numpy as np
import pytest

from mixjax.live.reading import is_arrays, read_batch, sizes_of


class Row(NamedTuple):
    x: np.ndarray
    y: np.ndarray


IDS, ROWS = np.array([0, 0, 0, 2], np.int32), np.array([4, 1, 4, 0])


def test_arrays_memory_maps_and_map_datasets_give_the_same_batch(tmp_path):
    values = np.arange(20, dtype=np.int32).reshape(5, 4)
    mapped = np.memmap(tmp_path / "rows", np.int32, "w+", shape=values.shape)
    mapped[:] = values
    other = -values
    want = np.stack([values[4], values[1], values[4], other[0]])
    for dataset in (values, mapped, grain.MapDataset.source(values), list(values)):
        np.testing.assert_array_equal(read_batch([dataset, None, other], IDS, ROWS), want)


def test_rows_may_be_trees():
    arrays = {"x": np.arange(10).reshape(5, 2), "pair": (np.arange(5), np.arange(5) * 0.5)}
    items = [{"x": np.full(2, -1), "pair": (np.int64(7), np.float64(1.5))}]
    batch = read_batch([arrays, None, items], IDS, ROWS)
    np.testing.assert_array_equal(batch["x"], [[8, 9], [2, 3], [8, 9], [-1, -1]])
    np.testing.assert_array_equal(batch["pair"][0], [4, 1, 4, 7])
    np.testing.assert_array_equal(batch["pair"][1], [2.0, 0.5, 2.0, 1.5])


def test_named_tuples_stay_named_tuples():
    dataset = Row(np.arange(5), np.arange(5) + 10)
    batch = read_batch([dataset], np.zeros(2, np.int32), np.array([3, 0]))
    assert isinstance(batch, Row) and batch.y.tolist() == [13, 10]


def test_sizes_are_those_of_the_data_sets():
    datasets = {
        "a": np.ones((3, 2)),
        "b": {"x": np.ones(4), "y": np.ones(4)},
        "c": [1, 2],
        "d": grain.MapDataset.range(6),
    }
    assert sizes_of(datasets) == {"a": 3, "b": 4, "c": 2, "d": 6}
    assert sizes_of([np.ones(3), np.ones(2)]) == {"0": 3, "1": 2}
    with pytest.raises(ValueError, match=r"the arrays of domain 'b' have different lengths: \[3, 4\]"):
        sizes_of({"b": {"x": np.ones(4), "y": np.ones(3)}})


def test_only_arrays_take_the_path_of_arrays():
    assert is_arrays({"x": np.ones(2), "y": (np.ones(2),)})
    assert not is_arrays([1, 2]) and not is_arrays({}) and not is_arrays(grain.MapDataset.range(3))


@pytest.mark.parametrize(
    "other",
    [np.ones((5, 3)), {"x": np.ones((5, 4))}],
    ids=["another shape", "another structure"],
)
def test_rows_that_do_not_fit_together_are_named(other):
    with pytest.raises(ValueError, match=r"rows of the domains \[0, 2\] cannot be stacked into one batch"):
        read_batch([np.ones((5, 4)), None, other], IDS, ROWS)


def test_entries_of_rows_that_differ_are_named():
    with pytest.raises(ValueError, match=r"entries \['x'\] and \['y'\]"):
        read_batch([{"x": np.ones(5)}, None, {"y": np.ones(5)}], IDS, ROWS)


def test_rows_of_one_domain_that_do_not_fit_together_are_named():
    for rows in ([np.ones(2), np.ones(3)], [{"x": 1}, {"y": 1}]):
        with pytest.raises(ValueError, match="rows of domain 0 cannot be stacked into one batch"):
            read_batch([rows], np.array([0, 0]), np.array([0, 1]))


def test_examples_that_a_filter_left_out_are_named():
    data = grain.MapDataset.range(5).filter(lambda example: example != 3)
    with pytest.raises(ValueError, match="domain 0 has no example 3, only None"):
        read_batch([data], np.array([0, 0]), np.array([2, 3]))


def test_what_has_no_length_is_named():
    with pytest.raises(TypeError, match="the data set of domain 'b' has no len"):
        sizes_of({"a": [1], "b": iter([1])})

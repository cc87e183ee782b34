"""Tests how rows of different kinds of data sets become one batch."""

import itertools
import tracemalloc
from typing import NamedTuple

import grain
import jax
import numpy as np
import pytest

from mixjax.live import windows
from mixjax.live.reading import read_batch


class Row(NamedTuple):
    x: np.ndarray
    y: np.ndarray


IDS, ROWS = np.array([0, 0, 0, 2], np.int32), np.array([4, 1, 4, 0])


def kinds_of(folder, seed):
    """Returns a domain's rows, which overlap by a token, and its data sets by kind."""
    tokens = np.random.default_rng(seed).integers(0, 2**16, 5 * 40 + 1).astype(np.uint16)
    rows = np.array(windows(tokens, 5, overlap=1))
    tokens.tofile(folder / f"tokens {seed}")
    rows.tofile(folder / f"rows {seed}")
    return rows, {
        "array": rows,
        "memory map": np.memmap(folder / f"rows {seed}", np.uint16, "r", shape=rows.shape),
        "windows of a memory map": windows(np.memmap(folder / f"tokens {seed}", np.uint16, "r"), 5, overlap=1),
        "columns first": np.asfortranarray(rows),
        "every second row": np.repeat(rows, 2, axis=0)[::2],
        "backwards": rows[::-1].copy()[::-1],
        "unaligned": np.frombuffer(b"0" + rows.tobytes(), np.uint16, offset=1).reshape(rows.shape),
        "MapDataset": grain.MapDataset.source(rows),
        "MapDataset with a map": grain.MapDataset.source(rows).map(lambda row: row),
        "list": list(rows),
    }


def test_data_sets_of_all_kinds_give_the_same_batch(tmp_path):
    (first, kinds), (second, others) = kinds_of(tmp_path, 0), kinds_of(tmp_path, 1)
    rng = np.random.default_rng(2)
    # Few rows of a domain, and many: grain reads the latter by groups.
    for sizes in [(3, 1), (20, 12), (0, 30)]:
        ids = np.repeat(np.array([0, 2], np.int32), sizes)
        rows = rng.integers(0, 40, ids.size)
        want = np.concatenate([first[rows[ids == 0]], second[rows[ids == 2]]])
        for (name, dataset), (other_name, other) in itertools.product(kinds.items(), others.items()):
            got = read_batch([dataset, None, other], ids, rows)
            assert type(got) is np.ndarray and got.dtype == np.uint16, (name, other_name)
            np.testing.assert_array_equal(got, want, err_msg=f"{name} and {other_name}")


def test_arrays_of_other_byte_orders_are_read_in_the_machines():
    datasets = [np.arange(3, dtype=np.int32), np.arange(3, dtype=">i4")]
    got = read_batch(datasets, np.array([0, 0, 1]), np.array([2, 1, 2]))
    assert got.dtype == np.dtype("=i4") and got.tolist() == [2, 1, 2]
    # Also of one domain a batch has the machine's byte order, as if there were others.
    got = read_batch(datasets, np.array([1]), np.array([2]))
    assert got.dtype == np.dtype("=i4") and got.tolist() == [2]


class Numbers:
    """Reads rows by groups."""

    def __init__(self, array):
        self._array = array

    def __len__(self):
        return len(self._array)

    def read_rows(self, rows):
        return self._array[rows]


@pytest.mark.parametrize("first", [np.asarray, grain.MapDataset.source, Numbers, list])
@pytest.mark.parametrize("second", [np.asarray, grain.MapDataset.source, Numbers, list])
def test_rows_of_other_types_are_refused_in_place_of_a_batch_of_a_type_of_its_own(first, second):
    datasets = [first(np.arange(3, dtype=np.uint8)), second(np.arange(3, dtype=np.float32))]
    with pytest.raises(ValueError, match=r"rows of the domains .* cannot be stacked .*: types float32, uint8"):
        read_batch(datasets, np.array([0, 0, 1]), np.array([2, 1, 0]))


def test_texts_of_other_lengths_are_one_type():
    datasets = [np.array(["a", "bc"]), grain.MapDataset.source(["def", "g"])]
    assert read_batch(datasets, np.array([0, 1]), np.array([1, 0])).tolist() == ["bc", "def"]


def test_reading_overlapping_windows_does_not_read_the_whole_file(tmp_path):
    with open(tmp_path / "tokens", "wb") as file:
        file.truncate(2**26)
    rows = windows(np.memmap(tmp_path / "tokens", np.uint16, "r"), 1024, overlap=1)
    tracemalloc.start()
    try:
        read_batch([rows], np.zeros(4, np.int32), np.array([0, 9, 99, 999]))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_read_batch_is_a_copy():
    rows = np.zeros((3, 2))
    for dataset in (rows, grain.MapDataset.source(rows), {"x": rows}):
        for leaf in jax.tree.leaves(read_batch([dataset], np.zeros(2, np.int32), np.array([0, 1]))):
            leaf += 1.0
    assert not rows.any()


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


@pytest.mark.parametrize(
    "other",
    [np.ones((5, 3)), np.ones((5, 1)), np.ones(5), {"x": np.ones((5, 4))}, [{"x": np.ones(4)}], [np.ones(3)]],
    ids=[
        "another shape",
        "a shape that broadcasts",
        "no shape",
        "another structure",
        "a row of another structure",
        "a row of another shape",
    ],
)
def test_rows_that_do_not_fit_together_are_named(other):
    with pytest.raises(ValueError, match=r"rows of the domains \[0, 2\] cannot be stacked into one batch"):
        read_batch([np.ones((5, 4)), None, other], IDS, ROWS)


def test_the_domain_whose_rows_differ_is_named():
    datasets = [[np.ones(2), np.ones(2)], [np.ones(2), np.ones(3)], [np.ones(2), np.ones(2)]]
    with pytest.raises(ValueError, match="rows of domain 1 cannot be stacked"):
        read_batch(datasets, np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0]))


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


def test_shapes_that_differ_are_listed():
    maps = [grain.MapDataset.source([np.ones(n)] * 3) for n in (2, 3)]
    arrays = [np.ones((3, 2)), np.ones((3, 3))]
    for pair in (maps, arrays, [maps[0], arrays[1]]):
        with pytest.raises(ValueError, match=r"domains \['a', 'b'\] cannot .* one batch: shapes \(2,\), \(3,\)\.$"):
            read_batch(pair, np.array([0, 1]), np.array([0, 1]), names=["a", "b"])


class Failing:
    """Raises where it is read, and has a way of its own to read rows if that is wanted."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 20

    def __getitem__(self, row):
        raise self.error


class FailingRows(Failing):
    def read_rows(self, rows):
        raise self.error


@pytest.mark.parametrize("kind", [Failing, FailingRows, lambda error: grain.MapDataset.source(Failing(error))])
@pytest.mark.parametrize("num_rows", [1, 12])
def test_errors_of_a_data_set_say_which_domain_was_read(kind, num_rows):
    ids, rows = np.zeros(num_rows, np.int32), np.arange(num_rows) + 7
    with pytest.raises(KeyError, match=r"^'lost'") as caught:
        read_batch([kind(KeyError("lost"))], ids, rows, names=["web"])
    assert " of domain 'web' was read" in caught.value.__notes__[-1]
    if kind is Failing:
        assert "example 7 of domain" in caught.value.__notes__[-1]


@pytest.mark.parametrize("kind", [Failing, FailingRows])
def test_a_data_set_cannot_end_the_training_loop(kind):
    with pytest.raises(RuntimeError, match=r"StopIteration was raised while .* of domain 0 was read"):
        read_batch([kind(StopIteration())], np.zeros(1, np.int32), np.array([3]))


@pytest.mark.parametrize("sizes", [[4, 4], [20, 3]])
def test_rows_of_bytes_keep_the_zeros_at_their_end(sizes):
    domains = [[bytes([d, row, 0, 0][: row % 3 + 2]) for row in range(size)] for d, size in enumerate(sizes)]
    ids = np.repeat(np.arange(2, dtype=np.int32), sizes)
    rows = np.concatenate([np.arange(size) for size in sizes])
    for datasets in (domains, [grain.MapDataset.source(each) for each in domains]):
        assert read_batch(datasets, ids, rows).tolist() == domains[0] + domains[1]

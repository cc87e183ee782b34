"""Tests that arrays of mapped files reach other processes as the same arrays, and without what the files hold."""

import pickle

import grain
import numpy as np
import pytest

from mixjax.live import Plan, mix, sizes_of
from mixjax.live.sending import Sent

NUM = 60_000


def mapped(path, mode="r", offset=8):
    np.arange(NUM + offset // 4, dtype=np.int32).tofile(path)
    return np.memmap(path, np.int32, mode, offset=offset)


VIEWS = {
    "whole": lambda m: m,
    "a part": lambda m: m[7:-11],
    "rows": lambda m: m.reshape(-1, 100)[3:],
    "every third backwards": lambda m: m[::-3],
    "transposed": lambda m: m.reshape(200, 300).T[5:],
    "windows": lambda m: np.lib.stride_tricks.sliding_window_view(m, 33)[::32],
    "a plain array": lambda m: np.asarray(m)[5:],
    "bytes": lambda m: m.view(np.uint8)[3:],
    "fields": lambda m: m.view([("a", np.int16), ("b", np.int16)])["b"],
    "other byte order": lambda m: m.view(">i4"),
    "one number": lambda m: m[3:4].reshape(()),
    "empty": lambda m: m[:0],
    "read-only": lambda m: np.broadcast_to(m[:50], (9, 50)),
}


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("offset", [0, 8, 4096, 5000])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_a_mapped_file_arrives_as_its_place_in_the_file(view, offset, mode, tmp_path):
    array = VIEWS[view](mapped(tmp_path / "tokens.bin", mode, offset))
    sent = pickle.dumps(Sent([array]))
    assert len(sent) < 1000
    (got,) = pickle.loads(sent)
    assert got.dtype == array.dtype
    assert got.flags.writeable == array.flags.writeable
    np.testing.assert_array_equal(got, array)


def test_maps_inside_data_sets_and_trees_are_found(tmp_path):
    tokens = mapped(tmp_path / "tokens.bin")
    sent = pickle.dumps(Sent({"set": grain.MapDataset.source(tokens).map(abs), "tree": ({"x": tokens[5:]}, 3)}))
    assert len(sent) < 3000
    got = pickle.loads(sent)
    assert got["set"][4] == tokens[4]
    np.testing.assert_array_equal(got["tree"][0]["x"], tokens[5:])


def test_what_a_file_does_not_hold_is_sent_as_it_is(tmp_path):
    private = mapped(tmp_path / "private.bin", "c")
    private[3] = -1
    gone = mapped(tmp_path / "gone.bin")
    (tmp_path / "gone.bin").unlink()
    computed = mapped(tmp_path / "tokens.bin") + 1
    copied = mapped(tmp_path / "tokens.bin").copy()
    for array in (private, gone, computed, copied, np.arange(3), np.array(["a", None], object)):
        (got,) = pickle.loads(pickle.dumps(Sent([array])))
        np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: np.ma.masked_array(m[:9], mask=np.arange(9) % 2),
        lambda m: m.view([("a", np.int16), ("b", np.int16)]).view(np.recarray)[:9],
        lambda m: np.asarray(m)[:9].view(np.matrix),
    ],
    ids=["masked", "records", "matrix"],
)
def test_other_kinds_of_arrays_stay_what_they_are(make, tmp_path):
    array = make(mapped(tmp_path / "tokens.bin"))
    (got,) = pickle.loads(pickle.dumps(Sent([array])))
    assert type(got) is type(array)
    np.testing.assert_array_equal(got, array)
    np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(array))


def test_what_is_written_to_a_map_is_seen(tmp_path):
    array = mapped(tmp_path / "tokens.bin", "r+")
    array[3] = -1
    (got,) = pickle.loads(pickle.dumps(Sent([array])))
    assert got[3] == -1


def test_workers_read_the_same_rows_from_a_mapped_file(tmp_path):
    tokens = mapped(tmp_path / "tokens.bin")
    datasets = {"rows": tokens.reshape(-1, 8), "windows": np.lib.stride_tricks.sliding_window_view(tokens, 8)[::7]}

    def values(workers):
        plan = Plan(sizes_of(datasets), batch_size=6, weights=[0.5, 0.5], lag=3)
        iterator = iter(mix(datasets, plan, workers=workers))
        found = [next(iterator)["value"] for _ in range(3)]
        iterator.close()
        return found

    np.testing.assert_array_equal(values(1), values(0))

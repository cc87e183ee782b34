"""Tests that the files of a domain are one data set."""

import pickle

import grain
import numpy as np
import pytest

from mixjax.live import PackedRows, Plan, Shards, mix, pack, sizes_of, windows
from mixjax.live.sending import Sent

TOKENS = [np.arange(start, start + size) for start, size in [(0, 20), (100, 7), (200, 41)]]


def packed(tokens):
    return PackedRows(tokens, pack([tokens.size], 5, "concatenate"))


def tree(tokens):
    return [{"x": row, "y": (row[0], -row)} for row in windows(tokens, 5)]


@pytest.mark.parametrize(
    "make",
    [
        lambda tokens: windows(tokens, 5),
        lambda tokens: PackedRows(tokens, pack([tokens.size], 5, "concatenate")),
        lambda tokens: grain.MapDataset.source(windows(tokens, 5)),
        tree,
    ],
    ids=["arrays", "packed", "grain", "trees"],
)
def test_rows_are_those_of_the_files_in_order(make):
    parts = [make(tokens) for tokens in TOKENS]
    shards = Shards(parts)
    want = [part[row] for part in parts for row in range(len(part))]
    assert len(shards) == len(want)
    rows = np.random.default_rng(0).integers(0, len(want), 40)
    stacked = shards.read_rows(rows)
    for place, row in enumerate(rows.tolist()):
        np.testing.assert_equal(shards[row], want[row])
        np.testing.assert_equal(at(stacked, place), want[row])


def at(tree, place):
    """Returns one row of a stacked batch."""
    if isinstance(tree, dict):
        return {name: at(each, place) for name, each in tree.items()}
    return tuple(at(each, place) for each in tree) if isinstance(tree, tuple) else tree[place]


def test_trees_of_arrays_are_read_at_once():
    shards = Shards([{"x": windows(tokens, 5)} for tokens in TOKENS])
    np.testing.assert_array_equal(shards.read_rows(np.array([5, 0]))["x"][:, 0], [200, 0])
    np.testing.assert_array_equal(shards[5]["x"], TOKENS[2][:5])


def test_shards_are_mixed_and_their_files_are_not_sent(tmp_path):
    files = []
    for name in ("0", "1"):
        np.arange(50_000, dtype=np.uint16).tofile(tmp_path / name)
        files.append(np.memmap(tmp_path / name, np.uint16, "r"))
    domain = Shards([windows(each, 100) for each in files])
    assert len(pickle.dumps(Sent(domain))) < 2000
    datasets = {"shards": domain, "one": windows(files[0], 100)}
    plan = Plan(sizes_of(datasets), batch_size=8, weights=[0.5, 0.5])
    batch = next(iter(mix(datasets, plan)))
    for ids, row, value in zip(batch["domain_ids"], batch["rows"], batch["value"], strict=True):
        np.testing.assert_array_equal(value, datasets[["shards", "one"][ids]][int(row)])


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_that_is_not_there_is_named(row):
    with pytest.raises(IndexError, match=f"row must be from 0 to 3, got {row}"):
        Shards([np.arange(3), np.arange(1)])[row]


def test_shards_that_are_not_alike_are_named():
    with pytest.raises(ValueError, match=r"'shard 0' and 'shard 1' differ: int64\[2\] and int64\[3\]"):
        Shards([np.ones((3, 2), int), np.ones((3, 3), int)])
    with pytest.raises(ValueError, match="datasets must have at least one data set, got none"):
        Shards([])

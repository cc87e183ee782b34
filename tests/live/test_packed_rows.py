"""Tests the rows that a packing makes of a token file."""

import pickle

import grain
import numpy as np
import pytest

from mixjax.live import PackedRows, Plan, mix, pack, sizes_of
from mixjax.live.sending import Sent

LENGTHS = [5, 2, 31, 0, 8, 1, 1, 12]
TOKENS = np.arange(100, 100 + sum(LENGTHS), dtype=np.uint16)


def row_by_hand(packing, row):
    """Builds a row piece by piece."""
    tokens, segments, positions = (np.zeros(packing.row_length, int) for _ in range(3))
    end = 0
    for number, piece in enumerate(range(*packing.row_starts[row : row + 2]), start=1):
        start, length = packing.piece_starts[piece], packing.piece_lengths[piece]
        place = slice(end, end + length)
        tokens[place], segments[place], positions[place] = TOKENS[start : start + length], number, np.arange(length)
        end += length
    return {"tokens": tokens, "tokens_segment_ids": segments, "tokens_positions": positions}


@pytest.mark.parametrize("method", ["best_fit", "concatenate"])
@pytest.mark.parametrize("row_length", [1, 7, 8, 100])
def test_rows_are_their_pieces_and_padding(row_length, method):
    packing = pack(LENGTHS, row_length, method, open_rows=2)
    rows = PackedRows(TOKENS, packing)
    assert len(rows) == packing.num_rows
    order = np.random.default_rng(0).integers(0, len(rows), 9)
    batch = rows.read_rows(order)
    for place, row in enumerate(order):
        want = row_by_hand(packing, row)
        for name, values in rows[row].items():
            np.testing.assert_array_equal(values, want[name])
            np.testing.assert_array_equal(batch[name][place], want[name])
    assert batch["tokens"].dtype == TOKENS.dtype
    assert batch["tokens_segment_ids"].dtype == batch["tokens_positions"].dtype == np.int32


def test_a_row_has_the_words_and_values_of_grains_packing():
    """One open row that is filled in order is what grain makes of the same documents."""
    lengths = [5, 2, 3, 1, 4]
    documents = np.split(TOKENS[: sum(lengths)], np.cumsum(lengths)[:-1])
    source = grain.MapDataset.source(documents).map(lambda tokens: {"tokens": tokens}).to_iter_dataset()
    packed = grain.experimental.FirstFitPackIterDataset(
        source, length_struct={"tokens": 8}, num_packing_bins=1, shuffle_bins=False
    )
    rows = PackedRows(TOKENS, pack(lengths, 8, open_rows=1))
    for got, want in zip([rows[r] for r in range(len(rows))], packed, strict=True):
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
            assert got[name].dtype == want[name].dtype


def test_padding_is_the_token_that_was_asked_for():
    rows = PackedRows(TOKENS, pack([3, 3], 4), padding=9)
    np.testing.assert_array_equal(rows[1]["tokens"], [103, 104, 105, 9])


def test_packed_rows_are_mixed_like_other_data_sets_and_sent_without_their_tokens(tmp_path):
    path = tmp_path / "tokens.bin"
    np.tile(TOKENS, 1000).tofile(path)
    tokens = np.memmap(path, np.uint16, "r")
    packed = PackedRows(tokens, pack(LENGTHS * 3, 16))
    assert len(pickle.dumps(Sent(packed))) < 6000
    datasets = {"packed": packed, "one by one": [packed[r] for r in range(len(packed))]}
    plan = Plan(sizes_of(datasets), batch_size=8, weights=[0.5, 0.5], lag=2)
    iterator = iter(mix(datasets, plan, workers=1))
    for step in range(2):
        element = next(iterator)
        for domain, row, tokens in zip(element["domain_ids"], element["rows"], element["value"]["tokens"], strict=True):
            np.testing.assert_array_equal(tokens, datasets[["packed", "one by one"][domain]][int(row)]["tokens"])
        plan.keep(step)
    iterator.close()


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there_is_named(row):
    with pytest.raises(IndexError, match=f"row must be from 0 to 2, got {row}"):
        PackedRows(TOKENS, pack([3, 3, 3], 4))[row]


def test_tokens_that_do_not_fit_the_packing_are_refused():
    packing = pack([3, 3], 4)
    with pytest.raises(ValueError, match="the packing was made for 6 tokens or more, got 5 of them"):
        PackedRows(TOKENS[:5], packing)
    with pytest.raises(ValueError, match=r"tokens must be a flat array \[n\], got \(2, 3\)"):
        PackedRows(TOKENS[:6].reshape(2, 3), packing)

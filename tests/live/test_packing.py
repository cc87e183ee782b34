"""Tests that packing loses no token, keeps documents whole, and leaves little padding."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mixjax.live import Packing, pack

METHODS = [("best_fit", 1), ("best_fit", 3), ("best_fit", 128), ("concatenate", 128)]


def pieces_of(packing):
    """Lists the pieces of each row as (start, length)."""
    pieces = list(zip(packing.piece_starts.tolist(), packing.piece_lengths.tolist(), strict=True))
    return [pieces[a:b] for a, b in zip(packing.row_starts[:-1], packing.row_starts[1:], strict=True)]


@hypothesis.given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 25), st.sampled_from(METHODS))
@hypothesis.settings(deadline=None, max_examples=300)
def test_every_token_is_in_one_piece_and_no_row_is_too_long(lengths, row_length, how):
    hypothesis.assume(sum(lengths))
    method, open_rows = how
    packing = pack(lengths, row_length, method, open_rows)
    rows = pieces_of(packing)
    assert len(rows) == packing.num_rows and all(rows)
    seen = np.concatenate([np.arange(start, start + length) for row in rows for start, length in row])
    np.testing.assert_array_equal(np.sort(seen), np.arange(sum(lengths)))
    filled = [sum(length for _, length in row) for row in rows]
    assert max(filled) <= row_length
    np.testing.assert_array_equal(packing.lengths, filled)
    assert packing.padding == pytest.approx(1 - sum(lengths) / (packing.num_rows * row_length))
    # A piece lies in one document; a document is cut only where it has to be.
    ends = np.cumsum(lengths)
    for start, length in (piece for row in rows for piece in row):
        document = np.searchsorted(ends, start, "right")
        begin, end = ends[document] - lengths[document], ends[document]
        assert start + length <= end
        if method == "best_fit":
            assert (start - begin) % row_length == 0
            assert length == min(row_length, end - start)
    if method == "concatenate":
        assert packing.num_rows == -(-sum(lengths) // row_length)


def reference(lengths, row_length, open_rows):
    """Packs as the docstring says, with plain lists: the fullest row that has room, or else a new one."""
    rows, opened = [], []
    for length in lengths:
        while length >= row_length:
            rows.append([row_length])
            length -= row_length
        if not length:
            continue
        fits = [row for row in opened if row_length - sum(rows[row]) >= length]
        if fits:
            least = min(row_length - sum(rows[row]) for row in fits)
            row = next(row for row in fits if row_length - sum(rows[row]) == least)
        else:
            if len(opened) == open_rows:
                opened.remove(max(opened, key=lambda row: sum(rows[row])))
            row = len(rows)
            rows.append([])
            opened.append(row)
        rows[row].append(length)
        if sum(rows[row]) == row_length:
            opened.remove(row)
    return rows


@pytest.mark.parametrize("open_rows", [1, 2, 5, 64])
def test_best_fit_fills_rows_as_well_as_plain_lists_do(open_rows):
    lengths = np.random.default_rng(open_rows).integers(1, 250, 400)
    got = pack(lengths, 100, open_rows=open_rows).lengths
    want = [sum(row) for row in reference(lengths.tolist(), 100, open_rows)]
    # Which of two rows with the same room takes a document is not said, but how full rows become is nearly the same.
    assert abs(len(got) - len(want)) <= 1 + len(want) // 50
    assert sum(got) == sum(want) == lengths.sum()


def test_more_open_rows_leave_less_padding():
    lengths = np.minimum(np.exp(np.random.default_rng(0).normal(6, 1, 20_000)).astype(int) + 1, 2048)
    one, eight, many = (pack(lengths, 2048, open_rows=n).padding for n in (1, 8, 128))
    assert 0.15 < one < 0.25
    assert eight < 0.03
    assert many < 0.01
    assert pack(lengths, 2048, "concatenate").padding < 2048 / lengths.sum()


def test_the_same_documents_give_the_same_packing():
    lengths = np.random.default_rng(1).integers(0, 300, 500)
    for first, second in zip(pack(lengths, 128), pack(lengths.tolist(), 128), strict=True):
        np.testing.assert_array_equal(first, second)


def test_blocks_of_documents_go_on_from_each_other(monkeypatch):
    lengths = np.random.default_rng(2).integers(1, 300, 500)
    want = pack(lengths, 128, open_rows=4)
    monkeypatch.setattr("mixjax.live.packing._BLOCK", 7)
    for got, expected in zip(pack(lengths, 128, open_rows=4), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_packing_is_saved_and_loaded(tmp_path):
    packing = pack([3, 2, 5, 1, 9], 4)
    packing.save(tmp_path / "web.npz")
    loaded = Packing.load(tmp_path / "web.npz")
    assert type(loaded.row_length) is int
    for got, want in zip(loaded, packing, strict=True):
        np.testing.assert_array_equal(got, want)
    assert [path.name for path in tmp_path.iterdir()] == ["web.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"form": 2, **pack([3], 4)._asdict()}, "was written by a newer mixjax"),
        ({"x": 1}, r"is no packing: it holds \['x'\]"),
        ({"form": np.array([None])}, "is no packing: Object arrays cannot be loaded"),
        (b"", "is no packing"),
        (b"tokens", "is no packing"),
    ],
)
def test_other_files_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / "web.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(ValueError, match=f"web.npz {message}"):
        Packing.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], 0), "row_length must be an integer from 1 to 2147483647, got 0"),
        (([1], 2, "best_fit", 0), "open_rows must be an integer from 1 to 1048576, got 0"),
        (([1], 2, "first"), "method must be 'best_fit' or 'concatenate', got 'first'"),
        (([1.5], 2), r"lengths must be \[documents\] of non-negative integers, got shape \(1,\) of float64"),
        (([[1]], 2), r"lengths must be \[documents\] of non-negative integers, got shape \(1, 1\)"),
        (([3, -1], 2), r"lengths must be \[documents\] of non-negative integers"),
        ((np.zeros(2, int), 2), "lengths must have at least one document with a token, got none"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        pack(*arguments)

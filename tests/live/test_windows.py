"""Tests the rows that a file of tokens is cut into."""

import numpy as np
import pytest

from mixjax.live import windows


@pytest.mark.parametrize("overlap", [0, 1, 3, 9])
@pytest.mark.parametrize("length", [1, 4, 5, 20])
@pytest.mark.parametrize("size", [29, 40, 41])
def test_rows_are_consecutive_tokens_and_only_a_part_of_a_row_is_left(size, length, overlap):
    tokens = np.arange(size) * 3
    rows = windows(tokens, length, overlap)
    assert np.shares_memory(rows, tokens) and not rows.flags.writeable
    for r, row in enumerate(rows):
        np.testing.assert_array_equal(row, tokens[r * length : (r + 1) * length + overlap])
    assert size < (len(rows) + 1) * length + overlap


def test_every_token_but_the_first_is_a_target_once():
    rows = windows(np.arange(41), 5, overlap=1)
    np.testing.assert_array_equal(rows[:, 1:].ravel(), np.arange(1, 41))
    np.testing.assert_array_equal(rows[:, :-1].ravel(), np.arange(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 2)), 2), r"tokens must be a flat array \[n\], got \(3, 2\)"),
        (([1, 2, 3], 2), r"tokens must be a flat array \[n\], got list"),
        ((np.ones(3), 0), "length must be an integer of at least 1, got 0"),
        ((np.ones(3), 2.0), "length must be an integer of at least 1, got 2.0"),
        ((np.ones(3), 2, -1), "overlap must be an integer of at least 0, got -1"),
        ((np.ones(3), 3, 1), "tokens must fill a row of 4, got 3 of them"),
    ],
)
def test_arguments_that_give_no_rows_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)

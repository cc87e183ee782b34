"""Tests that lengths are checked by name, and looked up for the rows in the order in which a plan draws them."""

import numpy as np
import pytest

from mixjax.live.row_lengths import RowLengths, named_lengths
from mixjax.live.rows import Rows

SIZES = {"web": 1500, "code": 3}


def lengths_of(dtype=np.int32):
    return [np.arange(1, 1501, dtype=dtype), np.array([7, 8, 9], dtype)]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64])
def test_lengths_are_those_of_the_examples_drawn(dtype):
    found, rows = RowLengths(named_lengths(lengths_of(dtype), SIZES), 5, SIZES), Rows(5, SIZES)
    assert found.totals == [1500 * 1501 // 2, 24]
    for domain, numbers in ((0, [0, 1, 511, 512, 1499, 1500, 3200, 0]), (1, [0, 1, 2, 3, 314, 315, 316, 700])):
        examples = [rows.examples(np.array([domain], np.int32), np.array([number]))[0] for number in numbers]
        assert [found.of(domain, number) for number in numbers] == [int(lengths_of()[domain][e]) for e in examples]


def test_names_and_memory_maps_are_taken(tmp_path):
    web, code = lengths_of()
    np.save(tmp_path / "web.npy", web)
    mapped = np.load(tmp_path / "web.npy", mmap_mode="r")
    found = named_lengths({"code": code, "web": mapped}, SIZES)
    # The same memory, so nothing was read into a copy.
    assert np.shares_memory(found[0], mapped)
    np.testing.assert_array_equal(found[1], code)


@pytest.mark.parametrize(
    ("web", "message"),
    [
        (np.ones(1499, int), r"lengths of domain 'web' must be integers \[1500\], one for each example, got int64 of"),
        (np.ones(1500), r"lengths of domain 'web' must be integers \[1500\], .* got float64"),
        (np.ones(1500, bool), "got bool"),
        (np.ones((1500, 1), int), r"of shape \(1500, 1\)"),
        ([[1], [1, 2]], "lengths of domain 'web' must be one array of integers"),
        (np.r_[np.ones(1499, int), 0], "must be from 1 to 2\\^24, got 0 for example 1499"),
        (np.r_[-3, np.ones(1499, int)], "must be from 1 to 2\\^24, got -3 for example 0"),
        (np.r_[1, 2**24 + 1, np.ones(1498, int)], "must be from 1 to 2\\^24, got 16777217 for example 1"),
    ],
)
def test_lengths_that_do_not_fit_are_named(web, message):
    with pytest.raises(ValueError, match=message):
        named_lengths([web, [1, 2, 3]], SIZES)


def test_other_domains_are_named():
    with pytest.raises(ValueError, match=r"lengths must have the domains \['web', 'code'\], got \['web'\]"):
        named_lengths({"web": np.ones(1500, int)}, SIZES)
    with pytest.raises(ValueError, match="lengths must have one array for each of 2 domains, got 1"):
        named_lengths([np.ones(1500, int)], SIZES)


def test_domains_of_equal_weight_look_up_their_blocks_in_different_steps():
    """Each lookup is of a block, and no step waits for the blocks of all domains."""
    sizes = {f"domain {d}": 5000 for d in range(100)}
    found = RowLengths([np.arange(1, 5001)] * 100, 0, sizes)
    lookups = []
    for number in range(2000):
        before = list(found._block)
        for domain in range(100):
            found.of(domain, number)
        lookups.append(sum(now != then for now, then in zip(found._block, before, strict=True)))
    assert lookups[0] == 100 and max(lookups[1:]) <= 2

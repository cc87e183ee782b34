"""Tests that blocks of shuffled rows are a cache only: rows come out as the permutation says, in any pattern."""

import numpy as np

from mixjax.live.permutation import permuted
from mixjax.live.rows import Rows, _key_of

SIZES = {"a": 3, "b": 5000, "c": 1}


def test_examples_are_those_of_the_permutation():
    rows, rng = Rows(4, SIZES), np.random.default_rng(0)
    position = np.zeros(3, np.int64)
    for _ in range(30):
        counts = rng.integers(0, 900, 3)
        ids = np.repeat(np.arange(3, dtype=np.int32), counts)
        numbers = np.concatenate([np.arange(p, p + n) for p, n in zip(position, counts, strict=True)])
        position += counts
        # Every second row, as one of two hosts reads them.
        examples = rows.examples(ids[::2], numbers[::2])
        for d, (name, size) in enumerate(SIZES.items()):
            mine = ids[::2] == d
            np.testing.assert_array_equal(examples[mine], permuted(4, _key_of(name), numbers[::2][mine], size))


def test_a_block_is_shuffled_once_when_rows_come_in_order(monkeypatch):
    shuffled = []

    def counted(seed, key, rows, size):
        shuffled.append((key, rows[0]))
        return permuted(seed, key, rows, size)

    monkeypatch.setattr("mixjax.live.rows.permuted", counted)
    rows, rng, position = Rows(4, SIZES), np.random.default_rng(0), np.zeros(3, np.int64)
    for _ in range(30):
        counts = rng.integers(0, 900, 3)
        ids = np.repeat(np.arange(3, dtype=np.int32), counts)
        rows.examples(ids, np.concatenate([np.arange(p, p + n) for p, n in zip(position, counts, strict=True)]))
        position += counts
    assert len(shuffled) == len(set(shuffled))


def test_domains_of_equal_weight_do_not_need_their_blocks_in_the_same_step(monkeypatch):
    shuffled = []

    def counted(seed, key, rows, size):
        shuffled.append(key)
        return permuted(seed, key, rows, size)

    monkeypatch.setattr("mixjax.live.rows.permuted", counted)
    rows, ids = Rows(0, {str(d): 10**6 for d in range(1000)}), np.repeat(np.arange(1000, dtype=np.int32), 8)
    most = []
    for step in range(200):
        shuffled.clear()
        rows.examples(ids, np.tile(np.arange(8 * step, 8 * step + 8), 1000))
        most.append(len(shuffled))
    # Each domain needs a block at the start, and another one every 65 steps.
    assert most[0] >= 1000 and max(most[1:]) < 50


def test_the_order_of_a_domain_depends_on_its_name_only():
    numbers = np.arange(50)
    alone = Rows(0, {"b": 5000}).examples(np.zeros(50, np.int32), numbers)
    second = Rows(0, SIZES).examples(np.ones(50, np.int32), numbers)
    np.testing.assert_array_equal(alone, second)

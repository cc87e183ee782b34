"""Tests that a snapshot of a plan is small, in memory and in a saved state."""

import json

import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.live.position import Position

NUM_DOMAINS = 2000


def late(rng):
    """Makes the position of a run of 10^9 steps of 256 rows of 2,048 tokens, whose loss weights are not its weights."""
    tokens = (rng.dirichlet(np.ones(NUM_DOMAINS)) * 10**9 * 256 * 2048).astype(np.int64)
    carry = rng.integers(-(2**43), 2**43, NUM_DOMAINS // 2)
    return Position(
        drawn=tokens // 2048,
        tokens=tokens,
        carry=np.concatenate([carry, -carry]),
        mass=rng.dirichlet(np.ones(NUM_DOMAINS)),
        spent=int(tokens.sum()),
    )


def test_a_snapshot_takes_32_bytes_a_domain_in_memory():
    arrays = [each for each in late(np.random.default_rng(0)) if isinstance(each, np.ndarray)]
    assert len(arrays) == 4 and sum(array.nbytes for array in arrays) == 32 * NUM_DOMAINS


def test_a_snapshot_of_rows_takes_less_than_64_bytes_a_domain_in_json():
    position = late(np.random.default_rng(0))
    rows = position._replace(carry=position.carry // 2048)
    assert len(json.dumps(rows.get_state(counts_tokens=False))) < 56 * NUM_DOMAINS


@pytest.mark.parametrize("num_steps", [0, 20])
def test_a_saved_state_of_rows_takes_less_than_64_bytes_a_domain(num_steps):
    """With the names and sizes of the domains and the weights in force."""
    rng = np.random.default_rng(0)
    plan = Plan([2**20] * NUM_DOMAINS, 256, rng.dirichlet(np.ones(NUM_DOMAINS)))
    for step in range(num_steps):
        next(plan)
        plan.keep(step)
    assert len(json.dumps(plan.get_state())) < 64 * NUM_DOMAINS


@pytest.mark.parametrize("counts_tokens", [False, True])
def test_a_position_is_restored_to_the_bit(counts_tokens):
    position = late(np.random.default_rng(0))._replace(waiting=frozenset(["b", "a"]), is_below=True)
    found = Position.from_state(json.loads(json.dumps(position.get_state(counts_tokens))))
    for name in ("drawn", "carry", "mass", "waiting", "is_below"):
        np.testing.assert_array_equal(getattr(found, name), getattr(position, name))
    if counts_tokens:
        np.testing.assert_array_equal(found.tokens, position.tokens)
        assert found.spent == position.spent

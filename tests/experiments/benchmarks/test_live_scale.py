"""Tests the plan near the end of a long run."""

import numpy as np

from experiments.benchmarks import live_scale
from mixjax import live


def test_hosts_near_the_end_read_one_batch_together():
    plans = [live_scale.near_the_end(7, hosts=2, host=host) for host in range(2)]
    alone = live.Plan(plans[0].sizes, batch_size=16, weights=plans[0].first_weights, lag=plans[0].lag)
    alone.set_state(plans[0].get_state())
    first, second = (next(plan) for plan in plans)
    whole = next(alone)
    assert first.step == live_scale.ROWS // 16 - 1000
    rows = np.empty(16, np.int64)
    rows[0::2], rows[1::2] = first.rows, second.rows
    np.testing.assert_array_equal(rows, whole.rows)


def test_every_part_is_measured():
    report = live_scale.run(quick=True)
    assert all(len(report.data["7"][name]) == 3 for name in ("draw", "publish", "ledger", "restore"))
    assert 0 < report.data["7"]["state_bytes"] < report.data["2000"]["state_bytes"]

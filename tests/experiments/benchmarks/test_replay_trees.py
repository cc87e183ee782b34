"""Tests the verdicts of the benchmark of replay trees, and that our sums do not drift."""

import numpy as np

from experiments.benchmarks import replay_trees


def test_our_sums_do_not_drift():
    ratio, most = replay_trees.drift(replay_trees.host_side(200, compiled=False), 200, updates=100)
    assert abs(ratio - 1) < 1e-5 and most < 2


def test_a_sum_that_drifts_is_seen():
    side = replay_trees.host_side(200, compiled=False)
    # draws one example only, by a sum that is too large
    broken = side._replace(draw=lambda seed: np.zeros(64, int), total=lambda: 3.0 * side.total())
    ratio, most = replay_trees.drift(broken, 200, updates=2)
    assert round(ratio, 3) == 3.0 and most == 200.0


def test_targets_compare_with_the_peers_that_are_there():
    def rows(ours, cpprb):
        sides = {replay_trees.HOST: [ours] * 3, replay_trees.CPPRB: [cpprb] * 3}
        sides |= dict.fromkeys(replay_trees.LOOPS, [10.0] * 3)
        drifts = {replay_trees.HOST: (1.0000001, 1.5), replay_trees.FLASHBAX: (40.0, 300.0)}
        return replay_trees.targets({1000: sides}, drifts)

    held = [row.holds for row in rows(14.0, 10.0)]
    assert held == [True, True] and [row.holds for row in rows(16.0, 10.0)] == [False, True]

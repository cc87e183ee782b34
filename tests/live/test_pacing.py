"""Tests that a plan with limits draws no row that is not there, keeps its budget, and says rightly why it ends."""

import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.live.pacing import Pacing
from mixjax.live.position import Position


def weights_of(rng, num_domains):
    """Returns weights of which some are zero, and some too small for fixed point."""
    weights = rng.dirichlet(np.full(num_domains, rng.choice([0.05, 1.0, 20.0])))
    weights *= rng.random(num_domains) < rng.choice([0.4, 1.0])
    weights = np.where(rng.random(num_domains) < 0.1, weights * 1e-12, weights)
    return weights if weights.any() else np.eye(num_domains)[0]


def plan_of(rng, counts_tokens):
    """Makes a plan of random sizes and limits, possibly infeasible ones."""
    num_domains, batch_size = int(rng.integers(1, 9)), int(rng.integers(1, 14))
    sizes = rng.integers(1, int(rng.choice([3, 20, 200])), num_domains)
    lengths = [rng.integers(1, int(rng.choice([2, 50, 5000])), size) for size in sizes] if counts_tokens else None
    limits = rng.choice([0.3, 0.5, 1.0, 2.0, 3.7, np.inf], num_domains)
    budget = int(rng.integers(batch_size, batch_size * (40_000 if counts_tokens else 150)))
    plan = Plan(
        sizes.tolist(),
        batch_size,
        weights_of(rng, num_domains),
        weights_of(rng, num_domains) if rng.random() < 0.5 else None,
        lag=1,
        max_epochs=limits,
        budget=budget if rng.random() < 0.6 else None,
        lengths=lengths,
    )
    return plan, np.floor(sizes * limits)


# Random weights may come near a single domain, of which a plan warns.
@pytest.mark.filterwarnings("error", "ignore:.*weights come near one domain:RuntimeWarning")
@pytest.mark.parametrize("counts_tokens", [False, True])
def test_plans_with_limits_keep_them_and_end_for_the_reason_they_give(counts_tokens):
    reasons = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        try:
            plan, row_limits = plan_of(rng, counts_tokens)
        except ValueError as error:
            assert "of all domains together, and" in str(error)
            continue
        drawn, spent, longest_batch = np.zeros(len(plan.sizes)), 0, 1
        for step, batch in enumerate(plan):
            drawn += batch.counts
            amount = plan.batch_size if batch.tokens is None else batch.tokens.sum()
            spent, longest_batch = spent + amount, max(longest_batch, amount)
            assert batch.counts.sum() == plan.batch_size and (drawn <= row_limits).all()
            assert np.isfinite(batch.row_weights).all() and (batch.row_weights >= 0).all()
            assert plan.budget is None or spent <= plan.budget
            plan.publish(step, weights_of(rng, len(plan.sizes)))
            if step == 60:
                break
        ending = plan.ending
        if ending is None:
            continue
        reasons.append(ending["reason"])
        if ending["reason"] == "rows spent":
            left = {name: limit - count for name, limit, count in zip(plan.sizes, row_limits, drawn, strict=True)}
            assert all(left[name] == count for name, count in ending["rows_left"].items())
            assert sum(ending["rows_left"].values()) < plan.batch_size
        elif counts_tokens:
            assert plan.budget - spent < plan.batch_size * 5000
        else:
            assert plan.budget - spent < plan.batch_size
    assert set(reasons) == {"budget reached", "rows spent"}


def test_shares_are_limited_to_what_is_left_over_what_the_run_has_left():
    sizes, at = {"a": 100, "b": 10}, Position.start(2)
    q = np.array([0.5, 0.5], np.float32)
    by_rows = Pacing(sizes, 5, [np.inf, 2], 100)
    np.testing.assert_allclose(by_rows.paced(q, 0, at).weights, [0.8, 0.2])
    np.testing.assert_allclose(by_rows.paced(q, 10, at._replace(drawn=np.array([45, 5]))).weights, [0.7, 0.3])
    by_tokens = Pacing(sizes, 5, [np.inf, 2], 10_000, totals=[1000, 500])
    np.testing.assert_allclose(by_tokens.paced(q, 0, at).weights, [0.9, 0.1])
    later = at._replace(drawn=np.array([90, 8]), tokens=np.array([7600, 400]), spent=8000)
    np.testing.assert_allclose(by_tokens.paced(q, 3, later).weights, [0.7, 0.3])


def test_a_domain_of_part_of_an_epoch_has_a_token_a_row_left_at_least():
    """Which rows the part holds is not known, so the tokens drawn may be more than their mean says."""
    pacing = Pacing({"a": 100, "b": 10}, 2, [np.inf, 0.5], 1000, totals=[1000, 500])
    at = Position.start(2)._replace(drawn=np.array([0, 3]), tokens=np.array([0, 400]), spent=400)
    paced = pacing.paced(np.array([0.5, 0.5], np.float32), 3, at)
    np.testing.assert_allclose(paced.weights, [1 - 2 / 600, 2 / 600])
    assert paced.rows_left[1] == 2

"""Tests plans that count tokens: shares, weights of rows, limits, hosts, restoring, and what they refuse."""

import json

import numpy as np
import pytest

from mixjax.live import Plan
from tests.live.driving import drive, moving

SIZES = {"web": 900, "books": 70, "code": 8}


def lengths_of(seed=0, longest=(40, 400, 4000)):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(1, most + 1, size) for (name, size), most in zip(SIZES.items(), longest, strict=True)}


def plan_of(**changes):
    arguments = {"sizes": SIZES, "batch_size": 12, "weights": [0.5, 0.3, 0.2], "lag": 3, "lengths": lengths_of()}
    return Plan(**(arguments | changes))


def assert_same(batch, other):
    for field in ("step", "domain_ids", "rows", "row_weights", "counts", "weights", "tokens", "lengths", "events"):
        np.testing.assert_array_equal(getattr(batch, field), getattr(other, field), err_msg=field)


def test_tokens_follow_the_weights_in_force_within_the_bound():
    lengths, due, drawn = list(lengths_of().values()), np.zeros(3), np.zeros(3)
    for batch in drive(plan_of(), 200):
        assert batch.counts.sum() == 12 and batch.domain_ids.size == 12
        np.testing.assert_array_equal(batch.counts, np.bincount(batch.domain_ids, minlength=3))
        want = [lengths[d][row] for d, row in zip(batch.domain_ids, batch.rows, strict=True)]
        np.testing.assert_array_equal(batch.lengths, want)
        np.testing.assert_array_equal(batch.tokens, np.bincount(batch.domain_ids, batch.lengths, minlength=3))
        due += batch.weights.astype(float) * batch.tokens.sum()
        drawn += batch.tokens
        longest = max(each.max() for each in lengths)
        assert (drawn - due < longest).all() and (due - drawn < 1.5 * longest + 1).all()


def test_documents_of_400_and_4000_tokens_get_equal_shares_of_the_gradient():
    plan = Plan([500, 500], 22, [0.5, 0.5], lag=1, lengths=[np.full(500, 400), np.full(500, 4000)])
    weights = np.zeros(2)
    for step in range(50):
        batch = next(plan)
        weights += np.bincount(batch.domain_ids, batch.row_weights, minlength=2)
        plan.keep(step)
    np.testing.assert_allclose(weights / weights.sum(), 0.5, atol=0.01)


def test_rows_weigh_their_tokens_over_those_of_the_batch():
    for batch in drive(plan_of(), 20):
        np.testing.assert_allclose(batch.row_weights, batch.lengths / batch.tokens.sum(), rtol=1e-6)


def test_rows_of_a_domain_share_its_loss_weight_by_their_tokens():
    carried, due, largest = np.zeros(3), np.zeros(3), np.zeros(3)
    plan, c = plan_of(loss_weights=[0.2, 0.2, 0.6]), np.array([0.2, 0.2, 0.6])
    for batch in drive(plan, 300, loss_weights=lambda step: moving(step + 1000)):
        due += c if batch.step < 3 else moving(batch.step - 3 + 1000)
        mass = np.bincount(batch.domain_ids, batch.row_weights.astype(float), minlength=3)
        for d in range(3):
            mine = batch.domain_ids == d
            np.testing.assert_allclose(
                batch.row_weights[mine], mass[d] * batch.lengths[mine] / max(batch.tokens[d], 1), rtol=1e-5
            )
        carried += mass
        largest = np.maximum(largest, mass)
        # Between two rows of a domain, what it gathers waits; its next rows get all of it.
        np.testing.assert_allclose(carried[batch.counts > 0], due[batch.counts > 0], rtol=1e-5)
    assert (due - carried <= largest + 1e-6).all()


@pytest.mark.parametrize("num_hosts", [2, 3])
def test_hosts_share_the_batch_of_one(num_hosts):
    parts = [drive(plan_of(host=(index, num_hosts)), 10) for index in range(num_hosts)]
    for t, batch in enumerate(drive(plan_of(), 10)):
        for index in range(num_hosts):
            part = parts[index][t]
            for field in ("counts", "tokens"):
                np.testing.assert_array_equal(getattr(part, field), getattr(batch, field))
            for field in ("domain_ids", "rows", "row_weights", "lengths"):
                np.testing.assert_array_equal(getattr(part, field), getattr(batch, field)[index::num_hosts])


@pytest.mark.parametrize("limits", [{}, {"max_epochs": 2, "budget": 60_000}])
def test_a_restored_plan_goes_on_to_the_token(limits):
    want = drive(plan_of(**limits), 40)
    plan = plan_of(**limits)
    drive(plan, 17)
    next(plan)
    state = json.loads(json.dumps(plan.get_state()))
    other = plan_of(**limits, weights=[0.1, 0.1, 0.8])
    other.set_state(state)
    for batch, whole in zip(drive(other, 23), want[17:], strict=True):
        assert_same(batch, whole)


def test_a_state_fits_only_plans_that_count_the_same():
    tokens, rows = plan_of(), plan_of(lengths=None)
    drive(tokens, 3)
    drive(rows, 3)
    with pytest.raises(ValueError, match="saved by a plan that counts tokens, and this plan counts rows"):
        plan_of(lengths=None).set_state(tokens.get_state())
    with pytest.raises(ValueError, match="saved by a plan that counts rows, and this plan counts tokens"):
        plan_of().set_state(rows.get_state())
    total = int(lengths_of()["code"].sum())
    other = lengths_of() | {"code": np.ones(8, int)}
    with pytest.raises(ValueError, match=f"domain 'code' had {total} tokens when saved, and has 8 now"):
        plan_of(lengths=other).set_state(tokens.get_state())


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", [1, 2]), ("tokens", [-1, 0, 0]), ("spent", None), ("spent", -1), ("token_totals", [3])],
)
def test_a_damaged_state_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"the state is damaged: {field} cannot be"):
        plan_of().set_state(plan_of().get_state() | {field: value})


def test_domains_may_come_and_go():
    plan = plan_of()
    drive(plan, 9)
    state = plan.get_state()
    sizes, lengths = {"code": 8, "maths": 30, "web": 900}, lengths_of() | {"maths": np.full(30, 25)}
    del lengths["books"]
    other = Plan(sizes, 12, [0.4, 0.3, 0.3], lag=3, lengths=lengths)
    other.set_state(state, domains="changed")
    batch = next(other)
    assert batch.events[0] == {"step": 9, "event": "domains changed", "added": ["maths"], "removed": ["books"]}
    now = other.get_state()
    assert sum(now["carry"]) == 0 and now["spent"] == state["spent"]
    assert now["tokens"] == [state["tokens"][2], 0, state["tokens"][0]]
    for _ in range(10):
        other.keep(batch.step)
        batch = next(other)
        assert batch.tokens[1] > 0 or batch.counts[1] == 0


def test_limits_spread_the_tokens_of_a_small_domain_over_the_run():
    totals = {name: int(each.sum()) for name, each in lengths_of().items()}
    budget = 150_000
    plan = plan_of(max_epochs=[50, 50, 2], budget=budget, weights=np.ones(3))
    tokens, rows, limit = [], np.zeros(3, int), 2 * totals["code"]
    for batch in plan:
        plan.keep(batch.step)
        tokens.append(batch.tokens)
        rows += batch.counts
    tokens = np.array(tokens)
    assert plan.ending == {"step": len(tokens), "event": "ended", "reason": "budget reached"}
    # The next batch would have gone beyond the budget.
    assert budget - 12 * 4000 < tokens.sum() <= budget
    assert 12 <= rows[2] <= 16
    halfway = np.searchsorted(tokens.sum(axis=1).cumsum(), budget / 2)
    assert tokens[:halfway, 2].sum() == pytest.approx(limit / 2, abs=4000)


def test_no_domain_gives_more_rows_than_its_limit():
    plan = plan_of(max_epochs=[1.5, 1, 0.5], weights=np.ones(3))
    rows, events = np.zeros(3, int), []
    for batch in plan:
        plan.publish(batch.step, moving(batch.step))
        rows += batch.counts
        events += batch.events
    assert (rows[1:] == [70, 4]).all() and 1350 - 12 < rows[0] <= 1350
    assert plan.ending["reason"] == "rows spent" and plan.ending["rows_left"]["web"] == 1350 - rows[0]
    kinds = [event["event"] for event in events]
    assert kinds.count("limit reached") == 2 and "written off" in kinds
    assert all("tokens" in event for event in events if event["event"] == "written off")


def test_limits_that_cannot_fill_the_budget_are_named():
    total = sum(int(each.sum()) for each in lengths_of().values())
    with pytest.raises(ValueError, match=f"max_epochs = 1 leaves {total} tokens .* the budget is 100000000"):
        plan_of(max_epochs=1, budget=100_000_000)


def test_lengths_are_checked_by_name():
    with pytest.raises(ValueError, match="lengths of domain 'web' must be from 1 to 2\\^24, got 0 for example 5"):
        plan_of(lengths=lengths_of() | {"web": np.arange(900) - 5 + (np.arange(900) < 5) * 10})


def test_a_batch_taken_back_comes_again():
    plan = plan_of(lag=5)
    first = [next(plan) for _ in range(4)]
    plan.take_back(first[1])
    for batch in first[1:]:
        assert_same(next(plan), batch)

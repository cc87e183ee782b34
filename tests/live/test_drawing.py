"""Tests what batches say beside what they hold: each event in its step, and once."""

import json

import numpy as np
import pytest

from mixjax.live import Plan

SIZES = {"web": 5000, "books": 30, "code": 7}


def events_of(plan, num_steps, publish=lambda step: None, restored_at=None):
    """Returns the events of the steps of a plan, which may be restored on the way."""
    events = []
    for step in range(num_steps):
        if step == restored_at:
            state = json.loads(json.dumps(plan.get_state()))
            plan.set_state(state)
        try:
            batch = next(plan)
        except StopIteration:
            break
        events += batch.events
        weights = publish(step)
        if weights is None:
            plan.keep(step)
        else:
            plan.publish(step, *weights)
    return events


def plan_of(**changes):
    return Plan(**({"sizes": SIZES, "batch_size": 10, "weights": [0.7, 0.2, 0.1], "lag": 1} | changes))


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]


@pytest.mark.parametrize("lengths", [None, [np.full(size, 3) for size in SIZES.values()]])
@pytest.mark.parametrize("restored_at", [None, 7, 8, 15, 16])
def test_a_domain_begins_its_second_epoch_once(lengths, restored_at):
    plan, seen, began = plan_of(lengths=lengths), np.zeros(3, int), {}
    for step in range(60):
        if step == restored_at:
            plan.set_state(plan.get_state())
        batch = next(plan)
        seen += batch.counts
        for d, (name, size) in enumerate(SIZES.items()):
            if seen[d] > size and name not in began:
                began[name] = step
                assert {"step": step, "event": "begins epoch 2", "domains": [name]} in batch.events
        assert len(of_kind(batch.events, "begins epoch 2")) == (step in began.values())
        plan.keep(step)
    assert set(began) == {"books", "code"} and seen[2] > 7 * 7


def test_domains_that_begin_together_are_named_together():
    events = events_of(plan_of(sizes=[10, 20, 10], weights=[0.25, 0.5, 0.25], batch_size=4), 30)
    assert events == [{"step": 10, "event": "begins epoch 2", "domains": ["0", "1", "2"]}]


@pytest.mark.parametrize("restored_at", [None, 6, 7, 8, 13, 14])
def test_a_limit_that_is_reached_is_said_once(restored_at):
    plan = plan_of(max_epochs=[np.inf, 1, 1])
    found = of_kind(events_of(plan, 40, restored_at=restored_at), "limit reached")
    assert found == [
        {"step": 6, "event": "limit reached", "domains": ["code"]},
        {"step": 13, "event": "limit reached", "domains": ["books"]},
    ]


def test_a_limit_on_part_of_an_epoch_is_reached_without_a_second_one():
    events = events_of(plan_of(max_epochs=[np.inf, 0.5, 1]), 40)
    assert [event["domains"] for event in of_kind(events, "limit reached")] == [["code"], ["books"]]
    assert not of_kind(events, "begins epoch 2")


@pytest.mark.parametrize("restored_at", [None, 3, 13, 40])
def test_weights_that_pacing_cannot_follow_are_said_once_until_they_can_be_followed(restored_at):
    plan = plan_of(max_epochs=[1, 1, 1], budget=4000)

    def weights(step):
        # Of books and code there are 37 rows in a run of 4000.
        return [[0.0, 0.5, 0.5] if step in (4, 5, 12) else [1.0, 0.1, 0.1]]

    found = of_kind(events_of(plan, 50, weights, restored_at), "limits below the weights")
    assert [event["step"] for event in found] == [5, 13]


@pytest.mark.parametrize("lengths", [None, [np.full(size, 3) for size in SIZES.values()]])
@pytest.mark.parametrize("restored_at", [None, 6, 7, 30])
def test_loss_weight_that_waits_for_rows_is_said_once_a_domain(restored_at, lengths):
    plan = plan_of(weights=[1.0, 0.0, 0.0], loss_weights=[0.5, 0.35, 0.15], lengths=lengths)

    def weights(step):
        # Code gets a row now and then, and waits again.
        return [[1.0, 0.0, float(step % 10 == 9)], [0.5, 0.35, 0.15]]

    found = of_kind(events_of(plan, 60, weights, restored_at), "loss weight waits for rows")
    # 3 * 0.35 and 7 * 0.15 are the first sums above 1.
    assert found == [
        {"step": 2, "event": "loss weight waits for rows", "domains": ["books"]},
        {"step": 6, "event": "loss weight waits for rows", "domains": ["code"]},
    ]


def test_a_spent_domain_with_loss_weight_is_named():
    plan = plan_of(loss_weights=[0.5, 0.35, 0.15], max_epochs=[np.inf, np.inf, 1])
    found = of_kind(events_of(plan, 40), "loss weight waits for rows")
    assert [event["domains"] for event in found] == [["code"]]


def test_nothing_is_said_where_all_is_well():
    assert not events_of(plan_of(sizes=[500, 500, 500], loss_weights=[0.4, 0.4, 0.2]), 40)

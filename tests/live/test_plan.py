"""Tests the plan: what it draws, when weights come into force, limits, hosts, and restoring."""

import json
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.samplers.host_carried import UNIT
from tests.live.driving import drive, moving

SIZES = {"web": 1000, "books": 70, "code": 7}


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field in ("step", "domain_ids", "rows", "row_weights", "counts", "weights"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def plan_of(**changes):
    return Plan(**({"sizes": SIZES, "batch_size": 12, "weights": [0.5, 0.3, 0.2], "lag": 3} | changes))


def test_counts_follow_the_weights_in_force_within_the_bound():
    plan, due, drawn = plan_of(), np.zeros(3), np.zeros(3)
    for batch in drive(plan, 300):
        published = [0.5, 0.3, 0.2] if batch.step < 3 else moving(batch.step - 3)
        np.testing.assert_allclose(batch.weights, published, rtol=1e-6)
        due += 12 * np.asarray(published)
        drawn += batch.counts
        assert batch.counts.sum() == 12
        assert (drawn - due < 1.0).all() and (due - drawn < 5 / 6 + 1e-3).all()


def test_every_example_is_drawn_once_an_epoch():
    rows = {d: [] for d in range(3)}
    for batch in drive(plan_of(), 300):
        for d, row in zip(batch.domain_ids, batch.rows, strict=True):
            rows[int(d)].append(int(row))
    for d, size in enumerate(SIZES.values()):
        whole = len(rows[d]) // size * size
        epochs = np.array(rows[d][:whole]).reshape(-1, size)
        np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (len(epochs), 1)))
    assert len(rows[2]) > 50 * 7


@pytest.mark.parametrize("num_hosts", [2, 3, 4])
def test_hosts_share_the_batch_of_one(num_hosts):
    whole = drive(plan_of(), 20)
    parts = [drive(plan_of(host=(index, num_hosts)), 20) for index in range(num_hosts)]
    for t, batch in enumerate(whole):
        for index in range(num_hosts):
            part = parts[index][t]
            np.testing.assert_array_equal(part.counts, batch.counts)
            for field in ("domain_ids", "rows", "row_weights"):
                np.testing.assert_array_equal(getattr(part, field), getattr(batch, field)[index::num_hosts])


def test_a_step_without_weights_raises_in_the_thread_that_publishes():
    plan = plan_of()
    for _ in range(3):
        next(plan)
    with pytest.raises(RuntimeError, match=r"step 3 has no weights yet: call plan.publish\(0, weights\)"):
        next(plan)
    plan.keep(0)
    assert next(plan).step == 3


def test_steps_are_published_in_order():
    plan = plan_of()
    with pytest.raises(ValueError, match="the next is step 0, got step 1"):
        plan.publish(1, [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"weights must be \[3\]"):
        plan.publish(0, [1.0, 0.0])
    plan.publish(0, [1.0, 0.0, 0.0])


def test_another_thread_waits_for_weights_and_gets_the_same_batches():
    want = drive(plan_of(), 40)
    plan, got, ready = plan_of(), [], threading.Semaphore(0)

    def read():
        for batch in plan:
            got.append(batch)
            ready.release()

    thread = threading.Thread(target=read)
    thread.start()
    for t in range(37):
        ready.acquire(timeout=20)
        plan.publish(t, moving(t))
    plan.close()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert_same(got[:37], want[:37])


def test_a_thread_that_nobody_publishes_for_times_out_with_a_message():
    plan, errors = plan_of(timeout=0.05), []

    def read():
        try:
            for _ in plan:
                pass
        except TimeoutError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(timeout=20)
    assert "step 3 had no weights for 0.05 s: nobody called plan.publish(0, weights)" in errors[0]


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("num_hosts", [1, 3])
def test_a_restored_plan_goes_on_to_the_row(ahead, num_hosts):
    want = drive(plan_of(), 30)
    plan = plan_of(host=(0, num_hosts))
    drive(plan, 11)
    for _ in range(ahead):
        next(plan)
    state = json.loads(json.dumps(plan.get_state()))
    assert state["step"] == 11

    for index in range(num_hosts):
        other = plan_of(host=(index, num_hosts), weights=[0.2, 0.2, 0.6])
        other.set_state(state)
        for batch, whole in zip(drive(other, 19), want[11:], strict=True):
            assert batch.step == whole.step
            np.testing.assert_array_equal(batch.rows, whole.rows[index::num_hosts])
            np.testing.assert_array_equal(batch.weights, whole.weights)


def test_rows_share_the_loss_weight_that_their_domain_has_gathered():
    """Each domain's rows carry the sum of its loss weights, where Horvitz-Thompson with moving q carries half."""
    plan = Plan([100, 100], 2, [0.48, 0.52], [0.3, 0.7], lag=1)
    carried, due, naive = np.zeros(2), np.zeros(2), np.zeros(2)
    largest = 0.0
    for t in range(2000):
        batch = next(plan)
        weights = np.bincount(batch.domain_ids, batch.row_weights.astype(np.float64), minlength=2)
        carried += weights
        due += [0.3, 0.7]
        naive += np.array([0.3, 0.7]) / (2 * batch.weights) * batch.counts
        largest = max(largest, batch.row_weights.max())
        plan.publish(t, [0.02, 0.98] if t % 2 == 0 else [0.48, 0.52], [0.3, 0.7])
    assert (np.abs(carried - due) <= largest + 1e-3).all()
    assert naive[0] / t < 0.2  # what a correction by the weights in force would have made of 0.3


def test_where_loss_weights_are_the_sampling_weights_every_row_counts_the_same():
    for batch in drive(plan_of(), 20):
        np.testing.assert_array_equal(batch.row_weights, np.float32(1 / 12))


def test_limits_spread_a_small_domain_over_the_run():
    budget = 12 * 400
    plan = plan_of(max_epochs=4, budget=budget, sizes={"web": 10_000, "books": 70, "code": 7})
    drawn = np.array([batch.counts for batch in drive(plan, 400)])
    assert (drawn.sum(axis=0) <= [40_000, 280, 28]).all()
    # Weights near a third each ask for far more than there is, so all of it is drawn, evenly over the run.
    assert drawn[:, 2].sum() >= 27 and drawn[:200, 2].sum() in (13, 14, 15)
    assert drawn[:200, 1].sum() == pytest.approx(140, abs=8)
    with pytest.raises(StopIteration):
        next(plan)


def test_limits_without_a_budget_stop_at_the_last_row_and_say_what_was_written_off():
    plan, events, drawn = plan_of(max_epochs=[100, 2, 1]), [], np.zeros(3, int)
    for batch in drive(plan, 120):
        events += batch.events
        drawn += batch.counts
    assert drawn[1] == 140 and drawn[2] == 7
    assert any(event["event"] == "written off" for event in events)


def test_limits_that_cannot_fill_the_budget_are_named():
    with pytest.raises(ValueError, match=r"max_epochs = 1 leaves 1077 rows .* the budget is 5000"):
        plan_of(max_epochs=1, budget=5000)


def test_a_plan_of_spent_domains_ends():
    plan = Plan([4, 4], 2, [0.5, 0.5], lag=1, max_epochs=1)
    counts = []
    for batch in plan:
        counts.append(batch.counts)
        plan.keep(batch.step)
    np.testing.assert_array_equal(np.sum(counts, axis=0), [4, 4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": {}}, "at least one domain"),
        ({"sizes": [5, 0]}, "the size of domain '1' must be an integer from 1 to"),
        ({"sizes": [5, 2.5]}, "the size of domain '1'"),
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"lag": 0}, "lag must be an integer of at least 1, got 0"),
        ({"host": (2, 2)}, "host must be"),
        ({"host": (0, 5)}, "divides batch_size = 12"),
        ({"weights": [1.0, 1.0]}, r"weights must be \[3\]"),
        ({"weights": [1.0, np.nan, 1.0]}, "weights must be finite"),
        ({"weights": [0.0, 0.0, 0.0]}, "not all zero"),
        ({"loss_weights": [1.0, -1.0, 1.0]}, "loss_weights must be finite"),
        ({"max_epochs": 0}, "max_epochs must be positive"),
        ({"max_epochs": [1, 2]}, "max_epochs must be positive, one number or"),
        ({"budget": 3}, "budget must be an integer from 12"),
        ({"host": 3}, "host must be two integers"),
        ({"host": (0.0, 1)}, "host must be two integers"),
        ({"weights": ["a", "b", "c"]}, r"weights must be \[3\], one number per domain"),
        ({"weights": {"web": 1.0}}, r"weights must be \[3\], one number per domain"),
        ({"max_epochs": 0.001}, "max_epochs = 0.001 leaves .* rows of all domains together, and a batch is 12"),
        ({"timeout": float("inf")}, "timeout must be a number of seconds"),
        ({"timeout": None}, "timeout must be a number of seconds"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_of(**changes)


def test_needs_no_jax():
    code = "import sys, mixjax.live; next(mixjax.live.Plan([5], 2, [1])); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_carry_is_exact_over_many_steps():
    plan = plan_of()
    drive(plan, 500)
    assert plan._now.carry.sum() == 0 and np.abs(plan._now.carry).max() < UNIT


def test_names_of_domains_are_texts():
    with pytest.raises(TypeError, match="sizes must name the domains by texts, got 1"):
        Plan({1: 10, 2: 5}, 4, [0.5, 0.5])


@pytest.mark.parametrize("number", [np.int64, jnp.int32])
def test_states_are_json_whatever_kind_of_integers_came_in(number):
    plan = Plan([10, 5], np.int64(4), [1, 1], seed=np.int64(3), lag=np.int64(2), budget=np.int64(100))
    for step in range(3):
        next(plan)
        plan.publish(number(step), jnp.array([1.0, 2.0]))
    other = Plan([10, 5], 4, [1, 1], seed=3, lag=2)
    other.set_state(json.loads(json.dumps(plan.get_state())))
    np.testing.assert_array_equal(next(other).rows, next(plan).rows)


@pytest.mark.parametrize("budget", [None, 80])
def test_a_domain_of_weight_0_does_not_fill_up_a_batch(budget):
    plan = Plan({"used": 11, "kept apart": 1000}, 8, [1.0, 0.0], lag=100, max_epochs=1, budget=budget)
    assert [batch.counts.tolist() for batch in plan] == [[8, 0]]


@pytest.mark.parametrize("budget", [None, 800])
def test_lower_limits_than_what_was_drawn_leave_no_rows(budget):
    plan = Plan([10, 1000], 8, [0.5, 0.5], lag=1)
    drive_plainly(plan, 10)
    limited = Plan([10, 1000], 8, [0.5, 0.5], lag=1, max_epochs=[1, 10], budget=budget)
    limited.set_state(plan.get_state())
    assert drive_plainly(limited, 5) == [[0, 8]] * 5


def drive_plainly(plan, num_steps):
    counts = []
    for _ in range(num_steps):
        batch = next(plan)
        plan.keep(batch.step)
        counts.append(batch.counts.tolist())
    return counts


def test_a_batch_taken_back_comes_again():
    plan = Plan([10, 5], 4, [0.5, 0.5], lag=5)
    # One domain is new, which is an event of the first batch.
    state = Plan([10], 4, [1.0], lag=5).get_state()
    plan.set_state(state, domains="changed")
    first = [next(plan) for _ in range(4)]
    assert first[0].events[0]["event"] == "domains changed"
    plan.take_back(first[1])
    plan.take_back(first[3])  # No batch is drawn beyond the first any more.
    plan.take_back(first[0])
    for batch in first:
        again = next(plan)
        assert (again.step, again.events) == (batch.step, batch.events)
        np.testing.assert_array_equal(again.rows, batch.rows)
        plan.keep(again.step)
    plan.take_back(first[0])
    assert plan.step == 4  # A published step is done.


@pytest.mark.parametrize("lengths", [None, [np.full(30, 5)] * 2])
def test_a_plan_with_a_budget_ends_without_weights_for_a_step_that_never_comes(lengths):
    """A loader that reads as far ahead as the lag allows asks for a step after the last, and is not told to wait."""
    plan = Plan([30, 30], 4, [0.5, 0.5], lag=3, budget=12 if lengths is None else 60, lengths=lengths)
    assert plan.ending is None
    assert [batch.step for batch in plan] == [0, 1, 2]
    assert plan.is_known() and plan.ending == {"step": 3, "event": "ended", "reason": "budget reached"}


def test_weights_that_are_known_beforehand_may_be_published_before_their_steps():
    plan, other = plan_of(), plan_of()
    for step in range(20):
        plan.publish(step, moving(step))
    state = json.loads(json.dumps(plan.get_state()))
    assert state["step"] == 0
    want = drive(other, 20)
    assert_same([next(plan) for _ in range(20)], want)
    # A state from in between goes on with the weights of the steps to come.
    second = plan_of()
    second.set_state(state)
    assert_same([next(second) for _ in range(7)], want[:7])
    third = plan_of()
    third.set_state(second.get_state())
    assert_same([next(third) for _ in range(13)], want[7:])


def test_memory_does_not_grow_with_the_steps_drawn():
    plan = plan_of(lag=2)
    for step in range(500):
        plan.publish(step, moving(step))
    for _ in range(500):
        next(plan)
    assert len(plan._snapshots) <= 3 and len(plan.get_state()["changes"]) <= 3

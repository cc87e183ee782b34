"""Tests that weights which fall on one domain are named once: in an event, in the ledger and by a warning."""

import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax.live import Feedback, Ledger, Plan, read_ledger
from mixjax.live.spread import effective_number
from mixjax.rules import effective_domains

NARROW, WIDE = [0.96, 0.02, 0.02], [0.4, 0.3, 0.3]
SAMPLING, LOSS = "sampling weights near one domain", "loss weights near one domain"


def plan_of(weights=WIDE, **changes):
    sizes = dict.fromkeys(("web", "books", "code", "maths")[: len(weights)], 10**6)
    return Plan(**({"sizes": sizes, "batch_size": 10, "weights": weights, "lag": 1} | changes))


def named(plan, sequence, restored_at=None):
    """Returns the steps and kinds of events about narrow weights, where ``sequence`` is published step by step."""
    found = []
    for step, weights in enumerate(sequence):
        if step == restored_at:
            plan.set_state(json.loads(json.dumps(plan.get_state())))
        found += [(event["step"], event["event"]) for event in next(plan).events if "near one" in event["event"]]
        plan.publish(step, *weights) if isinstance(weights, tuple) else plan.publish(step, weights)
    return found


@pytest.mark.filterwarnings("ignore:step")
@pytest.mark.parametrize("restored_at", [None, 2, 3, 4, 8])
def test_a_fall_is_named_once_and_again_after_a_recovery(restored_at):
    # In force one step later: narrow in the steps 3 to 6, wide in 7 and 8, narrow from 9 on.
    sequence = [WIDE] * 2 + [NARROW] * 4 + [WIDE] * 2 + [NARROW] * 4
    assert named(plan_of(), sequence, restored_at) == [(3, SAMPLING), (9, SAMPLING)]


@pytest.mark.filterwarnings("ignore:step")
def test_weights_that_go_to_and_fro_around_two_domains_are_named_once():
    below, above = [0.68, 0.16, 0.16], [0.6, 0.2, 0.2]
    assert effective_number(np.array(below)) < 2.4 and effective_number(np.array(above)) > 2.5
    just = [0.75, 0.15, 0.1]
    assert 2.0 < effective_number(np.array(just)) < 2.5
    assert named(plan_of(), [NARROW, just] * 10) == [(1, SAMPLING)]


@pytest.mark.filterwarnings("ignore:step")
def test_loss_weights_are_named_by_themselves():
    assert named(plan_of(), [(WIDE, NARROW)] * 5) == [(1, LOSS)]
    assert named(plan_of(), [(NARROW, WIDE)] * 5) == [(1, SAMPLING)]
    assert named(plan_of(), [NARROW] * 5) == [(1, SAMPLING)]
    assert named(plan_of(), [(NARROW, NARROW)] * 5) == [(1, SAMPLING), (1, LOSS)]


@pytest.mark.parametrize("weights", [[1.0], [0.99, 0.01], [0.5, 0.5, 0.0], NARROW, [1.0, 0.0, 0.0, 0.0]])
def test_weights_that_began_on_few_domains_are_never_named(weights):
    other = np.roll(weights, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not named(plan_of(weights), [weights, other] * 5)


def test_two_domains_that_are_left_of_three_are_not_named():
    plan, left = plan_of(), plan_of([0.5, 0.5])
    named(plan, [[0.1, 0.0, 0.9]])
    left.set_state(plan.get_state(), domains="changed")
    assert [event["event"] for event in next(left).events] == ["domains changed"]


def test_the_first_host_warns_once_a_fall_and_names_the_domain():
    plan = plan_of()
    with pytest.warns(
        RuntimeWarning, match="step 1: the sampling weights come near one domain: 'web' has 0.96"
    ) as seen:
        named(plan, [NARROW] * 10)
    assert len(seen) == 1 and seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert named(plan_of(host=(1, 2)), [NARROW] * 10) == [(1, SAMPLING)]


def test_a_step_that_is_taken_back_and_drawn_again_warns_once():
    plan = plan_of()
    next(plan)
    plan.publish(0, NARROW)
    with pytest.warns(RuntimeWarning) as seen:
        batch = next(plan)
        plan.take_back(batch)
        again = next(plan)
    assert len(seen) == 1 and again.events == batch.events and again.events[0]["event"] == SAMPLING


def test_weights_of_a_rule_that_collapse_on_the_device_are_in_the_ledger(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    plan = plan_of(lag=3)
    feedback = Feedback(plan)
    with pytest.warns(RuntimeWarning, match="loss weights"), Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        for step in range(8):
            ledger.write(next(plan))
            feedback.send(step, jnp.array(WIDE), jnp.array(NARROW))
    (event,) = read_ledger(tmp_path / "ledger.jsonl").attrs["events"]
    assert (event["step"], event["event"], event["domains"]) == (3, LOSS, ["web"])
    assert event["share"] == pytest.approx(0.96) and event["effective_domains"] == pytest.approx(1.2, abs=0.03)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).filter(any))
def test_the_number_is_that_of_the_rules(values):
    weights = (np.array(values) / sum(values)).astype(np.float32)
    assert effective_number(weights) == pytest.approx(float(effective_domains(weights)), rel=1e-5)


@pytest.mark.filterwarnings("ignore:step")
@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([NARROW, WIDE, [0.75, 0.15, 0.1], [0.0, 0.5, 0.5]]), min_size=1, max_size=20))
def test_between_two_falls_lies_a_recovery(sequence):
    found = [step for step, _ in named(plan_of(), sequence)]
    # Weights published after step s are in force in step s + 1.
    numbers = [effective_number(np.float32(each)) for each in [WIDE, *sequence]]
    assert found == sorted(set(found)) and all(numbers[step] < 2 for step in found)
    for first, second in itertools.pairwise(found):
        assert max(numbers[first:second]) > 2.5
    if min(numbers[:-1]) < 2:
        assert found[0] == next(step for step, number in enumerate(numbers) if number < 2)

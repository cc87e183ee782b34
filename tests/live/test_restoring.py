"""Tests that a saved plan is checked by name, and that domains may come and go when asked for."""

import json
import time

import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.live.permutation import permuted
from mixjax.live.restoring import checked
from mixjax.live.rows import _key_of

SIZES = {"web": 100, "books": 70, "code": 7}


def plan_of(**changes):
    return Plan(**({"sizes": SIZES, "batch_size": 6, "weights": [0.5, 0.3, 0.2], "lag": 2} | changes))


def saved():
    plan = plan_of()
    for t in range(9):
        next(plan)
        plan.publish(t, [0.2, 0.3, 0.5], [0.1, 0.1, 0.8])
    return plan.get_state()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "saved with seed = 0, and this plan has 1"),
        ({"batch_size": 8}, "saved with batch_size = 6"),
        ({"lag": 3}, "saved with lag = 2"),
        ({"sizes": SIZES | {"code": 8}}, "domain 'code' had 7 examples when saved, and has 8 now"),
        ({"sizes": {"web": 100, "books": 70, "maths": 7}}, r"added \['maths'\], removed \['code'\]"),
        ({"sizes": dict(reversed(SIZES.items()))}, "the same in another order"),
    ],
)
def test_another_plan_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_of(**changes).set_state(saved())


def test_what_is_no_state_is_refused():
    with pytest.raises(ValueError, match="it lacks version, seed"):
        plan_of().set_state({"step": 3})
    with pytest.raises(ValueError, match="has version 99"):
        plan_of().set_state(saved() | {"version": 99})
    with pytest.raises(ValueError, match="domains must be 'same' or 'changed'"):
        plan_of().set_state(saved(), domains="all")
    with pytest.raises(ValueError, match="none of the plan's domains"):
        plan_of(sizes=[1, 2, 3]).set_state(saved(), domains="changed")


def test_a_domain_is_added_with_the_share_of_the_first_weights():
    state = saved()
    plan = plan_of(sizes=SIZES | {"maths": 11}, weights=[0.4, 0.2, 0.15, 0.25])
    plan.set_state(state, domains="changed")
    batch = next(plan)
    assert batch.step == 9
    np.testing.assert_allclose(batch.weights, [0.75 * 0.2, 0.75 * 0.3, 0.75 * 0.5, 0.25], rtol=1e-6)
    assert batch.events[0] == {"step": 9, "event": "domains changed", "added": ["maths"], "removed": []}
    assert plan.get_state()["drawn"][:3] == state["drawn"]


def test_domains_that_stay_go_on_with_their_examples_when_others_go_or_move():
    state = saved()
    rest = plan_of()
    rest.set_state(state)
    plan = plan_of(sizes={"code": 7, "web": 100}, weights=[0.5, 0.5])
    plan.set_state(state, domains="changed")
    drawn, wanted = {}, {}
    for which, found in ((plan, drawn), (rest, wanted)):
        for t in range(9, 40):
            batch = next(which)
            which.keep(t)
            names = list(which.sizes)
            for d, row in zip(batch.domain_ids, batch.rows, strict=True):
                found.setdefault(names[d], []).append(int(row))
    for name in ("code", "web"):
        shorter = min(len(drawn[name]), len(wanted[name]))
        assert shorter > 20 and drawn[name][:shorter] == wanted[name][:shorter]


def test_what_is_owed_still_sums_to_zero_after_a_removal():
    state = saved()
    fitted = checked(state, plan_of(sizes={"web": 100, "code": 7}, weights=[0.5, 0.5]), "changed")
    assert sum(fitted["carry"]) == 0 and fitted["drawn"] == [state["drawn"][0], state["drawn"][2]]
    assert fitted["events"][0]["removed"] == ["books"]


def test_a_change_of_domains_is_said_although_the_state_is_saved_again_before_the_next_batch():
    plan = plan_of(sizes={"web": 100, "code": 7}, weights=[0.5, 0.5])
    plan.set_state(saved(), domains="changed")
    second = plan_of(sizes={"web": 100, "code": 7}, weights=[0.5, 0.5])
    second.set_state(json.loads(json.dumps(plan.get_state())))
    assert [event["event"] for event in next(second).events] == ["domains changed"]
    second.keep(9)
    assert not next(second).events


def test_a_state_of_the_first_version_is_read():
    state = saved()
    old = {name: state[name] for name in ("seed", "batch_size", "sizes", "step", "drawn", "carry", "mass")}
    old |= {name: state[name] for name in ("lag", "next_to_publish", "changes")} | {"version": 1}
    one, other = plan_of(), plan_of()
    one.set_state(old)
    other.set_state(state)
    np.testing.assert_array_equal(next(one).rows, next(other).rows)


@pytest.mark.parametrize("lengths", [False, True])
def test_a_state_of_step_ten_to_the_nine_goes_on_in_domains_of_any_size(lengths):
    """2,000 domains of up to 2^40 rows, each with weights that wait for lag steps."""
    num_domains, step = 2000, 10**9
    rng = np.random.default_rng(0)
    sizes = {f"domain {d}": 2**40 if d % 2 and not lengths else 999 + d for d in range(num_domains)}
    arguments = {"batch_size": 256, "weights": rng.random(num_domains), "lag": 3}
    if lengths:
        arguments["lengths"] = [np.broadcast_to(np.int32(2048), size) for size in sizes.values()]
    plan = Plan(sizes, **arguments)
    state = plan.get_state()
    state["drawn"] = rng.integers(0, 2**38, num_domains).tolist()
    state["carry"] = [1, -1] * (num_domains // 2)
    state["step"] = state["next_to_publish"] = step
    pair = state["changes"][0]
    state["changes"] = [pair | {"from": step + later, "loss_weights": pair["weights"]} for later in range(3)]
    if lengths:
        state["tokens"], state["spent"] = [2048 * drawn for drawn in state["drawn"]], 2048 * sum(state["drawn"])
    text = json.dumps(state)

    def restore():
        before = time.thread_time()
        plan.set_state(state)
        return time.thread_time() - before

    assert min(restore() for _ in range(5)) < 0.01
    batch = next(plan)
    assert batch.step == step
    position = np.array(state["drawn"])[batch.domain_ids]
    first = np.flatnonzero(np.diff(batch.domain_ids, prepend=-1))
    for row in first[:20]:
        name = f"domain {batch.domain_ids[row]}"
        want = permuted(0, _key_of(name), position[row : row + 1], sizes[name])
        assert batch.rows[row] == want[0]
    plan.set_state(json.loads(text))
    assert json.dumps(plan.get_state()) == text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "5"),
        ("step", -1),
        ("step", 99),
        ("next_to_publish", 5.0),
        ("version", "x"),
        ("sizes", [1, 2, 3]),
        ("drawn", [1]),
        ("drawn", ["a", 1, 2]),
        ("drawn", [-5, 3, 3]),
        ("drawn", [[1], [1, 2], 3]),
        ("carry", [1 << 32, 0, 0]),
        ("carry", [1 << 60, -(1 << 60), 0]),
        ("carry", None),
        ("carry", [1 << 58, -(1 << 58), 0]),
        ("mass", [np.nan, 0.0, 0.0]),
        ("mass", [1e300, 0.0, 0.0]),
        ("mass", [-1.0, 2.0, 0.0]),
        ("is_below", "no"),
        ("waiting", "web"),
        ("waiting", [3]),
        ("near_one", "loss"),
        ("near_one", ["other"]),
        ("events", "none"),
        ("events", [3]),
        ("events", [{"x": 1}]),
        ("changes", []),
        ("changes", [{"from": 0}]),
        ("changes", [{"from": 50, "weights": [1.0, 1.0, 1.0], "loss_weights": None}]),
    ],
)
def test_a_damaged_state_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"the state is damaged: {field} cannot be"):
        plan_of().set_state(saved() | {field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from": 0}, r"from the steps \[9, 0\]"),
        ({"from": 99}, "from step 99"),
        ({"weights": [5.0, 5.0, 5.0]}, "weights"),
        ({"loss_weights": [0.1, 0.1, 0.1]}, "loss_weights"),
    ],
)
def test_a_damaged_change_of_weights_is_refused_by_name(changes, message):
    state = saved()
    state["changes"][-1] |= changes
    with pytest.raises(ValueError, match=f"the state is damaged: changes cannot be .{message}"):
        plan_of().set_state(state)


def test_a_state_without_the_tokens_drawn_is_refused_by_name():
    plan = plan_of(lengths={name: [3] * size for name, size in SIZES.items()})
    state = plan.get_state()
    del state["tokens"]
    with pytest.raises(ValueError, match="the state is damaged: tokens cannot be 'None'"):
        plan.set_state(state)


def test_a_state_that_is_no_dictionary_is_refused():
    with pytest.raises(ValueError, match="it is a NoneType, and not a dictionary"):
        plan_of().set_state(None)
    change = {"from": 0, "weights": [-1.0, 1.0, 1.0], "loss_weights": None}
    with pytest.raises(ValueError, match="the state's weights must be finite, non-negative"):
        plan_of().set_state(saved() | {"changes": [change]})

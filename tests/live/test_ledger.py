"""Tests that the ledger holds every step once, whatever was killed, and says what it cut."""

import json
import resource
import signal

import jax
import numpy as np
import pytest

from mixjax.live import Ledger, Plan, read_ledger

SIZES = {"web": 100, "books": 20, "code": 7}


def plan_of(state=None, **changes):
    plan = Plan(**({"sizes": SIZES, "batch_size": 6, "weights": [0.5, 0.3, 0.2], "lag": 2} | changes))
    if state is not None:
        plan.set_state(state, domains="changed" if "sizes" in changes else "same")
    return plan


def go_on(path, plan, num_steps, every=1):
    """Trains some steps and leaves the ledger as a killed process would: what waits is lost."""
    ledger, counts = Ledger(path, plan, every), []
    for _ in range(num_steps):
        batch = next(plan)
        ledger.write(batch, losses=[1.0, np.nan, batch.step])
        counts.append(batch.counts)
        plan.publish(batch.step, np.random.default_rng(batch.step).dirichlet(np.ones(len(plan.sizes))))
    ledger._file.close()
    return np.array(counts)


def test_lines_hold_what_was_drawn_asked_and_in_force(tmp_path):
    plan = plan_of(max_epochs=[100, 1, 100])
    counts = go_on(tmp_path / "ledger", plan, 30)
    found = read_ledger(tmp_path / "ledger")
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.epochs[-1], counts.sum(axis=0) / [100, 20, 7])
    assert list(found.domain.values) == list(SIZES) and found.step.values.tolist() == list(range(30))
    np.testing.assert_array_equal(found.losses[5], [1.0, np.nan, 5.0])
    # Books are spent by then, so that what is in force differs from what was asked.
    assert found.weights[-1, 1] == 0 and found.asked[-1, 1] > 0
    assert any(event["event"] == "written off" for event in found.attrs["events"])


@pytest.mark.parametrize("every", [1, 4])
def test_a_ledger_that_ran_on_is_cut_and_says_so(tmp_path, every):
    path, plan = tmp_path / "ledger", plan_of()
    first = go_on(path, plan, 10, every)
    state = json.loads(json.dumps(plan.get_state()))
    further = go_on(path, plan, 8, every)
    second = go_on(path, plan_of(state), 14, every)
    np.testing.assert_array_equal(second[:8], further)

    found = read_ledger(path)
    np.testing.assert_array_equal(found.num_steps.cumsum().values - 1, found.step.values)
    whole = np.concatenate([first, second])
    drawn = found.counts.values.cumsum(axis=0)
    np.testing.assert_array_equal(drawn, whole.cumsum(axis=0)[found.step.values])
    assert {"step": 10, "event": "ledger cut", "steps": [10, 17]} in found.attrs["events"]


def test_a_line_that_was_not_finished_is_passed_over(tmp_path):
    path, plan = tmp_path / "ledger", plan_of()
    go_on(path, plan, 5)
    state = plan.get_state()
    with open(path, "a") as file:
        file.write('{"from": 5, "step": 5, "cou')
    assert read_ledger(path).step.values.tolist() == list(range(5))
    go_on(path, plan_of(state), 3)
    assert read_ledger(path).step.values.tolist() == list(range(8))


def test_domains_may_come_and_go(tmp_path):
    path, plan = tmp_path / "ledger", plan_of()
    before = go_on(path, plan, 6)
    new = {"code": 7, "maths": 11, "web": 100}
    after = go_on(path, plan_of(plan.get_state(), sizes=new), 6)
    found = read_ledger(path)
    assert list(found.domain.values) == ["web", "books", "code", "maths"]
    assert found.counts.sel(domain="books").sum() == before[:, 1].sum()
    np.testing.assert_array_equal(found.counts.sel(domain="maths")[6:], after[:, 1])
    assert np.isnan(found.weights.sel(domain="maths")[:6]).all()
    assert any(event["event"] == "domains changed" for event in found.attrs["events"])


def test_steps_are_noted_once_and_in_order(tmp_path):
    plan = plan_of()
    with Ledger(tmp_path / "ledger", plan) as ledger:
        batch = next(plan)
        ledger.write(batch._asdict() | {"value": None})
        with pytest.raises(ValueError, match="the next step of the ledger is 1, got step 0"):
            ledger.write(batch)
        with pytest.raises(ValueError, match=r"losses must be \[3\]"):
            ledger.write(next(plan), losses=[1.0])


def test_steps_that_were_not_written_yet_are_filled_in_by_the_plan(tmp_path):
    path, plan = tmp_path / "ledger", plan_of()
    first = go_on(path, plan, 11, every=4)
    second = go_on(path, plan_of(plan.get_state()), 3)
    found = read_ledger(path)
    assert found.step.values.tolist() == [3, 7, 10, 11, 12, 13]
    np.testing.assert_array_equal(found.counts[2], first[8:].sum(axis=0))
    np.testing.assert_array_equal(found.counts.sum(axis=0), np.sum([*first, *second], axis=0))
    assert {"step": 11, "event": "ledger filled in", "steps": [8, 10]} in found.attrs["events"]


def test_a_ledger_may_begin_in_the_middle_of_a_run(tmp_path):
    plan = plan_of()
    for step in range(5):
        next(plan)
        plan.keep(step)
    second = plan_of(plan.get_state())
    counts = go_on(tmp_path / "ledger", second, 2)
    found = read_ledger(tmp_path / "ledger")
    assert found.step.values.tolist() == [4, 5, 6] and found.num_steps.values.tolist() == [5, 1, 1]
    assert found.counts.sum() == 7 * 6 and (found.counts[1:] == counts).all()


def test_a_plan_that_was_not_restored_cuts_no_ledger(tmp_path):
    path = tmp_path / "ledger"
    go_on(path, plan_of(), 3)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds 3 steps, and the plan is at step 0: call plan.set_state first"):
        Ledger(path, plan_of())
    assert path.read_bytes() == before


def test_of_several_hosts_the_first_one_writes(tmp_path):
    path, plans = tmp_path / "ledger", [Plan(SIZES, 6, [0.5, 0.25, 0.25], host=(i, 3)) for i in range(3)]
    ledgers = [Ledger(path, plan) for plan in plans]
    for step in range(4):
        for plan, ledger in zip(plans, ledgers, strict=True):
            ledger.write(next(plan), losses=[1.0, 2.0, 3.0])
            plan.keep(step)
    for ledger in reversed(ledgers):
        ledger.close()
    found = read_ledger(path)
    assert found.step.values.tolist() == [0, 1, 2, 3] and (found.counts.sum("domain") == 6).all()
    with pytest.raises(ValueError, match=r"losses must be \[3\]"), Ledger(path, plans[1]) as ledger:
        ledger.write(next(plans[1]), losses=[1.0])


def test_what_is_no_ledger_is_refused(tmp_path):
    path, plan = tmp_path / "ledger", plan_of()
    for text in ("", "nonsense\n", "[]\n", '{"step": 1}\n'):
        (tmp_path / "other").write_text(text)
        with pytest.raises(ValueError, match="is no ledger"):
            read_ledger(tmp_path / "other")
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        Ledger(path, plan, every=0)


@pytest.mark.parametrize(
    "damaged",
    [
        "[1, 2]",
        "null",
        "[" * 100_000,
        "\udcff",
        '{"step": 2, "counts": [2, 2, 2]}',
        '{"from": 2, "step": 1, "counts": [2, 2, 2]}',
        '{"from": 2, "step": 2, "counts": [6]}',
        '{"from": 2, "step": 2, "counts": ["x", 2, 2]}',
        '{"from": 2, "step": 2, "counts": [NaN, 2, 2]}',
        '{"from": 2, "step": 2, "counts": [1000000000000000000000, 2, 2]}',
        '{"from": 2, "step": 2, "counts": [2, 2, 2], "weights": [1]}',
        '{"from": 2, "step": 2, "counts": [2, 2, 2], "tokens": [1]}',
        '{"from": 2, "step": 2, "counts": [2, 2, 2], "tokens": [1, 2, 0.5]}',
        '{"step": 2, "event": {"step": 2}}',
        '{"step": -1, "event": {"step": 2, "event": "ended"}}',
        '{"from": 2, "step": 2, "counts": [2, 2, 2], "events": [{}]}',
        '{"ledger": 1, "step": 2, "domains": {}}',
        '{"ledger": 1, "step": 2, "domains": {"web": 0}}',
        '{"ledger": 1, "step": 2, "domains": {"web": 1}, "max_epochs": "many"}',
        '{"ledger": 1, "step": 2, "domains": {"web": 1}, "max_epochs": [1, 2]}',
    ],
)
def test_a_damaged_line_is_named(tmp_path, damaged):
    path, plan = tmp_path / "ledger", plan_of()
    go_on(path, plan, 2)
    path.write_bytes(path.read_bytes() + damaged.encode(errors="surrogateescape") + b"\n")
    for opened in (read_ledger, lambda path: Ledger(path, plan)):
        with pytest.raises(ValueError, match=r"ledger is no ledger of mixjax\.live, or damaged: see line 4"):
            opened(path)


def test_a_ledger_is_a_local_file_and_makes_its_folders(tmp_path):
    go_on(tmp_path / "new" / "folder" / "ledger", plan_of(), 2)
    assert read_ledger(tmp_path / "new" / "folder" / "ledger").sizes["step"] == 2
    for opened in (read_ledger, lambda path: Ledger(path, plan_of())):
        with pytest.raises(ValueError, match="takes a path of the local file system"):
            opened("gs://bucket/ledger")


def test_a_batch_keeps_what_the_ledger_tells(tmp_path):
    plan = plan_of()
    with Ledger(tmp_path / "ledger", plan) as ledger:
        element = next(plan)._asdict() | {"value": 1}
        told = {name: element[name] for name in ("step", "counts", "weights", "asked", "events")}
        for batch, error, message in [
            ({"step": 0}, ValueError, "and lacks counts, weights, asked, events"),
            # Without an error its events would be missing from the ledger in silence.
            ({name: told[name] for name in told if name != "events"}, ValueError, "and lacks events"),
            (0, TypeError, "batch must be an element of live.mix, or a plan's batch, got int"),
        ]:
            with pytest.raises(error, match=message):
                ledger.write(batch)
        ledger.write(told)
    assert read_ledger(tmp_path / "ledger").step.values.tolist() == [0]
    plan = plan_of(lengths=LENGTHS)
    with Ledger(tmp_path / "tokens", plan) as ledger, pytest.raises(ValueError, match="and lacks tokens"):
        ledger.write(told)


def test_elements_that_were_on_the_device_are_noted(tmp_path):
    plan = plan_of()
    with Ledger(tmp_path / "ledger", plan) as ledger:
        element = next(plan)._asdict()
        events = element.pop("events")
        ledger.write(jax.device_put(element) | {"events": events})
    assert read_ledger(tmp_path / "ledger").step.values.tolist() == [0]


LENGTHS = {"web": np.arange(1, 101), "books": np.full(20, 30), "code": np.arange(100, 107)}


@pytest.mark.parametrize("every", [1, 4])
def test_tokens_are_noted_cut_and_filled_in_like_rows(tmp_path, every):
    path, plan, tokens = tmp_path / "ledger", plan_of(lengths=LENGTHS), []
    ledger = Ledger(path, plan, every)
    for step in range(10):
        if step == 6:
            state = plan.get_state()
        ledger.write(batch := next(plan))
        tokens.append(batch.tokens)
        plan.keep(step)
    ledger.close()
    found = read_ledger(path)
    assert found.attrs["unit"] == "tokens"
    np.testing.assert_array_equal(found.tokens.cumsum("step"), np.cumsum(tokens, axis=0)[found.step.values])

    go_on(path, plan_of(state, lengths=LENGTHS), 2)
    found = read_ledger(path)
    assert found.step.values[-1] == 7
    np.testing.assert_array_equal(found.tokens.cumsum("step"), np.cumsum(tokens, axis=0)[found.step.values])


def test_a_ledger_of_a_plan_that_counts_rows_knows_no_tokens(tmp_path):
    go_on(tmp_path / "ledger", plan_of(), 3)
    found = read_ledger(tmp_path / "ledger")
    assert np.isnan(found.tokens).all() and found.attrs["unit"] == "rows"
    # What was asked for is in force, and written once.
    assert '"asked"' not in (tmp_path / "ledger").read_text()
    np.testing.assert_array_equal(found.asked, found.weights)


def finished(path, state=None, **changes):
    """Trains until the plan ends, and closes the ledger."""
    plan = plan_of(**({"budget": 40} | changes))
    if state is not None:
        plan.set_state(state)
    with Ledger(path, plan) as ledger:
        for batch in plan:
            ledger.write(batch)
            plan.keep(batch.step)
    return plan


def endings(path):
    return [event for event in read_ledger(path).attrs["events"] if event["event"] == "ended"]


def test_the_last_line_of_a_plan_that_has_ended_says_why(tmp_path):
    path = tmp_path / "ledger"
    plan = finished(path)
    want = {"step": 6, "event": "ended", "reason": "budget reached"}
    assert plan.ending == want and json.loads(path.read_text().splitlines()[-1]) == {"step": 6, "event": want}
    assert read_ledger(path).attrs["events"][-1] == want
    # Begun again at its end, it says so once; with more to do, it goes on.
    state = plan.get_state()
    finished(path, state)
    assert endings(path) == [want]
    finished(path, state, budget=60)
    assert endings(path) == [want | {"step": 10}]
    assert read_ledger(path).num_steps.sum() == 10


def test_weights_on_domains_with_less_than_a_batch_left_end_a_plan(tmp_path):
    plan = finished(tmp_path / "ledger", budget=None, weights=[0, 0.7, 0.3], max_epochs=[1, 1, 1])
    left = {name: count for name, count in zip(("books", "code"), (20, 7), strict=True)}
    for batch in read_ledger(tmp_path / "ledger").counts.values:
        left = {name: left[name] - count for name, count in zip(left, batch[1:], strict=True)}
    assert plan.ending["reason"] == "rows spent" and plan.ending["rows_left"] == left and sum(left.values()) < 6
    assert endings(tmp_path / "ledger") == [plan.ending]


def test_a_ledger_that_lacks_the_last_steps_does_not_say_that_the_plan_ended(tmp_path):
    """A loader that read ahead has met the end; the loop has not."""
    for num_noted, want in ((3, None), (6, "budget reached")):
        plan = plan_of(budget=40, lag=8)
        with Ledger(tmp_path / str(num_noted), plan) as ledger:
            batches = list(plan)
            for batch in batches[:num_noted]:
                ledger.write(batch)
        assert [event["reason"] for event in endings(tmp_path / str(num_noted))] == ([want] if want else [])
    plan.take_back(batches[5])
    assert plan.ending is None


@pytest.mark.parametrize("every", [1, 3])
def test_steps_that_a_full_disk_refused_are_in_the_next_line_once(tmp_path, every):
    """A limit on the size of files refuses a part of a line, as a full disk does."""
    path, plan = tmp_path / "ledger.jsonl", Plan({"web": 100, "code": 10}, 8, [0.5, 0.5], lag=1)
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    refused, ledger = [], Ledger(path, plan, every=every)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 300, limit[1]))
        for step in range(30):
            if step == 20:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            batch = next(plan)
            plan.keep(step)
            try:
                ledger.write(batch)
            except OSError:
                refused.append(step)
                # Whoever reads it meanwhile finds whole lines.
                assert read_ledger(path).counts.sum() <= 8 * step
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    ledger.close()
    assert refused and refused[-1] == 19
    read = read_ledger(path)
    assert read.counts.sum() == 30 * 8 and read.num_steps.sum() == 30

"""The end of a ledger tells where a run is: as much as the whole file, of files of any length and state."""

import json

import numpy as np
import pytest

from mixjax.live import Ledger, Plan, ledger, read_ledger
from mixjax.live.ledger_tail import read_tail

SIZES = {"web": 50, "code": 7, "law": 11}


def written(path, steps, plan=None, **kwargs):
    plan = plan or Plan(SIZES, 4, [0.6, 0.3, 0.1], lag=1, **kwargs)
    rng = np.random.default_rng(plan.step)
    with Ledger(path, plan) as opened:
        for step in range(plan.step, plan.step + steps):
            losses = np.where(rng.random(3) < 0.3, np.nan, rng.random(3))
            opened.write(next(plan), losses if step % 3 == 0 else None, [0.2, 0.3, 0.5])
            plan.publish(step, rng.dirichlet(np.ones(3)))
    return plan


def check(path):
    """Compares the tail with the whole."""
    tail, whole = read_tail(path), read_ledger(path)
    assert tail.domains == whole.domain.values.tolist() and tail.step == whole.step.values[-1] and tail.since == 0
    assert tail.drawn.tolist() == whole.counts.values.sum(axis=0).tolist()
    np.testing.assert_array_equal(tail.weights, whole.weights.values[-1])
    np.testing.assert_array_equal(tail.asked, whole.asked.values[-1])
    assert tail.loss_weights.tolist() == whole.loss_weights.values[-1].tolist() == [0.2, 0.3, 0.5]
    for i in range(3):
        known = whole.losses.values[:, i][np.isfinite(whole.losses.values[:, i])]
        assert tail.losses[i] == known[-1]
    return tail


@pytest.mark.parametrize("restated", [0, 300, 2**18])
def test_the_tail_tells_what_the_whole_does(tmp_path, monkeypatch, restated):
    monkeypatch.setattr(ledger, "_RESTATED", restated)
    path = tmp_path / "ledger.jsonl"
    plan = written(path, 60)
    starts = sum('"ledger"' in line for line in path.read_text().splitlines())
    assert (starts == 1) == (restated == 2**18)
    if restated:
        assert abs(check(path).asked_rows.sum() - check(path).recent.sum()) < 1e-2
    # A run that goes on, and one that was killed in a line.
    again = Plan(SIZES, 4, [0.6, 0.3, 0.1], lag=1)
    again.set_state(plan.get_state())
    with open(path, "a") as file:
        file.write('{"from": 60, "st')
    written(path, 40, again)
    assert restated == 0 or check(path).step == 99


def test_only_the_end_of_a_long_ledger_is_read(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setattr(ledger, "_RESTATED", 2000)
    monkeypatch.setattr("mixjax.live.ledger_tail._BYTES", 5000)
    written(path, 120)
    expected = check(path)
    # What stands before is not looked at.
    text = path.read_bytes()
    path.write_bytes(b"\0" * (len(text) - 5000) + text[-5000:])
    assert read_tail(path).drawn.tolist() == expected.drawn.tolist()


def test_a_long_ledger_of_an_older_version_tells_since_when(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    written(path, 120)
    first, *lines = path.read_text().splitlines()
    start = json.loads(first)
    del start["drawn"]
    path.write_text("\n".join([json.dumps(start), *lines]) + "\n")
    assert read_tail(path).drawn.tolist() == read_ledger(path).counts.values.sum(axis=0).tolist()
    monkeypatch.setattr("mixjax.live.ledger_tail._BYTES", 2000)
    monkeypatch.setattr("mixjax.live.ledger_tail._MOST_BYTES", 2000)
    tail = read_tail(path)
    assert tail.since > 100 and tail.step == 119 and tail.drawn.sum() == 4 * (120 - tail.since)


def test_limits_and_the_end_of_a_plan(tmp_path):
    path = tmp_path / "ledger.jsonl"
    plan = Plan(SIZES, 4, [0.6, 0.3, 0.1], lag=1, max_epochs=[np.inf, 1.0, 2.0], budget=40)
    with Ledger(path, plan) as opened:
        for batch in plan:
            opened.write(batch)
            plan.keep(batch.step)
    tail = read_tail(path)
    assert tail.max_epochs.tolist() == [np.inf, 1.0, 2.0] and tail.budget == 40 and "budget" in tail.ended
    assert np.isnan(tail.losses).all() and np.isnan(tail.loss_weights).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{}\n",
        "[]\n",
        '{"ledger": 1}\n',
        '{"ledger": 1, "step": 0, "domains": 3}\n',
        "\0" * 99,
        "[" * 9999 + "\n",
    ],
)
def test_what_is_no_ledger_tells_nothing(tmp_path, text):
    (tmp_path / "x.jsonl").write_text(text)
    assert read_tail(tmp_path / "x.jsonl") is None


def test_a_ledger_cut_anywhere_tells_of_its_whole_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    written(path, 3)
    text = path.read_bytes()
    first = text.index(b"\n") + 1
    for end in range(0, len(text), 7):
        path.write_bytes(text[:end])
        tail = read_tail(path)
        assert (tail is None) == (end < first)
        assert tail is None or tail.step == text[:end].count(b"\n") - 2


def test_loss_weights_must_be_one_a_domain(tmp_path):
    plan = Plan(SIZES, 4, [0.6, 0.3, 0.1], lag=1)
    with Ledger(tmp_path / "x", plan) as opened, pytest.raises(ValueError, match=r"loss_weights must be \[3\]"):
        opened.write(next(plan), loss_weights=[1.0])

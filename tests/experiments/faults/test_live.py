"""Kills of training on a live mix; the command does a hundred of them."""

import json

import pytest

from experiments.faults import live
from experiments.faults.live_child import BATCH_SIZE, Given
from mixjax.live import Ledger, Plan


@pytest.mark.slow
def test_kills_cost_no_batch_and_no_line_of_the_ledger(tmp_path):
    judge = live.LiveJudge(tmp_path, steps=30)
    judge.kill(len(live.POINTS))
    rows = live.rows_of([judge])
    assert [row.lost for row in rows] == ["nothing"] * len(live.POINTS) and sum(row.times for row in rows) >= 6


@pytest.fixture(name="judge")
def _judge(tmp_path):
    """A judge over a run that was not made, of two batches."""
    judge = object.__new__(live.LiveJudge)
    judge.folder, judge.steps = tmp_path, 2
    plan = Plan(live.SIZES, BATCH_SIZE, [1.0] * 5)
    judge.want = {}
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        for step in range(2):
            batch = next(plan)
            ledger.write(batch)
            ids, rows = batch.domain_ids.tolist(), batch.rows.tolist()
            judge.want[step] = {"step": step, "ids": ids, "rows": rows, "values": [str(row) for row in rows]}
            plan.keep(step)
    return judge


def note(judge, host, num_hosts, **changes):
    with open(judge.folder / f"rows_00000_001_{host}_of_{num_hosts}.jsonl", "w") as file:
        for step, line in judge.want.items():
            part = {name: each[host::num_hosts] for name, each in line.items() if name != "step"}
            file.write(json.dumps({"step": step, **part, **(changes if step else {})}) + "\n")


def found(judge):
    told = live.Told()
    judge._check(judge.folder, told, is_ended=True)
    return told.lost


def test_batches_of_several_hosts_are_put_together_and_compared(judge):
    for host in range(3):
        note(judge, host, 3)
    assert found(judge) == []
    note(judge, 1, 3, values=["another"] * 4)
    assert found(judge) == ["step 1 differs", "1 batches are missing"]


def test_a_part_that_is_missing_is_seen(judge):
    note(judge, 0, 2)
    assert found(judge) == ["2 batches are missing"]


@pytest.mark.parametrize("change", ["gap", "twice", "other rows", "too short"])
def test_what_is_wrong_with_a_ledger_is_seen(judge, change):
    note(judge, 0, 1)
    path = judge.folder / "ledger.jsonl"
    start, first, second = path.read_text().splitlines()
    other = json.loads(second)
    other["counts"] = other["counts"][::-1]
    lines = {
        "gap": [start, second],
        "twice": [start, first, first, second],
        "other rows": [start, first, json.dumps(other)],
        "too short": [start, first],
    }
    path.write_text("\n".join(lines[change]) + "\n")
    assert any("the ledger" in said for said in found(judge))


def test_half_a_line_is_left_of_the_last_one(tmp_path):
    path = tmp_path / "ledger"
    path.write_text("first\nsecond line\n")
    live._cut_last_line(path)
    assert path.read_text() == "first\nsecond"


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    assert live.newest_checkpoint(tmp_path) == 0
    for name in ("5", "10", "15.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert live.newest_checkpoint(tmp_path) == 10
    assert Given(tmp_path, 1, 0, 5).host == (0, 1)

"""How far a run is, from its files, whatever state these are in."""

import json
import math
import os

import pytest

from mixjax.live import Ledger, Plan
from mixjax.runner.domain_rows import domain_rows, worst_domain
from mixjax.runner.watching import view, write_runs


def record(done, seconds, run="a", total=4, **more):
    return {"run": run, "done": done, "total": total, "segment": 1, "segments": 1, "seconds": seconds, "diverged": 0,
            "metrics": {"loss": 1.0}} | more  # fmt: skip


def records(folder, *found, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "progress.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found) + end)


def test_before_a_run_and_at_its_start(tmp_path):
    seen = view(tmp_path / "results/toy")
    assert (seen.state, seen.parts, seen.eta, seen.age) == ("waiting", [], None, math.inf)
    (tmp_path / "results/toy.chunks").mkdir(parents=True)
    assert view(tmp_path / "results/toy").state == "running"
    write_runs(tmp_path / "results/toy.chunks", ["a", "b"])
    seen = view(tmp_path / "results/toy")
    assert seen.state == "running" and [part.name for part in seen.parts] == ["a", "b"] and seen.age < 60
    assert [part.total for part in seen.parts] == [0, 0] and seen.eta is None


def test_the_time_left_is_that_of_the_part_at_work_at_the_pace_of_the_last_records(tmp_path):
    chunks = tmp_path / "toy.chunks"
    write_runs(chunks, ["a", "b", "c"])
    # The compilation before the first record does not count, and neither does a process before this one.
    records(chunks, record(1, 900.0), record(1, 100.0), record(2, 110.0), end='{"run": "a", "do')
    seen = view(tmp_path / "toy")
    assert seen.parts[0].rate == pytest.approx(0.1) and seen.eta == pytest.approx(10 * 2) and not seen.is_last_part
    records(chunks, record(2, 5.0, "b"), record(3, 6.0, "b", diverged=2))
    seen = view(chunks)
    # The records of the first part are gone: it is done, since a later one is at work.
    assert [(part.done, part.total) for part in seen.parts[:2]] == [(4, 4), (3, 4)] and seen.eta == pytest.approx(1)
    assert not seen.is_last_part
    assert seen.parts[1].diverged == 2 and math.isnan(seen.parts[2].done)


def host(done, seconds, run="a", *, at_end=False):
    """Returns a record of a loop on the host, which reports parts of a run, and the end of each."""
    return record(done, seconds, run, total=3, segment=int(at_end))


@pytest.mark.parametrize(
    ("found", "eta"),
    [
        # The steps are quick, and what comes before and after them is not known before a run is done.
        ([host(0.1, 20.0), host(0.9, 28.0)], None),
        ([host(0.1, 20.0), host(1.0, 40.0, at_end=True), host(1.5, 45.0)], None),
        ([host(1.0, 40.0, at_end=True), host(1.9, 45.0), host(2.0, 60.0, at_end=True)], 20),
        # Another process went on after the first run.
        ([host(1.0, 9.0, at_end=True), host(1.2, 5.0)], None),
        ([host(1.0, 9.0, at_end=True), host(1.2, 5.0), host(2.0, 8.0, at_end=True)], None),
        # The next part is at work, at a pace of its own.
        ([host(2.0, 5.0, at_end=True), host(3.0, 6.0, at_end=True)], 0),
    ],
)
def test_the_time_left_of_a_loop_on_the_host_counts_whole_runs(tmp_path, found, eta):
    chunks = tmp_path / "toy.chunks"
    write_runs(chunks, ["a", "b"])
    (chunks / "run_000").mkdir()
    records(chunks, *found)
    seen = view(chunks)
    assert seen.eta == (None if eta is None else pytest.approx(eta)) and not seen.is_silent
    # Its folder tells that the next part has begun, before it has a record.
    assert [part.is_begun for part in seen.parts] == [True, False]
    (chunks / "run_001").mkdir()
    seen = view(chunks, seen)
    assert seen.parts[0].done == 3.0 and seen.parts[1].is_begun
    assert seen.eta is None and seen.is_last_part and not seen.is_silent


def test_a_result_is_finished(tmp_path):
    records(tmp_path / "toy", record(4, 8.0))
    (tmp_path / "toy/metrics.json").write_text("{}")
    seen = view(tmp_path / "toy")
    assert (seen.state, seen.eta, seen.parts[0].done) == ("finished", None, 4)
    # While it is run again, the run at work is shown.
    write_runs(tmp_path / "toy.chunks", ["a"])
    assert view(tmp_path / "toy").state == "running"


def test_domains_of_a_sweep_come_from_its_records(tmp_path):
    by_domain = {
        "loss": {"web": 2.0, "code": None},
        "test_loss": {"web": 1.0, "code": 3.0},
        "loss_weights": {"web": 0.25, "code": 0.75},
        "q": {"web": 0.5, "code": 0.5},
    }
    records(tmp_path, record(1, 1.0, by_domain=by_domain), record(1.5, 2.0, metrics={}))
    rows = domain_rows(view(tmp_path))
    assert [row[:4] for row in rows] == [("web", 0.5, 0.25, 1.0), ("code", 0.5, 0.75, 3.0)]
    assert worst_domain(rows).name == "code" and worst_domain([]) is None


def ledger(path, steps=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan({"web": 50, "code": 4}, 4, [0.75, 0.25], lag=1, max_epochs=2.0)
    with Ledger(path, plan) as opened:
        for step in range(steps):
            opened.write(next(plan), losses=[1.0, 2.0])
            plan.keep(step)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("ledger.jsonl", "ledger.jsonl"),
        ("toy.chunks/run_000/files/seed=7/ledger.jsonl", "seed=7"),
        ("toy/files/0_run/seed=7/ledger.jsonl", "seed=7"),
        ("toy/ledger.jsonl", "ledger.jsonl"),
    ],
)
def test_a_ledger_is_found_and_tells_of_its_domains(tmp_path, path, name):
    ledger(tmp_path / path)
    seen = view(tmp_path / (path if "/" not in path else "toy"))
    assert (seen.state, seen.ledger_name, seen.ledger.step) == ("running", name, 1)
    web, code = domain_rows(seen)
    assert (web.q, web.drawn, web.asked, web.epochs, web.limit) == (0.75, 0.75, 0.75, 6 / 50, 2.0)
    assert (code.name, code.loss, code.epochs) == ("code", 2.0, 0.5) and math.isnan(code.c)


def test_the_ledger_written_to_last_is_shown_and_other_files_are_passed_over(tmp_path):
    for i, name in enumerate(("old", "new")):
        path = tmp_path / f"toy.chunks/run_000/files/{name}/ledger.jsonl"
        ledger(path)
        os.utime(path, (100 + i, 100 + i))
    (path.parent / "notes.jsonl").write_text('{"note": 1}\n')
    assert view(tmp_path / "toy").ledger_name == "new"


def test_nothing_is_read_where_no_file_has_changed(tmp_path, monkeypatch):
    records(tmp_path, record(1, 1.0))
    ledger(tmp_path / "ledger.jsonl")
    seen = view(tmp_path)
    monkeypatch.setattr("builtins.open", None)
    assert view(tmp_path, seen)._replace(age=0.0) == seen._replace(age=0.0)


@pytest.mark.parametrize("number", [math.nan, math.inf, "1", None, 10**400])
@pytest.mark.parametrize("name", ["done", "total", "seconds", "segment", "diverged"])
def test_records_without_finite_numbers_are_passed_over(tmp_path, name, number):
    records(tmp_path, record(1, 1.0), record(2, 2.0) | {name: number})
    assert view(tmp_path).parts[0].done == 1 and view(tmp_path).eta == pytest.approx(3)


@pytest.mark.parametrize("text", ["", "\n\n", "[]\n", "3\n", '{"done": 1}\n', "\0\0\n", '{"done":', "[" * 9999 + "\n"])
def test_damaged_records_tell_nothing(tmp_path, text):
    (tmp_path / "progress.jsonl").write_text(text)
    (tmp_path / "runs.json").write_text(text)
    assert view(tmp_path).parts == [] and view(tmp_path).state == "waiting"

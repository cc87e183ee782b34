"""``mixjax watch``: what it prints at each width, with and without colour, and the page that it keeps."""

import io
import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mixjax.cli import watching
from mixjax.live import Ledger, Plan
from mixjax.runner.pages.watching import watch_page
from mixjax.runner.watching import view, write_runs

CONSOLE = Console(file=io.StringIO(), force_terminal=True, width=80)
HOSTILE = "[bold]<script>alert(1)</script>"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Writes the files of a run at work: three parts, one of them at work, and a live mix of seven domains."""
    monkeypatch.chdir(tmp_path)
    chunks = tmp_path / "results/toy.chunks"
    write_runs(chunks, ["plain", f"method={HOSTILE}", "a very long name of a part " * 3])
    lines = [
        {"run": f"method={HOSTILE}", "done": i, "total": 4, "segment": i, "segments": 5, "seconds": 10.0 * i,
         "diverged": 1, "metrics": {}}
        for i in (1, 2)
    ]  # fmt: skip
    (chunks / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = chunks / "run_001/files/seed=7"
    folder.mkdir(parents=True)
    sizes = {"web": 500, "code": 40, HOSTILE: 30, "ünï": 20, "law": 20, "a domain with a long name": 9, "last": 9}
    plan = Plan(sizes, 16, np.arange(7.0, 0.0, -1.0) / 28, lag=1, max_epochs=3.0)
    with Ledger(folder / "ledger.jsonl", plan) as ledger:
        for step in range(4):
            ledger.write(next(plan), np.arange(7.0), np.full(7, 1 / 7))
            plan.keep(step)
    return tmp_path / "results/toy"


def shown(run, width=80, height=24, terminal=True, **kwargs):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, **kwargs)
    console.print(watching.drawn(view(run), console))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
def test_all_widths_show_progress_and_weights(run, width):
    text = shown(run, width, color_system=None)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width and "running" in text and "2/4" in text
    domains = [line for line in lines if line.startswith(("web", "code", "law"))]
    assert len(domains) == 3 and all("0." in line for line in domains)
    if width >= 40:
        # A bar before q and before c.
        assert all(re.search(r"█.*0\.\d+ █+.* 0\.143", line) for line in domains), text
        assert "worst domain: last, loss 6" in text
    if width >= 80:
        # A long path breaks the first line anywhere.
        assert "segment 2/5, 1 diverged" in text and "20 s left in" in " ".join(text.split())
        assert width < 100 or "0.1 runs/s" in text
        assert "0.250 0.250" in domains[0] and "/3" in domains[0]


def test_names_are_shown_as_they_are(run):
    text = shown(run, 160, color_system=None)
    assert f"method={HOSTILE}" in text and text.count(HOSTILE) == 2


def test_colours_and_letters_follow_the_terminal(run, monkeypatch):
    assert "\x1b[" in shown(run, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(run))
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    console = Console(file=raw, width=60, color_system=None)
    console.print(watching.drawn(view(run), console))
    raw.flush()
    text = raw.buffer.getvalue().decode()
    assert "##" in text and "\\u2588" not in text and "\\u2026" not in text


def test_many_domains_and_parts_fit_a_terminal(run):
    plan = Plan({f"d{i}": 100 for i in range(300)}, 300, np.arange(1.0, 301.0) / 45150, lag=1)
    with Ledger(run.parent / "many.jsonl", plan) as ledger:
        ledger.write(next(plan))
    text = shown(run.parent / "many.jsonl", color_system=None)
    assert len(text.splitlines()) <= 24 and "d299" in text and re.search("and 28. more domains", text)
    assert "d0 " in shown(run.parent / "many.jsonl", terminal=False)
    write_runs(run.with_name("toy.chunks"), [f"part {i}" for i in range(50)])
    (run.with_name("toy.chunks") / "progress.jsonl").write_text(
        json.dumps({"run": "part 30", "done": 1, "total": 2, "seconds": 1.0, "metrics": {}}) + "\n"
    )
    text = shown(run, color_system=None)
    assert "part 30" in text and "30 of 50 parts done" in text and "part 1 " not in text


def test_the_command_prints_one_view_where_there_is_no_terminal(run, command):
    code, out, err = command("watch", run, "--html")
    assert (code, err) == (0, "") and "running" in out and out.endswith("watch.html\n") and "\x1b" not in out
    page = Path("watch.html").read_text()
    assert HOSTILE not in page and "&lt;script&gt;alert" in page and 'http-equiv="refresh"' not in page
    code, out, err = command("watch", "nothing/here", "--once")
    assert code == 2 and "waiting" in out and "nothing is written yet" in out
    code, out, err = command("watch", "gs://bucket/run")
    assert (code, out) == (2, "") and "local file system" in err and err.count("\n") == 1
    assert command("watch", run, "--out", "page.txt")[0] == 2
    for every in ("inf", "nan"):
        code, out, err = command("watch", run, "--every", every)
        assert (code, out) == (2, "") and "--every" in err


@pytest.mark.parametrize("age", [math.inf, 0.0, 59.0, 359.0, 1e9])
@pytest.mark.parametrize("eta", [None, 0.0, 1e12])
@pytest.mark.parametrize("pause", [0.0, 20.0, math.inf])
def test_times_that_are_not_known_are_left_out(run, age, eta, pause):
    seen = view(run)
    seen = seen._replace(age=age, eta=eta, parts=[part._replace(pause=pause) for part in seen.parts])
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(watching.drawn(seen, console))
    for text in (console.file.getvalue(), watch_page(seen, refresh=None)):
        ended = math.isfinite(age) and age > max(60.0, 10 * pause)
        # A long path breaks the lines anywhere.
        text = " ".join(text.split())
        assert ("perhaps ended" in text) is ("nothing says that it is running" in text) is ended
        assert ("last written" in text) is math.isfinite(age)
        assert (" left in this part" in text) is (eta is not None and not ended)
        assert not re.search(r"\b(inf|nan)\b", text)


def test_a_run_that_has_begun_and_written_nothing(tmp_path, command):
    (tmp_path / "toy.chunks").mkdir()
    code, out, err = command("watch", tmp_path / "toy", "--once", "--html", "--out", tmp_path / "page.html")
    assert (code, err) == (0, "") and "running" in out and "last written" not in out


def test_a_loop_of_ones_own_that_is_over(tmp_path, command):
    path = tmp_path / "ledger.jsonl"
    plan = Plan({"web": 50, "code": 4}, 4, [0.75, 0.25], lag=1)
    with Ledger(path, plan) as ledger:
        ledger.write(next(plan))
    assert "running" in command("watch", path, "--once")[1]
    os.utime(path, (time.time() - 359,) * 2)
    out = " ".join(command("watch", path, "--once")[1].split())
    assert "perhaps ended last written 5.98 min ago nothing says that it is running" in out


def test_watching_waits_goes_on_and_ends_with_the_run(run, tmp_path, monkeypatch):
    looks = []

    def sleep(seconds):
        # What a run does between two looks: it ends. The page refreshes itself until then.
        looks.append(seconds)
        assert 'http-equiv="refresh" content="1"' in Path("page.html").read_text()
        run.mkdir()
        (run / "metrics.json").write_text("{}")
        run.with_name("toy.chunks").rename(tmp_path / "away")

    monkeypatch.setattr(watching.time, "sleep", sleep)
    seen = watching.watch_run(run, once=False, every=1.0, page=Path("page.html"), console=CONSOLE)
    assert seen.state == "finished" and len(looks) == 1 and looks[0] > 0.5
    assert "finished" in Path("page.html").read_text() and 'http-equiv="refresh"' not in Path("page.html").read_text()


def test_looking_takes_a_small_share_of_the_time(run, monkeypatch):
    used = iter([0.0, 3.0])
    monkeypatch.setattr(watching.time, "process_time", lambda: next(used))
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watching.watch_run(
            run, once=False, every=0.2, page=None, console=Console(file=io.StringIO(), force_terminal=True)
        )
    assert 3.0 / slept[0] <= 0.005

"""Tests that a watcher's processor time is told apart from the run's, and from its own start."""

import subprocess
import sys

import pytest

from experiments.benchmarks import watching

BUSY = """
import sys, time
until = time.process_time() + {seconds}
while time.process_time() < until:
    pass
print("a screen" * 100_000 if sys.stdout.isatty() else "no terminal")
sys.exit({code})
"""


def busy(monkeypatch, times, code=0):
    """Puts commands that work for given seconds in the places of run, watch and watch --once; lists what was asked."""
    asked = []

    def start(*arguments, output=subprocess.DEVNULL):
        kind = "once" if "--once" in arguments else arguments[0]
        asked.append((kind, arguments[arguments.index("--out") + 1] if kind == "run" else arguments[1]))
        program = BUSY.format(seconds=times[kind], code=code)
        return subprocess.Popen([sys.executable, "-S", "-c", program], stdout=output)

    monkeypatch.setattr(watching, "_start", start)
    return asked


def test_each_process_is_measured_alone(monkeypatch):
    asked = busy(monkeypatch, {"run": 0.3, "watch": 0.2, "once": 0.0})
    first, second = watching.turns(2, quick=True)
    for turn in (first, second):
        # No upper bounds: processor time too grows on a busy machine.
        assert min(turn.alone, turn.watched) >= 0.3 and turn.watching >= 0.2 and turn.start < turn.watching
    kinds = [(kind, folder.rpartition("/")[2]) for kind, folder in asked]
    watched = [("run", "watched_{}"), ("watch", "watched_{}"), ("once", "watched_{}")]
    expected = [("run", "alone_0"), *watched], [*watched, ("run", "alone_1")]
    assert kinds == [(kind, name.format(i)) for i, rows in enumerate(expected) for kind, name in rows]


def test_a_command_that_fails_is_told(monkeypatch):
    busy(monkeypatch, dict.fromkeys(("run", "watch", "once"), 0.0), code=3)
    with pytest.raises(RuntimeError, match="ended with 3"):
        watching.turns(1, quick=True)


@pytest.mark.parametrize(("watching_seconds", "holds"), [(0.7, True), (1.5, False)])
def test_the_report_compares_looks_with_the_run(monkeypatch, watching_seconds, holds):
    turn = watching.Turn(alone=100.0, watched=101.0, watching=watching_seconds, start=0.5)
    monkeypatch.setattr(watching, "turns", lambda num, quick: [turn] * num)
    report = watching.run(quick=False)
    share = 100 * (watching_seconds - 0.5) / 101.0
    assert f"The looks take {share:.3g} ({share:.3g} to {share:.3g}) % of the run's processor time." in report.text
    assert "| a watcher that looks once and ends | 0.5 (0.5 to 0.5) |" in report.text
    assert [target.holds for target in report.targets] == [holds] and len(report.data["turns"]) == 5

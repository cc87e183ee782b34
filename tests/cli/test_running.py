"""The options that ``mixjax run`` and ``sweep`` share: dry runs, profiles, trackers, progress."""

import io
import signal
import sys
import types

import pytest

from mixjax.runner import experiment
from tests.cli.toy import TOY


def test_dry_run_counts_and_writes_nothing(mixjax_command, project):
    code, out, err = mixjax_command("run", TOY, "--set", "sweep.seeds=300", "--dry-run")
    assert (code, err) == (0, "") and not (project / "results").exists()
    assert out.splitlines()[1].split()[:3] == ["run", "300", "3"] and "3 of 128 runs, on 8 devices" in out
    assert "300 runs in about" in out and "nothing was written" in out and "earlier run" not in out
    (project / "results/toy.chunks").mkdir(parents=True)
    assert "results/toy.chunks holds chunks of an earlier run" in mixjax_command("run", TOY, "--dry-run")[1]
    for argv, message in ((["--track", "mlflow"], "unknown tracker"), (["--out", "configs"], "no part of a result")):
        code, _, err = mixjax_command("run", TOY, "--dry-run", *argv)
        assert code == 2 and message in err


LOOP = """
import dataclasses
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop

@dataclasses.dataclass(frozen=True)
class Loop:
    method: str = "erma"
    rate: float = 0.1
    is_rehearsed: bool = True

def loop(config: Loop) -> Experiment:
    return Experiment(HostLoop(lambda run: 1 / 0), dims={"loss": ()}, is_rehearsed=config.is_rehearsed)
"""


def test_a_dry_run_of_loops_on_the_host_counts_them(mixjax_command, project):
    (project / "loops.py").write_text(LOOP)
    axes = 'method = ["static", "erma"]\nrate = [0.1, 0.2]\nseeds = 3\nfirst_seed = 1000\npaired = false\n'
    (project / "loop.toml").write_text(f'experiment = "loops:loop"\n[sweep]\n{axes}')
    before = sorted(project.rglob("*.*"))
    code, out, err = mixjax_command("run", "loop.toml", "--dry-run", "--out", "results/new")
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "") and lines[0] == ["[[run]]", "runs", "seeds", "settings"]
    assert lines[1] == ["run,", "method=static", "6", "1000", "to", "1005", "rate", "=", "[0.1,", "0.2]"]
    assert lines[2][-7:] == ["1006", "to", "1011", "rate", "=", "[0.1,", "0.2]"]
    assert "12 runs, one after the other" in out and "its time are not known" in out
    assert "were tried on made-up results" in out and "would go to results/new; nothing was written" in out
    assert "runs in about" not in out and [x for x in sorted(project.rglob("*.*")) if x.suffix != ".pyc"] == before
    out = mixjax_command("run", "loop.toml", "--dry-run", "--set", "is_rehearsed=false", "--set", "sweep.rate=[1]")[1]
    assert "cannot be tried before the runs" in out and out.splitlines()[1].split()[-1] == "-"


def test_profile(mixjax_command, project):
    code, out, _ = mixjax_command("run", TOY, "--profile")
    assert code == 0 and out.splitlines()[-1] == "results/toy.profile"
    assert list((project / "results/toy.profile").rglob("*.xplane.pb"))


def test_trackers(mixjax_command, project, monkeypatch):
    heard = []
    trackio = types.SimpleNamespace(
        init=lambda **settings: heard.append(settings), log=heard.append, finish=lambda: heard.append("finish")
    )
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    code, _, err = mixjax_command("run", TOY, "--track", "trackio", "--track", "tensorboard", "--set", "shift=2.0")
    assert (code, err) == (0, "") and len(list((project / "results/toy.tensorboard").iterdir())) == 1
    settings, record, end = heard
    assert settings["project"] == "mixjax" and settings["name"] == "toy" and settings["config"]["shift"] == 2.0
    assert record["run/done"] == 4 and "run/value" in record and end == "finish"
    code, _, err = mixjax_command("run", TOY, "--track", "mlflow")
    assert (code, err) == (2, "mixjax: --track mlflow: unknown tracker; known: tensorboard, wandb, trackio\n")
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, err = mixjax_command("sweep", TOY, "--vary", "shift=0,1", "--track", "wandb")
    assert code == 2 and "needs wandb: pip install wandb" in err


def test_progress_on_a_terminal(mixjax_command, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert mixjax_command("run", TOY, "--set", "sweep.chunk=1", "--set", 'run=[{name="a"},{name="b"}]')[0] == 0
    text = terminal.getvalue()
    assert "a:   0%" in text and "a: 100%" in text and "b: 100%" in text
    assert "4/4" in text and "run/s" in text and "<00:00" in text  # rate and time left


@pytest.mark.parametrize("argv", [["run", TOY], ["sweep", TOY, "--vary", "shift=0,1"]], ids=["run", "sweep"])
def test_a_signal_ends_a_dry_run_at_once_as_there_is_nothing_to_save(mixjax_command, monkeypatch, argv):
    before, seen = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(experiment, "dry_run", lambda config: seen.append(signal.getsignal(signal.SIGTERM)) or {})
    assert mixjax_command(*argv, "--dry-run")[0] == 0
    assert seen == [before]

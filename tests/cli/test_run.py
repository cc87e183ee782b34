"""``mixjax run``: a toy experiment end to end, exit codes, messages, Ctrl-C and silence."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mixjax import cli
from mixjax.runner import results
from tests.cli.toy import INTERRUPTED, TOY


def test_run(mixjax_command, project):
    code, out, err = mixjax_command("run", TOY, "--set", "sweep.seeds=5", "--set", "shift=0.5")
    assert (code, err) == (0, "")  # no progress: stderr is no terminal
    lines = out.splitlines()
    assert lines[0].split() == ["claim", "value", "holds"]
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:4]] == [
        ("above", "yes"),
        ("below", "no"),
        ("middle", "undecided"),
    ]
    assert " ± " in lines[1]
    assert lines[4:] == [f"results/toy/{name}" for name in results.FILES]
    assert all((project / line).is_file() for line in lines[4:])
    assert results.read("results/toy")["run"].value.shape == (5,)
    report = (project / "results/toy/report.md").read_text()
    assert "\nmixjax run configs/paper/toy.toml --set sweep.seeds=5 --set shift=0.5\n" in report


def test_out_is_the_exact_folder_and_the_resolved_config_runs(mixjax_command, project):
    assert mixjax_command("run", TOY, "--set", "sweep.shift=[0, 1]", "--out", "a/b")[0] == 0
    code, out, _ = mixjax_command("run", "a/b/config.toml", "--out", project / "c")
    assert code == 0 and "c/report.md" in out.splitlines()
    first, again = results.read("a/b")["run"], results.read("c")["run"]
    assert first.value.dims == ("shift", "seed") and first.value.equals(again.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["run", "absent.toml"],
            "mixjax: absent.toml: no such config file, nor a config of this name; `mixjax list` shows all",
        ),
        (["run", TOY, "--set", "shfit=1"], "mixjax: --set shfit=1: unknown key 'shfit'; did you mean 'shift'?"),
        (["run", TOY, "--out", "."], "no part of a result"),
        (["run", TOY, "--set", "fail=data"], "mixjax: MNIST is not cached; fetch it with `mixjax data mnist`"),
        (["run", TOY, "--set", "fail=extra"], "need nibabel: pip install nibabel"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(mixjax_command, argv, message):
    code, out, err = mixjax_command(*argv)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("gs://bucket/run", "takes a path of the local file system"),
        ("s3://bucket", "takes a path of the local file system"),
        ("caf\udce9", "is no UTF-8"),
        ("~nobody_of_that_name/x", "no user has the home folder"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_before_the_runs(mixjax_command, project, out, message):
    before = sorted(project.rglob("*"))
    code, _, err = mixjax_command("run", TOY, "--out", out)
    assert code == 2 and message in err and err.count("\n") == 1
    assert sorted(project.rglob("*")) == before


def test_the_home_folder_is_written_out(mixjax_command, project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "home"))
    (project / "home").mkdir()
    assert mixjax_command("run", TOY, "--out", "~/result")[0] == 0
    assert (project / "home/result/report.md").is_file() and not (project / "~").exists()


@pytest.mark.parametrize("argv", [["run"], ["nope"], ["run", TOY, "--nope"]])
def test_usage_errors_exit_2(mixjax_command, argv):
    code, _, err = mixjax_command(*argv)
    assert code == 2 and "Usage: mixjax" in err


def test_a_failing_figure_keeps_the_metrics_and_exits_1(mixjax_command, project):
    code, _, err = mixjax_command("run", TOY, "--set", "fail=figure")
    assert code == 1 and "RuntimeError: no paint" in err
    assert f"mixjax: the figure failed; the metrics are kept in {project}/results/toy.partial" in err
    assert results.read("results/toy.partial")["run"].value.shape == (4,)
    assert not (project / "results/toy").exists()


def test_a_bug_in_an_experiment_is_not_hidden(project):
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["run", TOY, "--set", "fail=bug"])


def test_ctrl_c_exits_130_and_keeps_the_earlier_result(mixjax_command, project):
    assert mixjax_command("run", TOY)[0] == 0
    before = {p.name: p.read_bytes() for p in (project / "results/toy").iterdir()}
    code, out, err = mixjax_command("run", TOY, "--set", "fail=ctrl-c")
    assert (code, out, err) == (130, "", INTERRUPTED)
    assert {p.name: p.read_bytes() for p in (project / "results/toy").iterdir()} == before
    assert [p.name for p in (project / "results").iterdir()] == ["toy"]


def test_a_real_sigint(project):
    # A process started in the background of a shell inherits an ignored SIGINT; a user's terminal does not ignore it.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import mixjax.cli; mixjax.cli.main()"
    command = [sys.executable, "-c", code, "run", TOY, "--set", "fail=wait"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (project / "ready").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)
    assert not (project / "results").exists()


def test_claims_json_has_exactly_the_agreed_keys(mixjax_command):
    mixjax_command("run", TOY)
    with open("results/toy/claims.json") as file:
        keys = [list(row) for row in json.load(file)]
    agreed = ["name", "statement", "source", "value", "stderr", "threshold", "num_seeds", "holds", "note"]
    assert keys == [agreed] * 3


@pytest.mark.parametrize("spared", range(0, 12, 2))
def test_a_kill_while_the_chunks_are_removed_costs_nothing(mixjax_command, project, monkeypatch, spared):
    """Dies at any of the removals: the same command works again."""
    unlink, removed = os.unlink, []

    def dying(path, *args, **kwargs):
        if "toy.chunks" in os.fspath(path) or "chunk" in str(path):
            if len(removed) == spared:
                raise KeyboardInterrupt
            removed.append(path)
        return unlink(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", dying)
        code = mixjax_command("run", TOY, "--set", "sweep.chunk=1")[0]
    assert code in (0, 130)
    assert mixjax_command("run", TOY, "--set", "sweep.chunk=1")[0] == 0
    assert sorted(path.name for path in (project / "results").iterdir()) == ["toy"]

"""The command: a toy experiment end to end, exit codes, messages, help, Ctrl-C and silence."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

import mixjax
import mixjax.data
from mixjax import cli
from mixjax.runner import results

INTERRUPTED = "mixjax: interrupted; the same command goes on where this one stopped\n"
MODULE = """
import dataclasses, pathlib, time
import jax, jax.numpy as jnp
import matplotlib.figure
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Toy:
    shift: float = 0.0
    fail: str = ""
    size: int = 1

def toy(config: Toy) -> Experiment:
    if config.fail == "data":
        raise FileNotFoundError("MNIST is not cached; fetch it with `mixjax data mnist`")
    if config.fail == "extra":
        raise ImportError("segmentation data need nibabel: pip install 'mixjax[segmentation]'")
    if config.fail == "bug":
        raise ZeroDivisionError("a bug")
    if config.fail == "ctrl-c":
        raise KeyboardInterrupt
    if config.fail == "wait":
        pathlib.Path("ready").touch()
        time.sleep(60)

    def train(key, hparams, data):
        own = dataclasses.replace(config, **hparams)
        return {"value": own.shift + jax.random.normal(key) + 0 * jnp.ones(own.size)[0]}

    def figure(results):
        if config.fail == "figure":
            raise RuntimeError("no paint")
        return matplotlib.figure.Figure()

    def claims(results):
        value = next(iter(results.values())).value
        value = value.isel({dim: 0 for dim in value.dims if dim != "seed"})
        args = dict(statement="the mean is", source="ours")
        return [versus("above", value, ">=", -9.0, **args), versus("below", value, "<=", -9.0, **args),
                versus("middle", value, "<=", float(value.mean()), **args)]

    return Experiment(train, None, {}, {}, {"value": "1"}, figure, claims)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one experiment, as the current folder."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "configs" / "paper").mkdir(parents=True)
    config = f'# A toy of normal draws.\nexperiment = "{module}:toy"\n[sweep]\nseeds = 4\n'
    (tmp_path / "configs" / "paper" / "toy.toml").write_text(config)
    return tmp_path


@pytest.fixture
def mixjax_command(project, capsys):
    def call(*argv):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


TOY = "configs/paper/toy.toml"


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


def test_dry_run_counts_and_writes_nothing(mixjax_command, project):
    code, out, err = mixjax_command("run", TOY, "--set", "sweep.seeds=300", "--dry-run")
    assert (code, err) == (0, "") and not (project / "results").exists()
    assert out.splitlines()[1].split()[:3] == ["run", "300", "3"] and "3 of 128 on 8 devices" in out
    assert "300 runs in about" in out and "nothing was written" in out and "earlier run" not in out
    (project / "results/toy.chunks").mkdir(parents=True)
    assert "results/toy.chunks has chunks of an earlier run" in mixjax_command("run", TOY, "--dry-run")[1]
    for argv, message in ((["--track", "mlflow"], "unknown tracker"), (["--out", "configs"], "no part of a result")):
        code, _, err = mixjax_command("run", TOY, "--dry-run", *argv)
        assert code == 2 and message in err


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
    assert code == 2 and "pip install 'mixjax[wandb]'" in err


def test_sweep_over_a_grid_and_over_random_points(mixjax_command, project):
    code, out, err = mixjax_command("sweep", TOY, "--vary", "shift=linear:0:1:3", "--seeds", "6", "--first-seed", "2")
    assert (code, err) == (0, "") and out.splitlines() == [f"results/toy_sweep/{name}" for name in results.FILES]
    value = results.read("results/toy_sweep")["run"].value
    assert value["shift"].values.tolist() == [0.0, 0.5, 1.0] and value.seed.values.tolist() == list(range(2, 8))
    assert json.loads((project / "results/toy_sweep/claims.json").read_text()) == []
    assert (project / "results/toy_sweep/figure.png").read_bytes()[:4] == b"\x89PNG"

    assert mixjax_command("sweep", TOY, "--vary", "shift=0.5,2", "--chunk", "3", "--out", "listed")[0] == 0
    listed = results.read("listed")["run"]
    assert listed.value["shift"].values.tolist() == [0.5, 2.0]
    assert listed.attrs["chunk"] == 3 and listed.attrs["vectorize"] == "map"
    report = (project / "listed/report.md").read_text()
    command = next(line for line in report.splitlines() if line.startswith("mixjax "))
    assert shlex.split(command)[1:] == [
        "sweep",
        TOY,
        "--set",
        "sweep.shift=[0.5,2]",
        "--set",
        "sweep.chunk=3",
        "--out",
        "listed",
    ]
    for argv in (
        ["listed/config.toml", "--out", "relisted"],
        [*shlex.split(command)[2:], "--set", "sweep.vectorize=vmap"],
    ):
        assert mixjax_command("sweep", *argv)[0] == 0
        again = results.read(argv[argv.index("--out") + 1])["run"]
        np.testing.assert_allclose(again.value, listed.value, rtol=1e-6)
    assert again.attrs["vectorize"] == "vmap"
    assert mixjax_command("sweep", TOY, "--random", "5", "--vary", "shift=log:0.1:10", "--out", "drawn")[0] == 0
    drawn = results.read("drawn")["run"].value
    assert drawn.dims == ("point", "seed") and drawn["shift"].shape == (5,) and drawn["shift"].min() >= 0.1
    assert mixjax_command("run", "drawn/config.toml", "--out", "again")[0] == 0
    assert results.read("again")["run"].value.equals(drawn)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sweep", TOY], "mixjax: nothing varies: give --vary KEY=VALUES"),
        (["sweep", TOY, "--vary", "shift"], "write KEY=0.1,0.2 or KEY=log:1e-4:1:20"),
        (["sweep", TOY, "--vary", "shift=log:1:2"], "write KEY=0.1,0.2"),
        (["sweep", TOY, "--vary", "shift=log:1:2:x"], "invalid literal for int() with base 10: 'x'"),
        (["sweep", TOY, "--vary", "shift=cubic:1:2:3"], "unknown scale 'cubic'; known: linear, log"),
        (["sweep", TOY, "--vary", "shfit=1,2"], "unknown key 'shfit'; did you mean 'shift'?"),
        (["sweep", TOY, "--vary", "shift=1,2", "--seeds", "0"], "greater than or equal to 1"),
        (["sweep", TOY, "--vary", "shift=1,2", "--chunk", "big"], "chunk: Input should be a valid integer, got 'big'"),
        (["sweep", TOY, "--vary", "shfit=log:1:2:3"], "mixjax: --vary shfit=log:1:2:3: [sweep]: unknown key 'shfit'"),
        (["sweep", TOY, "--vary", "shift=1", "--vary", "shift=2"], "--vary shift: given twice"),
        (
            ["sweep", TOY, "--vary", "shift=1,2,1.0"],
            "[sweep] shift: the values of an axis differ, 1.0 stands there twice",
        ),
        (["sweep", TOY, "--vary", "shift=1,2", "--vary", "size=1,2"], "[sweep] size: sets a shape, a number of steps"),
        (["sweep", TOY, "--vary", "size=1,2", "--dry-run"], "use [[run]] tables, which are compiled one by one"),
        (["run", "absent.toml"], "mixjax: absent.toml: no such config file; `mixjax list` shows those under ./configs"),
        (["run", TOY, "--set", "shfit=1"], "mixjax: --set shfit=1: unknown key 'shfit'; did you mean 'shift'?"),
        (["run", TOY, "--out", "."], "no part of a result"),
        (["run", TOY, "--set", "fail=data"], "mixjax: MNIST is not cached; fetch it with `mixjax data mnist`"),
        (["run", TOY, "--set", "fail=extra"], "need nibabel: pip install 'mixjax[segmentation]'"),
        (["data", "mnits"], "did you mean 'mnist'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(mixjax_command, argv, message):
    code, out, err = mixjax_command(*argv)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


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


def test_list(mixjax_command, project):
    (project / "configs" / "broken.toml").write_text("x = ")
    (project / "configs" / "plain.toml").write_text('experiment = "a:b"')
    code, out, err = mixjax_command("list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ")}
    assert rows[TOY] == f"A toy of normal draws. (mod_{project.name}:toy)"
    assert rows["configs/plain.toml"] == "(a:b)" and "not valid TOML" in rows["configs/broken.toml"]
    for name, rule in mixjax.rules.RULES.items():
        assert rows[name] == re.sub(r":\w+:|`", "", rule.__doc__.strip().splitlines()[0])
    assert rows["allocate"] and "Partition" not in rows
    for path in (project / "configs").rglob("*.toml"):
        path.unlink()
    assert "none: no *.toml under ./configs" in mixjax_command("list")[1]


def test_data(mixjax_command, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(mixjax.data, "fetch", lambda *args, **kwargs: calls.append((args, kwargs)) or tmp_path)
    assert mixjax_command("data", "mnist", "--from", "folder") == (0, f"{tmp_path}\n", "")
    assert mixjax_command("data", "mnist", "--source", "openml")[0] == 0
    assert [(a, str(k["folder"]), k["source"]) for a, k in calls] == [
        (("mnist",), "folder", None),
        (("mnist",), "None", "openml"),
    ]


def test_help_teaches(mixjax_command):
    code, out, _ = mixjax_command("--help")
    assert code == 0
    for part in ("mixjax run configs/quickstart.toml", "mixjax list", "Examples:", "run ", "list ", "data "):
        assert part in out
    out = mixjax_command("run", "--help")[1]
    for part in ("--set sweep.seeds=100", "--out", "config.toml", "report.md", "run.0.KEY", "results.read("):
        assert part in out
    assert "--from" in mixjax_command("data", "--help")[1]
    assert mixjax_command("--version") == (0, f"mixjax {mixjax.__version__}\n", "")


def test_a_missing_extra_is_named():
    hide = (
        "import sys; sys.modules['typer'] = sys.modules['xarray'] = None; import mixjax.cli; mixjax.cli.main(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    message = "mixjax: the command needs typer, xarray: pip install 'mixjax[experiments]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_claims_json_has_exactly_the_agreed_keys(mixjax_command):
    mixjax_command("run", TOY)
    with open("results/toy/claims.json") as file:
        keys = [list(row) for row in json.load(file)]
    agreed = ["name", "statement", "source", "value", "stderr", "threshold", "num_seeds", "holds", "note"]
    assert keys == [agreed] * 3

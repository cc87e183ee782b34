"""Commands with random configs, options and damaged results: done, or one line and exit code 2, never a traceback."""

import collections
import contextlib
import io
import random
import sys
import traceback

import pytest
import typer

from mixjax import cli
from mixjax import sweeps as sweeps_lib
from mixjax.cli import commands
from mixjax.runner import experiment
from tests.cli.fuzzed import CONFIG, MODULE, fuzzed_configs, fuzzed_results, fuzzed_runs


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Yields a project as the current folder: a config, and the result of a run."""
    folder = tmp_path_factory.mktemp("fuzz")
    module = "fuzzed_toy"
    (folder / "pyproject.toml").write_text("")
    (folder / f"{module}.py").write_text(MODULE)
    (folder / "toy.toml").write_text(CONFIG.format(module=module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", sys.path[:])
        patch.chdir(folder)
        # A process parses one command; thousands of them share the parser, which takes longer to make than to use.
        parser = typer.main.get_command(commands.make_app())
        patch.setattr(commands, "make_app", lambda: parser)
        call = call_in(folder)
        code, err = call("run", "toy.toml", "--out", "result")
        assert code == 0, err
        assert call("run", "toy.toml", "--set", "sweep.first_seed=2", "--out", "other")[0] == 0
        yield folder
    sys.modules.pop(module, None)


def call_in(folder):
    """Returns a function that runs a command and gives its exit code and stderr; a traceback is the code None."""

    def call(*argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main(list(argv))
            except SystemExit as exit_:
                return exit_.code or 0, err.getvalue()
            except BaseException:
                return None, traceback.format_exc()

    return call


@pytest.fixture
def sized(monkeypatch):
    """Makes a dry run compile no program, which would take hours for thousands: it has traced each of them by then."""

    def count(spec):
        return sweeps_lib.DryRun(spec.num_runs, 1, 1, 1, 1, 1.0, 1.0, 0.0, 0.0)

    monkeypatch.setattr(experiment.sweeps, "dry_run", count)


def check(call, cases):
    """Runs commands, and checks how each ends; returns how many ended with which exit code."""
    counts: collections.Counter = collections.Counter()
    for argv in cases:
        code, err = call(*argv)
        assert code in (0, 2), f"mixjax {argv!r}: {code}\n{err}"
        counts[code] += 1
        if code == 2:
            lines = err.splitlines()
            # Wrong options are click's: three lines, with the usage first.
            is_usage = lines[0].startswith("Usage:") and lines[-1].startswith("Error:")
            assert is_usage or (len(lines) == 1 and err.startswith("mixjax: ") and len(err) > 12), f"{argv!r}: {err}"
        else:
            assert err == "", f"{argv!r}: {err}"
    return counts


KINDS = {"runs": fuzzed_runs, "configs": fuzzed_configs, "results": fuzzed_results}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "seed", "num"),
    [
        *((kind, 0, 150) for kind in KINDS),
        # More than ten thousand in all.
        pytest.param("runs", 1, 4000, marks=pytest.mark.slow),
        pytest.param("configs", 1, 4500, marks=pytest.mark.slow),
        pytest.param("results", 1, 2000, marks=pytest.mark.slow),
    ],
)
def test_any_command_ends_well(project, sized, monkeypatch, kind, seed, num):
    if seed == 1:
        # Drawing figures of made-up results takes most of the time, and the few cases of the other seed draw them.
        monkeypatch.setattr(experiment, "rehearse", lambda *args: None)
    rng = random.Random(f"{kind} {seed}")
    make = KINDS[kind]
    cases = make(rng, num) if kind == "runs" else make(rng, num, project)
    counts = check(call_in(project), cases)
    # Neither end is rare, so that the test is one of both.
    assert counts.total() == num and min(counts[0], counts[2]) > num / 20, counts

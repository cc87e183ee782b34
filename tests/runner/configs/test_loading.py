"""Configs: the values, runs and sweep that they resolve to, and a clear error for every mistake."""

import math
import subprocess
import sys

import pytest

from mixjax.runner import configs
from mixjax.runner.configs import load


def test_values_runs_and_sweep(make):
    config = make(
        """
        steps = 5
        gamma = 1                 # an integer where a float is expected is fine
        inner = {width = 7}
        layers = [{width = 1}, {}]
        [[run]]
        name = "one"
        scales = [3, 4]
        inner = {names = ["x"]}
        [[run]]
        name = "two"
        [sweep]
        seeds = 4
        beta = [0.5, inf]
        gamma = {start = 0.01, stop = 1.0, num = 3, scale = "log"}
        """
    )
    assert config.name == "toy" and config.path.name == "toy.toml"
    assert [run.name for run in config.runs] == ["one", "two"]
    one, two = (run.values for run in config.runs)
    assert config.function(one) is one
    assert (one.scales, two.scales) == ((3.0, 4.0), (1.0, 2.0))
    assert (one.inner.width, one.inner.names, two.inner.names) == (7, ("x",), ())  # tables merge
    assert [layer.width for layer in one.layers] == [1, 3]
    assert isinstance(one.gamma, float) and one.folder.name == "data"
    assert config.base["steps"] == 5 and "scales" not in config.base
    sweep = config.sweep
    assert (sweep.seeds, sweep.first_seed, sweep.chunk) == (4, 0, "auto")
    assert sweep.axes["beta"] == (0.5, math.inf)
    assert repr(make("steps = 1\nsweep.beta = [1]").sweep.axes["beta"]) == "(1.0,)"  # a float, as the field is
    assert sweep.axes["gamma"] == pytest.approx((0.01, 0.1, 1.0))


def test_defaults_without_runs_or_sweep(make):
    config = make("steps = 2")
    assert [run.name for run in config.runs] == [configs.DEFAULT_RUN]
    assert config.sweep == configs.Sweep(seeds=1)
    assert make("steps = 2", function="future").runs[0].values.steps == 2


def test_a_required_field_may_come_from_the_runs_or_an_axis(make):
    assert make("[[run]]\nname = 'a'\nsteps = 3").runs[0].values.steps == 3
    config = make("sweep.steps = [4, 5]")
    assert config.runs[0].values.steps == 4 and config.sweep.axes == {"steps": (4, 5)}


@pytest.mark.parametrize(
    "text",
    [
        "steps = 2",
        "steps = 2\nkind = 'b'\nsweep = {seeds = 3, first_seed = 10, chunk = 2, beta = [1, inf]}",
        "steps = 2\n[[run]]\nname = '(100, 1)'\nscales = [100, 1]\n[[run]]\nname = 'quote \" and \\'\nbeta = nan",
        "sweep.gamma = {start = 0, stop = 1, num = 5}\n[[run]]\nname = 'a'\nsteps = 1\ninner.names = ['x']\n"
        "[[run]]\nname = 'b'\nsteps = 2\nlayers = [{}, {width = 9}]",
    ],
)
def test_round_trip(make, text):
    config = make(text, "gamma=0.25" if "gamma" not in text else "flag=true")
    (config.path.parent / "again").mkdir()
    path = config.path.parent / "again" / "config.toml"
    path.write_text(config.to_toml())
    again = load(path)
    assert repr(again.runs) == repr(config.runs)  # repr: a NaN is not equal to itself
    assert (again.sweep, again.experiment, again.name) == (config.sweep, config.experiment, "again")
    assert again.to_toml() == config.to_toml()


ERRORS = [  # config text, --set arguments, what the message must contain
    ("steps = 2\ngama = 1", [], ["toy.toml", "unknown key 'gama'", "did you mean 'gamma'?"]),
    ("steps = 2\nzzz = 1", [], ["unknown key 'zzz'", "known: experiment, run, sweep, steps, gamma"]),
    ("steps = 2\ninner = {widht = 1}", [], ["inner: unknown key 'widht'", "'width'"]),
    ("steps = 2\nlayers = [{}, {widht = 1}]", [], ["layers: unknown key 'widht'", "'width'"]),
    ("steps = 2\n[[run]]\nname = 'r'\nstpes = 1", [], ["[[run]] 'r'", "unknown key 'stpes'", "'steps'"]),
    ("steps = 'many'", [], ["steps", "valid integer", "'many'"]),
    ("steps = 2.0", [], ["steps", "valid integer", "2.0"]),
    ("steps = true", [], ["steps", "valid integer", "True"]),
    ("steps = 2\nkind = 'c'", [], ["kind", "'a' or 'b'", "'c'"]),
    ("steps = 2\nscales = [1, 'x']", [], ["scales.1", "valid number", "'x'"]),
    ("steps = 2\ngamma = -1", [], ["gamma must be at least 0, got -1.0"]),
    ("", [], ["steps: Field required"]),
    ("steps = 2\nx = = 3", [], ["toy.toml: not valid TOML", "at line 3, column 5"]),
    ("steps = 2\n[[run]]\nsteps = 3", [], ["every [[run]] needs a name"]),
    ("steps = 2\n[[run]]\nname = 3", [], ["every [[run]] needs a name", "got 3"]),
    ('steps = 2\n[[run]]\nname = "r\\u0000s"', [], ["[[run]] 'r\\x00s': a name cannot hold a NUL"]),
    ("steps = 2", ["run=[{name='\udcff'}]"], ["a name cannot hold a NUL, nor what is no UTF-8"]),
    ("steps = 2\n[[run]]\nname = 'r'\nsweep.seeds = 3", [], ["[[run]] 'r': 'sweep' is for all runs; write it above"]),
    ("steps = 2\n[[run]]\nname = 'r'\n[[run]]\nname = 'r'", [], ["two [[run]] tables are named 'r'"]),
    ("steps = 2\n[run]\nname = 'r'", [], ["write [[run]]"]),
    ("steps = 2\nrun = []", [], ["run is empty"]),
]


@pytest.mark.parametrize(("text", "overrides", "parts"), ERRORS)
def test_errors(refusal, text, overrides, parts):
    message = refusal(text, *overrides)
    assert [part for part in parts if part not in message] == [], message


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.toml: no such config file"):
        load(tmp_path / "absent.toml")


def test_the_core_imports_without_the_extra():
    extra = ["pydantic", "tomli_w", "typer", "xarray", "matplotlib", "tqdm", "sklearn", "scipy"]
    check = f"import sys, mixjax; sys.exit(', '.join(m for m in {extra} if m in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", check], check=True)
    hidden = "import sys; sys.modules['pydantic'] = None; import mixjax.runner.configs"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert "ImportError: mixjax.runner.configs needs pydantic: pip install pydantic" in done.stderr


def test_a_file_may_begin_with_the_mark_of_utf_8(make, tmp_path):
    make("steps = 2")
    path = tmp_path / "toy.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).base["steps"] == 2

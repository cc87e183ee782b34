"""Configs: what they resolve to, and a clear error for every mistake."""

import math
import re
import subprocess
import sys

import pytest

from mixjax.runner import configs
from mixjax.runner.configs import ConfigError, load, replace

MODULE = """
import dataclasses
from pathlib import Path
from typing import Literal

@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    names: tuple[str, ...] = ()

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int
    gamma: float = 0.1
    beta: float | None = None
    kind: Literal["a", "b"] = "a"
    scales: tuple[float, ...] = (1.0, 2.0)
    inner: Inner = Inner()
    layers: tuple[Inner, ...] = ()
    folder: Path = Path("data")
    flag: bool = False

    def __post_init__(self):
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma}")

def toy(config: Toy):
    return config

def future(config: "Toy") -> int: ...
def bare(config): ...
def wrong(config: int): ...
def missing_name(config: "Nope"): ...

@dataclasses.dataclass
class Thawed:
    steps: int = 1
def thawed(config: Thawed): ...

@dataclasses.dataclass(frozen=True)
class Clash:
    name: str = ""
def clash(config: Clash): ...

@dataclasses.dataclass(frozen=True)
class Odd:
    thing: __import__("threading").Thread = None
def odd(config: Odd): ...
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes a config beside a module of its own; returns a loader."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def make(text, *overrides, function="toy", file="toy.toml"):
        path = tmp_path / file
        path.write_text((f'experiment = "{module}:{function}"\n' if function else "") + text)
        return load(path, overrides)

    return make


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


def test_nested_axes_points_and_random_points(make):
    config = make(
        """
        steps = 5
        inner = {names = ["x"]}
        [sweep]
        inner.width = [1, 2]
        [sweep.points]
        gamma = [1, 2, 3]
        beta = [0.5, 0.25, inf]
        """
    )
    assert config.sweep.axes == {"inner.width": (1, 2)}
    assert config.sweep.points == {"gamma": (1.0, 2.0, 3.0), "beta": (0.5, 0.25, math.inf)}
    assert config.runs[0].values.inner.names == ("x",) and config.runs[0].values.inner.width == 1
    assert replace(config.runs[0].values, {"inner.width": 9, "gamma": 0.5}).inner.width == 9
    with pytest.raises(TypeError, match="widht"):
        replace(config.runs[0].values, {"inner.widht": 9})
    assert make(config.to_toml().partition("\n")[2]).sweep == config.sweep  # round trip

    text = (
        "steps = 5\nsweep.random = {num = 4, seed = 1, steps = [1, 2], gamma = {start = 0.1, stop = 10, scale = 'log'}}"
    )
    drawn = make(text).sweep.points
    assert drawn == make(text).sweep.points and set(drawn["steps"]) <= {1, 2}
    assert len(drawn["gamma"]) == 4 and all(0.1 <= gamma <= 10 for gamma in drawn["gamma"])
    assert make(text, "sweep.random.seed=2").sweep.points != drawn
    assert make("steps = 2", "sweep.inner.width={start=1, stop=4, num=2}").sweep.axes == {"inner.width": (1, 4)}


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


def test_set(make):
    text = "steps = 2\n[[run]]\nname = 'a'\nscales = [9.0]\n[sweep]\nseeds = 2"
    config = make(
        text, "steps=20", "sweep.seeds=100", "kind=b", "inner.width = 5", "run.0.scales=[1, 2]", "sweep.beta=[1.5]"
    )
    values = config.runs[0].values
    assert (values.steps, values.kind, values.inner.width, values.scales) == (20, "b", 5, (1.0, 2.0))
    assert (config.sweep.seeds, config.sweep.axes) == (100, {"beta": (1.5,)})
    assert config.overrides[0] == "steps=20"
    assert make("steps = 2", f"experiment={config.experiment}", function=None).runs[0].values.steps == 2


ERRORS = [  # config text, --set arguments, what the message must contain
    ("steps = 2\ngama = 1", [], ["toy.toml", "unknown key 'gama'", "did you mean 'gamma'?"]),
    ("steps = 2\nzzz = 1", [], ["unknown key 'zzz'", "known: experiment, run, sweep, steps, gamma"]),
    ("steps = 2\ninner = {widht = 1}", [], ["inner: unknown key 'widht'", "'width'"]),
    ("steps = 2\nlayers = [{}, {widht = 1}]", [], ["layers: unknown key 'widht'", "'width'"]),
    ("steps = 2\n[[run]]\nname = 'r'\nstpes = 1", [], ["[[run]] 'r'", "unknown key 'stpes'", "'steps'"]),
    ("steps = 2\n[sweep]\nsedes = 1", [], ["[sweep]", "unknown key 'sedes'", "'seeds'"]),
    ("steps = 2", ["sweep.sedes=1"], ["--set sweep.sedes=1", "unknown key 'sedes'", "'seeds'"]),
    ("steps = 2", ["stpes=1"], ["--set stpes=1", "unknown key 'stpes'", "'steps'"]),
    ("steps = 2", ["inner.widht=1"], ["--set inner.widht=1", "inner: unknown key 'widht'"]),
    ("steps = 2\n[[run]]\nname = 'r'", ["run.0.stpes=1"], ["--set run.0.stpes=1", "unknown key 'stpes'"]),
    ("steps = 2\n[[run]]\nname = 'r'", ["run.1.steps=1"], ["--set run.1.steps=1", "no such place"]),
    ("steps = 2", ["steps.x=1"], ["--set steps.x=1", "no such place"]),
    ("steps = 2", ["steps"], ["--set steps", "key=value"]),
    ("steps = 2", ["=3"], ["key=value"]),
    ("steps = 2\n[[run]]\nname = 'r'\nsteps = 3", ["steps=9"], ["no effect on [[run]] 'r'", "--set run.0.steps="]),
    ("steps = 2\nsweep.gamma = [1]", ["gamma=9"], ["no effect", "--set sweep.gamma=[...]"]),
    ("steps = 2\nsweep.gamma = [1]\n[[run]]\nname = 'r'\ngamma = 1", [], ["[[run]] 'r' sets 'gamma'", "[sweep]"]),
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
    ("steps = 2\n[[run]]\nname = 'r'\n[[run]]\nname = 'r'", [], ["two [[run]] tables are named 'r'"]),
    ("steps = 2\n[run]\nname = 'r'", [], ["write [[run]]"]),
    ("steps = 2\nrun = []", [], ["run is empty"]),
    ("steps = 2\nsweep = 3", [], ["write [sweep]"]),
    ("steps = 2\nsweep.seeds = 0", [], ["[sweep]", "seeds", "greater than or equal to 1", "got 0"]),
    ("steps = 2\nsweep.first_seed = -1", [], ["first_seed", "got -1"]),
    ("steps = 2\nsweep.chunk = 0", [], ["chunk", "got 0"]),
    ("steps = 2\nsweep.scales = [1]", [], ["[sweep] scales", "one number", "use [[run]]"]),
    ("steps = 2\nsweep.kind = ['a']", [], ["[sweep] kind", "use [[run]]"]),
    ("steps = 2\nsweep.flag = [true]", [], ["[sweep] flag", "bool"]),
    ("steps = 2\nsweep.gamma = 1", [], ["[sweep] gamma", "a list or {start, stop, num, scale}"]),
    ("steps = 2\nsweep.gamma = []", [], ["gamma", "at least 1 item"]),
    ("steps = 2\nsweep.gamma = [1, 'x']", [], ["gamma", "'x'"]),
    ("steps = 2\nsweep.gamma = [1, -1]", [], ["[sweep] gamma", "at least 0, got -1.0"]),
    ("sweep.steps = [1, 2.5]", [], ["steps", "valid integer", "2.5"]),
    ("steps = 2\nsweep.gamma = {start = 1, stop = 2, nmu = 3}", [], ["unknown key 'nmu'", "'num'"]),
    ("steps = 2\nsweep.gamma = {start = 1, stop = 2}", [], ["num: Field required"]),
    ("steps = 2\nsweep.gamma = {start = 1, stop = 2, num = 0}", [], ["num", "got 0"]),
    ("steps = 2\nsweep.gamma = {start = 1, stop = 2, num = 2, scale = 'cubic'}", [], ["'linear' or 'log'"]),
    ("steps = 2\nsweep.gamma = {start = 0, stop = 2, num = 2, scale = 'log'}", [], ["log scale needs start"]),
    ("steps = 2\nsweep.inner.widht = [1]", [], ["[sweep] inner: unknown key 'widht'", "'width'"]),
    ("steps = 2\nsweep.inner = [1]", [], ["[sweep] inner", "one number", "use [[run]]"]),
    ("steps = 2\nsweep.inner.width = [1]", ["inner.width=2"], ["no effect", "--set sweep.inner.width=[...]"]),
    (
        "sweep.steps = [1]\n[[run]]\nname = 'r'\ninner = {width = 1}\n[sweep.inner]\nwidth = [1]",
        [],
        ["sets 'inner.width'"],
    ),
    ("steps = 2\nsweep.points = [1]", [], ["[sweep] points must be a table"]),
    ("steps = 2\nsweep.points.gama = [1]", [], ["[sweep.points]: unknown key 'gama'", "'gamma'"]),
    ("steps = 2\nsweep.points = {gamma = [1], beta = [1, 2]}", [], ["one length", "'gamma': 1, 'beta': 2"]),
    ("steps = 2\nsweep.points = {gamma = 1}", [], ["[sweep.points] gamma: a column is a list, got 1"]),
    ("steps = 2\nsweep.points = {gamma = [1]}", ["gamma=2"], ["--set sweep.points.gamma=[...]"]),
    ("steps = 2\nsweep = {gamma = [1], points = {gamma = [1]}}", [], ["gamma is an axis and a column"]),
    ("steps = 2\nsweep = {random = {num = 1}, points = {gamma = [1]}}", [], ["keep one of the two"]),
    ("steps = 2\nsweep.random = {gamma = [1]}", [], ["[sweep.random]", "num: Field required"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = 1}", [], ["{start, stop, scale} or a list", "got 1"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = 1}}", [], ["stop: Field required"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = 0, stop = 1, scale = 'log'}}", [], ["for 'log' above 0"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = -2, stop = -1}}", [], ["at least 0"]),
]


@pytest.mark.parametrize(("text", "overrides", "parts"), ERRORS)
def test_errors(make, text, overrides, parts):
    with pytest.raises(ConfigError) as error:
        make(text, *overrides)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("tyo", ["no function 'tyo'", "did you mean 'toy'?"]),
        ("Nothing_like_it", ["no function", "known: toy, future"]),
        ("bare", ["annotated with a frozen dataclass, got None"]),
        ("wrong", ["annotated with a frozen dataclass", "int"]),
        ("thawed", ["annotated with a frozen dataclass", "Thawed"]),
        ("missing_name", ["annotations of missing_name", "Nope"]),
        ("clash", ["Clash has a field 'name'", "reserve"]),
        ("odd", ["Odd has a field that TOML cannot give"]),
    ],
)
def test_function_errors(make, function, parts):
    with pytest.raises(ConfigError) as error:
        make("", function=function)
    for part in ["toy.toml: ", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("steps = 1", "no experiment; write experiment ="),
        ("experiment = 3", "must be a string"),
        ('experiment = "linear"', 'must be a string "module:function"'),
        ('experiment = "no_such_module_here:f"', "no module 'no_such_module_here' in"),
        ('experiment = "json.nope:f"', "no module 'json.nope' in"),
    ],
)
def test_experiment_errors(make, line, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(line, function=None)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.toml: no such config file"):
        load(tmp_path / "absent.toml")


def test_project_root_current_folder_and_installed_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    project, other = tmp_path / "project", tmp_path / "elsewhere"
    (project / "configs" / "deep").mkdir(parents=True)
    other.mkdir()
    (project / "pyproject.toml").write_text("")
    (project / "rooted_experiment.py").write_text(MODULE)
    for folder in (project / "configs" / "deep", other):
        (folder / "c.toml").write_text('experiment = "rooted_experiment:toy"\nsteps = 1')
    assert load(project / "configs" / "deep" / "c.toml").runs[0].values.steps == 1
    del sys.modules["rooted_experiment"]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project)])
    with pytest.raises(ConfigError, match="no module"):
        load(other / "c.toml")
    monkeypatch.chdir(project)  # a resolved config far from its project still runs inside the project
    assert load(other / "c.toml").runs[0].values.steps == 1
    (other / "rooted_experiment.py").write_text(MODULE)
    with pytest.raises(ConfigError, match="already imported another 'rooted_experiment'"):
        load(other / "c.toml")


def test_an_import_error_inside_the_module_is_not_hidden(make, tmp_path):
    (tmp_path / "broken_experiment.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        make('experiment = "broken_experiment:f"', function=None)


def test_the_core_imports_without_the_extra():
    extra = ["pydantic", "tomli_w", "typer", "xarray", "matplotlib", "tqdm", "sklearn", "scipy"]
    check = f"import sys, mixjax; sys.exit(', '.join(m for m in {extra} if m in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", check], check=True)
    hidden = "import sys; sys.modules['pydantic'] = None; import mixjax.runner.configs"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert "ImportError: mixjax.runner.configs needs pydantic: pip install 'mixjax[experiments]'" in done.stderr


def test_a_field_may_share_its_name_with_a_key_of_the_sweep(tmp_path):
    (tmp_path / "named.py").write_text(
        "import dataclasses\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Named:\n    chunk: int = 8\n"
        "def named(config: Named):\n    return config\n"
    )
    path = tmp_path / "config.toml"
    path.write_text('experiment = "named:named"\n[sweep]\nseeds = 2\nchunk = 4\n')
    config = load(path, ["chunk=16", "sweep.chunk=1"])
    assert config.runs[0].values.chunk == 16 and config.sweep.chunk == 1

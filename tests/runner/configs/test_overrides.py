"""--set: what it replaces, and mistakes in it."""

import pytest

from mixjax.runner.configs import load


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
    ("steps = 2", ["sweep.sedes=1"], ["--set sweep.sedes=1", "unknown key 'sedes'", "'seeds'"]),
    ("steps = 2", ["stpes=1"], ["--set stpes=1", "unknown key 'stpes'", "'steps'"]),
    ("steps = 2", ["inner.widht=1"], ["--set inner.widht=1", "inner: unknown key 'widht'"]),
    ("steps = 2\n[[run]]\nname = 'r'", ["run.0.stpes=1"], ["--set run.0.stpes=1", "unknown key 'stpes'"]),
    ("steps = 2\n[[run]]\nname = 'r'", ["run.1.steps=1"], ["--set run.1.steps=1", "no such place"]),
    ("steps = 2", ["run.0.steps=1"], ["--set run.0.steps=1", "no [[run]] tables", "without run.0"]),
    ("steps = 2", ["run.x=1"], ["--set run.x=1", "[[run]]"]),
    ("steps = 2", ["steps.x=1"], ["--set steps.x=1", "no such place"]),
    ("steps = 2", ["steps"], ["--set steps", "key=value"]),
    ("steps = 2", ["=3"], ["key=value"]),
    ("steps = 2\n[[run]]\nname = 'r'\nsteps = 3", ["steps=9"], ["no effect on [[run]] 'r'", "--set run.0.steps="]),
    ("steps = 2\nsweep.gamma = [1]", ["gamma=9"], ["no effect", "--set sweep.gamma=[...]"]),
    ("steps = 2\nsweep.inner.width = [1]", ["inner.width=2"], ["no effect", "--set sweep.inner.width=[...]"]),
    ("steps = 2\nsweep.points = {gamma = [1]}", ["gamma=2"], ["--set sweep.points.gamma=[...]"]),
]


@pytest.mark.parametrize(("text", "overrides", "parts"), ERRORS)
def test_errors(refusal, text, overrides, parts):
    message = refusal(text, *overrides)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("place", ["sweep.gamma", "sweep.points.gamma", "sweep.random.gamma"])
@pytest.mark.parametrize("file", ["[sweep]\ngamma", "[sweep.points]\ngamma", "[sweep.random]\nnum = 2\ngamma"])
def test_the_place_where_an_override_varies_a_field_replaces_the_files(make, file, place):
    num = ["sweep.random.num=2"] if "random" in place else []
    sweep = make(f"steps = 2\n{file} = [1.0, 2.0]", *num, f"{place}=[3.0, 3.5]").sweep
    values = (sweep.axes | sweep.points)["gamma"]
    assert len(values) == 2 and set(values) <= {3.0, 3.5} and not (sweep.axes and sweep.points)


def test_other_fields_stay_where_they_vary(make):
    file = "steps = 2\n[sweep]\ngamma = [1.0]\ninner.width = [4, 5]\nbeta = {start = 1.0, stop = 3.0, num = 3}\n"
    sweep = make(file, "sweep.random = {num = 3, gamma = [7.0], inner = {width = [8]}}", "sweep.beta.num=2").sweep
    assert sweep.axes == {"beta": (1.0, 3.0)} and sweep.points == {"gamma": (7.0,) * 3, "inner.width": (8,) * 3}


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

"""The table [sweep]: axes, points, random points, and mistakes in them."""

import math
from typing import Literal, Union

import pytest

from mixjax.runner.configs import fields, replace


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


ERRORS = [  # config text, --set arguments, what the message must contain
    ("steps = 2\n[sweep]\nsedes = 1", [], ["[sweep]", "unknown key 'sedes'", "'seeds'"]),
    ("steps = 2\nsweep.gamma = [1]\n[[run]]\nname = 'r'\ngamma = 1", [], ["[[run]] 'r' sets 'gamma'", "[sweep]"]),
    ("steps = 2\nsweep = 3", [], ["write [sweep]"]),
    ("steps = 2\nsweep.seeds = 0", [], ["[sweep]", "seeds", "greater than or equal to 1", "got 0"]),
    ("steps = 2\nsweep.first_seed = -1", [], ["first_seed", "got -1"]),
    ("steps = 2\nsweep.chunk = 0", [], ["chunk", "got 0"]),
    ("steps = 2\nsweep.scales = [1]", [], ["[sweep] scales", "a list of vectors", "got [1]"]),
    ("steps = 2\nsweep.scales = [[1], [1, 2]]", [], ["[sweep] scales", "one shape"]),
    ("steps = 2\nsweep.scales = [['x']]", [], ["scales", "valid number", "'x'"]),
    ("steps = 2\nsweep.kind = ['a', 'c']", [], ["[sweep] kind", "'a' or 'b'", "'c'"]),
    ("steps = 2\nsweep.kind = ['a', 'a']", [], ["[sweep] kind", "'a' stands there twice"]),
    ("steps = 2\nsweep.kind = {start = 1, stop = 2, num = 2}", [], ["kind", "'a' or 'b'", "got 1"]),
    ("steps = 2\nsweep.layers = [[]]", [], ["[sweep] layers", "use [[run]]"]),
    ("steps = 2\nsweep.seeds = 4294967297", [], ["[sweep]", "below 2**32", "4294967297"]),
    ("steps = 2\nsweep.first_seed = 4294967296", [], ["below 2**32", "first_seed 4294967296"]),
    ("steps = 2\nsweep.seeds = 4000000000", [], ["at most 100,000,000 runs, got 4,000,000,000"]),
    ("steps = 2\nsweep.chunk = 1000000000", [], ["chunk", "got 1000000000"]),
    ("sweep.steps = [3000000000]", [], ["[sweep] steps", "3000000000 does not fit int32"]),
    ("steps = 2\nsweep.beta = [1e300]", [], ["[sweep] beta", "1e+300 does not fit float32"]),
    ("steps = 2\nsweep.points.beta = [1.0, nan]", [], ["[sweep] beta", "nan is no value"]),
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
    ("steps = 2\nsweep.inner = [1]", [], ["[sweep] inner", "a number, a vector", "use [[run]]"]),
    (
        "sweep.steps = [1]\n[[run]]\nname = 'r'\ninner = {width = 1}\n[sweep.inner]\nwidth = [1]",
        [],
        ["sets 'inner.width'"],
    ),
    ("steps = 2\nsweep.points = [1]", [], ["[sweep] points must be a table"]),
    ("steps = 2\nsweep.points.gama = [1]", [], ["[sweep.points]: unknown key 'gama'", "'gamma'"]),
    ("steps = 2\nsweep.points = {gamma = [1], beta = [1, 2]}", [], ["one length", "'gamma': 1, 'beta': 2"]),
    ("steps = 2\nsweep.points = {gamma = 1}", [], ["[sweep.points] gamma: a column is a list, got 1"]),
    ("steps = 2\nsweep = {gamma = [1], points = {gamma = [1]}}", [], ["gamma is an axis and a column"]),
    ("steps = 2\nsweep = {random = {num = 1}, points = {gamma = [1]}}", [], ["keep one of the two"]),
    ("steps = 2\nsweep.random = {gamma = [1]}", [], ["[sweep.random]", "num: Field required"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = 1}", [], ["{start, stop, scale} or a list", "got 1"]),
    # A draw may leave a value out, and it is a mistake all the same.
    ("steps = 2\nsweep.random = {num = 1, seed = 1, gamma = [1.0, nan]}", [], ["nan is no value"]),
    ("steps = 2\nsweep.random = {num = 1, seed = 0, gamma = [nan, 1.0]}", [], ["nan is no value"]),
    ("steps = 2\nsweep.random = {num = 1, gamma = [1.0, 1e39]}", [], ["gamma: 1e+39 does not fit float32"]),
    ("steps = 2\nsweep.random = {num = 1, scales = [[1.0], [2.0, 3.0]]}", [], ["vectors must all have one shape"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = 1}}", [], ["stop: Field required"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = 0, stop = 1, scale = 'log'}}", [], ["for 'log' above 0"]),
    ("steps = 2\nsweep.random = {num = 2, gamma = {start = -2, stop = -1}}", [], ["at least 0"]),
]


@pytest.mark.parametrize(("text", "overrides", "parts"), ERRORS)
def test_errors(refusal, text, overrides, parts):
    message = refusal(text, *overrides)
    assert [part for part in parts if part not in message] == [], message


def test_labels_and_vectors_are_axes(make):
    config = make("steps = 2\n[sweep]\nkind = ['b', 'a']\nscales = [[1, 2], [0.5, 0.25]]\n")
    assert config.sweep.axes == {"kind": ("b", "a"), "scales": ((1.0, 2.0), (0.5, 0.25))}
    assert config.sweep.num_runs == 4 and config.runs[0].values.kind == "b"
    assert make(config.to_toml().partition("\n")[2]).sweep == config.sweep  # round trip
    columns = "steps = 2\n[sweep.points]\nkind = ['b', 'a', 'b']\nscales = [[1.0], [2.0], [1.0]]\n"
    config = make(columns)
    assert config.sweep.points == {"kind": ("b", "a", "b"), "scales": ((1.0,), (2.0,), (1.0,))}
    assert make(config.to_toml().partition("\n")[2]).sweep == config.sweep
    drawn = make("steps = 2\nsweep.random = {num = 30, kind = ['a', 'b'], scales = [[1.0], [2.0]]}").sweep.points
    assert set(drawn["kind"]) == {"a", "b"} and set(drawn["scales"]) == {(1.0,), (2.0,)}
    # A field that holds a text keeps its own: hparams has a label's position.
    assert replace(config.runs[0].values, {"kind": 1, "scales": (3.0,)}).kind == "b"


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        (int, "number"), (float | None, "number"), (int | float, "number"), (Union[int, float, None], "number"),  # noqa: UP007
        (list[int], "vector"), (tuple[float, ...], "vector"), (tuple[float, float] | None, "vector"),
        (str, "label"), (Literal["a", "b"], "label"), (Literal["a"] | None, "label"),
        (bool, None), (list[str], None), (tuple[tuple[float, ...], ...], None), (dict[str, float], None),
        (int | str, None), (Literal["auto"] | int, None), (Literal[1, 2], None), (None, None), (list, None),
    ],
)  # fmt: skip
def test_each_type_of_field_has_one_kind(hint, kind):
    found = {"number": fields.is_number(hint), "vector": fields.is_vector(hint), "label": fields.is_label(hint)}
    assert [name for name, is_kind in found.items() if is_kind] == ([] if kind is None else [kind])

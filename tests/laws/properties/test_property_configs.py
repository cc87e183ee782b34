"""Configs of every kind, whole and broken: one that loads can be written and read again, one that does not says why."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import example
from hypothesis import strategies as st

from mixjax.runner.configs import ConfigError, as_json, load
from tests.laws.properties.cases import cases

ROOT = Path(__file__).parents[3]
MODULE = "property_experiment"
SOURCE = """
import dataclasses
from pathlib import Path
from typing import Literal

@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    rate: float = 0.5
    names: tuple[str, ...] = ()

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 10
    gamma: float = 0.1
    beta: float | None = None
    kind: Literal["a", "b"] = "a"
    label: str = ""
    scales: tuple[float, ...] = (1.0, 2.0)
    inner: Inner = Inner()
    layers: tuple[Inner, ...] = ()
    table: dict[str, float] = dataclasses.field(default_factory=dict)
    folder: Path = Path("data")
    flag: bool = False

    def __post_init__(self):
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma}")

def toy(config: Toy):
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Yields a folder with an experiment. The repository is the current folder, where its experiments are found."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", sys.path[:])
        patch.chdir(ROOT)
        yield folder
    sys.modules.pop(MODULE, None)


def load_or_say_why(path, overrides=()):
    """Returns the config, or None where there is a mistake.

    The message must say where the mistake is, and no other error may be raised.
    """
    try:
        return load(path, overrides)
    except ConfigError as error:
        message = str(error)
        assert str(path) in message or any(f"--set {text}" in message for text in overrides), message
        assert len(message.replace(str(path), "")) > 10, message
        return None


def in_json(values):
    return json.dumps(as_json(values), sort_keys=True)


def check_round_trip(config, folder):
    """Checks that a resolved config, written as TOML and read again, is the same config."""
    path = folder / "again.toml"
    text = config.to_toml()
    path.write_bytes(text.encode())
    again = load(path)
    assert [run.name for run in again.runs] == [run.name for run in config.runs]
    for before, after in zip(config.runs, again.runs, strict=True):  # as JSON: a NaN is not equal to itself
        assert in_json(after.values) == in_json(before.values)
    for columns in ("axes", "points"):  # in any order: TOML's tables have none
        before, after = (repr(sorted(getattr(each.sweep, columns).items())) for each in (config, again))
        assert after == before
    same = ("seeds", "first_seed", "chunk")
    assert [getattr(again.sweep, key) for key in same] == [getattr(config.sweep, key) for key in same]
    assert again.to_toml() == text


# Documents that are right.

TEXT = st.text(max_size=4)
INTEGER = st.integers(-(2**70), 2**70) | st.integers(-9, 9)
FLOAT = st.floats() | st.sampled_from([0.1, 1.0, -0.0, np.inf, 5e-324]) | st.integers(-9, 9)
POSITIVE = st.floats(0.0, 1e300) | st.integers(0, 9)
INNER = st.fixed_dictionaries({}, optional={"width": INTEGER, "rate": FLOAT, "names": st.lists(TEXT, max_size=2)})
# What fits 32 bits, and can be told apart.
WHOLE = st.integers(-(2**31), 2**31 - 1) | st.integers(-9, 9)
SINGLE = st.floats(allow_nan=False, width=32) | st.sampled_from([0.1, 1.0, np.inf, 5e-324]) | st.integers(-9, 9)
SWEPT = {
    "steps": WHOLE,
    "gamma": st.floats(0.0, 2.0**100, width=32) | st.integers(0, 9),
    "beta": SINGLE,
    "inner.width": WHOLE,
    "inner.rate": SINGLE,
    "kind": st.sampled_from(["a", "b"]),
    "label": TEXT,
    "scales": st.lists(SINGLE, min_size=2, max_size=2),
}
FIELDS = {
    "steps": INTEGER,
    "gamma": POSITIVE,
    "beta": FLOAT,
    "kind": st.sampled_from(["a", "b"]),
    "label": TEXT,
    "scales": st.lists(FLOAT, max_size=3),
    "inner": INNER,
    "layers": st.lists(INNER, max_size=2),
    "table": st.dictionaries(TEXT, FLOAT, max_size=2),
    "folder": st.sampled_from(["data", "a/b", "/tmp"]),
    "flag": st.booleans(),
}


def as_floats(value):
    """Returns what the fields of numbers make of a value: 1 and 1.0 are the same value of an axis."""
    if isinstance(value, list):
        return tuple(map(float, value))
    return value if isinstance(value, str) else float(value)


def put(table, name, value):
    """Sets a dotted name."""
    *tables, last = name.split(".")
    for key in tables:
        table = table.setdefault(key, {})
    table[last] = value


def spaced(name):
    """Draws an axis {start, stop, num, scale} whose values the field takes."""
    if name in ("steps", "inner.width"):
        return st.integers(1, 5).map(lambda n: {"start": 1, "stop": n, "num": n})
    ends = {"start": st.floats(0.25, 4), "stop": st.floats(4.5, 8), "num": st.integers(1, 4)}
    return st.fixed_dictionaries(ends, optional={"scale": st.sampled_from(["linear", "log"])})


@st.composite
def documents(draw):
    """Draws a document without mistakes, with runs, axes and points."""
    document = draw(st.fixed_dictionaries({}, optional=FIELDS))
    sweep = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "seeds": st.integers(1, 99),
                "first_seed": st.integers(0, 99),
                "chunk": st.integers(1, 9) | st.just("auto"),
                "vectorize": st.sampled_from(["vmap", "map"]),
            },
        )
    )
    swept = draw(st.lists(st.sampled_from(sorted(SWEPT)), unique=True, max_size=3))
    points = draw(st.integers(0, len(swept)))
    length = draw(st.integers(1, 3))
    for i, name in enumerate(swept):
        if i < points:
            put(sweep, f"points.{name}", draw(st.lists(SWEPT[name], min_size=length, max_size=length)))
        else:
            values = st.lists(SWEPT[name], min_size=1, max_size=3, unique_by=as_floats)
            put(sweep, name, draw(values if name in ("kind", "label", "scales") else values | spaced(name)))
    if sweep:
        document["sweep"] = sweep
    if draw(st.booleans()):
        document["run"] = [
            {"name": name} | draw(st.fixed_dictionaries({}, optional=FIELDS))
            for name in draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=3, unique=True))
        ]
        for table in document["run"]:
            for name in swept:
                first, _, rest = name.partition(".")
                table.get(first, {}).pop(rest, None) if rest else table.pop(first, None)
    return {"experiment": f"{MODULE}:toy"} | document


@cases(200, document=documents())
@example(
    document={
        "experiment": f"{MODULE}:toy",
        "run": [{"name": "a", "inner": {"names": ["x"]}}, {"name": "b"}],
        "sweep": {"inner": {"width": [1, 2]}},
    }
)
def test_a_document_that_is_right_loads_and_can_be_written_and_read_again(folder, document):
    path = folder / "right.toml"
    path.write_bytes(tomli_w.dumps(document).encode())
    config = load(path)
    assert [run.name for run in config.runs] == [table["name"] for table in document.get("run", [{"name": "run"}])]
    for run, table in zip(config.runs, document.get("run", [{}]), strict=True):
        for name, value in (document | table).items():
            if name in ("steps", "label", "flag") and name not in (*config.sweep.axes, *config.sweep.points):
                assert getattr(run.values, name) == value
    check_round_trip(config, folder)


# Documents with mistakes in their structure.

JUNK = st.sampled_from(
    [
        True, 0, -1, 3, 2.5, 1e308, -1e308, np.inf, np.nan, 2**63, 2**200, 10**12, "", "a", "auto", "nan",
        "x" * 50, "\x00", "é\u2028", [], [[]], [1, "a"], [None], [{}], {}, {"name": "a"}, {"": 1}, {"a.b": {}},
        {"start": 0, "stop": np.inf, "num": 3}, {"start": 1, "stop": 2, "num": 10**12},
        {"start": -1e308, "stop": 1e308, "num": 3}, {"start": 0.5, "stop": 2.5, "scale": "integer"},
        {"start": np.nan, "stop": 1.0, "num": 2}, {"start": 1, "stop": 2, "scale": "log", "num": 2},
        {"start": -(2.0**70), "stop": 2.0**70, "scale": "integer"}, {"num": 2, "seed": 2**70, "gamma": [1]},
    ]
).filter(lambda value: value != [None])  # fmt: skip
KEYS = st.sampled_from(
    ["experiment", "run", "sweep", "seeds", "seed", "points", "random", "num", "name", "steps", "step", "gamma", "gama",
     "inner", "inner.width", "widht", "layers", "table", "", "-1", "0", "beta", "chunk", "a.b", "é", "'", '"']
)  # fmt: skip


def places(node):
    """Yields every ``(container, key)`` of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from places(value)


@st.composite
def broken_documents(draw):
    """Draws a document and makes one to three mistakes in it."""
    document = json.loads(json.dumps(draw(documents())))
    document.setdefault("sweep", {})
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        # An earlier mistake may have left nothing to make another one in.
        if not found:
            break
        table, key = found[draw(st.integers(0, len(found) - 1))]
        kind = draw(st.sampled_from(["replace", "delete", "rename", "add"]))
        if kind == "replace" or isinstance(table, list):
            table[key] = copy.deepcopy(draw(JUNK))
        elif kind == "delete":
            del table[key]
        elif kind == "rename":
            table[draw(KEYS)] = table.pop(key)
        else:
            inside = table[key] if isinstance(table[key], dict) else table
            inside[draw(KEYS)] = copy.deepcopy(draw(JUNK))
    return document


@cases(500, document=broken_documents())
def test_a_mistake_in_a_document_is_a_config_error_that_places_it(folder, document):
    path = folder / "wrong.toml"
    path.write_bytes(tomli_w.dumps(document).encode())
    config = load_or_say_why(path)
    if config is not None:
        check_round_trip(config, folder)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("gamma = {start = 0, stop = inf, num = 3}", "stop"),
        ("gamma = {start = 0, stop = 1, num = 1000000000000}", "num"),
        ("random = {num = 1000000000000, gamma = [1]}", "num"),
        ("random = {num = 2, gamma = {start = 0, stop = inf}}", "stop"),
        ("random = {num = 2, gamma = {start = -1e308, stop = 1e308}}", "finite"),
        ("random = {num = 2, steps = {start = 0.5, stop = 2.5, scale = 'integer'}}", "integers"),
    ],
)
def test_points_that_cannot_be_laid_out(folder, sweep, message):
    path = folder / "sweep.toml"
    path.write_text(f'experiment = "{MODULE}:toy"\n[sweep]\n{sweep}')
    with pytest.raises(ConfigError, match=message):
        load(path)


# Text that is not TOML, or no longer what it was.

CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))
SMALL = [path for path in CONFIGS if path.stat().st_size < 3000]
PIECES = st.sampled_from(
    ["", "\n", "=", "[", "]", "[[", "{", "}", '"', "'", '"""', ".", ",", "#", "-", "1", "9" * 5000, "e", "inf", "nan",
     "true", "1979-05-27", "\x00", "\t", "é", "\\", "\\u", "[" * 3000, "[run]\n", "[sweep]\n", "[[run]]\n", "x", " = 1"]
)  # fmt: skip


@cases(
    500,
    source=st.sampled_from(SMALL),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), PIECES), min_size=1, max_size=4),
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
def test_an_edit_of_the_repositorys_configs_loads_or_says_why(folder, source, edits, encoding):
    text = source.read_text(encoding="utf-8")
    for place, length, piece in edits:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + length :]
    path = folder / "edited.toml"
    path.write_bytes(text.encode(encoding, errors="replace"))
    config = load_or_say_why(path)
    if config is not None:
        check_round_trip(config, folder)


@cases(150, data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_bytes_are_a_config_error(folder, data):
    path = folder / "bytes.toml"
    path.write_bytes(data)
    assert load_or_say_why(path) is None


@cases(
    100,
    experiment=st.sampled_from(
        [f"{MODULE}:Toy", f"{MODULE}:", ":toy", ":", "", f"{MODULE}.toy:toy", f".{MODULE}:toy", "..:x", "a..b:c", " :x",
         f"{MODULE}:toy:toy", f"{MODULE} :toy", "/tmp:x", "\x00:x", "é:é", "os.path:join", "json:dumps", 3, [], {}]
    )
    | st.text(max_size=6).map(lambda text: f"{MODULE}:{text}")
    | st.text(max_size=6).map(lambda text: f"no_such_{text}:toy"),
)  # fmt: skip
def test_an_experiment_that_is_none_is_a_config_error(folder, experiment):
    path = folder / "experiment.toml"
    path.write_bytes(tomli_w.dumps({"experiment": experiment}).encode())
    assert load_or_say_why(path) is None


# Overrides.

KEY = st.lists(KEYS | st.integers(-2, 3).map(str) | st.text(max_size=2), min_size=1, max_size=4).map(".".join)
VALUE = (
    JUNK.map(lambda value: tomli_w.dumps({"x": value}).partition("=")[2])
    | PIECES
    | st.text(max_size=8)
    | st.just("\udcff")  # how Python passes on an argument that is no UTF-8
)


@cases(
    500,
    overrides=st.lists(st.tuples(KEY, VALUE).map("=".join) | st.text(max_size=8), min_size=1, max_size=3),
    source=st.sampled_from(["", "steps = 3\n[[run]]\nname = 'r'\nkind = 'b'\n[sweep]\ngamma = [1, 2]\n"]),
)
def test_any_override_applies_or_says_why(folder, overrides, source):
    path = folder / "base.toml"
    path.write_text(f'experiment = "{MODULE}:toy"\n{source}')
    config = load_or_say_why(path, overrides)
    if config is not None:
        check_round_trip(config, folder)


@cases(100, name=st.text(max_size=8).filter(lambda name: not {"/", "\x00"} & set(name)))
def test_a_file_that_is_not_there_is_named(folder, name):
    path = folder / f"absent {name}.toml"
    with pytest.raises(FileNotFoundError, match="no such config file"):
        load(path)

"""The fields of a dataclass: their names and types, values as JSON, and numbers replaced."""

import dataclasses

import pytest

from mixjax.runner.configs import ConfigError, as_json, replace
from mixjax.runner.configs.fields import check_keys, dotted_fields, is_dataclass, is_number, validate


@dataclasses.dataclass(frozen=True)
class Rule:
    gamma: float = 0.1
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 10
    beta: float | None = None
    rule: Rule = Rule()
    layers: tuple[Rule, ...] = ()
    table: dict[str, float] = dataclasses.field(default_factory=dict)


def test_keys_are_checked_in_nested_tables_and_lists_of_them():
    check_keys({"steps": 1, "rule": {"gamma": 1}, "layers": [{"gamma": 2}], "table": {"any": 1.0}}, (Toy,), "here")
    for table, message in (
        ({"stesp": 1}, r"^here: unknown key 'stesp'; did you mean 'steps'\?$"),
        ({"rule": {"gama": 1}}, r"^here: rule: unknown key 'gama'; did you mean 'gamma'\?$"),
        ({"layers": [{}, {"zzz": 1}]}, r"^here: layers: unknown key 'zzz'; known: gamma, names$"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_keys(table, (Toy,), "here")


def test_kinds_of_fields():
    assert all(map(is_number, (int, float, float | None, int | float)))
    assert not any(map(is_number, (bool, str, Rule, tuple[float, ...])))
    assert is_dataclass(Rule) and not is_dataclass(int) and not is_dataclass(Rule())


def test_dotted_fields_open_dataclasses_only():
    table = {"steps": {"start": 1, "stop": 2}, "rule": {"gamma": [1, 2]}, "table": {"a": 1.0}}
    assert dotted_fields(table, Toy) == {
        "steps": {"start": 1, "stop": 2},
        "rule.gamma": [1, 2],
        "table": {"a": 1.0},
    }


def test_values_are_strict_but_for_tomls_types():
    toy = validate(Toy, {"beta": 1, "layers": [{"names": ["x"]}]}, "here")
    assert isinstance(toy.beta, float) and toy.layers == (Rule(names=("x",)),)
    message = r"^here: steps: Input should be a valid integer, got '3'; layers\.0\.gamma: "
    with pytest.raises(ConfigError, match=message):
        validate(Toy, {"steps": "3", "layers": [{"gamma": "x"}]}, "here")


def test_as_json_leaves_out_none():
    assert as_json(Toy(rule=Rule(names=("x",)))) == {
        "steps": 10,
        "rule": {"gamma": 0.1, "names": ["x"]},
        "layers": [],
        "table": {},
    }


def test_replace_keeps_the_rest():
    assert replace(Toy(steps=3), {"rule.gamma": 0.5}) == Toy(steps=3, rule=Rule(gamma=0.5))
    with pytest.raises(TypeError, match="gama"):
        replace(Toy(), {"rule.gama": 0.5})

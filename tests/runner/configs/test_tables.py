"""Nested tables: looked up, flattened, merged, and split into what is shared and what is not."""

import math

from mixjax.runner.configs.tables import at, dotted, merge, nest, own, shared


def test_nest_makes_what_at_finds():
    assert nest(["a", "b"], 3) == {"a": {"b": 3}} and at(nest(["a", "b"], 3), ["a", "b"]) == 3
    assert nest(["run", "0", "steps"], 3) == {"run": [{"steps": 3}]}
    assert nest(["0"], 3) == {}  # a document is a table
    assert at({"a": {"b": 3}}, ["a", "c"]) is None and at({"a": 3}, ["a", "b"]) is None


def test_dotted():
    table = {"steps": 5, "rule": {"gamma": 0.1, "inner": {"x": [1]}}, "none": {}}
    assert dotted(table) == {"steps": 5, "rule.gamma": 0.1, "rule.inner.x": [1]}
    assert dotted(table, lambda name: name == "rule.inner")["rule.inner"] == {"x": [1]}


def test_merge_replaces_values_and_joins_tables():
    base, over = {"a": 1, "b": {"x": 1, "y": 2}, "c": {"z": 3}}, {"b": {"y": 5}, "c": 4, "d": 6}
    assert merge(base, over) == {"a": 1, "b": {"x": 1, "y": 5}, "c": 4, "d": 6}
    assert base == {"a": 1, "b": {"x": 1, "y": 2}, "c": {"z": 3}}  # as it was


def test_shared_and_own_values_give_the_tables_again():
    tables = [{"a": 1, "b": {"x": 1, "y": math.nan}, "c": 2}, {"a": 1, "b": {"x": 2, "y": math.nan}, "c": 3}]
    common = shared(tables)
    assert repr(common) == "{'a': 1, 'b': {'y': nan}}"
    assert [own(table, common) for table in tables] == [{"b": {"x": 1}, "c": 2}, {"b": {"x": 2}, "c": 3}]
    for table in tables:
        assert repr(sorted(merge(common, own(table, common))["b"].items())) == repr(sorted(table["b"].items()))

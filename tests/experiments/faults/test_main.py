"""The table of faults, which `python -m experiments.faults` makes."""

from experiments.faults import __main__ as table
from experiments.faults.command import Row


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "TABLE", tmp_path / "RESULTS.md")
    table.write([Row("kill", 3, "a | b", "nothing")])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| kill | 3 | a / b | nothing |" in text and "JAX" in text

"""The table of faults, which `python -m experiments.faults` makes."""

from experiments.faults import __main__ as table
from experiments.faults.command import Row


def test_each_part_of_the_page_is_written_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "TABLE", tmp_path / "RESULTS.md")
    table.write("live", [Row("kill", 3, "a | b", "nothing")])
    table.write("sweep", [Row("full disk", 1, "stopped", "nothing")])
    table.write("live", [Row("kill", 4, "a | b", "nothing")])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| kill | 4 | a / b | nothing |" in text and "JAX" in text and text.count("| kill |") == 1
    assert text.index("## A sweep") < text.index("| full disk | 1 |") < text.index("## A live mix")


def test_the_page_has_its_parts_in_order():
    sections = table.sections_of(table.TABLE.read_text())
    assert list(sections) == list(table.PARTS.values())
    assert "orbax" not in sections["A sweep"] and "SIGKILL" in sections["A live mix"]

"""The parts of the fault table that need no process of their own; `python -m experiments.faults` makes the table."""

import numpy as np
import pytest

from experiments.faults import __main__ as table
from experiments.faults.command import Row, same
from experiments.faults.inside import nan_runs
from experiments.faults.outside import damage


def test_equal_is_equal_bit_by_bit():
    a = {"x": np.array([0.0, np.nan], np.float32)}
    assert same(a, {"x": np.array([0.0, np.nan], np.float32)})
    assert not same(a, {"x": np.array([-0.0, np.nan], np.float32)})
    assert not same(a, {"x": np.array([0.0, np.nan])}) and not same(a, {})


@pytest.mark.parametrize("how", ["cut", "altered", "emptied", "deleted"])
def test_damage_is_done(tmp_path, how):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    damage(path, how)
    assert not path.exists() if how == "deleted" else path.read_bytes() != b"0123456789"


def test_diverging_runs_leave_their_neighbours_alone():
    row = nan_runs()
    assert (row.times, row.lost) == (200, "nothing")


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "TABLE", tmp_path / "RESULTS.md")
    table.write([Row("kill", 3, "a | b", "nothing")])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| kill | 3 | a / b | nothing |" in text and "JAX" in text

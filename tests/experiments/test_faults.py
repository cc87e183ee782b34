"""The parts of the fault table that need no process of their own; `python -m experiments.faults` makes the table."""

import numpy as np
import pytest

from experiments import faults


def test_equal_is_equal_bit_by_bit():
    a = {"x": np.array([0.0, np.nan], np.float32)}
    assert faults.same(a, {"x": np.array([0.0, np.nan], np.float32)})
    assert not faults.same(a, {"x": np.array([-0.0, np.nan], np.float32)})
    assert not faults.same(a, {"x": np.array([0.0, np.nan])}) and not faults.same(a, {})


@pytest.mark.parametrize("how", ["cut", "altered", "emptied", "deleted"])
def test_damage_is_done(tmp_path, how):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    faults.damage(path, how)
    assert not path.exists() if how == "deleted" else path.read_bytes() != b"0123456789"


def test_diverging_runs_leave_their_neighbours_alone():
    row = faults.nan_runs()
    assert (row.times, row.lost) == (200, "nothing")


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "TABLE", tmp_path / "FAULTS.md")
    faults.write([faults.Row("kill", 3, "a | b", "nothing")])
    text = (tmp_path / "FAULTS.md").read_text()
    assert "| kill | 3 | a / b | nothing |" in text and "JAX" in text

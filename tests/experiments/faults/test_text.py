"""Kills of the command that trains a language model on a live mix; `python -m experiments.faults text` does thirty."""

import numpy as np
import pytest
import xarray

from experiments.faults.text import TextJudge

# A run of seconds, with a checkpoint every fourth step.
TINY = [
    'domains=["c", "reference"]',
    "length=8",
    "batch_size=4",
    "num_steps=40",
    "layers=1",
    "width=8",
    "heads=2",
    "probe_every=3",
    "probe_size=3",
    "eval_every=10",
    "eval_size=2",
    "save_every=4",
    "sweep.seeds=2",
    'sweep.method=["erma_va"]',
]


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_bit_by_bit_like_one_that_was_not(tmp_path):
    row = TextJudge(tmp_path, TINY).kill(5)
    assert (row.lost, row.times) == ("nothing", 5), row


def test_a_difference_is_seen(tmp_path, monkeypatch):
    judge = object.__new__(TextJudge)
    judge.whole = {"loss": np.zeros(2)}
    judge.ledgers = {"a": xarray.Dataset({"counts": ("step", [1, 2])}), "b": xarray.Dataset()}
    found = {"a": xarray.Dataset({"counts": ("step", [1, 3])})}
    monkeypatch.setattr("experiments.faults.text.arrays", lambda out: {"loss": np.array([0.0, 1e-9])})
    monkeypatch.setattr("experiments.faults.text._ledgers", lambda out: found)
    assert judge._lost(tmp_path) == ["the metrics differ", "the ledger of a differs", "the ledger of b differs"]

"""Kills of commands whose runs are cut in time; `python -m experiments.faults cut` does thirty of each."""

import pytest

from experiments.faults.cut import MnistJudge, SegmentationJudge, make_cases
from mixjax.data import brats


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_bit_by_bit_like_one_that_was_not(tmp_path):
    row = MnistJudge(tmp_path, ["sweep.seeds=2", "sweep.learning_rate=[0.3]", "num_steps=20", "hidden=6"]).row(2)
    assert (row.lost, row.times) == ("nothing", 2), row
    assert "saving took" in row.happened and row.fault == "SIGKILL of `mnist.toml`, on small digits"


def test_cases_are_as_the_challenge_hands_them_out(tmp_path):
    pytest.importorskip("nibabel")
    make_cases(tmp_path)
    cases = brats.load(tmp_path, grid=16)
    assert cases.centres.tolist() == [0, 0, 0, 1, 1, 1] and cases.labels.max() == 3
    assert SegmentationJudge.config.exists() and MnistJudge.config.exists()

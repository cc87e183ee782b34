"""Damage to files, and the verdict on several trials."""

import pytest

from experiments.faults.outside import damage, worst


@pytest.mark.parametrize("how", ["cut", "altered", "emptied", "deleted"])
def test_damage_is_done(tmp_path, how):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    damage(path, how)
    assert not path.exists() if how == "deleted" else path.read_bytes() != b"0123456789"


def test_the_worst_of_several_trials_is_told():
    assert worst(["nothing", "nothing"]) == worst([]) == "nothing"
    assert worst(["nothing", "b was lost", "a was lost", "b was lost"]) == "a was lost; b was lost"

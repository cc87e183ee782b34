"""Tests the pairs of rules: their points and their mistakes."""

import numpy as np
import pytest

from experiments.table import pairs as pairs_lib
from experiments.table.pairs import Pair
from experiments.table.problems import Gaussians, Groups
from experiments.table.table import Table, load

TINY = {"batch_size": 8, "num_steps": 8, "probe_every": 2, "warmup": 0.0, "held_out": 6, "validation": 10}


def test_a_pair_without_a_grid_tries_as_many_learning_rates_between_the_same_ends():
    compared = [Pair("plain"), Pair("robust", loss="dro", grid={"beta": (0.1, 10.0)})]
    columns = pairs_lib.points(compared, (0.25, 1.0))
    assert columns["pair"] == ["plain"] * 4 + ["robust"] * 4
    np.testing.assert_allclose(columns["learning_rate"], [0.25, 0.397, 0.63, 1.0, 0.25, 1.0, 0.25, 1.0], rtol=1e-2)
    np.testing.assert_array_equal(columns["beta"], [np.nan] * 4 + [0.1, 0.1, 10.0, 10.0])


def test_mistakes_in_a_config_are_named():
    with pytest.raises(ValueError, match="'x': no rule 'ermaa'"):
        Pair("x", loss="ermaa")
    with pytest.raises(ValueError, match="'x': neither rule has beta; they have gamma1, gamma2"):
        Pair("x", loss="erma", grid={"beta": (1.0,)})
    with pytest.raises(ValueError, match="'x': all lists of its grid must be equally long"):
        Pair("x", loss="erma", grid={"gamma1": (1.0,), "gamma2": (1.0, 2.0)})
    uneven = [Pair("x", loss="dro", grid={"beta": (1.0,)}), Pair("y", loss="exp3", grid={"decay": (0.5, 0.9)})]
    with pytest.raises(ValueError, match=r"equally long, or some get more tries, got \[1, 2\]"):
        pairs_lib.points(uneven, (1.0,))
    with pytest.raises(ValueError, match="needs one of gaussians, images, groups, got none"):
        load(Table((Pair("x"),)))
    with pytest.raises(ValueError, match="got gaussians and groups"):
        load(Table((Pair("x"),), gaussians=Gaussians(), groups=Groups()))

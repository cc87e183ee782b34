"""Which run has what, by hand; tests/laws/properties/test_property_runs.py draws the cases."""

import numpy as np
import pytest

from mixjax.sweeps.runs import Runs, pieces


def test_runs_that_share_their_labels_stand_together():
    runs = Runs({"x": [0.5, 1.5]}, {"rule": ["b", "a"], "k": [7, 8]}, seeds=2, first_seed=3)
    assert runs.dims == ("x", "point", "seed") and runs.shape == (2, 2, 2) and runs.num == 8
    assert runs.batched["k"].tolist() == [7] * 4 + [8] * 4 and runs.batched["x"].tolist() == [0.5, 0.5, 1.5, 1.5] * 2
    assert runs.seeds.tolist() == [3, 4] * 4 and runs.largest_group == 4
    assert runs.label_names == {"rule": ["b", "a"]}
    part = runs.part(5, 7)
    assert part.seeds.tolist() == [4, 3] and part.hparams["x"].tolist() == [0.5, 1.5] and part.labels == {"rule": 1}


def test_chunks_end_at_labels_and_at_runs_that_are_done():
    runs = Runs({}, {"rule": ["a", "b"]}, seeds=5, first_seed=0)
    assert runs.chunks(np.zeros(10, bool), 3) == [(0, 3), (3, 5), (5, 8), (8, 10)]
    assert runs.chunks(np.arange(10) == 2, 4) == [(0, 2), (3, 5), (5, 9), (9, 10)]
    assert runs.chunks(np.ones(10, bool), 4) == []


def test_the_result_is_in_the_order_of_the_arguments():
    runs = Runs({}, {"rule": ["b", "a", "b"]}, seeds=1, first_seed=0)
    chunks = {0: {"x": np.array([10, 11])}, 2: {"x": np.array([12])}}
    assert runs.covered({2: chunks[2]}).tolist() == [False, False, True]
    assert runs.joined("x", chunks).tolist() == [[10], [12], [11]]


def test_pieces_cover_a_range():
    assert pieces(3, 3, 2) == [] and pieces(3, 8, 2) == [(3, 5), (5, 7), (7, 8)]


def test_seeds_have_32_bits():
    assert Runs({}, {}, seeds=1, first_seed=2**32 - 1).seeds.tolist() == [2**32 - 1]
    with pytest.raises(ValueError, match="first_seed"):
        Runs({}, {}, seeds=2, first_seed=2**32 - 1)


@pytest.mark.parametrize("axes", [[1, 2], "gamma", {3: [1.0]}])
def test_axes_and_points_are_dictionaries_of_named_values(axes):
    for arguments, name in (((axes, {}), "axes"), (({}, axes), "points")):
        with pytest.raises(TypeError, match=f"{name} must be a dictionary from names to lists of values, got"):
            Runs(*arguments, seeds=2, first_seed=0)


@pytest.mark.parametrize("seeds", [1.5, "3", None, [1, 2]])
def test_a_number_of_seeds_is_an_integer(seeds):
    with pytest.raises(TypeError, match="seeds and first_seed must be integers, got"):
        Runs({}, {}, seeds=seeds, first_seed=0)

"""Tests what counts as the data sets of domains, and how many examples they have."""

import grain
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live import Plan
from mixjax.live.datasets import is_arrays, sizes_of


def test_sizes_are_those_of_the_data_sets():
    datasets = {
        "a": np.ones((3, 2)),
        "b": {"x": np.ones(4), "y": np.ones(4)},
        "c": [1, 2],
        "d": grain.MapDataset.range(6),
    }
    assert sizes_of(datasets) == {"a": 3, "b": 4, "c": 2, "d": 6}
    assert sizes_of([np.ones(3), np.ones(2)]) == {"0": 3, "1": 2}
    with pytest.raises(ValueError, match=r"the arrays of domain 'b' have different lengths: \[3, 4\]"):
        sizes_of({"b": {"x": np.ones(4), "y": np.ones(3)}})


def test_only_arrays_take_the_path_of_arrays():
    assert is_arrays({"x": np.ones(2), "y": (np.ones(2),)})
    assert not is_arrays([1, 2]) and not is_arrays({}) and not is_arrays(grain.MapDataset.range(3))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (iter([1]), r"has no len\(\): list_iterator"),
        (grain.MapDataset.range(3).to_iter_dataset(), r"has no len\(\): PrefetchIterDataset"),
        (np.float32(3), r"has no len\(\): float32"),
        (grain.MapDataset.range(3).repeat(), r"is repeated without end: leave out .repeat\(\)"),
        # The length of the dictionary would be that of its entries.
        (
            {"x": [1, 2, 3], "y": [1, 2, 3]},
            r"is a dictionary, which .* NumPy arrays, got \['list'\]: convert them by np.asarray",
        ),
        (
            {"x": jnp.ones(3), "y": np.ones(3)},
            r"is a dictionary, which .* NumPy arrays, got \['ArrayImpl', 'ndarray'\]",
        ),
    ],
)
def test_what_is_no_data_set_is_named(dataset, message):
    with pytest.raises((TypeError, ValueError), match="the data set of domain 'b' " + message):
        sizes_of({"a": [1], "b": dataset})


@pytest.mark.parametrize("datasets", [np.ones((3, 2)), grain.MapDataset.range(10), "ab", Plan([2], 1, [1.0])])
def test_one_data_set_is_not_taken_for_one_a_domain(datasets):
    with pytest.raises(TypeError, match=r"one data set for each domain, got \w+\.$"):
        sizes_of(datasets)

"""A sweep as one object: it refuses what cannot be right, and counts its runs."""

import dataclasses
import inspect

import pytest

import mixjax
from mixjax.sweeps import Labels, Sweep


def train(key, hparams, data):
    return {"x": hparams["a"]}


def test_it_takes_what_the_sweep_takes():
    own = {name: one.default for name, one in inspect.signature(Sweep).parameters.items()}
    taken = {name: one.default for name, one in inspect.signature(mixjax.sweep).parameters.items()}
    assert own == {name: taken[name] for name in own}
    assert taken.keys() - own.keys() == {"callback", "tracker", "checkpoint", "identity"}


@pytest.mark.parametrize(
    ("fields", "num"),
    [
        ({"seeds": 3}, 3),
        ({"seeds": 3, "axes": {"a": [1, 2], "b": ["x", "y"]}}, 12),
        ({"seeds": 3, "points": {"a": [1, 2, 3], "b": Labels(["x"] * 3, ["x"])}}, 9),
        ({"seeds": 2, "axes": {"a": range(4)}, "points": {"b": [0.0, 1.0]}}, 16),
    ],
)
def test_it_counts_its_runs(fields, num):
    assert Sweep(train, **fields).num_runs == num


def test_it_refuses_what_no_sweep_takes():
    for fields in (
        {"chunk": 0},
        {"chunk": 2.0},
        {"chunk": 10**12},
        {"chunk": True},
        {"chunk": "big"},
        {"vectorize": "pmap"},
        {"vectorize": 0},
        {"vectorize": 2.0},
        {"vectorize": True},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(fields))} must be"):
            Sweep(train, seeds=1, **fields)
    with pytest.raises(TypeError, match="must be hashable"):
        Sweep([train], seeds=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sweep(train, seeds=1).seeds = 2
    with pytest.raises(TypeError):
        Sweep(train, 5)  # all but train by name

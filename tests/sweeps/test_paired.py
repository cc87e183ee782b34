"""Tests sweeps whose points have seeds of their own: each run has the noise of its seed, however it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import HostLoop, Segments, Sweep
from mixjax.sweeps.checkpoints import ChangedError
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.search import search


def train(key, hparams, data):
    return {"noise": jax.random.normal(key), "sum": hparams["k"] + hparams.get("rule", 0)}


def init(key, hparams, data):
    return {"noise": jax.random.normal(key), "sum": hparams["k"] + hparams.get("rule", 0)}


def advance(carry, hparams, data):
    return carry, jax.tree.map(lambda x: x[None], carry)


def on_host(run):
    # The labels of a HostLoop are the strings themselves.
    found = train(jax.random.key(run.seed), {"k": run.hparams["k"]}, None)
    return found | {"sum": found["sum"] + (run.hparams.get("rule") == "a")}


WAYS = {
    "map": (train, {"vectorize": "map"}),
    "vmap": (train, {"vectorize": "vmap"}),
    "chunks of 2": (train, {"chunk": 2}),
    "segments": (Segments(init, advance, num=1), {}),
    "host": (HostLoop(on_host), {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_run_has_the_noise_of_its_own_seed(way):
    """Runs are sorted by their labels when they are computed, and their seeds must go with them."""
    function, how = WAYS[way]
    points = {"rule": ["b", "a", "b"], "k": [0.0, 1.0, 2.0]}
    found = mixjax.sweep(function, seeds=2, first_seed=5, points=points, paired=False, **how)
    assert found.noise.dims[:2] == ("point", "seed") and found.seed.values.tolist() == [0, 1]
    expected = [float(jax.random.normal(jax.random.key(seed))) for seed in range(5, 11)]
    np.testing.assert_allclose(found.noise.values.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(found["sum"].values.ravel(), [0.0, 0.0, 2.0, 2.0, 2.0, 2.0])


def test_the_noise_of_points_is_independent():
    points = {"k": np.arange(1000.0)}
    same, own = (mixjax.sweep(train, seeds=1, points=points, paired=paired).noise.values for paired in (True, False))
    assert np.ptp(same) == 0.0
    # The mean of independent noise of variance 1; five standard errors.
    assert abs(own.mean()) < 5 / np.sqrt(1000) and own.std() == pytest.approx(1.0, abs=0.12)
    assert len(np.unique(own)) == 1000


@pytest.mark.parametrize("function", [train, HostLoop(on_host)])
def test_a_folder_tells_paired_from_other_seeds(function, tmp_path):
    arguments = {"seeds": 2, "axes": {"k": [0.0, 1.0]}, "checkpoint": tmp_path}
    first = mixjax.sweep(function, paired=False, **arguments)
    again = mixjax.sweep(function, paired=False, **arguments)
    assert again.attrs["num_computed"] == 0
    np.testing.assert_array_equal(first.noise, again.noise)
    with pytest.raises(ChangedError, match="paired: false, now null"):
        mixjax.sweep(function, **arguments)


def test_axes_and_points_are_numbered_together():
    runs = Runs({"a": [1.0, 2.0]}, {"b": [1.0, 2.0, 3.0]}, seeds=2, first_seed=7, paired=False)
    assert runs.seeds.tolist() == list(range(7, 19)) and runs.shape == (2, 3, 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"paired": "no"}, TypeError, "paired must be True or False, got 'no'"),
        ({"paired": None}, TypeError, "paired must be True or False, got None"),
        ({"first_seed": 2**32 - 3}, ValueError, r"first_seed=4294967293, seeds=2, a seed for each of 4 runs"),
    ],
)
def test_what_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        mixjax.sweep(train, **{"seeds": 2, "axes": {"k": [0.0, 1.0]}, "paired": False} | changes)


def test_a_search_compares_over_the_same_seeds():
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="the search compares points over the same seeds"):
        search(
            Sweep(train, seeds=1, paired=False), {"k": ("linear", 0.0, 1.0)}, lambda result: result.noise, num_trials=1
        )


def test_a_sweep_of_one_point_is_the_same_either_way():
    paired, own = (mixjax.sweep(train, seeds=3, axes={"k": jnp.ones(1)}, paired=paired) for paired in (True, False))
    np.testing.assert_array_equal(paired.noise, own.noise)

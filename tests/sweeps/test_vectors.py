"""Hyperparameters that are vectors: what train gets, and what the result, the chunks and the files keep of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Sweep, checkpoints
from mixjax.sweeps.search import search

MIXTURES = [[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]]
TENSORS = np.arange(24.0).reshape(2, 3, 4)


def train(key, hparams, data):
    assert hparams["mixture"].shape == (2,) and hparams["mixture"].dtype == jnp.float32
    return {"error": hparams["mixture"] @ data + jax.random.normal(key), "mix": hparams["mixture"]}


def sweep(**arguments):
    return mixjax.sweep(train, **{"seeds": 3, "data": jnp.array([1.0, 2.0]), **arguments})


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("chunk", [2, "auto"])
@pytest.mark.parametrize("kind", ["axes", "points"])
def test_each_run_gets_its_vector_and_the_result_has_its_numbers(vectorize, chunk, kind):
    result = sweep(**{kind: {"mixture": MIXTURES}}, vectorize=vectorize, chunk=chunk)
    dim = "mixture" if kind == "axes" else "point"
    assert result.error.dims == (dim, "seed") and result.mixture.dims == (dim, "mixture_0")
    np.testing.assert_array_equal(result.mixture, MIXTURES)
    np.testing.assert_allclose(result.mix.sel(seed=2), MIXTURES, rtol=1e-6)
    noise = jax.random.normal(jax.random.key(1))
    np.testing.assert_allclose(result.error.sel(seed=1), noise + np.array(MIXTURES) @ [1.0, 2.0], rtol=1e-6)
    # A metric alone still tells the vectors apart, by a text that holds all of their digits.
    assert result.error.isel({dim: 1}).mixture_label == "[0.9, 0.1]"


def test_an_axis_of_vectors_is_selected_and_aligned_by_text():
    result = sweep(axes={"mixture": MIXTURES, "scale": [1.0, 2.0]})
    chosen = result.sel(mixture_label="[0.9, 0.1]", scale=2.0)
    assert chosen.mixture.values.tolist() == [0.9, 0.1]
    np.testing.assert_array_equal(chosen.error, result.error.isel(mixture=1, scale=1))
    assert not (result.error - result.error.isel(mixture=[2, 0, 1])).any()


def test_the_entries_of_vectors_have_labels():
    for arguments in ({"axes": {"mixture": MIXTURES}}, {"points": {"mixture": MIXTURES}}):
        result = sweep(coords={"mixture_0": ["cat", "dog"]}, **arguments)
        assert result.mixture.sel(mixture_0="dog").values.tolist() == [0.5, 0.1, 1.0]
        with pytest.raises(ValueError, match="coords of 'mixture_0' must be 2 labels"):
            sweep(coords={"mixture_0": ["cat"]}, **arguments)


def test_vectors_stand_beside_labels_and_have_any_shape():
    def train(key, hparams, data):
        return {"x": hparams["tensor"].sum() * hparams["scale"], "position": hparams["rule"]}

    points = {
        "rule": ["b", "a", "b", "a"],
        "tensor": np.concatenate([TENSORS, -TENSORS]),
        "scale": [1.0, 2.0, 3.0, 4],
    }
    for vectorize in ("map", "vmap"):
        result = mixjax.sweep(train, seeds=2, points=points, axes={"own": TENSORS}, vectorize=vectorize)
        assert result.tensor.dims == ("point", "tensor_0", "tensor_1") and result.own.dims == ("own", "own_0", "own_1")
        expected = points["tensor"].sum((1, 2)) * points["scale"]
        np.testing.assert_allclose(result.x, np.broadcast_to(expected[:, None], (2, 4, 2)))
        assert result.position[0, :, 0].values.tolist() == [0, 1, 0, 1]


def test_integers_and_booleans_keep_their_types():
    def train(key, hparams, data):
        assert hparams["k"].dtype == jnp.int32 and hparams["on"].dtype == bool and hparams["mixed"].dtype == jnp.float32
        return {"sum": hparams["k"].sum() + hparams["on"].sum() + hparams["mixed"].sum()}

    result = mixjax.sweep(train, seeds=1, axes={"k": [(1, 2)], "on": [[True, False]], "mixed": [[1, 0.5]]})
    assert result["sum"].values.ravel().tolist() == [5.5]


def test_more_vectors_compile_nothing(tmp_path):
    sweep(axes={"mixture": MIXTURES})
    assert sweep(axes={"mixture": [*MIXTURES, [0.2, 0.8]]}).attrs["compile_seconds"] < 0.1


def test_chunks_are_found_again_and_other_vectors_are_refused(tmp_path):
    first = sweep(axes={"mixture": MIXTURES}, checkpoint=tmp_path)
    again = sweep(axes={"mixture": np.array(MIXTURES)}, checkpoint=tmp_path)
    assert again.attrs["num_computed"] == 0
    np.testing.assert_array_equal(again.error, first.error)
    with pytest.raises(checkpoints.ChangedError, match="mixture"):
        sweep(axes={"mixture": [[0.5, 0.5], [0.8, 0.2], [0.0, 1.0]]}, checkpoint=tmp_path)


def test_a_dry_run_and_random_points():
    points = mixjax.sweeps.random_points({"mixture": ("simplex", 2)}, num=4)
    assert mixjax.sweeps.dry_run(Sweep(train, seeds=2, points=points, data=jnp.ones(2))).num_runs == 8
    np.testing.assert_allclose(sweep(points=points, seeds=1).mix[:, 0], points["mixture"], rtol=1e-6)


@pytest.mark.parametrize("choices", [("simplex", 2), MIXTURES])
def test_a_search_over_vectors_is_refused(choices):
    with pytest.raises(ValueError, match="mixture: optuna proposes numbers and labels, no vectors"):
        search(Sweep(train, seeds=1), {"mixture": choices}, lambda result: result.error.mean("seed"), num_trials=1)

"""Metrics before anything runs: their shapes and the names of their dimensions."""

import jax
import jax.numpy as jnp
import pytest

from mixjax.sweeps import Segments
from mixjax.sweeps.metrics import metric_dims, segment_shapes, time_axes


def train(key, hparams, data):
    return {"x": jnp.zeros((2, 3)), "loss": jnp.float32(0.0)}


def dims_of(train, taken=(), dims=None, coords=None):
    return metric_dims(train, {}, None, taken=taken, dims=dims or {}, coords=coords or {})


def test_dimensions_without_a_name_get_one():
    assert dims_of(train) == {"x": ("x_0", "x_1"), "loss": ()}
    assert dims_of(train, dims={"x": ("step", "method")})["x"] == ("step", "method")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"dims": {"x": ("a",)}}, "'x' has shape"),
        ({"dims": {"y": ()}}, r"not return: \['y'\]"),
        ({"dims": {"x": "ab"}}, "must be a tuple"),
        ({"dims": {"x": ("a", "b")}, "coords": {"b": range(4)}}, "3 entries along 'b'.* 4"),
        ({"dims": {"x": ("a", "seed")}, "taken": ["seed"]}, r"\['seed'\] twice"),
        ({"dims": {"x": ("loss", "b")}}, r"\['loss'\] twice"),
    ],
)
def test_names_that_do_not_fit_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        dims_of(train, **arguments)


def test_segments_are_joined_along_time():
    def advance(carry, hparams, data):
        return carry + 1, {"x": jnp.zeros((2, 3))}

    cut = Segments(lambda key, hparams, data: jnp.int32(0), advance, 4)
    assert dims_of(cut, dims={"x": ("t", "i")}, coords={"t": range(8)}) == {"x": ("t", "i")}
    shapes = segment_shapes(cut, {}, None)
    assert shapes.before == shapes.after == jax.ShapeDtypeStruct((), jnp.int32)
    assert shapes.metrics["x"].shape == (2, 3)
    assert time_axes(cut, {"x": ("t", "i")}) == {"x": 0}


def test_time_of_a_function_has_its_name():
    dims = {"a": ("method", "step"), "b": ("time", "step"), "c": ("method",), "d": ()}
    assert time_axes(train, dims) == {"a": 1, "b": 0, "c": None, "d": None}


def test_the_end_of_a_run_has_no_time_but_by_name():
    cut = Segments(
        lambda key, hparams, data: jnp.int32(0),
        lambda carry, hparams, data: (carry, {"x": jnp.zeros((2, 3))}),
        4,
        finish=lambda carry, hparams, data: {"y": carry, "z": jnp.zeros((5, 6))},
    )
    dims = dims_of(cut, dims={"z": ("a", "step")})
    assert dims == {"x": ("x_0", "x_1"), "y": (), "z": ("a", "step")}
    assert time_axes(cut, dims, {}, None) == {"x": 0, "y": None, "z": 1}


def test_no_metrics_are_an_error():
    with pytest.raises(ValueError, match="no metric"):
        dims_of(lambda key, hparams, data: {})

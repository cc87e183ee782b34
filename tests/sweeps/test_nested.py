"""Nested metrics have flat names everywhere, and what is no metric is refused by name before anything is computed."""

import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments
from mixjax.sweeps.nested import flat_metrics, with_flat_metrics


def train(key, hparams, data):
    x = hparams["a"] * jnp.arange(2.0)
    return {"loss": {"train": x, "test": {"in": x + 1, "out": x + 2}}, "top.1": x[0], "norm": jnp.linalg.norm(x)}


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_nested_metrics_have_flat_names_in_the_result(vectorize, tmp_path):
    dims = {"loss.train": ("domain",), "loss.test.in": ("domain",)}
    records, arguments = [], {"seeds": 2, "axes": {"a": [1.0, 2.0]}, "dims": dims, "vectorize": vectorize}
    result = mixjax.sweep(train, tracker=records.append, checkpoint=tmp_path, **arguments)
    assert set(result.data_vars) == {"loss.train", "loss.test.in", "loss.test.out", "top.1", "norm"}
    assert result["loss.test.in"].dims == ("a", "seed", "domain")
    np.testing.assert_array_equal(result["loss.test.in"].sel(a=2.0, seed=1), [1.0, 3.0])
    assert records[-1]["metrics"]["loss.train"] == 0.75
    again = mixjax.sweep(train, checkpoint=tmp_path, **arguments)
    assert again.attrs["num_computed"] == 0 and again.equals(result)


def segments(stop=None):
    def advance(carry, hparams, data):
        x = carry * jnp.arange(1.0, 3.0)
        return carry * 2, {"loss": {"b": x, "a": -x}, "x": x}

    return Segments(lambda key, hparams, data: jnp.float32(1.0), advance, 4, stop)


def test_segments_are_joined_and_stopped_by_nested_metrics(tmp_path):
    def stop(metrics):
        assert metrics.keys() == {"loss", "x"} and metrics["loss"].keys() == {"a", "b"}
        return (metrics["loss"]["b"] > 3.0).any() & (metrics["loss"]["a"] < 0).all() & (metrics["x"] > 0).all()

    whole, stopped = mixjax.sweep(segments(), seeds=1), mixjax.sweep(segments(stop), seeds=1, checkpoint=tmp_path)
    assert whole["loss.b"].values.tolist() == [[1, 2, 2, 4, 4, 8, 8, 16]]
    assert stopped["loss.b"].values.tolist() == [[1, 2, 2, 4, 4, 4, 4, 4]]
    np.testing.assert_array_equal(stopped["loss.a"], -stopped["loss.b"])


class Pair(NamedTuple):
    x: jax.Array


NO_METRICS = {
    "None": (None, "got None"),
    "tuple": ((jnp.ones(2), jnp.ones(3)), "got a tuple; join its entries by jnp.stack"),
    "list": ([jnp.ones(2)], "got a list; join"),
    "named tuple": (Pair(jnp.ones(1)), "got a Pair; join"),
    "text": ("x", "got a str"),
    "empty dict": ({}, "got an empty dict"),
    "key": (jax.random.key(0), r"got key<fry>"),
    "texts": (np.array(["x"]), "got <U1"),
    "objects": (np.array([None]), "got object"),
    "function": (len, "got a builtin_function"),
}


@pytest.mark.parametrize("kind", NO_METRICS)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_what_is_no_metric_is_refused_by_name(kind, nested, cut):
    value, match = NO_METRICS[kind]

    def train(*args):
        metrics = {"x": jnp.ones(1), "aux": value}
        return {"all": metrics} if nested else metrics

    if cut:
        train = Segments(lambda *args: jnp.ones(1), lambda carry, *args, metrics=train: (carry, metrics()), 2)
    inside = "in metric 'all': " if nested else ""
    with pytest.raises(TypeError, match=f"^{inside}metric 'aux' must be .*{match}") as error:
        mixjax.sweep(train, seeds=1)
    assert "\n" not in str(error.value)


def test_names_that_are_no_texts_or_are_there_twice():
    with pytest.raises(TypeError, match="name its metrics by texts, got 1"):
        flat_metrics({1: jnp.ones(1)})
    with pytest.raises(ValueError, match=r"metric 'a\.b' is there twice"):
        flat_metrics({"a.b": 1.0, "a": {"b": 2.0}})
    with pytest.raises(TypeError, match="dict of arrays, got tuple"):
        flat_metrics((jnp.zeros(1),))


def test_every_kind_of_number_and_of_mapping_is_taken():
    numbers = {
        "a": 1,
        "b": 1.0,
        "c": 1j,
        "d": True,
        "e": np.float16(1),
        "f": jnp.ones(1, jnp.bfloat16),
        "g": np.ones(1),
    }
    assert flat_metrics(types.MappingProxyType({"x": types.MappingProxyType(numbers)})).keys() == {
        f"x.{name}" for name in numbers
    }


def test_wrapped_runs_are_equal_where_the_runs_are():
    """Else each call would compile anew."""
    for one in (train, segments(lambda metrics: metrics["x"].any())):
        first, second = (with_flat_metrics(one, {"a": jnp.float32(1.0)}, None) for _ in range(2))
        assert first == second and hash(first) == hash(second)


@pytest.mark.parametrize("name", ["loss\0train", "loss\udcff"])
def test_names_that_no_archive_keeps_are_refused(name):
    for metrics in ({name: 1.0}, {"outer": {name: 1.0}}):
        with pytest.raises(TypeError, match="a name cannot hold a NUL, nor what is no UTF-8"):
            mixjax.sweep(lambda key, hparams, data, metrics=metrics: metrics, seeds=1)

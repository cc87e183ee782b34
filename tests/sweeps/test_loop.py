"""The loop of a sweep: labels, seeds, chunks, compilations, and errors that name what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax import rules


def train(key, hparams, data):
    noise = jax.random.normal(key, (3,))
    return {"error": hparams["scale"] * noise + data["shift"], "count": jnp.int32(1)}


DATA = {"shift": np.float32(1.0)}


def sweep(**kwargs):
    return mixjax.sweep(
        train, **{"axes": {"scale": [0.0, 1.0]}, "data": DATA, "dims": {"error": ("step",)}, "seeds": 5, **kwargs}
    )


class Compilations:
    """Counts XLA compilations while it is open."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self.listen)
        return self

    def listen(self, event, duration, **kwargs):
        self.count += "backend_compile" in event

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self.listen)


def test_result_is_labelled():
    result = sweep(coords={"step": [10, 20, 30], "unused": [1]}, first_seed=7)
    assert result.error.dims == ("scale", "seed", "step")
    assert result["count"].dims == ("scale", "seed")
    assert result.seed.values.tolist() == [7, 8, 9, 10, 11]
    assert result.step.values.tolist() == [10, 20, 30] and "unused" not in result.coords
    assert result.attrs["num_runs"] == 10 and result.attrs["run_seconds"] > 0
    expected = jax.random.normal(jax.random.key(9), (3,)) + 1.0
    np.testing.assert_allclose(result.error.sel(scale=1.0, seed=9), expected, rtol=1e-6)
    np.testing.assert_array_equal(result.error.sel(scale=0.0), np.ones((5, 3)))


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_a_seed_gives_the_same_run_in_any_sweep(vectorize, chunk):
    few, many = (sweep(seeds=n, chunk=chunk, vectorize=vectorize) for n in (2, 9))
    np.testing.assert_array_equal(few.error, many.error[:, :2])  # bitwise at equal chunk size
    np.testing.assert_allclose(few.error, sweep(seeds=2).error, rtol=1e-4)


def test_adding_seeds_and_grid_points_compiles_nothing():
    sweep(seeds=2)
    with Compilations() as compilations:
        sweep(seeds=40)
        result = sweep(seeds=3, axes={"scale": [0.0, 0.5, 1.0, 2.0]})
    assert compilations.count == 0 and result.attrs["compile_seconds"] < 0.1
    with Compilations() as compilations:  # the counter counts
        sweep(seeds=2, chunk=5)
    assert compilations.count > 0


def test_rules_are_an_axis():
    names = ["fixed", "fgls"]

    def train(key, hparams, data):
        rule = rules.select([rules.fixed(), rules.fgls()], hparams["rule"])
        state = rule.init(jnp.array([0.5, 0.5]))
        return {"c": rule.update(state, counts=jnp.array([4, 4]), losses=jnp.array([1.0, 3.0])).weights}

    for vectorize in ("map", "vmap"):
        result = mixjax.sweep(train, seeds=2, axes={"rule": names}, dims={"c": ("domain",)}, vectorize=vectorize)
        np.testing.assert_allclose(result.c.sel(rule="fixed", seed=0), [0.5, 0.5])
        np.testing.assert_allclose(result.c.sel(rule="fgls", seed=1), [0.75, 0.25], rtol=1e-6)


def test_axis_types_are_kept():
    def train(key, hparams, data):
        assert hparams["k"].dtype == jnp.int32 and hparams["gamma"].dtype == jnp.float32
        return {"sum": hparams["k"] + hparams["gamma"]}

    result = mixjax.sweep(train, seeds=1, axes={"k": [1, 2], "gamma": [0.5]})
    assert result["sum"].values.ravel().tolist() == [1.5, 2.5]


def test_a_diverging_run_stays_alone():
    def train(key, hparams, data):
        return {"loss": jnp.log(hparams["x"])}

    for vectorize in ("map", "vmap"):
        loss = mixjax.sweep(train, seeds=2, axes={"x": [-1.0, 1.0]}, vectorize=vectorize).loss
        assert np.isnan(loss.sel(x=-1.0)).all() and (loss.sel(x=1.0) == 0.0).all()


def test_callback_counts_runs():
    calls = []
    sweep(seeds=4, chunk=3, callback=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 8), (6, 8), (8, 8)]


def test_data_is_an_argument_not_a_constant():
    sweep(seeds=1)
    with Compilations() as compilations:
        result = sweep(seeds=1, data={"shift": np.float32(5.0)})
    assert compilations.count == 0
    np.testing.assert_array_equal(result.error.sel(scale=0.0), np.full((1, 3), 5.0))


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"seeds": 0}, ValueError, "seeds=0"),
        ({"chunk": 0}, ValueError, "chunk must be"),
        ({"axes": {"scale": []}}, ValueError, "every axis"),
        ({"vectorize": "pmap"}, ValueError, "'map', 'vmap', 'auto' or a number"),
        ({"dims": {"error": ("step", "extra")}}, ValueError, "'error' has shape"),
        ({"dims": {"eror": ("step",)}}, ValueError, "eror"),
        ({"coords": {"step": ["a", "b"]}}, ValueError, "3 entries along 'step'.*2"),
        ({"axes": {"scale": [1.0], "seed": [1]}}, ValueError, r"different names, got \['seed'\]"),
        ({"dims": {"error": ("scale",)}}, ValueError, r"different names, got \['scale'\]"),
        ({"axes": {"scale": [2**31 + 5]}}, ValueError, "scale: 2147483653 does not fit int32"),
        ({"axes": {"scale": [-(2**63)]}}, ValueError, "scale: -9223372036854775808 does not fit int32"),
        ({"axes": {"scale": [2**70]}}, ValueError, "numbers that fit 64 bits"),
        ({"axes": {"scale": [1.0, 1e300]}}, ValueError, r"1e\+300 does not fit float32"),
        ({"axes": {"scale": [1.0, None]}}, ValueError, "scale: needs numbers"),
        (
            {"axes": {"scale": "erma"}},
            ValueError,
            "scale: needs a list of .*, got 'erma'",
        ),
        ({"axes": {"scale": [[1.0, 2.0], [1.0]]}}, ValueError, "scale: vectors must all have one shape"),
        ({"axes": {"scale": [1.0, float("nan")]}}, ValueError, "scale: nan is no value"),
        ({"axes": {"scale": [0.0], "v": [[1.0]], "v_label": [0.0]}}, ValueError, r"got \['v_label'\] twice"),
        ({"axes": {"scale": [0.0], "v": [[1.0]]}, "dims": {"error": ("v_0",)}}, ValueError, r"got \['v_0'\] twice"),
        ({"first_seed": -1}, ValueError, r"0 to 2\*\*32 - 1, got first_seed=-1"),
        ({"first_seed": 2**32 - 2}, ValueError, r"0 to 2\*\*32 - 1, got first_seed=4294967294, seeds=5"),
        ({"seeds": 2.5}, TypeError, "integer"),
        ({"devices": []}, ValueError, "devices must be some of"),
        ({"dims": {"error": "step"}}, ValueError, "dims of 'error' must be a tuple of names"),
        ({"axes": {"scale": [1.0, "a"]}}, ValueError, "all strings or all numbers"),
        ({"points": {"a": [1.0], "b": [1.0, 2.0]}}, ValueError, "one length.*'a': 1, 'b': 2"),
        ({"points": {"a": []}}, ValueError, "every column"),
        ({"points": {"scale": [1.0]}}, ValueError, r"different names, got \['scale'\]"),
        ({"axes": {"scale": [1.0], "point": [1.0]}, "points": {"a": [1.0]}}, ValueError, r"got \['point'\]"),
        ({"chunk": "big"}, ValueError, "'auto' or at least 1, got 'big'"),
    ],
)
def test_errors_name_what_is_wrong(kwargs, error, match):
    with pytest.raises(error, match=match):
        sweep(**kwargs)


def test_metrics_must_be_a_dict():
    with pytest.raises(TypeError, match="dict of arrays, got list"):
        mixjax.sweep(lambda key, hparams, data: [jnp.zeros(())], seeds=1)


def named(key, hparams, data):
    names = [lambda x: x, lambda x: -x, lambda x: jnp.sort(x)]
    noise = jax.random.normal(key, (3,))
    return {"error": jax.lax.switch(hparams["rule"], names, hparams["scale"] * noise)}


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("chunk", [1, 4, 5, "auto"])
def test_points_are_labelled_in_their_order_whatever_the_chunks(vectorize, chunk):
    points = {"rule": ["b", "a", "b", "c", "a"], "scale": [1.0, 2.0, 3.0, 4.0, 5.0]}
    result = mixjax.sweep(
        named, seeds=3, axes={"scale2": [1, 2]}, points=points, dims={"error": ("i",)}, chunk=chunk, vectorize=vectorize
    )
    assert result.error.dims == ("scale2", "point", "seed", "i")
    assert result.rule.values.tolist() == points["rule"] and result.scale.values.tolist() == points["scale"]
    for point, (rule, scale) in enumerate(zip(*points.values(), strict=True)):
        for seed in range(3):
            noise = scale * jax.random.normal(jax.random.key(seed), (3,))
            expected = {"b": noise, "a": -noise, "c": jnp.sort(noise)}[rule]  # position: order of appearance
            np.testing.assert_allclose(result.error.sel(scale2=2, point=point, seed=seed), expected, rtol=1e-6)


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_runs_are_split_over_devices_and_equal_those_of_one(vectorize):
    assert len(jax.devices()) == 8
    one = sweep(seeds=11, chunk=4, vectorize=vectorize, devices=jax.devices()[:1])
    for count, chunk in [(8, 16), (8, 3), (3, 7), (5, "auto")]:
        many = sweep(seeds=11, chunk=chunk, vectorize=vectorize, devices=jax.devices()[:count])
        np.testing.assert_allclose(many.error, one.error, rtol=1e-6)


def test_a_setting_of_jax_makes_another_program():
    def train(key, hparams, data):
        return {"x": jax.random.normal(key)}

    first = mixjax.sweep(train, seeds=2).x
    with jax.default_prng_impl("rbg"):
        other = mixjax.sweep(train, seeds=2).x
        expected = jax.random.normal(jax.random.key(0))
    assert other[0] == expected != first[0] and (mixjax.sweep(train, seeds=2).x == first).all()

"""Arrays of metrics: foreign floats, finite runs, digests."""

import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.arrays import as_computable, can_be_nan, digest, finite_runs, is_foreign_float, num_runs

HALF = np.asarray(jnp.array([1.5, jnp.nan], jnp.bfloat16))


def test_bfloat16_is_a_float_that_numpy_does_not_know():
    assert is_foreign_float(HALF) and can_be_nan(HALF) and as_computable(HALF).dtype == np.float32
    for dtype, nan in ((np.float16, True), (np.complex64, True), (np.int8, False), (bool, False), ("<U3", False)):
        array = np.zeros(2, dtype)
        assert not is_foreign_float(array) and can_be_nan(array) == nan and as_computable(array) is array


def test_a_run_is_finite_if_all_its_numbers_are():
    metrics = {
        "x": np.array([[1.0, 2.0], [np.inf, 1.0], [1.0, 1.0]]),
        "half": np.asarray(jnp.array([1.0, 1.0, jnp.nan], jnp.bfloat16)),
        "count": np.array([1, 2, 3]),
        "none": np.zeros((3, 0)),
    }
    assert finite_runs(metrics).tolist() == [True, False, False] and num_runs(metrics) == 3
    assert finite_runs({"count": np.array([1, 2])}).tolist() == [True, True]


def test_a_digest_tells_names_types_shapes_and_values_apart():
    one = {"x": np.arange(4.0), "y": HALF}
    assert digest(one) == digest(dict(reversed(one.items())))
    assert digest(one) == digest({"x": np.arange(8.0)[::2] / 2, "y": HALF})  # not how they lie in memory
    others = [{"x": one["x"]}, one | {"x": one["x"].reshape(2, 2)}, one | {"x": one["x"] + 1}]
    others += [{"x": one["x"], "z": HALF}, one | {"y": HALF.view(np.uint16)}]
    assert len({digest(each) for each in [one, *others]}) == 6

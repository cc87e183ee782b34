"""Tests that errors name the argument, what it got and what it takes, and that traced values pass."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import checks


@pytest.mark.parametrize("value", [1.0, [1.0, 2.0], np.ones((2, 2)), np.ones((3, 4)), np.ones((2, 3, 1))])
def test_check_shape(value):
    with pytest.raises(ValueError) as error:
        checks.check_shape("table", value, ("D", 3), "one row per domain")
    assert str(error.value) == f"table must be [D, 3], one row per domain, got shape {np.shape(value)}."
    checks.check_shape("table", np.ones((5, 3)), ("D", 3))


def test_check_shape_looks_at_shapes_only():
    jax.jit(lambda x: (checks.check_shape("x", x, ("n",)), x)[1])(jnp.full(3, jnp.nan))
    with pytest.raises(ValueError, match=r"x must be \[n\], got shape \(2, 2\)"):
        jax.jit(lambda x: (checks.check_shape("x", x, ("n",)), x)[1])(jnp.ones((2, 2)))


def test_check_same_shape():
    checks.check_same_shape(("B",), values=np.ones(3), domain_ids=jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"^values and domain_ids must both be \[B\], got \(3,\) and \(4,\)\.$"):
        checks.check_same_shape(("B",), values=np.ones(3), domain_ids=np.ones(4))
    with pytest.raises(ValueError, match=r"a and b and c must all be \[n, m\]"):
        checks.check_same_shape(("n", "m"), a=np.ones(3), b=np.ones(3), c=np.ones(3))


@pytest.mark.parametrize("values", [1.0, [[1.0]], []])
def test_as_simplex_takes_vectors(values):
    with pytest.raises(ValueError, match=r"^prior must .* per domain, got shape"):
        checks.as_simplex("prior", values)


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1e-42]])
def test_as_simplex_takes_what_can_be_normalised(values):
    with pytest.raises(ValueError, match=r"^prior must be finite, non-negative and not all zero"):
        checks.as_simplex("prior", values)


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 6, 2)])
def test_leading_axes_pass(shape):
    checks.check_leading_axes("ids", np.zeros(shape), "losses", np.zeros((4, 6, 2)))


@pytest.mark.parametrize("shape", [(), (6,), (4, 2), (4, 6, 2, 1)])
def test_other_axes_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"^ids must have the leading axes of losses, of shape \(4, 6, 2\), got shape \("
    ):
        checks.check_leading_axes("ids", np.zeros(shape), "losses", np.zeros((4, 6, 2)))


def test_as_simplex_normalises_from_the_smallest_to_the_largest_float():
    np.testing.assert_allclose(checks.as_simplex("prior", [1, 0, 3]), [0.25, 0.0, 0.75], rtol=1e-6)
    ends = checks.as_simplex("prior", np.float32([3e38, 3e38, 2e-38, 0.0]))
    np.testing.assert_allclose(ends[:2], 0.5, rtol=1e-6)
    assert ends[2] > 0 and ends[3] == 0 and ends.dtype == jnp.float32 and not ends.weak_type


def test_requires_names_what_to_install():
    message = "user needs no_such_package: pip install no-such-package"
    with pytest.raises(ImportError, match=message), checks.requires("extra", "user"):
        importlib.import_module("no_such_package")


def test_nearest_and_closest():
    assert checks.nearest("losess", ["losses", "counts"]) == "did you mean 'losses'?"
    assert checks.nearest("x", ["losses", "counts"]) == "known: losses, counts"
    assert checks.nearest("x", []) == "known: none"
    assert checks.closest("losess", iter(["losses"])) == "losses" and checks.closest("x", ["losses"]) is None


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("where", [np.asarray, jnp.asarray])
def test_as_ids_keeps_every_id_of_every_integer_type(dtype, where):
    last = min(np.iinfo(dtype).max, np.iinfo(np.int32).max - 1)
    ids = checks.as_ids("ids", where(np.array([0, 1, last], dtype)))
    assert ids.dtype == jnp.int32 and not ids.weak_type
    # The padding id of 256 domains in uint8 is 256.
    assert (ids + 1).tolist() == [1, 2, last + 1]


@pytest.mark.parametrize("where", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [2**32, 2**31, -(2**32)])
def test_as_ids_does_not_wrap_what_int32_cannot_hold(value, where):
    with jax.enable_x64(True):
        padding = int(checks.as_ids("ids", where(np.array([value], np.int64)))[0])
    assert padding < 0 or padding == np.iinfo(np.int32).max


@pytest.mark.parametrize("value", [[0.0, 1.0], [True, False]])
def test_as_ids_refuses_floats_and_booleans(value):
    with pytest.raises(TypeError, match=r"^domain_ids must be integers, got (float64|bool)\.$"):
        checks.as_ids("domain_ids", value)

"""Tests that errors about hyperparameters name the argument and what it takes, and that traced values pass."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from mixjax import numbers


def traced(check):
    """Calls a check with a traced scalar."""
    jax.jit(lambda x: (check(x), x)[1])(1.0)


def test_is_concrete():
    seen = []
    traced(lambda x: seen.extend([numbers.is_concrete(x), numbers.is_concrete([x, 1.0]), numbers.is_concrete(2.0)]))
    assert seen == [False, False, True]


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, [0.5, 2.0]])
def test_check_range(value):
    with pytest.raises(ValueError, match=r"^rate must be in \[0, 1\], got "):
        numbers.check_range("rate", value, 0.0, 1.0)
    numbers.check_range("rate", [0.0, 1.0], 0.0, 1.0)
    traced(lambda x: numbers.check_range("rate", x, 5.0))


@pytest.mark.parametrize("value", [0, 1.0, "2", None])
def test_check_integer(value):
    with pytest.raises(ValueError, match=r"^k must be an integer of at least 1, got "):
        numbers.check_integer("k", value, 1)
    numbers.check_integer("k", np.int64(3), 1)
    traced(lambda x: numbers.check_integer("k", x, 1))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_check_positive(value):
    with pytest.raises(ValueError, match=r"^scale must be positive, got "):
        numbers.check_positive("scale", value)
    numbers.check_positive("scale", np.inf)


@pytest.mark.parametrize("value", [-1.0, np.nan, [0.0, -0.5]])
def test_check_non_negative(value):
    with pytest.raises(ValueError, match=r"^beta must be in \[0, inf\], got "):
        numbers.check_non_negative("beta", value)
    numbers.check_non_negative("beta", [0.0, np.inf])


CHECKS = {
    "range": lambda value: numbers.check_range("rate", value, 0.0, 100.0),
    "positive": lambda value: numbers.check_positive("rate", value),
    "non_negative": lambda value: numbers.check_non_negative("rate", value),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("value", ["0.5", b"1", None, 1j, [1.0, None], [1, "b"], object(), {}, np.datetime64("2020")])
def test_what_is_no_real_number_is_named(check, value):
    with pytest.raises(TypeError, match=r"^rate must be a real number or an array of them, got .+\.$"):
        check(value)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("value", [1, True, np.float16(0.5), Fraction(1, 2), [1, 2.0], jax.numpy.ones(2, "bfloat16")])
def test_every_real_number_passes(check, value):
    check(value)


def test_check_choice_lists_the_choices():
    numbers.check_choice("mode", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"^mode must be one of 'a', 'b', got 'c'.$"):
        numbers.check_choice("mode", "c", ("a", "b"))


@pytest.mark.parametrize("value", [True, np.True_, 1.0, "1", None])
def test_as_size_takes_integers_only(value):
    with pytest.raises(TypeError, match=r"^n must be an integer that is known outside jit, got "):
        numbers.as_size("n", value)
    assert numbers.as_size("n", np.uint8(255)) + 1 == 256

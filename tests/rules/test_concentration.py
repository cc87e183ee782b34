"""Tests the effective number of domains against hand-computed numbers."""

import jax
import numpy as np
import pytest

from mixjax.rules import effective_domains


@pytest.mark.parametrize(
    ("weights", "number"),
    [
        ([0.25] * 4, 4.0),
        ([1.0, 0.0, 0.0], 1.0),
        ([0.5, 0.5, 0.0], 2.0),
        ([0.7, 0.2, 0.1], 0.7**-0.7 * 0.2**-0.2 * 0.1**-0.1),
    ],
)
def test_by_hand(weights, number):
    np.testing.assert_allclose(effective_domains(weights), number, rtol=1e-6)


def test_takes_the_weights_of_many_steps_under_jit():
    weights = np.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(jax.jit(effective_domains)(weights), [1.0, 2.0], rtol=1e-6)

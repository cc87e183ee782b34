"""The terms of gradients: their sums and norms, against products written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms import squares, terms
from mixjax.grad_norms.terms import Lookup, Matrix, Rows
from tests.grad_norms.models import normal

B = 6


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("places", [1, 2, 9])
def test_both_ways_to_sum_over_time_agree(places):
    left, right = normal(0, B, places, 5), normal(1, B, places, 3)
    expected = np.square(np.einsum("btn,btm->bnm", np.float64(left), np.float64(right))).sum(axis=(1, 2))
    np.testing.assert_allclose(jax.jit(squares._matrix_squares)(left, right), expected, rtol=1e-5)
    if places == 1:
        np.testing.assert_allclose(np.square(left).sum((1, 2)) * np.square(right).sum((1, 2)), expected, rtol=1e-5)


def test_the_way_is_chosen_by_memory():
    def largest(places):
        jaxpr = jax.make_jaxpr(squares._matrix_squares)(jnp.ones((1, places, 8)), jnp.ones((1, places, 4)))
        return max(var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars)

    assert largest(4) == 16  # T²; 2 T² <= 8 · 4
    assert largest(5) == 32  # 8 · 4


@pytest.mark.parametrize("places", [(), (3,), (2, 5)])
def test_a_matrix_is_the_sum_of_outer_products(places):
    left, right = normal(0, B, *places, 4), normal(1, B, *places, 3)
    gradients = np.einsum("bpn,bpm->bnm", left.reshape(B, -1, 4), right.reshape(B, -1, 3))
    total = terms.gradient_sum(jnp.zeros((4, 3)), [Matrix(left, right), Matrix(left, right)])
    np.testing.assert_allclose(total, 2 * gradients.sum(0), rtol=1e-5, atol=1e-5)
    norms = np.sqrt(np.square(gradients).sum((1, 2)))
    np.testing.assert_allclose(squares.norms_of([[Matrix(left, right)]]), norms, rtol=1e-5)
    np.testing.assert_allclose(squares.norms_of([[Matrix(left, right), Matrix(left, right)]]), 2 * norms, rtol=1e-5)


def test_a_lookup_adds_to_the_rows_of_its_ids():
    ids, deltas = jnp.array([[1, 0, 1], [2, 2, 2]]), normal(0, 2, 3, 4)
    gradients = np.zeros((2, 5, 4), np.float32)
    for b, t in np.ndindex(2, 3):
        gradients[b, ids[b, t]] += deltas[b, t]
    np.testing.assert_allclose(
        terms.gradient_sum(jnp.zeros((5, 4)), [Lookup(ids, deltas)]), gradients.sum(0), rtol=1e-5
    )
    expected = np.sqrt(np.square(gradients).sum((1, 2)))
    np.testing.assert_allclose(squares.norms_of([[Lookup(ids, jnp.asarray(deltas))]]), expected, rtol=1e-5)


def test_rows_add_before_they_are_squared():
    rows = normal(0, B, 2, 3)
    np.testing.assert_allclose(terms.gradient_sum(jnp.zeros((2, 3)), [Rows(rows)]), rows.sum(0), rtol=1e-5)
    assert squares.norms_of([[Rows(rows), Rows(-rows)]]).tolist() == [0.0] * B


def test_sums_are_in_float32_or_wider():
    rows = jnp.ones((B, 2), jnp.float16)
    assert terms.gradient_sum(jnp.zeros(2, jnp.float16), [Rows(rows)]).dtype == jnp.float32


def test_what_is_left_out_is_zero_even_if_it_is_not_finite():
    left_out = jnp.array([True, False])
    rows, ids = jnp.array([[jnp.nan, jnp.inf], [1.0, 2.0]]), jnp.array([[1], [2]])
    kept = terms.without([Rows(rows), Matrix(rows, rows), Lookup(ids, rows[:, None])], left_out)
    assert kept[0].gradients.tolist() == [[0.0, 0.0], [1.0, 2.0]]
    assert kept[1].left.tolist() == kept[1].right.tolist() == [[0.0, 0.0], [1.0, 2.0]]
    assert kept[2].deltas.tolist() == [[[0.0, 0.0]], [[1.0, 2.0]]] and kept[2].ids.tolist() == [[0], [2]]


def test_positions_are_all_axes_between_the_first_and_the_last():
    assert terms.positions(jnp.ones((2, 3))).shape == (2, 1, 3)
    assert terms.positions(jnp.ones((2, 4, 5, 3))).shape == (2, 20, 3)
    assert terms.positions(jnp.ones((0, 4, 3))).shape == (0, 4, 3)

"""Scaled sums of squares at both ends of the float types, and the flag that keeps a branch under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms.scaling import anywhere, as_float, scale_of, scaled_norm

TINY = np.finfo(np.float32).tiny


@pytest.mark.parametrize("scale", [TINY, 1e-25, 1.0, 1e30, 1e38])
def test_the_norm_of_several_arrays_is_that_of_all_their_entries(scale):
    leaves = [jnp.float32([[1.0, 2.0], [0.0, 0.0]]) * scale, jnp.float32([[2.0], [3.0]]) * scale]
    np.testing.assert_allclose(np.float64(scaled_norm(leaves)) / np.float64(scale), [3.0, 3.0], rtol=1e-6)


def test_norms_of_zeros_infinities_and_empty_arrays():
    norms = scaled_norm([jnp.float32([[0.0, 0.0], [jnp.inf, 1.0], [-jnp.inf, jnp.inf], [jnp.nan, jnp.inf]])])
    assert norms[:3].tolist() == [0.0, np.inf, np.inf] and not np.isfinite(norms[3])
    assert scaled_norm([jnp.ones((2, 0))]).tolist() == [0.0, 0.0]


def test_the_scale_is_the_largest_entry_but_at_the_ends():
    largest = jnp.float32([0.0, TINY / 2, TINY, 3.0, 3e38, jnp.inf])
    scale = scale_of(largest)
    assert scale[:5].tolist() == [1.0, 1.0, TINY, 3.0, np.float32(0.125 / TINY)] and jnp.isinf(scale[5])
    assert (1 / scale[:5] >= TINY).all()  # the inverse is a normal float


def test_arrays_become_float32_or_stay_wider():
    assert as_float(jnp.ones(2, jnp.bfloat16)).dtype == as_float(jnp.ones(2, int)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert as_float(jnp.ones(2, jnp.float64)).dtype == jnp.float64


def test_a_condition_on_the_flag_stays_a_branch_under_vmap():
    def branch(flags, x):
        return jax.lax.cond(anywhere(flags), lambda: x + 1, lambda: x)

    flags = jnp.array([[False, True], [False, False]])
    assert anywhere(flags) and not anywhere(flags[1])
    batched = jax.vmap(branch)
    assert batched(flags, jnp.zeros(2)).tolist() == [1.0, 1.0]  # both take the branch if one has a flag
    assert "cond[" in str(jax.make_jaxpr(batched)(flags, jnp.zeros(2)))

"""Convolutions: losses, gradients and norms of one backward pass, against the gradients themselves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixjax.grad_norms import Tape, norm, squares, value_grads_and_norms
from mixjax.grad_norms.terms import Conv
from mixjax.grad_norms.windows import convolve, geometry_of, kernel_gradient
from tests.grad_norms.models import UNEVEN, alone, compiled, normal

pytestmark = pytest.mark.usefixtures("quick_compilation")

B = 6
# spatial sizes, window, input channels, output channels, options; the first two take Gram matrices, the others do not
CASES = {
    "few places": ((3, 3), (2, 2), 8, 8, {"padding": "VALID"}),
    "few places, groups": ((3, 2), (2, 2), 16, 16, {"padding": "VALID", "feature_group_count": 2}),
    "1-D": ((9,), (3,), 2, 3, {}),
    "1-D, causal": ((9,), (3,), 2, 3, {"padding": [(4, 0)], "kernel_dilation": 2}),
    "2-D": ((6, 5), (3, 3), 2, 3, {}),
    "strides": ((7, 6), (3, 2), 2, 3, {"strides": (2, 3)}),
    "valid": ((7, 6), (3, 2), 2, 3, {"strides": 2, "padding": "VALID"}),
    "pairs": ((7, 6), (3, 2), 2, 3, {"padding": [(2, 1), 0]}),
    "cut": ((7, 6), (3, 2), 2, 3, {"padding": [(-1, 1), (0, -2)]}),
    "dilation": ((8, 7), (3, 2), 2, 3, {"kernel_dilation": (2, 3), "strides": (1, 2)}),
    "grouped": ((6, 5), (3, 3), 4, 6, {"feature_group_count": 2}),
    "depthwise": ((6, 5), (3, 3), 4, 8, {"feature_group_count": 4}),
    "transposed": ((4, 3), (3, 3), 2, 3, {"input_dilation": 2, "padding": 2}),
    "3-D": ((4, 3, 4), (2, 2, 3), 2, 3, {"strides": (1, 1, 2)}),
    "large window": ((12, 11), (9, 9), 1, 2, {"padding": "VALID"}),
}


def model(tape, params, batch, options):
    x, y = batch
    x = tape.conv(jnp.tanh(x), params["kernel"], params["bias"], **options)
    return jnp.square(jnp.tanh(x) + y).sum(axis=tuple(range(1, x.ndim)))


@pytest.mark.parametrize("name", CASES)
def test_a_convolution(name):
    spatial, window, channels, outputs, options = CASES[name]
    groups = options.get("feature_group_count", 1)
    params = {"kernel": normal(0, *window, channels // groups, outputs), "bias": normal(1, outputs)}
    batch = normal(2, B, *spatial, channels), normal(3, B, *(1,) * len(spatial), outputs)

    def losses_fn(tape, params, batch):
        return model(tape, params, batch, options)

    def run(params, batch):
        return value_grads_and_norms(losses_fn, params, batch, weights=UNEVEN)

    @jax.jit
    def direct(params, batch):
        losses, grads = jax.vmap(jax.value_and_grad(alone(losses_fn)), in_axes=(None, 0))(params, batch)
        return losses, jax.tree.map(lambda g: jnp.tensordot(UNEVEN, g, 1) / B, grads), norm(grads)

    found, expected = jax.jit(run)(params, batch), direct(params, batch)
    chex.assert_trees_all_close(found, expected, rtol=2e-4, atol=1e-5)


def test_what_the_options_mean():
    """`SAME` and `VALID` are those of JAX, a number pads all sides, and one kernel slides over all places."""
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, 3, 2, 3, 4)
    axes = ("NHWC", "HWIO", "NHWC")
    for padding, strides, dilation in [("SAME", (1, 1), (1, 1)), ("SAME", (2, 3), (2, 2)), ("VALID", (1, 2), (2, 1))]:
        expected = jax.lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=axes
        )
        found = Tape().conv(x, kernel, padding=padding, strides=strides, kernel_dilation=dilation)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    expected = jax.lax.conv_general_dilated(x, kernel, (1, 1), [(2, 2), (2, 2)], dimension_numbers=axes)
    np.testing.assert_allclose(Tape().conv(x, kernel, padding=2), expected, rtol=1e-6)


def test_one_kernel_at_two_places_of_a_model():
    def losses_fn(tape, params, x):
        y = tape.conv(jnp.tanh(tape.conv(x, params["kernel"])), params["kernel"], strides=2)
        return jnp.square(y).sum(axis=(1, 2))

    params, x = {"kernel": normal(0, 3, 2, 2)}, normal(1, B, 7, 2)
    grads = jax.jit(jax.vmap(jax.grad(alone(losses_fn)), in_axes=(None, 0)))(params, x)
    np.testing.assert_allclose(compiled(losses_fn, params, x)[2], norm(grads), rtol=1e-4)


def test_a_kernel_with_two_numbers_of_groups_is_named():
    def losses_fn(tape, params, x):
        a = tape.conv(x, params, feature_group_count=2)
        return (a + tape.conv(x[..., :2], params)).sum(axis=(1, 2))

    with pytest.raises(ValueError, match="params is used both as a convolution's kernel with 2 groups and as a conv"):
        value_grads_and_norms(losses_fn, jnp.ones((3, 2, 4)), jnp.ones((B, 5, 4)))


def test_tiny_and_huge_gradients_of_a_convolution():
    def losses_fn(tape, kernel, batch):
        return batch[1] * tape.conv(batch[0], kernel).sum(axis=(1, 2))

    kernel, x = normal(0, 3, 2, 2), normal(1, B, 7, 2)
    run = jax.jit(lambda factor: value_grads_and_norms(losses_fn, kernel, (x, factor))[2])
    plain = run(np.ones(B, np.float32))
    for factor in (1e-30, 1e30):
        np.testing.assert_allclose(run(np.full(B, factor, np.float32)) / np.float32(factor), plain, rtol=1e-5)
    assert run(np.zeros(B, np.float32)).tolist() == [0.0] * B


@pytest.mark.slow
@given(st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_any_geometry(data):
    """Both ways to the norm, one at a time, of one layer of any shape that has an output."""

    def draw(low, high):
        return data.draw(st.integers(low, high))

    axes, groups = draw(1, 2), draw(1, 2)
    window, spatial = [draw(1, 3) for _ in range(axes)], [draw(1, 6) for _ in range(axes)]
    channels, outputs = groups * draw(1, 2), groups * draw(1, 2)
    options = {name: [draw(1, 2) for _ in range(axes)] for name in ("strides", "kernel_dilation", "input_dilation")}
    padding = data.draw(st.sampled_from(["SAME", "VALID"])) if draw(0, 1) else [(draw(0, 2), draw(0, 2))] * axes
    geometry = geometry_of(spatial, window, padding=padding, groups=groups, **options)
    x = jnp.asarray(normal(0, 3, *spatial, channels))
    kernel = jnp.ones((*window, channels // groups, outputs))
    places = jax.eval_shape(lambda: convolve(x, kernel, geometry)).shape[1:-1]
    assume(0 not in places)

    @jax.jit
    def run(x, deltas):
        conv = Conv(x, deltas, tuple(window), geometry)
        unfolded = squares._join_matrices([squares._unfolded(conv)])
        norms = unfolded.left_size * jnp.sqrt(jnp.maximum(unfolded.squares, 0)) * unfolded.right_size
        gradients = jax.vmap(
            lambda x, d: kernel_gradient(x[None], d[None], kernel.shape, geometry, jnp.dtype("float32"))
        )(x, deltas)
        return norm(gradients), squares._conv_norms_by_entry(conv), norm(norms.reshape(3, groups))

    expected, by_entry, by_windows = run(x, normal(1, 3, *places, outputs))
    np.testing.assert_allclose(by_entry, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_windows, expected, rtol=1e-3, atol=1e-3)

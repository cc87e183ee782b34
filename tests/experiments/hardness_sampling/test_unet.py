"""The 3-D U-Net: its convolution against XLA's, the paper's size, and that it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.hardness_sampling import unet


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("convolve", [unet.convolve_planes, unet.convolve])
@pytest.mark.parametrize("sizes", [(6, 8, 4), (1, 2, 3)])
def test_convolution_by_planes_and_both_gradients_equal_those_of_one_3d_convolution(convolve, sizes):
    x, kernel, dy = normal(0, 2, *sizes, 3), normal(1, 3, 3, 3, 3, 5), normal(2, 2, *sizes, 5)

    def outputs(f):
        y, pull = jax.vjp(f, x, kernel)
        return y, *pull(dy)

    for found, expected in zip(
        jax.jit(outputs, static_argnums=0)(convolve), outputs(unet.convolve_volumes), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pooling_and_upsampling_are_local():
    x = jnp.arange(64.0).reshape(1, 4, 4, 4, 1)
    assert unet.max_pool(x).ravel().tolist() == [21, 23, 29, 31, 53, 55, 61, 63]  # the last corner of each 2³ block
    up = unet.Up(1, 1)
    up.kernel[...] = jnp.arange(8.0)[None]
    y = up(jnp.array([1.0, 10.0]).reshape(1, 1, 1, 2, 1))
    assert y.shape == (1, 2, 2, 4, 1)
    np.testing.assert_array_equal(y[0, :, :, :2, 0], jnp.arange(8.0).reshape(2, 2, 2))
    np.testing.assert_array_equal(y[0, :, :, 2:, 0], 10 * jnp.arange(8.0).reshape(2, 2, 2))


def test_a_level_normalises_each_channel_of_each_example():
    layer = unet.ConvNorm(2, 3)
    layer.kernel[...] = normal(1, 3, 3, 3, 2, 3)
    layer.bias[...] = jnp.full(3, 100.0)  # far from the leaky ReLU's bend
    x = normal(0, 2, 8, 8, 8, 2)
    y = layer(x * jnp.array([1.0, 50.0]).reshape(2, 1, 1, 1, 1))
    np.testing.assert_allclose(y.mean((1, 2, 3)), 100.0, rtol=1e-4)
    np.testing.assert_allclose(y.std((1, 2, 3)), 1.0, rtol=1e-3)
    np.testing.assert_allclose(y[0], layer(x)[0], rtol=1e-4)  # whatever else is in the batch


def test_kernels_have_variance_two_over_their_inputs():
    net = unet.UNet(4, 3, unet.widths(3, 8), num_heads=1, key=jax.random.key(0))
    deepest = net.top.below.below.down.layers[1]
    assert net.top.below.down.layers[0].kernel.shape == (3, 3, 3, 8, 16)
    for kernel, inputs in ((deepest.kernel, 27 * 32), (net.top.below.up.kernel, 32), (net.top.up.kernel, 16)):
        values = np.asarray(kernel[...])
        assert abs(values.var() * inputs / 2 - 1) < 5 * (2 / values.size) ** 0.5
    assert (deepest.scale[...] == 1).all() and (deepest.bias[...] == 0).all()
    other = unet.UNet(4, 3, unet.widths(3, 8), num_heads=1, key=jax.random.key(1))
    assert (other.top.up.kernel[...] != net.top.up.kernel[...]).all()


def test_widths_double_up_to_a_maximum():
    assert unet.widths(6) == [32, 64, 128, 256, 320, 320]


def test_the_paper_s_net():
    """6 levels, 32 features at the first, 320 at most, patches of 128 x 192 x 128: nothing is allocated."""
    graph, params = nnx.split(
        nnx.eval_shape(lambda: unet.UNet(4, 4, unet.widths(6), num_heads=4, key=jax.random.key(0)))
    )
    x = jax.ShapeDtypeStruct((2, 128, 192, 128, 4), jnp.float32)
    scores = jax.eval_shape(lambda params, x: nnx.merge(graph, params)(x), params, x)
    assert [s.shape for s in scores] == [(2, 128 // f, 192 // f, 128 // f, 4) for f in (1, 2, 4, 8)]

    wide = [32, 64, 128, 256, 320, 320]

    def block(a, b):  # two convolutions, each with a scale and a bias of its normalisation
        return 27 * (a + b) * b + 4 * b

    down = sum(block(a, b) for a, b in zip([4, *wide[:-1]], wide, strict=True))
    up = sum(8 * deep * b + block(2 * b, b) for b, deep in itertools.pairwise(wide))
    heads = sum((b + 1) * 4 for b in wide[:4])
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == down + up + heads == 31_193_872


def test_every_parameter_is_trained_and_the_loss_falls():
    graph, params = nnx.split(unet.UNet(1, 2, unet.widths(3, 4), num_heads=2, key=jax.random.key(0)))
    x = normal(0, 2, 8, 8, 8, 1)
    labels = (x[..., 0] > 0.5).astype(int)
    optimizer = optax.sgd(0.1, 0.9, nesterov=True)

    def loss(params):
        fine, coarse = nnx.merge(graph, params)(x)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return entropy(fine, labels).mean() + entropy(coarse, labels[:, ::2, ::2, ::2]).mean()

    def step(carry, _):
        value, grads = jax.value_and_grad(loss)(carry[0])
        updates, opt_state = optimizer.update(grads, carry[1])
        return (optax.apply_updates(carry[0], updates), opt_state), (value, jax.tree.map(jnp.linalg.norm, grads))

    _, (values, norms) = jax.lax.scan(step, (params, optimizer.init(params)), length=40)
    assert all((np.asarray(norm)[0] > 0) for norm in jax.tree.leaves(norms))
    assert values[-1] < 0.3 * values[0]


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="num_heads must be between 1 and the number of levels, 2, got 3"):
        unet.UNet(1, 2, [4, 8], 3, jax.random.key(0))
    with pytest.raises(ValueError, match=r"sizes must be multiples of 4, got \(8, 8, 6\)"):
        unet.UNet(1, 2, [4, 8, 8], 1, jax.random.key(0))(jnp.zeros((1, 8, 8, 6, 1)))

"""Norms of trees, of gradients one by one, of linear models and last layers, and by domain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import grad_norms
from mixjax.grad_norms import last_layer, per_example
from mixjax.types import UNKNOWN

pytestmark = pytest.mark.usefixtures("quick_compilation")

B = 6
norm = jax.jit(grad_norms.norm, static_argnums=1)  # one program each instead of many operations
linear = jax.jit(grad_norms.linear, static_argnames="intercept")
by_domain = jax.jit(grad_norms.by_domain, static_argnums=2)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_norm_by_hand():
    tree = {"kernel": jnp.array([[[3.0, 0.0]], [[0.0, -5.0]]]), "bias": jnp.array([4.0, 12.0])}
    assert norm(tree).tolist() == [5.0, 13.0]
    assert norm(tree).dtype == jnp.float32
    np.testing.assert_allclose(norm(tree, 0), np.sqrt(25 + 169), rtol=1e-6)
    assert norm(jnp.ones((2, 3, 4)), 2).shape == (2, 3)


@pytest.mark.parametrize("scale", [1e-25, 1e-37, 1.0, 1e30, 1e38])
def test_norm_is_scaled(scale):
    np.testing.assert_allclose(norm(jnp.float32([[scale, scale]])), [np.sqrt(2.0) * scale], rtol=1e-6)
    rows = jnp.float32([[3e-25, 4e-25], [3e30, 4e30], [0.0, scale]])
    np.testing.assert_allclose(norm(rows), [5e-25, 5e30, scale], rtol=1e-6)


def test_norm_of_zeros_and_of_what_is_not_finite():
    rows = jnp.float32([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [-np.inf, 0.0], [3e38, 3e38], [1e-42, 0.0]])
    result = np.asarray(norm(rows))
    assert result[0] == 0.0 and not np.isfinite(result[1:5]).any() and result[5] < 1e-38


def test_norm_of_complex_gradients_is_that_of_their_absolute_values():
    tree = {"w": jnp.array([[3 + 4j, 0.0], [1e30j, 1e30]]), "b": jnp.array([12.0, 0.0])}
    np.testing.assert_allclose(grad_norms.norm(tree), [13.0, np.sqrt(2) * 1e30], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norm_is_computed_in_float32(dtype):
    rows = jnp.ones((1, 10_000), dtype)
    assert norm(rows).dtype == jnp.float32
    np.testing.assert_allclose(norm(rows), [100.0], rtol=1e-6)


def test_norm_of_wide_and_narrow_leaves_in_64_bit_mode():
    with jax.enable_x64(True):
        result = norm({"a": jnp.full((1, 4), 3e-30, jnp.float64), "b": jnp.full((1, 4), 4e-30, jnp.float32)})
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, [1e-29], rtol=1e-6)


@pytest.mark.parametrize("tree", [{}, {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}, {"a": jnp.float32(1.0)}])
def test_norm_needs_one_leading_axis(tree):
    with pytest.raises(ValueError, match="tree must have arrays that share their first 1 axes"):
        norm(tree)


def test_no_gradient_flows_through_norms_and_none_is_nan():
    def function(x):
        return norm(x).sum() + by_domain(norm(x), jnp.zeros(2, int), 1).sum()

    grads = jax.jit(jax.grad(function))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(grads, 0.0)


def test_per_example_in_batches():
    def loss(params, example):
        return jnp.square(jnp.tanh(example[0] @ params["in"]) @ params["out"] - example[1])

    params, (x, y) = {"in": normal(0, 3, 4), "out": normal(1, 4)}, (normal(2, B, 3), normal(3, B))
    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, (x, y))
    expected = np.sqrt(sum(np.square(np.float64(g)).reshape(B, -1).sum(1) for g in jax.tree.leaves(grads)))
    for batch_size in (None, 1, 4, 100):
        norms = jax.jit(functools.partial(per_example, loss, batch_size=batch_size))(params, (x, y))
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("outputs", [None, 3])
def test_linear_models(intercept, outputs):
    x, y = normal(0, B, 4), np.random.default_rng(1).integers(outputs or 2, size=B)
    shape = () if outputs is None else (outputs,)
    params = {"kernel": normal(2, 4, *shape)} | ({"bias": normal(3, *shape)} if intercept else {})

    def output(params, x):
        return x @ params["kernel"] + params.get("bias", 0.0)

    def loss(params, example):
        z = output(params, example[0])
        return jax.nn.softplus(z) - example[1] * z if outputs is None else -jax.nn.log_softmax(z)[example[1]]

    @jax.jit
    def both(params, x, y):
        z = output(params, x)
        slopes = jax.nn.sigmoid(z) - y if outputs is None else jax.nn.softmax(z) - jax.nn.one_hot(y, outputs)
        return linear(slopes, x, intercept=intercept), per_example(loss, params, (x, y))

    np.testing.assert_allclose(*both(params, x, y), rtol=1e-5, atol=1e-7)


def test_linear_models_at_the_ends_of_float32():
    np.testing.assert_allclose(linear(jnp.float32([1e-25, 1e30, 0.0]), jnp.float32([[3.0, 4.0]] * 3)), [5e-25, 5e30, 0])
    np.testing.assert_allclose(linear(jnp.float32([1.0]), jnp.float32([[1e-25, 1e-25]])), [1.41421e-25], rtol=1e-5)
    assert not np.isfinite(linear(jnp.float32([np.nan, 1.0]), jnp.float32([[1.0], [np.inf]]))).any()


@pytest.mark.parametrize("slopes, x", [((3,), (4, 2)), ((3,), (3,)), ((3, 1, 1), (3, 2)), ((), (3, 2))])
def test_linear_shapes(slopes, x):
    with pytest.raises(ValueError, match=r"derivatives must be \[B\] or \[B, K\]"):
        linear(jnp.ones(slopes), jnp.ones(x))


@pytest.mark.parametrize(("places", "intercept"), [((), True), ((2,), False), ((2, 7), True)])
def test_the_last_layers_norms_are_exact_and_a_lower_bound(places, intercept):
    params = {"in": normal(0, 3, 5), "out": {"kernel": normal(1, 5, 4)}}
    params["out"] |= {"bias": normal(2, 4)} if intercept else {}
    x, y = normal(3, B, *places, 3), np.random.default_rng(4).integers(4, size=(B, *places))

    def forward(params, x):
        features = jnp.tanh(x @ params["in"])
        return features, features @ params["out"]["kernel"] + params["out"].get("bias", 0.0)

    def loss(params, example):
        return -jnp.take_along_axis(
            jax.nn.log_softmax(forward(params, example[0])[1]), example[1][..., None], -1
        ).mean()

    @jax.jit
    def run(params, x, y):
        features, logits = forward(params, x)
        derivatives = (jax.nn.softmax(logits) - jax.nn.one_hot(y, 4)) / max(np.prod(places, dtype=int), 1)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, (x, y))
        return (
            last_layer(derivatives, features, intercept=intercept),
            grad_norms.norm(grads["out"]),
            grad_norms.norm(grads),
        )

    found, own, whole = run(params, x, y)
    np.testing.assert_allclose(found, own, rtol=1e-4)
    assert found.dtype == jnp.float32 and (found < whole).all()


def test_the_last_layers_norms_without_places_and_at_the_ends_of_float32():
    slopes, x = np.float32([[3e-25, 4e-25], [3e30, 4e30], [0.0, 0.0]]), np.float32([[1.0, 0.0]] * 3)
    found = jax.jit(last_layer)
    np.testing.assert_allclose(found(slopes, x), linear(slopes, x), rtol=1e-6)
    np.testing.assert_allclose(found(slopes, x), [5e-25, 5e30, 0.0], rtol=1e-6)
    assert not np.isfinite(found(np.where(np.arange(3)[:, None] == 0, np.nan, slopes), x)[0])


@pytest.mark.parametrize("slopes, x", [((3, 2), (4, 2)), ((3, 2, 2), (3, 2)), ((3,), (3,)), ((3, 1), (3, 4, 1))])
def test_the_last_layers_shapes(slopes, x):
    with pytest.raises(ValueError, match=r"derivatives must be \[B, ..., K\] and features \[B, ..., p\], got"):
        last_layer(np.ones(slopes), np.ones(x))


def test_by_domain_is_the_root_mean_square():
    rng = np.random.default_rng(0)
    norms, ids = rng.uniform(0, 3, 50), rng.integers(-1, 5, 50)  # -1 and 4 are padding
    ids[ids == 2] = 0  # domain 2 is absent
    expected = [np.sqrt(np.mean(norms[ids == d] ** 2)) if (ids == d).any() else UNKNOWN for d in range(4)]
    np.testing.assert_allclose(by_domain(norms, ids, 4), expected, rtol=1e-6)


def test_by_domain_at_the_ends_of_float32_and_beyond():
    norms = jnp.float32([1e-25, 7e-25, 1e30, 7e30, 0.0, 0.0, np.nan, 1.0, np.inf, 1.0])
    result = by_domain(norms, jnp.repeat(jnp.arange(5), 2), 6)
    np.testing.assert_allclose(result[:3], [5e-25, 5e30, 0.0], rtol=1e-6)
    assert not np.isfinite(result[3:]).any()


@pytest.mark.parametrize("norms, ids", [((3,), (4,)), ((3, 1), (3, 1)), ((), ())])
def test_by_domain_shapes(norms, ids):
    with pytest.raises(ValueError, match=r"norms and domain_ids must both be \[B\]"):
        by_domain(jnp.ones(norms), jnp.zeros(ids, int), 2)

"""Losses of tokens ``[B, T]`` with ids of sequences or tokens and a mask are the same as a flat batch of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mixjax
from mixjax import rules, signals
from mixjax.objectives import example_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = (8, 6, 2)
"""Sequences, tokens, and for instance the heads of a model, each with a loss of its own."""


def draw(ndim, num_domains, ids_ndim, mask_ndim):
    """Losses of `ndim` axes, ids and a mask of the leading ones; padding holds what must never be looked at."""
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=SHAPE[:ndim]).astype(np.float32)
    ids = rng.integers(-1, num_domains, SHAPE[:ids_ndim])
    ids[:3] = np.arange(3).reshape(3, *[1] * (ids_ndim - 1))
    mask = None if mask_ndim is None else rng.random(SHAPE[:mask_ndim]) > 0.3
    real = spread(ids, ndim) >= 0
    if mask is not None:
        real = real & spread(mask, ndim)
    bad = np.array([np.nan, np.inf, -np.inf], np.float32)[np.arange(losses.size) % 3].reshape(losses.shape)
    return np.where(real, losses, bad), ids, mask, np.where(real, spread(ids, ndim), -1)


def spread(x, ndim):
    """Repeats what holds for the leading axes along the others."""
    return np.broadcast_to(x.reshape(x.shape + (1,) * (ndim - x.ndim)), SHAPE[:ndim])


SHAPES = [(2, 1, 2), (2, 2, None), (2, 2, 2), (2, 2, 1), (2, 1, 1), (3, 2, 1), (3, 1, 3), (1, 1, 1)]
"""Numbers of axes of the losses, the ids and the mask."""


@functools.partial(jax.jit, static_argnames=("rule", "estimator"))
def run(losses, ids, mask, q, *, rule, estimator):
    state = RULES[rule].init(jnp.ones_like(q))

    def objective(losses):
        return mixjax.weighted_loss(RULES[rule], state, losses, ids, mask=mask, estimator=estimator, sampling_weights=q)

    (value, after), grads = jax.value_and_grad(objective, has_aux=True)(losses)
    return value, after, grads


RULES = {"erma": rules.erma(0.3, 0.5), "fixed": rules.fixed()}


@pytest.mark.parametrize("estimator", ["stratified", "horvitz_thompson"])
@pytest.mark.parametrize("num_domains", [3, 7])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_tokens_are_examples(shapes, num_domains, estimator):
    losses, ids, mask, flat_ids = draw(shapes[0], num_domains, *shapes[1:])
    q = np.random.default_rng(1).dirichlet(np.full(num_domains, 5.0)).astype(np.float32)
    value, after, grads = run(losses, ids, mask, q, rule="erma", estimator=estimator)
    want, want_after, want_grads = run(losses.ravel(), flat_ids.ravel(), None, q, rule="erma", estimator=estimator)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(after.weights, want_after.weights, rtol=1e-5)
    np.testing.assert_allclose(grads.ravel(), want_grads, rtol=1e-5)
    assert grads.shape == losses.shape and not np.any(np.asarray(grads)[flat_ids < 0])


def test_the_objective_is_the_mean_over_each_domains_tokens():
    losses, ids, mask, flat_ids = draw(2, 3, 1, 2)
    weights = np.float32([0.5, 0.3, 0.2])
    value, same = mixjax.weighted_loss(None, weights, losses, ids, mask=mask)
    means = [losses[flat_ids == d].mean(dtype=np.float64) for d in range(3)]
    np.testing.assert_allclose(value, weights @ means, rtol=1e-5)
    assert same is weights


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_moments_and_example_weights_take_the_same_shapes(shapes):
    losses, ids, mask, flat_ids = draw(shapes[0], 3, *shapes[1:])
    found = signals.moments(losses, ids, 3, mask=mask)
    want = signals.moments(losses.ravel(), flat_ids.ravel(), 3)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    weights = np.float32([0.5, 0.3, 0.2])
    rows = np.asarray(example_weights(weights, ids, found.count, mask=mask))
    assert rows.shape == SHAPE[: max(shapes[1], shapes[2] or 0)]
    flat = example_weights(weights, flat_ids.ravel(), want.count)
    np.testing.assert_allclose(spread(rows, shapes[0]).ravel(), flat, rtol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint8, np.float32, jnp.bfloat16])
def test_masks_of_every_type(dtype):
    losses, ids, mask, _ = draw(2, 3, 1, 2)
    state = rules.fgls().init(np.ones(3))
    want, _ = mixjax.weighted_loss(rules.fgls(), state, losses, ids, mask=mask)
    got, _ = mixjax.weighted_loss(rules.fgls(), state, losses, ids.astype(np.int8), mask=jnp.asarray(mask, dtype))
    np.testing.assert_array_equal(got, want)


def test_everything_may_be_padding():
    state = rules.fgls().init(np.ones(2))
    losses = jnp.full((2, 3), jnp.nan)
    value, after = mixjax.weighted_loss(rules.fgls(), state, losses, np.array([0, 1]), mask=np.zeros((2, 3)))
    assert value == 0.0
    np.testing.assert_array_equal(after.weights, state.weights)


def test_a_model_that_is_nan_in_the_padding():
    # A gradient of 0 times the NaN derivative of log(0) would be NaN: the model has to be finite in the padding, or as
    # here its losses must be replaced before. That of weighted_loss itself is exactly 0.
    x, mask = jnp.array([[0.5, 0.25], [1.0, 0.0]]), np.array([[1, 1], [1, 0]])

    def objective(x):
        losses = -jnp.log(jnp.where(mask == 1, x, 1.0)) + jnp.where(mask == 1, 0.0, jnp.nan)
        return mixjax.weighted_loss(None, np.float32([0.5, 0.5]), losses, np.array([0, 1]), mask=mask)[0]

    grads = jax.grad(objective)(x)
    np.testing.assert_allclose(grads, [[-0.5, -1.0], [-0.5, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("spec", [P("d"), P(None, "d")], ids=str)
def test_tokens_spread_over_devices(spec):
    """Sequences on several devices, or parts of every sequence."""
    losses, ids, mask, _ = draw(2, 7, 2, 2)
    rule, mesh = rules.erma(0.3, 0.5), jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    state = rule.init(np.ones(7))

    def objective(slope, losses, ids, mask):
        return mixjax.weighted_loss(rule, state, slope * losses, ids, mask=mask, axis_name="d")

    def whole(slope):
        return mixjax.weighted_loss(rule, state, slope * np.where(mask & (ids >= 0), losses, 0.0), ids, mask=mask)

    # Zeros in the padding, since the derivative by the slope is the loss.
    clean = np.where(mask & (ids >= 0), losses, 0.0)
    step = jax.shard_map(
        jax.value_and_grad(objective, has_aux=True), mesh=mesh, in_specs=(P(), spec, spec, spec), out_specs=P()
    )
    (value, after), grad = jax.jit(step)(1.5, clean, ids, mask)
    (want, want_after), want_grad = jax.jit(jax.value_and_grad(whole, has_aux=True))(1.5)
    np.testing.assert_allclose([value, grad], [want, want_grad], rtol=1e-5)
    np.testing.assert_allclose(after.weights, want_after.weights, rtol=1e-5)

"""Losses, gradients and norms of one backward pass, against the gradients themselves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.grad_norms import Tape, by_domain, linear, value_grads_and_norms
from tests.grad_norms.models import MODELS, ONES, B, D, V, compiled, direct, every_model, measured, normal

pytestmark = pytest.mark.usefixtures("quick_compilation")


@every_model
def test_losses_gradients_and_norms(name):
    params = MODELS[name][1]
    losses, grads, norms, shares = measured(name)
    expected_losses, expected_grads, expected_norms, expected_shares = direct(name)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    chex.assert_trees_all_close(grads, expected_grads, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)
    assert norms.shape == (B,) and norms.dtype == jnp.float32 and norms.min() > 0
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-4)
    for share, expected in zip(shares, expected_shares, strict=True):  # a small leaf's cannot hide behind a large one's
        np.testing.assert_allclose(share, expected, rtol=2e-4, atol=1e-6)


def test_dense_by_hand():
    """T = 2 with inputs (1, 0), (0, 1) and outputs of slope 3 and 4: the gradient is diag(3, 4), the bias's (3, 4)."""

    def losses_fn(tape, params, slopes):
        x = jnp.broadcast_to(jnp.eye(2), (1, 2, 2))
        return (slopes * tape.dense(x, params["kernel"], params["bias"])).sum(axis=(1, 2))

    slopes = jnp.array([[[3.0, 0.0], [0.0, 4.0]]])
    _, grads, norms = compiled(losses_fn, {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, slopes)
    assert grads["kernel"].tolist() == [[3.0, 0.0], [0.0, 4.0]] and grads["bias"].tolist() == [3.0, 4.0]
    np.testing.assert_allclose(norms, [np.sqrt(50.0)], rtol=1e-6)


def test_embedding_by_hand():
    """Token 1 twice with slopes 1 and 2, token 0 once with 4: the rows' gradients are 3 and 4."""

    def losses_fn(tape, table, batch):
        return (batch[1] * tape.embed(batch[0], table)[..., 0]).sum(axis=1)

    batch = jnp.array([[1, 0, 1], [1, 1, 1]]), jnp.array([[1.0, 4.0, 2.0], [1.0, 1.0, -2.0]])
    _, grads, norms = compiled(losses_fn, jnp.ones((3, 1)), batch)
    assert grads.tolist() == [[2.0], [1.5], [0.0]]
    assert norms.tolist() == [5.0, 0.0]


def test_embedding_clips_ids():
    ids, table = np.array([[-1, 0], [V, 7], [-V - 3, 1]]), normal(0, V, D)
    clipped = np.array([[V - 1, 0], [V - 1, V - 1], [0, 1]])
    np.testing.assert_array_equal(Tape().embed(ids, table), table[clipped])

    def losses_fn(tape, table, ids):
        return jnp.square(tape.embed(ids, table)).sum(axis=(1, 2))

    chex.assert_trees_all_equal(*(compiled(losses_fn, table, x) for x in (ids, clipped)))


@every_model
def test_zero_gradients_have_norm_zero(name):
    losses, grads, norms, _ = measured(name, factor=np.where(np.arange(B) == 2, 0, ONES))
    assert norms[2] == 0.0 and losses[2] == 0.0 and (np.delete(np.asarray(norms), 2) > 0).all()
    chex.assert_tree_all_finite((grads, norms))


def test_an_example_that_is_not_finite_spoils_itself_alone():
    x, y = MODELS["mlp"][2]
    bad, weights = x.copy(), ONES.copy()
    bad[1, 0], bad[3], weights[[1, 3]] = np.nan, np.inf, 0.0
    _, grads, norms, _ = measured("mlp", batch=(bad, y), weights=weights)
    _, expected, clean, _ = measured("mlp", weights=weights)
    assert not np.isfinite(np.asarray(norms)[[1, 3]]).any()
    np.testing.assert_allclose(np.delete(norms, [1, 3]), np.delete(clean, [1, 3]), rtol=1e-6)
    chex.assert_trees_all_close(grads, expected, rtol=1e-6)  # weight 0 leaves the example out


def test_one_backward_pass():
    """As many products of matrices as value_and_grad, beside those of one example alone."""
    losses_fn, params, batch = MODELS["mlp"]

    def products(function):
        jaxpr = jax.make_jaxpr(function)(params, batch)
        dots = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
        return sum(not eqn.params["dimension_numbers"][1][0] for eqn in dots)

    ordinary = products(lambda params, batch: jax.grad(lambda p: losses_fn(Tape(), p, batch).mean())(params))
    assert products(lambda params, batch: value_grads_and_norms(losses_fn, params, batch)) == ordinary == 8


def test_a_constant_leaf_has_no_gradient_and_no_share():
    params = {"frozen": normal(0, 3, 3), "head": normal(1, 3, 1), "tied": normal(2, 1)}

    def losses_fn(tape, params, x):
        hidden = jnp.tanh(x @ tape.constant(params["frozen"])) * tape.constant(params["tied"])
        return tape.dense(hidden, params["head"], params["tied"])[:, 0]

    x = normal(3, B, 3)
    _, grads, norms = compiled(losses_fn, params, x)
    assert not grads["frozen"].any() and grads["tied"].tolist() == [1.0]
    hidden = jnp.tanh(x @ params["frozen"]) * params["tied"]
    np.testing.assert_allclose(norms, linear(jnp.ones(B), hidden, intercept=True), rtol=1e-5)


def test_from_norms_to_sampling_weights():
    """A network's norms feed the rule; a domain spoilt by one example counts as unseen and keeps its prior share."""
    x, y = MODELS["mlp"][2]
    ids = np.array([0, 0, 1, 1, 2, 2])
    norms = measured("mlp", batch=(np.where(np.arange(B)[:, None] == 5, np.float32(np.nan), x), y))[2]
    rule = mixjax.rules.gradient_norm()

    @jax.jit
    def update(norms):
        return rule.update(rule.init([0.25, 0.5, 0.25]), counts=jnp.full(3, 2), grad_norms=by_domain(norms, ids, 3))

    state = update(norms)
    clean = np.float64(direct("mlp")[2])
    scores = np.array([0.25, 0.5]) * np.sqrt([np.mean(clean[:2] ** 2), np.mean(clean[2:4] ** 2)])
    np.testing.assert_allclose(state.weights, [*(0.75 * scores / scores.sum()), 0.25], rtol=1e-4)

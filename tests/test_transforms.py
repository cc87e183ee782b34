"""Rules inside optax: what aggregate computes, what survives chains and wrappers, and what get_weights finds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mixjax
from mixjax import aggregate, get_weights, rules, track

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.float32([0.5, 0.3, 0.2])
SIGNALS = {
    "counts": np.array([4, 5, 6]),
    "losses": np.float32([1.0, 2.0, 4.0]),
    "loss_vars": np.float32([0.5, 1.0, 3.0]),
    "grad_stds": np.float32([1.0, 1.0, 5.0]),
    "loss_weights": np.float32([0.2, 0.3, 0.5]),
}
FGLS = np.array([0.5, 0.15, 0.05]) / 0.7  # prior / losses
PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2), "scale": jnp.ones(())}
GRADS = {
    "w": jnp.arange(12.0).reshape(3, 2, 2),
    "b": jnp.arange(6.0).reshape(3, 2) - 3,
    "scale": jnp.array([1.0, -1.0, 2.0]),
}


def combined(weights):
    return {name: np.tensordot(weights, np.asarray(g), 1) for name, g in GRADS.items()}


# aggregate


def test_aggregate_is_the_weighted_sum_of_every_leaf():
    tx = aggregate(rules.fgls(), PRIOR)
    out, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, **SIGNALS)
    chex.assert_trees_all_close(out, combined(FGLS), rtol=1e-5)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


def test_aggregate_first_in_a_chain_is_the_chain_on_the_weighted_gradient():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    inner = inner._replace(update=jax.jit(inner.update))
    tx = optax.chain(aggregate(rules.fgls(), PRIOR), inner)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(GRADS, state, params, **SIGNALS)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    plain, plain_state = PARAMS, inner.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
        updates, plain_state = inner.update(jax.tree.map(jnp.float32, combined(FGLS)), plain_state, plain)
        plain = optax.apply_updates(plain, updates)
    chex.assert_trees_all_close(params, plain, rtol=1e-5)


def test_rows_of_weight_zero_are_not_read():
    grads = jax.tree.map(lambda g: g.at[1].set(jnp.nan), GRADS)
    tx = aggregate(rules.fixed([0.75, 0.0, 0.25]), PRIOR)
    out, _ = tx.update(grads, tx.init(PARAMS), PARAMS, counts=SIGNALS["counts"])
    chex.assert_trees_all_close(out, combined(np.array([0.75, 0.0, 0.25])), rtol=1e-6)


def test_absent_domains_contribute_their_zeros():
    grads = jax.tree.map(lambda g: g.at[1].set(0.0), GRADS)
    signals = SIGNALS | {"counts": np.array([4, 0, 6]), "losses": np.float32([1.0, np.nan, 4.0])}
    tx = aggregate(rules.fgls(), PRIOR)
    out, state = tx.update(grads, tx.init(PARAMS), PARAMS, **signals)
    np.testing.assert_allclose(get_weights(state)[1], PRIOR[1], rtol=1e-6)  # its weight is not given to the others
    chex.assert_trees_all_close(out, jax.tree.map(lambda g: np.tensordot(get_weights(state), g, 1), grads), rtol=1e-5)


def test_bfloat16_gradients_are_summed_in_float32():
    tx = aggregate(rules.fixed(), [0.5005, 0.4995])  # both are 1/2 in bfloat16
    params = jnp.zeros(4, jnp.bfloat16)
    grads = jnp.array([[256.0], [-256.0]], jnp.bfloat16) * jnp.ones(4, jnp.bfloat16)
    out, state = tx.update(grads, tx.init(params), params, counts=np.ones(2))
    assert out.dtype == jnp.bfloat16 and get_weights(state).dtype == jnp.float32
    np.testing.assert_allclose(np.float32(out), 0.256, rtol=1e-2)


@pytest.mark.parametrize("shape", [(), (2,), (4, 3)])
def test_gradients_must_be_stacked(shape):
    tx = aggregate(rules.fixed(), PRIOR)
    with pytest.raises(ValueError, match=r"leading axis 3 \(domains\)"):
        tx.update(jnp.ones(shape), tx.init(None), None, counts=SIGNALS["counts"])


def test_gradients_do_not_flow_back_through_the_weights():
    tx = aggregate(rules.erma(0.3, 0.5), PRIOR)

    def norm(losses, grads):
        out, _ = tx.update(grads, tx.init(None), None, **SIGNALS | {"losses": losses})
        return jnp.sum(jnp.square(out))

    by_losses, by_grads = jax.grad(norm, (0, 1))(jnp.array([1.0, 2.0, 4.0]), jnp.ones((3, 2)))
    np.testing.assert_array_equal(by_losses, 0.0)
    assert np.abs(by_grads).min() > 0


# track


def test_track_passes_gradients_and_moves_the_weights():
    tx = track(rules.fgls(), PRIOR)
    state = tx.init(PARAMS)
    np.testing.assert_allclose(get_weights(state), PRIOR, rtol=1e-6)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    out, state = tx.update(grads, state, PARAMS, **SIGNALS)
    chex.assert_trees_all_equal(out, grads)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_track_sits_anywhere_in_a_chain(place):
    parts = [optax.clip(1.0), optax.scale_by_adam(), optax.scale(-0.1)]
    tx = optax.chain(*parts[:place], track(rules.fgls(), PRIOR), *parts[place:])
    plain, grads = optax.chain(*parts), jax.tree.map(jnp.ones_like, PARAMS)
    out, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS, **SIGNALS)
    chex.assert_trees_all_close(out, plain.update(grads, plain.init(PARAMS), PARAMS)[0])
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


def test_a_loss_rule_and_a_sampling_rule_in_a_named_chain():
    tx = optax.named_chain(
        ("c", track(rules.fgls(), PRIOR)), ("q", track(rules.variance_aware(), PRIOR)), ("sgd", optax.sgd(0.1))
    )
    state = tx.init(PARAMS)
    _, state = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS, **SIGNALS)
    np.testing.assert_allclose(get_weights(state, "c"), FGLS, rtol=1e-5)
    np.testing.assert_allclose(get_weights(state, "q"), np.array([0.2, 0.3, 2.5]) / 3, rtol=1e-5)
    with pytest.raises(ValueError, match=r"expected one aggregate or track state .*found: .*c.*q"):
        get_weights(state)
    with pytest.raises(ValueError, match=r"named 'p' .*found: .*c.*q"):
        get_weights(state, "p")


def test_names_reach_through_nested_chains():
    tx = optax.named_chain(("c", optax.chain(optax.clip(1.0), track(rules.fgls(), PRIOR))), ("q", optax.sgd(0.1)))
    np.testing.assert_allclose(get_weights(tx.init(PARAMS), "c"), PRIOR, rtol=1e-6)
    with pytest.raises(ValueError, match="named 'q'"):
        get_weights(tx.init(PARAMS), "q")


def test_get_weights_without_a_rule():
    for tx in (optax.adam(0.1), optax.chain(optax.clip(1.0), optax.sgd(0.1))):
        with pytest.raises(ValueError, match="found: none"):
            get_weights(tx.init(PARAMS))


# Wrappers of optax and flax.


def test_inject_hyperparams():
    @optax.inject_hyperparams
    def make(learning_rate, gamma):
        return optax.chain(aggregate(rules.one_shot_fgls(gamma), PRIOR), optax.sgd(learning_rate))

    tx = make(learning_rate=0.1, gamma=0.5)
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    out, state = update(GRADS, state, PARAMS, **SIGNALS)
    w = PRIOR * (0.5 + 0.5 / SIGNALS["losses"])
    np.testing.assert_allclose(get_weights(state), w / w.sum(), rtol=1e-5)
    chex.assert_trees_all_close(out, jax.tree.map(lambda g: -0.1 * g, combined(w / w.sum())), rtol=1e-5)
    state.hyperparams["gamma"] = jnp.asarray(1.0)
    state.hyperparams["learning_rate"] = jnp.asarray(1.0)
    out, state = update(GRADS, state, PARAMS, **SIGNALS)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(out, jax.tree.map(lambda g: -g, combined(FGLS)), rtol=1e-5)


def test_masked():
    mask = {"w": True, "b": False, "scale": True}
    tx = optax.chain(aggregate(rules.fgls(), PRIOR), optax.masked(optax.sgd(0.1), mask))
    out, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, **SIGNALS)
    sign = {"w": -0.1, "b": 1.0, "scale": -0.1}
    chex.assert_trees_all_close(out, {name: sign[name] * g for name, g in combined(FGLS).items()}, rtol=1e-5)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


def test_track_inside_masked():
    tx = optax.masked(optax.chain(track(rules.fgls(), PRIOR), optax.sgd(0.1)), {"w": True, "b": False, "scale": True})
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    out, state = tx.update(grads, tx.init(PARAMS), PARAMS, **SIGNALS)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    np.testing.assert_allclose(out["b"], 1.0)


def test_apply_if_finite():
    tx = optax.apply_if_finite(optax.chain(track(rules.fgls(), PRIOR), optax.sgd(0.1)), 3)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    update = jax.jit(tx.update)
    out, state = update(jax.tree.map(lambda g: g * jnp.nan, grads), tx.init(PARAMS), PARAMS, **SIGNALS)
    chex.assert_trees_all_equal(out, jax.tree.map(jnp.zeros_like, PARAMS))
    np.testing.assert_allclose(get_weights(state), PRIOR, rtol=1e-6)  # the whole step is skipped
    out, state = update(grads, state, PARAMS, **SIGNALS)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    np.testing.assert_allclose(out["b"], -0.1, rtol=1e-6)


def test_aggregate_before_apply_if_finite():
    tx = optax.chain(aggregate(rules.fgls(), PRIOR), optax.apply_if_finite(optax.sgd(0.1), 3))
    bad = jax.tree.map(lambda g: g.at[0].set(jnp.nan), GRADS)
    out, state = tx.update(bad, tx.init(PARAMS), PARAMS, **SIGNALS)
    chex.assert_trees_all_equal(out, jax.tree.map(jnp.zeros_like, PARAMS))
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


@pytest.mark.parametrize("stacked", [True, False])
def test_nnx_optimizer(stacked):
    class Linear(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.array([1.0, -1.0]))

        def __call__(self, x):
            return x @ self.w[...]

    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # one example per domain
    make = aggregate if stacked else track
    model = Linear()
    optimizer = nnx.Optimizer(model, optax.chain(make(rules.fgls(), PRIOR), optax.sgd(1.0)), wrt=nnx.Param)
    np.testing.assert_allclose(get_weights(optimizer.opt_state), PRIOR, rtol=1e-6)

    @nnx.jit
    def step(model, optimizer):
        def losses(model):
            return jnp.square(model(x) - 3.0)

        values = losses(model)  # 4, 16, 9
        if stacked:
            graph, params = nnx.split(model, nnx.Param)
            grads = jax.jacrev(lambda params: losses(nnx.merge(graph, params)))(params)
        else:
            weights = get_weights(optimizer.opt_state)
            grads = nnx.grad(lambda model: weights @ losses(model))(model)
        optimizer.update(model, grads, counts=jnp.ones(3), losses=values)

    step(model, optimizer)
    c = paper_weights = PRIOR / np.float32([4.0, 16.0, 9.0])
    c = c / paper_weights.sum()
    np.testing.assert_allclose(get_weights(optimizer.opt_state), c, rtol=1e-5)
    used = c if stacked else PRIOR
    gradient = used @ (2 * np.array([[-2.0, 0.0], [0.0, -4.0], [-3.0, -3.0]]))
    np.testing.assert_allclose(model.w[...], np.array([1.0, -1.0]) - gradient, rtol=1e-5)
    assert isinstance(get_weights(optimizer.opt_state), jax.Array)


def test_states_are_ordinary_pytrees_under_vmap():
    tx = optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(0.1))
    losses = np.float32([[1, 2, 4], [4, 2, 1]])

    def run(losses):
        _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, **SIGNALS | {"losses": losses})
        return get_weights(state)

    weights = jax.jit(jax.vmap(run))(losses)
    np.testing.assert_allclose(weights[0], FGLS, rtol=1e-5)
    np.testing.assert_allclose(weights[1], run(losses[1]), rtol=1e-5)


def test_a_traced_prior():
    def run(prior):
        return get_weights(aggregate(rules.fixed(), prior).init(None))

    np.testing.assert_allclose(jax.vmap(run)(jnp.array([[1.0, 3.0], [1.0, 1.0]])), [[0.25, 0.75], [0.5, 0.5]])


# Errors.


@pytest.mark.parametrize("make", [aggregate, track])
@pytest.mark.parametrize("signals", [{}, {"losses": np.ones(3)}])
def test_signals_that_never_arrive(make, signals):
    tx = optax.chain(make(rules.fgls(), PRIOR), optax.sgd(0.1))
    message = rf"{make.__name__} got no domain signals: call tx.update\(.*counts=.*take mixjax.accumulate.*TrainState"
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(TypeError, match=message):
            update(GRADS, tx.init(PARAMS), PARAMS, **signals)


@pytest.mark.parametrize("make", [aggregate, track])
def test_a_missing_signal_is_named(make):
    tx = make(rules.erma(), PRIOR)
    with pytest.raises(TypeError, match="loss_vars"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, counts=SIGNALS["counts"], losses=SIGNALS["losses"])


def test_multi_steps_inside_a_chain_drops_the_signals_and_is_told_so():
    inner = optax.chain(track(rules.fgls(), PRIOR), optax.sgd(0.1))
    tx = optax.chain(optax.clip(1.0), optax.MultiSteps(inner, 2).gradient_transformation())
    with pytest.raises(TypeError, match="track got no domain signals"):
        tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS, **SIGNALS)


def test_signals_of_the_wrong_shape_are_named():
    tx = track(rules.fgls(), PRIOR)
    with pytest.raises(ValueError, match="'losses'"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, counts=SIGNALS["counts"], losses=np.ones(2))


@pytest.mark.parametrize("make", [aggregate, track])
def test_a_bad_prior_is_an_error(make):
    with pytest.raises(ValueError, match="prior"):
        make(rules.fgls(), [-0.5, 1.5]).init(PARAMS)


def test_extra_arguments_of_other_transformations_pass_by():
    tx = optax.chain(
        track(rules.select([rules.fgls()], 0), PRIOR), optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1)
    )
    grads, state = jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS)
    _, state = tx.update(grads, state, PARAMS, value=jnp.ones(()), value_fn=lambda params: 0.0, **SIGNALS)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)


def test_public_names():
    assert mixjax.aggregate is aggregate and mixjax.track is track and mixjax.get_weights is get_weights

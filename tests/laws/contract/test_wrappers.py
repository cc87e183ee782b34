"""Tests the adapters inside and around every wrapper of optax: a wrapper works, or an error names the cure."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from mixjax import accumulate, aggregate, get_weights, rules, track

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.float32([0.5, 0.3, 0.2])
SIGNALS = {"counts": np.array([4, 5, 6]), "losses": np.float32([1.0, 2.0, 4.0])}
FGLS = np.array([0.5, 0.15, 0.05]) / 0.7  # prior / losses
PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
STACKED = {"w": jnp.arange(12.0).reshape(3, 2, 2) / 12, "b": jnp.arange(6.0).reshape(3, 2) / 6 - 0.4}
COMBINED = jax.tree.map(lambda g: jnp.tensordot(FGLS.astype(np.float32), g, 1), STACKED)
ONLY_W = {"w": True, "b": False}


def _forwarding(condition):
    return lambda step, **signals: condition(step)


def _hyperparameters(wrapper):
    return lambda tx: wrapper(lambda scale: optax.chain(tx, optax.scale(scale)))(scale=1.0)


# Wrappers that take extra arguments and return updates of the shapes they got, or of whatever the inner one returns.
TRANSPARENT = {
    "chain": lambda tx: optax.chain(tx, optax.clip(1.0)),
    "named_chain": lambda tx: optax.named_chain(("tx", tx), ("clip", optax.clip(1.0))),
    "inject_hyperparams": _hyperparameters(optax.inject_hyperparams),
    "with_extra_args_support": optax.with_extra_args_support,
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
    "keep_params_nonnegative": lambda tx: optax.chain(tx, optax.keep_params_nonnegative()),
    "freeze": lambda tx: optax.chain(tx, optax.freeze(ONLY_W)),
    "reduce_on_plateau": lambda tx: optax.chain(tx, optax.contrib.reduce_on_plateau()),
    "snapshot": lambda tx: optax.chain(optax.snapshot("before", optax.tree.norm), tx),
    "monitor": lambda tx: optax.chain(tx, optax.monitor({"norm": optax.tree.norm})),
    "apply_every": lambda tx: optax.chain(tx, optax.apply_every(2)),
    "ema": lambda tx: optax.chain(tx, optax.ema(0.9)),
    "masked with all": lambda tx: optax.masked(tx, lambda params: jax.tree.map(lambda _: True, params)),
}
# Wrappers that compare the shapes of updates with each other or with the parameters.
SHAPED = {
    "masked": lambda tx: optax.masked(tx, ONLY_W),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.set_to_zero()}, {"w": "a", "b": "b"}),
    "multi_transform": lambda tx: optax.multi_transform({"a": tx, "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
    "selective_transform": lambda tx: optax.selective_transform(tx, freeze_mask={"w": False, "b": True}),
    "flatten": optax.flatten,
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "MultiSteps(skip_not_finite)": lambda tx: optax.MultiSteps(tx, 1, should_skip_update_fn=optax.skip_not_finite),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step < 9),
    "conditionally_mask, forwarding": lambda tx: optax.conditionally_mask(
        tx, _forwarding(lambda step: step < 9), forward_extra_args=True
    ),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step < 9),
    "conditionally_transform, forwarding": lambda tx: optax.conditionally_transform(
        tx, _forwarding(lambda step: step < 9), forward_extra_args=True
    ),
    "mechanize": optax.contrib.mechanize,
}
WRAPPERS = TRANSPARENT | SHAPED


def run(tx, grads, params=PARAMS, steps=2):
    """The updates and the state after a few steps with the same gradients and signals."""
    state = tx.init(params)
    update = jax.jit(lambda state: tx.update(grads, state, params, value=1.0, **SIGNALS))
    for _ in range(steps):
        updates, state = update(state)
    return updates, state


def plain(wrapper, grads):
    return run(optax.with_extra_args_support(wrapper(optax.sgd(0.1))), grads)[0]


@pytest.mark.parametrize("name", WRAPPERS)
def test_track_stands_inside(name):
    updates, state = run(WRAPPERS[name](optax.chain(track(rules.fgls(), PRIOR), optax.sgd(0.1))), COMBINED)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, plain(WRAPPERS[name], COMBINED), rtol=1e-5)


@pytest.mark.parametrize("name", WRAPPERS)
def test_aggregate_stands_before(name):
    if isinstance(wrapped := WRAPPERS[name](optax.sgd(0.1)), optax.MultiSteps):
        wrapped = wrapped.gradient_transformation()
    updates, state = run(optax.chain(aggregate(rules.fgls(), PRIOR), wrapped), STACKED)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, plain(WRAPPERS[name], COMBINED), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRANSPARENT)
def test_aggregate_stands_inside_wrappers_that_leave_shapes_alone(name):
    updates, state = run(WRAPPERS[name](optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(0.1))), STACKED)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, plain(WRAPPERS[name], COMBINED), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPED)
def test_aggregate_inside_a_wrapper_that_compares_shapes_is_an_error_that_names_the_cure(name):
    cure = r"put \w+ behind it, optax.chain\(mixjax.aggregate\(...\), \w+\(...\)\)"
    if name in ("masked", "partition", "multi_transform", "selective_transform"):
        cure = r"put optax.masked, optax.partition or optax.selective_transform behind it, optax.chain\(mixjax.aggr"
    if name.startswith("MultiSteps"):
        cure = r"mixjax.accumulate takes them"
    inner = optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(0.1))
    for tx in (SHAPED[name](inner), SHAPED[name](accumulate(inner, 2))):
        with pytest.raises(ValueError, match=cure):
            run(tx, STACKED)


@pytest.mark.parametrize("make", [aggregate, track])
@pytest.mark.parametrize("name", ["named_chain", "inject_hyperparams", "keep_params_nonnegative", "freeze"])
def test_accumulate_stands_inside_and_outside(name, make):
    grads, inner = STACKED if make is aggregate else COMBINED, optax.chain(make(rules.fgls(), PRIOR), optax.sgd(0.1))
    updates, state = run(WRAPPERS[name](accumulate(inner, 2)), grads)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, run(accumulate(WRAPPERS[name](inner), 2), grads)[0], rtol=1e-5)


# Wrappers that take no extra arguments.


def test_lookahead_behind_the_adapters():
    params = optax.LookaheadParams.init_synced(PARAMS)
    lookahead = optax.lookahead(optax.sgd(0.1), 2, 0.5)
    want, _ = run(optax.with_extra_args_support(lookahead), COMBINED, params)
    for make, grads in ((aggregate, STACKED), (track, COMBINED)):
        updates, state = run(optax.chain(make(rules.fgls(), PRIOR), lookahead), grads, params)
        np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
        chex.assert_trees_all_close(updates, want, rtol=1e-5, atol=1e-6)


def test_sam_behind_the_adapters():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), 2)
    sam = optax.GradientTransformation(sam.init, sam.update)
    want, _ = run(optax.with_extra_args_support(sam), COMBINED)
    for make, grads in ((aggregate, STACKED), (track, COMBINED)):
        updates, state = run(optax.chain(make(rules.fgls(), PRIOR), sam), grads)
        np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
        chex.assert_trees_all_close(updates, want, rtol=1e-5, atol=1e-6)


def test_split_real_and_imaginary_behind_the_adapters():
    split = optax.contrib.split_real_and_imaginary(optax.adam(0.1))
    grads, params = jax.tree.map(lambda g: g * (1 + 2j), STACKED), jax.tree.map(lambda p: p * (1 + 0j), PARAMS)
    updates, state = run(optax.chain(aggregate(rules.fgls(), PRIOR), split), grads, params)
    combined = jax.tree.map(lambda g: g * (1 + 2j), COMBINED)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, run(optax.with_extra_args_support(split), combined, params)[0], rtol=1e-4)


def test_a_private_aggregate_before_track():
    private = optax.contrib.differentially_private_aggregate(1e6, 0.0, 0)
    per_example = jax.tree.map(lambda g: jnp.stack([g, 3 * g]), COMBINED)
    updates, state = run(optax.chain(private, track(rules.fgls(), PRIOR)), per_example)
    np.testing.assert_allclose(get_weights(state), FGLS, rtol=1e-5)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: 2 * g, COMBINED), rtol=1e-5)


DROPPING = {
    "lookahead": lambda tx: optax.lookahead(tx, 2, 0.5),
    "sam": lambda tx: optax.contrib.sam(tx, optax.sgd(0.1), 2),
    "split_real_and_imaginary": optax.contrib.split_real_and_imaginary,
}


@pytest.mark.parametrize("make", [aggregate, track, lambda rule, prior: accumulate(track(rule, prior), 2)])
@pytest.mark.parametrize("name", DROPPING)
def test_an_adapter_inside_a_wrapper_that_takes_no_signals_is_an_error_that_names_the_cure(name, make):
    tx = DROPPING[name](optax.chain(make(rules.fgls(), PRIOR), optax.sgd(0.1)))
    params = optax.LookaheadParams.init_synced(PARAMS) if name == "lookahead" else PARAMS
    message = rf"stands inside {name}, which drops the domain signals: put {name} behind it, optax.chain\(mixjax"
    for init in (tx.init, jax.jit(tx.init), optax.chain(optax.clip(1.0), tx).init):
        with pytest.raises(ValueError, match=message):
            init(params)


@pytest.mark.parametrize("make", [track, lambda rule, prior: accumulate(track(rule, prior), 2)])
def test_multi_steps_in_a_chain_drops_the_signals_and_the_error_names_the_cure(make):
    inner = optax.chain(make(rules.fgls(), PRIOR), optax.sgd(0.1))
    tx = optax.chain(optax.clip(1.0), optax.MultiSteps(inner, 2).gradient_transformation())
    with pytest.raises(TypeError, match=r"got no domain signals.*take mixjax.accumulate for optax.MultiSteps"):
        tx.update(COMBINED, tx.init(PARAMS), PARAMS, **SIGNALS)


def test_functions_of_the_same_name_elsewhere_are_no_wrappers():
    def lookahead(tx):
        return tx.init(PARAMS)

    np.testing.assert_allclose(get_weights(lookahead(track(rules.fgls(), PRIOR))), PRIOR, rtol=1e-6)


def test_flax_train_state_drops_the_signals_and_the_error_says_where_the_cure_stands():
    for make in (aggregate, track):
        tx = optax.chain(make(rules.fgls(), PRIOR), optax.sgd(0.1))
        state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
        with pytest.raises(TypeError, match=r"see the docstring of mixjax.transforms for flax's TrainState"):
            state.apply_gradients(grads=STACKED)

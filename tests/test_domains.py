"""Domains that come and go in the middle of a run: what an optimizer's state keeps, and where it goes on."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mixjax import accumulate, aggregate, domains, get_weights, rules, track
from mixjax.transforms import find_states

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
THREE, FOUR, TWO = np.float32([0.5, 0.3, 0.2]), np.float32([0.4, 0.24, 0.16, 0.2]), np.float32([0.6, 0.4])


def signals(size, seed=0):
    rng = np.random.default_rng(seed)
    measured = {name: np.float32(rng.uniform(0.5, 2.0, size)) for name in ("losses", "loss_vars", "grad_stds")}
    return measured | {"counts": np.full(size, 4), "loss_weights": np.full(size, 1 / size, np.float32)}


def stacked(size):
    return jax.tree.map(lambda p: jnp.stack([jnp.full(p.shape, 1.0 + d) for d in range(size)]), PARAMS)


TRANSFORMATIONS = {
    "aggregate": lambda prior: optax.chain(aggregate(rules.erma(0.3, 0.5), prior), optax.adam(0.1)),
    "track": lambda prior: optax.chain(optax.clip(1.0), track(rules.fgls(), prior), optax.adam(0.1)),
    "accumulate": lambda prior: accumulate(
        optax.chain(aggregate(rules.smooth(rules.fgls(), 0.5), prior), optax.adam(0.1)), 2
    ),
    "named_chain": lambda prior: optax.named_chain(
        ("c", track(rules.floor(rules.erma(0.3, 0.5), 0.1), prior)),
        ("q", track(rules.variance_aware(), prior)),
        ("adam", optax.adam(0.1)),
    ),
    "inject_hyperparams": lambda prior: optax.inject_hyperparams(
        lambda gamma, variances: optax.chain(track(rules.one_shot_fgls(gamma), prior), optax.adam(0.1)),
        static_args=(),
    )(gamma=0.5, variances=jnp.ones(len(prior))),
    "apply_if_finite": lambda prior: optax.apply_if_finite(optax.chain(track(rules.fgls(), prior), optax.adam(0.1)), 3),
    "MultiSteps": lambda prior: optax.MultiSteps(optax.chain(track(rules.fgls(), prior), optax.adam(0.1)), 2),
}


def gradients(tx, size):
    kinds = [type(state).__name__ for _, state in find_states(tx.init(PARAMS))]
    return stacked(size) if "AggregateState" in kinds else jax.tree.map(jnp.ones_like, PARAMS)


@functools.cache
def advanced(name):
    """The state after three updates with three domains; that of accumulate is then within a window."""
    tx = TRANSFORMATIONS[name](THREE)
    state, grads, update = tx.init(PARAMS), gradients(tx, 3), jax.jit(tx.update)
    for step in range(3):
        _, state = update(grads, state, PARAMS, **signals(3, step))
    return state


def moments(state):
    return [optax.tree.get(state, "mu"), optax.tree.get(state, "nu")]


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_rule_in_an_optimizer_state_is_extended_and_the_rest_stays(name):
    state = advanced(name)
    tx = TRANSFORMATIONS[name](FOUR)
    extended = domains.extend(tx, state, PARAMS)
    assert jax.tree.structure(extended) == jax.tree.structure(tx.init(PARAMS))
    chex.assert_trees_all_equal_shapes_and_dtypes(extended, tx.init(PARAMS))
    chex.assert_trees_all_equal(moments(extended), moments(state))
    for (_, new), (_, old) in zip(find_states(extended), find_states(state), strict=True):
        new, old = new.rule_state.weights, old.rule_state.weights
        np.testing.assert_allclose(new.sum(), 1.0, rtol=1e-6)
        np.testing.assert_allclose(new[:3] / new[:3].sum(), old, rtol=1e-5)
    # An update with signals of all four domains goes on from there.
    _, after = jax.eval_shape(tx.update, gradients(tx, 4), extended, PARAMS, **signals(4))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, extended)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_every_rule_in_an_optimizer_state_loses_a_domain(name):
    state = advanced(name)
    tx = TRANSFORMATIONS[name](TWO)
    left = domains.remove(tx, state, PARAMS, [1])
    chex.assert_trees_all_equal_shapes_and_dtypes(left, tx.init(PARAMS))
    chex.assert_trees_all_equal(moments(left), moments(state))
    _, after = jax.eval_shape(tx.update, gradients(tx, 2), left, PARAMS, **signals(2))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, left)


def test_a_domain_that_comes_and_goes_leaves_the_state_as_it_was():
    for name in TRANSFORMATIONS:
        state = advanced(name)
        more = domains.extend(TRANSFORMATIONS[name](FOUR), state, PARAMS)
        back = domains.remove(TRANSFORMATIONS[name](THREE), more, PARAMS, [3])
        chex.assert_trees_all_close(back, state, rtol=1e-5, atol=1e-6)


def test_a_window_of_accumulate_goes_on_with_the_new_domain():
    def make(prior):
        return accumulate(optax.chain(aggregate(rules.fixed(), prior), optax.sgd(1.0)), 2)

    tx = make(THREE)
    _, state = tx.update(stacked(3), tx.init(PARAMS), PARAMS, counts=np.array([1, 2, 1]))
    tx = make(FOUR)
    state = domains.extend(tx, state, PARAMS)
    grads = jax.tree.map(lambda g: 3 * g, stacked(4))
    updates, state = tx.update(grads, state, PARAMS, counts=np.array([1, 2, 1, 5]))
    # Rows 1, 2, 3 have the mean of once and three times their gradient, the new row only the second.
    means = np.array([2.0, 4.0, 6.0, 12.0])
    np.testing.assert_allclose(updates["b"], -FOUR @ means, rtol=1e-5)


def test_in_an_nnx_optimizer():
    class Linear(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(2))

    model = Linear()
    optimizer = nnx.Optimizer(model, TRANSFORMATIONS["track"](THREE), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads, **signals(3))
    before = np.asarray(get_weights(optimizer.opt_state))
    optimizer.tx = TRANSFORMATIONS["track"](FOUR)
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    opt_state = domains.extend(optimizer.tx, nnx.as_pure(optimizer.opt_state), params)
    nnx.update(optimizer.opt_state, nnx.state(opt_state))
    np.testing.assert_allclose(get_weights(optimizer.opt_state)[:3], 0.8 * before, rtol=1e-5)
    optimizer.update(model, grads, **signals(4))
    assert optimizer.step[...] == 2 and get_weights(optimizer.opt_state).shape == (4,)


def test_errors_name_what_does_not_fit():
    state = advanced("track")
    make = TRANSFORMATIONS["track"]
    with pytest.raises(ValueError, match="tx must make a state of the structure of opt_state"):
        domains.extend(TRANSFORMATIONS["aggregate"](FOUR), state, PARAMS)
    with pytest.raises(ValueError, match=r"the 3 domains of opt_state and the new ones, got 2; mixjax.domains.remove"):
        domains.extend(make(TWO), state, PARAMS)
    with pytest.raises(ValueError, match="tx must have the 1 domains that stay of 3, got 2"):
        domains.remove(make(TWO), state, PARAMS, [0, 1])
    for wrong in ([3], [-1], [0.5]):
        with pytest.raises(ValueError, match=r"domains must be integers in \[0, 3\)"):
            domains.remove(make(TWO), state, PARAMS, wrong)
    with pytest.raises(ValueError, match="aggregate or track states of one number of domains, got no such state"):
        domains.extend(make(FOUR), optax.adam(0.1).init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_parameters_of_other_shapes_are_refused(name):
    """Their moments must not be taken for rows of domains."""
    make = TRANSFORMATIONS[name]
    state = make(THREE).init(PARAMS)
    for other in ({"w": jnp.ones((5, 2)), "b": jnp.zeros(2)}, {"w": jnp.ones((2, 2)), "b": jnp.zeros(4)}):
        with pytest.raises(ValueError, match=r"params must be those of opt_state, whose .* has shape") as refused:
            domains.extend(make(FOUR), state, other)
        assert "\n" not in str(refused.value)
        with pytest.raises(ValueError, match="params must be those of opt_state"):
            domains.remove(make(TWO), state, other, [1])


def test_removing_no_domain_leaves_the_state_as_it_is():
    tx = TRANSFORMATIONS["track"](THREE)
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(domains.remove(tx, state, PARAMS, []), state)

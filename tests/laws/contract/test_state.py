"""Tests the state of every rule: its fields, its types, and that neither depends on how the inputs are given."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mixjax
from mixjax import rules
from mixjax.types import SIGNALS
from tests.laws.contract.cases import (
    BASE,
    CASES,
    PRIOR,
    ROWS,
    TRACES,
    assert_simplex,
    draw_signals,
    every_case,
    jitted,
    state_type,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_table_covers_the_registry():
    assert set(BASE) == set(rules.RULES)


def test_signals_of_the_table_are_the_vocabulary():
    assert {signal for case in CASES.values() for signal in case.reads} <= set(SIGNALS)


@every_case
def test_state_begins_with_weights_and_prior(name):
    state = CASES[name].make(ROWS).init(PRIOR)
    assert state._fields[:2] == ("weights", "prior")
    np.testing.assert_allclose(state.prior, PRIOR, rtol=1e-6)
    assert_simplex(state.weights)


@every_case
def test_prior_is_normalised(name):
    rule = jitted(name)
    chex.assert_trees_all_close(rule.init(PRIOR), rule.init(PRIOR * 1000), rtol=1e-6)


@every_case
def test_state_type_is_a_fixpoint(name):
    state = jitted(name).init(PRIOR)
    kind = state_type(state)
    assert not any(weak for *_, weak in kind[1])
    assert {x.dtype for x in jax.tree.leaves(state)} <= {np.dtype(t) for t in ("float32", "int32", "bool")}
    assert state.weights.dtype == state.prior.dtype == jnp.float32
    for seed in range(3):
        state = jitted(name).update(state, **draw_signals(seed))
        assert state_type(state) == kind


@every_case
@pytest.mark.parametrize("prior", [[0.5, 0.3, 0.2], (1, 2, 3), jnp.full(3, 1 / 3), PRIOR.astype(np.float64)])
def test_state_type_does_not_depend_on_how_the_prior_is_given(name, prior):
    rule = CASES[name].make(ROWS)
    assert state_type(jax.eval_shape(rule.init, np.asarray(prior))) == state_type(jax.eval_shape(rule.init, PRIOR))
    state = rule.init(prior)
    assert state_type(state) == state_type(jax.eval_shape(rule.init, PRIOR))


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_state_is_float32_under_signals_of_any_dtype(name, dtype):
    rule, signals = CASES[name].make(ROWS), draw_signals(0)
    state = rule.init(PRIOR)
    signals = {key: value.astype(dtype) if key != "counts" else value for key, value in signals.items()}
    assert state_type(jax.eval_shape(rule.update, state, **signals)) == state_type(state)


@every_case
def test_state_is_float32_in_64_bit_mode(name):
    with jax.enable_x64(True):
        rule = CASES[name].make(ROWS)
        state = rule.init(PRIOR.astype(np.float64))
        signals = {key: value.astype(np.float64) for key, value in draw_signals(0).items()}
        assert {x.dtype for x in jax.tree.leaves(state)} <= {np.dtype(t) for t in ("float32", "int32", "bool")}
        assert state_type(jax.eval_shape(rule.update, state, **signals)) == state_type(state)


SIXTY_FOUR_BIT = {
    "fixed": lambda h: rules.fixed(temperature=h),
    "gls": lambda h: rules.gls(h),
    "fgls": lambda h: rules.fgls(min_loss=h),
    "one_shot_fgls": lambda h: rules.one_shot_fgls(h, min_loss=h),
    "erma": lambda h: rules.erma(h, h, max_log_step=h),
    "variance_aware": lambda h: rules.variance_aware(min_ratio=h),
    "gradient_norm": lambda h: rules.gradient_norm(floor=h),
    "dro": lambda h: rules.dro(h, scale=h),
    "dro(chi2)": lambda h: rules.dro(h, "chi2", scale=h),
    "dro(cvar)": lambda h: rules.dro(h, "cvar"),
    "group_dro": lambda h: rules.group_dro(h, adjustment=h, decay=h, max_log_step=h),
    "mirror_descent": lambda h: rules.mirror_descent(h, max_log_step=h),
    "projected_gradient": lambda h: rules.projected_gradient(h),
    "constant projected_gradient": lambda h: rules.projected_gradient(h, adaptive=False),
    "doremi": lambda h: rules.doremi(h, floor=h, max_log_step=h),
    "doge": lambda h: rules.doge(h, max_score=h, max_log_step=h),
    "exp3": lambda h: rules.exp3(h),
    "ado": lambda h: rules.ado(h, h, h, delta_min=h, warmup=jnp.int64(0), skip=jnp.int64(0)),
    "aioli": lambda h: rules.aioli(h, rounds=jnp.int64(1), hold=jnp.int64(1), epsilon=h, decay=h, max_log_step=h),
    "kl_to_prior": lambda h: rules.kl_to_prior(rules.mirror_descent(), h),
    "smooth": lambda h: rules.smooth(rules.fgls(), h),
    "floor": lambda h: rules.floor(rules.fgls(), h),
    "every": lambda h: rules.every(rules.fgls(), jnp.int64(2), jnp.int64(0)),
    "freeze_after": lambda h: rules.freeze_after(rules.fgls(), jnp.int64(2)),
    "select": lambda h: rules.select([rules.fgls(), rules.fixed()], jnp.int64(1)),
}


@pytest.mark.parametrize("name", SIXTY_FOUR_BIT)
def test_state_is_float32_under_64_bit_hyperparameters(name):
    with jax.enable_x64(True):
        rule = SIXTY_FOUR_BIT[name](jnp.float64(0.5))
        state = rule.init(PRIOR)
        assert state_type(jax.eval_shape(rule.update, state, **draw_signals(0))) == state_type(state)


@every_case
def test_bfloat16_parameters_leave_the_state_float32(name):
    rule = CASES[name].make(ROWS)
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    tx = optax.chain(mixjax.aggregate(rule, PRIOR), optax.sgd(0.1))
    state = tx.init(params)
    grads = {"w": jnp.ones((3, 2, 2), jnp.bfloat16)}
    signals = {key: jnp.asarray(value, jnp.bfloat16) for key, value in draw_signals(0).items()}
    updates, new = jax.eval_shape(tx.update, grads, state, params, **signals)
    assert updates["w"].dtype == jnp.bfloat16
    assert state_type(new) == state_type(state)
    assert mixjax.get_weights(state).dtype == jnp.float32


@every_case
def test_three_updates_trace_once(name):
    rule = jitted(name)
    traces = TRACES[name, tuple(ROWS)]
    state, before = CASES[name].make(ROWS).init([0.2, 0.3, 0.5]), len(traces)
    for seed in range(3):
        state = rule.update(state, **draw_signals(seed))
    assert len(traces) - before <= 1  # 0 where another test has traced it
    assert all(kind == state_type(state) for kind in traces)

"""Tests every rule under jit, vmap, scan, grad and shard_map, and with traced hyperparameters."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import rules
from tests.laws.contract.cases import (
    BASE,
    CASES,
    PRIOR,
    ROWS,
    advance,
    assert_bitwise,
    draw_signals,
    every_case,
    jitted,
    moved_state,
    stack,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@every_case
def test_eager_on_the_named_signals_equals_jit_on_all(name):
    rule = CASES[name].make(ROWS)
    a, b = rule.init(PRIOR), jitted(name).init(PRIOR)
    for seed, more in enumerate([{}, {"something_new": np.ones(3), "another": "thing"}]):
        signals = draw_signals(seed)
        needed = {key: signals[key] for key in ("counts", *CASES[name].reads)}
        a, b = rule.update(a, **needed, **more), jitted(name).update(b, **signals)
        chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


@every_case
def test_vmap_equals_a_loop(name):
    rule, runs = jitted(name), 3
    states = [rule.init(np.roll(PRIOR, run)) for run in range(runs)]
    batched, update = stack(states), jax.jit(jax.vmap(rule.update))
    for t in range(2):
        signals = [draw_signals(10 * t + run) for run in range(runs)]
        signals[t]["counts"][1] = 0
        states = [rule.update(state, **row) for state, row in zip(states, signals, strict=True)]
        batched = update(batched, **stack(signals))
        chex.assert_trees_all_close(batched, stack(states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*BASE, "every(erma)", "floor(erma)", "select(erma)"])
def test_runs_on_devices_under_shard_map(name):
    mesh = jax.make_mesh((8,), ("runs",), axis_types=(AxisType.Auto,))
    rule = jitted(name)

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("runs"), out_specs=P("runs"))
    def update(states, signals):
        state, signals = jax.tree.map(lambda x: x[0], (states, signals))
        return jax.tree.map(lambda x: x[None], rule.update(state, **signals))

    states = [rule.init(np.roll(PRIOR, run)) for run in range(8)]
    signals = [draw_signals(run) for run in range(8)]
    new = update(stack(states), stack(signals))
    loop = [rule.update(state, **row) for state, row in zip(states, signals, strict=True)]
    chex.assert_trees_all_close(new, stack(loop), rtol=1e-5, atol=1e-6)


TRACED = {
    "fixed, temperature": (lambda h: rules.fixed(temperature=h), [1.0, 3.0, np.inf]),
    "fixed, weights": (lambda h: rules.fixed([h, 1.0, 2.0]), [0.0, 3.0]),
    "gls, variances": (lambda h: rules.gls(jnp.stack([h, 1.0, 2.0])), [0.1, 3.0]),
    "fgls, min_loss": (lambda h: rules.fgls(min_loss=h), [1e-12, 1.0]),
    "one_shot_fgls, gamma": (lambda h: rules.one_shot_fgls(h), [0.0, 0.3, 1.0]),
    "one_shot_fgls, min_loss": (lambda h: rules.one_shot_fgls(min_loss=h), [1e-12, 1.0]),
    "erma, gamma1": (lambda h: rules.erma(gamma1=h), [0.0, 0.5]),
    "erma, gamma2": (lambda h: rules.erma(gamma2=h), [0.0, 0.5]),
    "erma, max_log_step": (lambda h: rules.erma(1.0, 5.0, max_log_step=h), [0.1, 5.0]),
    "variance_aware, min_ratio": (lambda h: rules.variance_aware(min_ratio=h), [0.0, 0.9]),
    "gradient_norm, floor": (lambda h: rules.gradient_norm(floor=h), [0.0, 0.9]),
    "dro, beta": (lambda h: rules.dro(h), [0.0, 0.5, np.inf]),
    "dro(chi2), beta": (lambda h: rules.dro(h, "chi2"), [0.0, 0.5, np.inf]),
    "dro(chi2), scale": (lambda h: rules.dro(0.5, "chi2", scale=h), [0.5, 1.0]),
    "dro(cvar), beta": (lambda h: rules.dro(h, "cvar"), [0.0, 0.5, np.inf]),
    "group_dro, step_size": (lambda h: rules.group_dro(h), [0.0, 0.5]),
    "group_dro, adjustment": (lambda h: rules.group_dro(0.5, adjustment=jnp.stack([h, 1.0, 2.0])), [0.0, 3.0]),
    "group_dro, decay": (lambda h: rules.group_dro(0.5, decay=h), [0.0, 0.9]),
    "group_dro, max_log_step": (lambda h: rules.group_dro(5.0, max_log_step=h), [0.1, 5.0]),
    "mirror_descent, step_size": (lambda h: rules.mirror_descent(h), [0.0, 0.5]),
    "mirror_descent, max_log_step": (lambda h: rules.mirror_descent(5.0, max_log_step=h), [0.1, 5.0]),
    "projected_gradient, step_size": (lambda h: rules.projected_gradient(h), [0.0, 0.1]),
    "doremi, step_size": (lambda h: rules.doremi(h), [0.0, 0.5]),
    "doremi, floor": (lambda h: rules.doremi(floor=h), [0.0, 0.5]),
    "doremi, max_log_step": (lambda h: rules.doremi(5.0, max_log_step=h), [0.1, 5.0]),
    "doge, step_size": (lambda h: rules.doge(h), [0.0, 0.5]),
    "doge, max_score": (lambda h: rules.doge(max_score=h), [0.1, 5.0]),
    "doge, max_log_step": (lambda h: rules.doge(10.0, max_log_step=h), [0.1, 5.0]),
    "exp3, decay": (lambda h: rules.exp3(h), [0.1, 0.9]),
    "ado, gamma1": (lambda h: rules.ado(h, 0.9, 2.0, warmup=0, skip=0), [0.0, 0.9]),
    "ado, gamma2": (lambda h: rules.ado(gamma2=h, warmup=0, skip=0), [0.0, 0.9]),
    "ado, s": (lambda h: rules.ado(0.9, 0.9, h, warmup=0, skip=0), [0.0, 2.0]),
    "ado, delta_min": (lambda h: rules.ado(gamma2=0.9, delta_min=h, warmup=0, skip=0), [0.0, 0.3]),
    "ado, warmup": (lambda h: rules.ado(gamma2=0.9, warmup=h, skip=0), [0, 4]),
    "ado, skip": (lambda h: rules.ado(gamma2=0.9, warmup=0, skip=h), [0, 1]),
    "aioli, step_size": (lambda h: rules.aioli(h, rounds=1), [0.1, 0.9]),
    "aioli, rounds": (lambda h: rules.aioli(rounds=h), [1, 2]),
    "aioli, hold": (lambda h: rules.aioli(rounds=1, hold=h), [1, 2]),
    "aioli, epsilon": (lambda h: rules.aioli(epsilon=h), [0.0, 0.9]),
    "aioli, max_log_step": (lambda h: rules.aioli(9.0, rounds=1, max_log_step=h), [0.1, 5.0]),
    "kl_to_prior, strength": (lambda h: rules.kl_to_prior(rules.mirror_descent(), h), [0.0, 5.0]),
    "every, k": (lambda h: rules.every(rules.fgls(), h), [1, 3]),
    "every, start": (lambda h: rules.every(rules.fgls(), 1, h), [1, 2]),
    "freeze_after, k": (lambda h: rules.freeze_after(rules.fgls(), h), [0, 2]),
    "smooth, decay": (lambda h: rules.smooth(rules.fgls(), h), [0.0, 0.5]),
    "floor, fraction": (lambda h: rules.floor(rules.fgls(), h), [0.0, 0.5]),
    "select, index": (lambda h: rules.select([rules.fgls(), rules.fixed()], h), [0, 1]),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_hyperparameters_equal_concrete_ones(name):
    make, values = TRACED[name]
    steps = [draw_signals(seed) for seed in range(5)]  # exp3 explores for three

    @jax.jit
    @jax.vmap
    def traced(value):
        rule = make(value)

        def step(state, signals):
            state = rule.update(state, **signals)
            return state, state.weights

        return jax.lax.scan(step, rule.init(PRIOR), stack(steps))[1]

    traced = traced(jnp.asarray(values))
    for rows, value in zip(traced, values, strict=True):
        rule = make(value)
        state = rule.init(PRIOR)
        for row, signals in zip(rows, steps, strict=True):
            state = rule.update(state, **signals)
            np.testing.assert_allclose(row, state.weights, rtol=1e-5, atol=1e-7)
    assert np.abs(np.diff(traced, axis=0)).max() > 1e-3, "the values should make a difference"


@every_case
def test_runs_in_scan(name):
    steps = [draw_signals(seed) for seed in range(5)]
    stacked = stack(steps)
    rule = jitted(name)

    @jax.jit
    def run(state, signals):
        return jax.lax.scan(lambda state, s: ((new := rule.update(state, **s)), new.weights), state, signals)

    state = rule.init(PRIOR)
    final, history = run(state, stacked)
    for t, signals in enumerate(steps):
        state = rule.update(state, **signals)
        np.testing.assert_allclose(history[t], state.weights, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(final, state, rtol=1e-5, atol=1e-6)


@every_case
def test_no_gradient_flows(name):
    signals = draw_signals(3)
    signals["counts"] = signals["counts"].astype(np.float32)
    state = moved_state(name)

    def readout(signals):
        return jnp.sum(advance(name, state, signals).weights * jnp.array([1.0, 20.0, -3.0]))

    grads = jax.jit(jax.grad(readout))(signals)
    assert_bitwise(grads, jax.tree.map(np.zeros_like, signals))

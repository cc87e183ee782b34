"""The state of data mixing: a pytree that can be donated, mapped, saved and read back."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import mixing, rules
from tests.mixing.problems import SGD, draw, draw_val, loss, val_loss

pytestmark = pytest.mark.usefixtures("quick_compilation")


def start(rule=None):
    return mixing.init_state(jnp.zeros(2), SGD, [0.5, 0.5], rule or rules.mirror_descent())


def test_the_first_state_can_be_donated():
    go = jax.jit(lambda state: state.replace(params=state.params + 1), donate_argnums=0)
    assert go(start(rules.projected_gradient())).params.tolist() == [1.0, 1.0]


def test_the_callers_parameters_outlive_a_donated_state():
    params, prior = jnp.zeros(2), jnp.array([0.5, 0.5])
    state = mixing.init_state(params, SGD, prior, rules.mirror_descent())
    jax.jit(lambda state: state.replace(step=state.step + 1), donate_argnums=0)(state)
    assert params.tolist() == [0.0, 0.0] and prior.tolist() == [0.5, 0.5]


def test_the_state_is_a_pytree_under_jit_scan_and_vmap():
    state = start()

    def step(state, _):
        return state.replace(params=state.params + 1, step=state.step + 1), state.step

    @jax.jit
    @jax.vmap
    def run(params):
        return jax.lax.scan(step, state.replace(params=params), length=3)

    last, steps = run(jnp.arange(8.0).reshape(4, 2))
    assert isinstance(last, mixing.MixingState)
    assert last.params.tolist() == (np.arange(8.0).reshape(4, 2) + 3).tolist()
    assert steps.tolist() == [[0, 1, 2]] * 4 and last.step.tolist() == [3] * 4


def test_the_fields_keep_their_order():
    state = mixing.MixingState(*"abcdefgh")
    assert jax.tree.leaves(state) == [*"abcdefgh"]
    assert state.params == "a" and state.T == "g" and state.nonfinite_updates == "h"


def test_the_state_can_be_saved_and_read_back():
    rule = rules.mirror_descent()
    state, _ = mixing.fit(loss, val_loss, SGD, rule, draw, draw_val, start(), jax.random.key(0), num_steps=10, T=5)
    read = flax.serialization.from_bytes(start(), flax.serialization.to_bytes(state))
    assert isinstance(read, mixing.MixingState) and isinstance(read.rule_state, type(state.rule_state))
    jax.tree.map(np.testing.assert_array_equal, read, state)


def test_prior_is_checked():
    with pytest.raises(ValueError, match="prior"):
        mixing.init_state(jnp.zeros(2), SGD, [-1.0, 2.0], rules.mirror_descent())

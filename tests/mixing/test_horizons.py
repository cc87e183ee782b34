"""The contraction of training steps against closed forms, and the horizon by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixjax import mixing
from mixjax.mixing.horizons import pilot_steps
from tests.mixing.problems import CENTERS, EPS, SGD, draw, loss, noisy

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("learning_rate", [1.0, 0.25])
@pytest.mark.parametrize("draws", [draw, noisy])
def test_contraction_of_a_quadratic_is_its_slowest_direction(learning_rate, draws):
    optimizer = optax.sgd(learning_rate)
    x, keys = jnp.zeros(2), jax.random.split(jax.random.key(1), 64)
    measure = jax.jit(mixing.contraction(loss, optimizer, draw=draws))
    rate, params, _ = measure(jnp.array([0.5, 0.5]), x, optimizer.init(x), keys, jax.random.key(2))
    np.testing.assert_allclose(rate, 1 - learning_rate * EPS, atol=2e-3)
    assert np.abs(params - x).max() > 0.1


def test_contraction_of_momentum_is_the_spectral_radius():
    optimizer = optax.sgd(0.5, momentum=0.3)
    x, keys = jnp.zeros(2), jax.random.split(jax.random.key(1), 64)
    rate, *_ = jax.jit(mixing.contraction(loss, optimizer, draw=draw))(
        jnp.array([0.5, 0.5]), x, optimizer.init(x), keys, jax.random.key(2)
    )
    joint = np.array([[1 - 0.5 * EPS, -0.5 * 0.3], [EPS, 0.3]])  # theta, trace <- theta - .5 trace', .3 trace + grad
    np.testing.assert_allclose(rate, np.abs(np.linalg.eigvals(joint)).max(), atol=2e-3)


def test_contraction_does_not_measure_what_the_optimizer_keeps():
    optimizer = optax.inject_hyperparams(optax.sgd)(1.0)  # its state holds the learning rate
    x, keys = jnp.zeros(2), jax.random.split(jax.random.key(1), 64)
    rate, *_ = jax.jit(mixing.contraction(loss, optimizer, draw=draw))(
        jnp.array([0.5, 0.5]), x, optimizer.init(x), keys, jax.random.key(2)
    )
    np.testing.assert_allclose(rate, 1 - EPS, atol=2e-3)


def test_contraction_sees_where_nothing_contracts():
    def flat(x, center):
        return jnp.sum(x * center)

    x, keys = jnp.zeros(2), jax.random.split(jax.random.key(1), 8)
    rate, *_ = mixing.contraction(flat, SGD, draw=draw)(jnp.array([0.5, 0.5]), x, SGD.init(x), keys, jax.random.key(2))
    np.testing.assert_allclose(rate, 1.0, rtol=1e-6)


def test_horizon_by_hand():
    assert mixing.horizon(16384, 0.8) == round(np.log(16384) / (-2 * np.log(0.8))) == 22
    assert mixing.horizon(4096) == mixing.horizon(4096, 1.2) == mixing.horizon(4096, float("nan")) == 92
    assert mixing.horizon(4096, 0.999) == 92  # the law for noisy gradients is the shorter
    assert mixing.horizon(4096, 0.0) == 1
    assert mixing.horizon(64) == 4 and mixing.horizon(10) == 1  # at least 16 updates, where there is a budget for them


def test_the_pilot_takes_a_sixteenth_of_the_budget_and_64_steps_at_most():
    assert [pilot_steps(n) for n in (0, 15, 160, 1024, 10**6)] == [0, 0, 10, 64, 64]


@pytest.mark.parametrize(("num_steps", "rate", "match"), [(0, None, "num_steps"), (10, -0.1, "rate")])
def test_horizon_out_of_range(num_steps, rate, match):
    with pytest.raises(ValueError, match=match):
        mixing.horizon(num_steps, rate)


def test_contraction_of_one_step_is_refused():
    with pytest.raises(ValueError, match="two steps"):
        mixing.contraction(loss, SGD)(jnp.array([0.5, 0.5]), jnp.zeros(2), (), CENTERS[None], jax.random.key(0))

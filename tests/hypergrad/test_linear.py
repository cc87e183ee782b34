"""Derivatives of optimizers where their guards and roots stand: unused parameters, zero gradients, first steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from mixjax.hypergrad import hypergrad, unroll
from mixjax.hypergrad.linear import linearize
from tests.hypergrad.problems import difference

pytestmark = pytest.mark.usefixtures("quick_compilation")

WEIGHTS = np.array([0.4, 0.6])
NUM_STEPS = {"radam": 7, "MultiSteps": 6}  # radam leaves its first branch at step 6; 3 do for the others
OPTIMIZERS = {
    "adabelief": lambda: optax.adabelief(0.05),
    "adadelta": lambda: optax.adadelta(0.5),
    "adafactor": lambda: optax.adafactor(0.05),
    "adagrad": lambda: optax.adagrad(0.05),
    "adam": lambda: optax.adam(0.05),
    "adamax": lambda: optax.adamax(0.05),
    "adan": lambda: optax.adan(0.05, eps_root=0.0),
    "amsgrad": lambda: optax.amsgrad(0.05),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.05), 3),
    "centered rmsprop": lambda: optax.rmsprop(0.05, centered=True),
    "clip": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "adaptive clip": lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1)),
    "dadapt": lambda: contrib.dadapt_adamw(0.05),
    "fromage": lambda: optax.fromage(0.05),
    "lamb": lambda: optax.lamb(0.05),
    "lars": lambda: optax.lars(1.0),
    "lion": lambda: optax.lion(0.05),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.05), 3),
    "muon": lambda: contrib.muon(0.05),
    "nadam": lambda: optax.nadam(0.05),
    "normalize": lambda: optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)),
    "novograd": lambda: optax.novograd(0.05),
    "prodigy": lambda: contrib.prodigy(0.05),
    "radam": lambda: optax.radam(0.05),
    "rmsprop": lambda: optax.rmsprop(0.05, momentum=0.9),
    "schedule_free": lambda: contrib.schedule_free_adamw(0.05, warmup_steps=2),
    "sm3": lambda: optax.sm3(0.05),
    "yogi": lambda: optax.yogi(0.05),
}
# Signs have a derivative of 0, and these two take steps too small to measure at first.
NOT_MEASURED = ("lion", "dadapt", "prodigy")
QUICK = ("adam", "radam", "clip", "lamb", "novograd", "MultiSteps")


def loss(params, batch):
    """Reads two of three parameters, and of the matrix the first row only."""
    hidden = jnp.tanh(batch["x"] @ params["matrix"] + params["bias"])
    return jnp.mean(jnp.sum((hidden - batch["y"]) ** 2, -1))


def problem(num_steps):
    rng = np.random.default_rng(0)
    batches = {"x": rng.normal(size=(num_steps, 2, 5, 2)) * [1.0, 0.0], "y": rng.normal(size=(num_steps, 2, 5, 3))}
    params = {"matrix": rng.normal(size=(2, 3)), "bias": rng.normal(size=3), "unused": rng.normal(size=2)}
    val_batch = jax.tree.map(lambda x: x[0, 0] + 0.1, batches)
    return jax.tree.map(jnp.asarray, (params, batches, val_batch))


def quick_ones_first(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quick_ones_first(OPTIMIZERS))
def test_an_unused_parameter_and_the_first_steps(name):
    optimizer, (params, batches, val_batch) = OPTIMIZERS[name](), problem(NUM_STEPS.get(name, 3))
    state = optimizer.init(params)

    @jax.jit
    def both(weights):
        inputs = weights, params, state, batches, val_batch
        return [hypergrad(loss, loss, optimizer, mode=mode)(*inputs).hypergrads for mode in ("reverse", "forward")]

    reverse, forward = both(WEIGHTS)
    assert np.isfinite(reverse).all()
    np.testing.assert_allclose(reverse, forward, rtol=1e-6, atol=1e-12)
    if name not in NOT_MEASURED:
        outcome = jax.jit(lambda w: loss(unroll(loss, optimizer)(w, params, state, batches)[0], val_batch))
        # MultiSteps averages in float32, whose rounding a short difference would magnify.
        step, rtol = (1e-3, 5e-3) if name == "MultiSteps" else (1e-6, 2e-4)
        expected = difference(outcome, WEIGHTS, step)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(reverse, expected, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("name", ["clip", "normalize", "adam", "adafactor", "lars"])
def test_a_gradient_of_exactly_zero(name):
    """The domains pull equally hard in opposite directions, so their sum is 0 where each gradient is not."""
    optimizer, x = OPTIMIZERS[name](), jnp.zeros(2)
    batches = jnp.array([[[1.0, 2.0], [-1.0, -2.0]]])

    def distance(x, target):
        return 0.5 * jnp.sum((x - target) ** 2)

    inputs = jnp.array([0.5, 0.5]), x, optimizer.init(x), batches, jnp.ones(2)
    reverse, forward = (
        jax.jit(hypergrad(distance, distance, optimizer, mode=mode))(*inputs).hypergrads
        for mode in ("reverse", "forward")
    )
    assert np.isfinite(reverse).all()
    np.testing.assert_allclose(reverse, forward, rtol=1e-6)
    if name == "clip":  # a gradient as short as this is not clipped
        np.testing.assert_allclose(reverse, [-0.3, 0.3], rtol=1e-12)


def test_a_branch_that_is_not_taken_has_no_part():
    def fun(x, y):
        taken = jax.lax.cond(x[0] > 0, lambda: x * y, lambda: x / y)
        return jnp.where(x > 0, jnp.sqrt(x) + jnp.log(x), taken / jnp.where(y > 0, y, 1.0)), None

    x, y = jnp.array([-1.0, 4.0]), jnp.array([2.0, 0.0])
    _, push, _ = linearize(fun, x, y)
    # By hand: x / y^2, and sqrt(x) + log(x), of which x / y = 4 / 0 is no part.
    rows = [push(*tangent) for tangent in ((jnp.ones(2), jnp.zeros(2)), (jnp.zeros(2), jnp.ones(2)))]
    np.testing.assert_allclose(rows, [[0.25, 0.25 + 0.25], [2 * 1.0 / 8, 0.0]], rtol=1e-12)
    back = jax.linear_transpose(push, x, y)(jnp.ones(2))
    np.testing.assert_allclose(back, rows, rtol=1e-12)


def test_derivatives_that_are_finite_are_jaxs():
    def fun(x, y):
        return {"a": jnp.tanh(x @ y), "b": jnp.linalg.norm(x) * y}, x.sum()

    x, y = jnp.arange(1.0, 7.0).reshape(3, 2) / 7, jnp.array([0.3, -0.4])
    out, push, aux = linearize(fun, x, y)
    tangents = jnp.ones((3, 2)), jnp.array([0.5, 2.0])
    expected = jax.jvp(lambda *xs: fun(*xs)[0], (x, y), tangents)
    jax.tree.map(np.testing.assert_array_equal, (out, aux), (expected[0], x.sum()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), push(*tangents), expected[1])

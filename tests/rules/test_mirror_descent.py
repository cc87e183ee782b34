"""Mirror descent and projected gradient on hypergradients: in float64 over 20 steps, and on a convex problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mixjax.rules import floor, kl_to_prior, mirror_descent, projected_gradient

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])
TARGET = np.array([0.1, 0.6, 0.3])


def descend(rule, slope_of, steps, prior=PRIOR):
    """The last and the mean weights."""

    @jax.jit
    def run(state):
        def step(state, _):
            return rule.update(state, counts=COUNTS, hypergrads=slope_of(state.weights)), state.weights

        return jax.lax.scan(step, state, length=steps)

    state, history = run(rule.init(prior))
    return state.weights, history.mean(axis=0)


@pytest.mark.parametrize("adaptive", [True, False])
def test_mirror_descent_over_20_steps_in_float64(adaptive):
    rng, rule = np.random.default_rng(0), mirror_descent(0.7, adaptive=adaptive)
    state, c, total = rule.init(PRIOR), PRIOR.copy(), 0.0
    for _ in range(20):
        g = rng.normal(size=3)
        state = rule.update(state, counts=COUNTS, hypergrads=g)
        total += np.max(np.abs(g - g.mean())) ** 2
        alpha = 0.7 * np.sqrt(np.log(3) / total) if adaptive else 0.7
        c = c * np.exp(-alpha * (g - g.mean()))
        c /= c.sum()
        np.testing.assert_allclose(state.weights, c, rtol=1e-5)
        np.testing.assert_allclose(np.exp(state.log_w), c / PRIOR, rtol=1e-5)
    np.testing.assert_allclose(state.norm, np.sqrt(total), rtol=1e-6)


@pytest.mark.parametrize("adaptive", [True, False])
def test_projected_gradient_over_20_steps_in_float64(adaptive):
    rng, rule = np.random.default_rng(1), projected_gradient(0.2, adaptive=adaptive)
    state, c, total, cut = rule.init(PRIOR), PRIOR.copy(), 0.0, 0
    for _ in range(20):
        g = rng.normal(size=3)
        state = rule.update(state, counts=COUNTS, hypergrads=g)
        total += np.sum((g - g.mean()) ** 2)
        point = c - 0.2 * (np.sqrt(2 / total) if adaptive else 1.0) * g
        low, high = point.min() - 1, point.max()  # the multiplier, by bisection
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
        c = np.maximum(point - low, 0)
        cut += (c == 0).any()
        np.testing.assert_allclose(state.weights, c, atol=2e-6)
    assert cut > 0, "some step should have reached a face"


@pytest.mark.parametrize("make", [mirror_descent, projected_gradient])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_adaptive_steps_have_no_scale(make, scale):
    def slope(c):
        return jnp.square(c) - jnp.array([0.3, 0.1, 0.2])

    a, b = descend(make(), slope, 10), descend(make(), lambda c: scale * slope(c), 10)
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("make", [mirror_descent, projected_gradient])
def test_a_constant_added_to_all_rows_changes_nothing(make):
    def slope(c):
        return c - TARGET

    a, b = descend(make(), slope, 10), descend(make(), lambda c: slope(c) + 7.0, 10)
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("make", [mirror_descent, projected_gradient])
def test_they_find_the_minimum_of_a_convex_function(make):
    last, mean = descend(make(), lambda c: c - TARGET, 2000)
    np.testing.assert_allclose(last, TARGET, atol=2e-3)
    np.testing.assert_allclose(mean, TARGET, atol=2e-2)


def test_projected_gradient_reaches_a_vertex_and_comes_back():
    rule = projected_gradient(0.5, adaptive=False)
    state = rule.init(PRIOR)
    for _ in range(4):
        state = rule.update(state, counts=COUNTS, hypergrads=np.array([-1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(state.weights, [1.0, 0.0, 0.0])
    state = rule.update(state, counts=COUNTS, hypergrads=np.array([0.0, -1.0, 0.0]))
    np.testing.assert_allclose(state.weights, [0.75, 0.25, 0.0], atol=1e-6)


def test_projected_gradient_moves_the_seen_rows_within_their_total():
    rule = projected_gradient(0.1, adaptive=False)
    state = rule.init(PRIOR)
    state = rule.update(state, counts=np.array([8, 0, 8]), hypergrads=np.array([1.0, np.nan, 3.0]))
    np.testing.assert_allclose(state.weights, [0.6, 0.3, 0.1], rtol=1e-6)


def test_rounding_does_not_lead_off_the_simplex():
    rule = projected_gradient(0.05, adaptive=False)

    def step(state, key):
        return rule.update(state, counts=COUNTS, hypergrads=jax.random.normal(key, (3,))), None

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(0), 30_000)))(rule.init(PRIOR))
    np.testing.assert_allclose(np.asarray(state.weights, np.float64).sum(), 1.0, atol=1e-6)


def test_steps_far_beyond_the_simplex_are_projected_exactly():
    rule = projected_gradient(1.0, adaptive=False)
    state = rule.update(rule.init(PRIOR), counts=COUNTS, hypergrads=np.array([1e25, -2e25, -1e25]))
    np.testing.assert_array_equal(state.weights, [0.0, 1.0, 0.0])


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_pull_to_the_prior_moves_the_minimum_to_that_of_the_penalised_function(strength):
    def objective(x):
        c = np.exp(x) / np.exp(x).sum()
        return 0.5 * np.sum((c - TARGET) ** 2) + strength * np.sum(c * np.log(c / PRIOR))

    x = minimize(objective, np.zeros(3), tol=1e-12).x
    last, _ = descend(kl_to_prior(mirror_descent(), strength), lambda c: c - TARGET, 2000)
    np.testing.assert_allclose(last, np.exp(x) / np.exp(x).sum(), atol=2e-3)


def test_a_floor_is_kept():
    last, _ = descend(floor(mirror_descent(), 0.1), lambda c: jnp.array([0.0, 1.0, 2.0]), 500)
    np.testing.assert_allclose(last, 0.9 * np.array([1.0, 0.0, 0.0]) + 0.1 * PRIOR, atol=1e-4)


def test_hypergradients_that_are_all_nan_leave_the_weights():
    for rule in (mirror_descent(), projected_gradient(), kl_to_prior(mirror_descent(), 0.5)):
        state = rule.update(rule.init(PRIOR), counts=COUNTS, hypergrads=np.array([0.3, 0.1, 0.2]))
        new = rule.update(state, counts=COUNTS, hypergrads=np.full(3, np.nan))
        np.testing.assert_array_equal(new.weights, state.weights)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: mirror_descent(-1.0), "step_size"),
        (lambda: mirror_descent(max_log_step=0.0), "max_log_step"),
        (lambda: projected_gradient(-1.0), "step_size"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_pull_to_the_prior_over_20_steps_in_float64(adaptive):
    rng, rule = np.random.default_rng(2), kl_to_prior(mirror_descent(0.7, adaptive=adaptive), 3.0)
    state, log_w, total = rule.init(PRIOR), np.zeros(3), 0.0
    for t in range(20):
        g, seen = rng.normal(size=3), np.arange(3) != (t % 4)
        state = rule.update(state, counts=8 * seen, hypergrads=np.where(seen, g, np.nan))
        centred = g - g[seen].mean()
        total += np.max(np.abs(centred[seen])) ** 2
        alpha = 0.7 * np.sqrt(np.log(3) / total) if adaptive else 0.7
        c = PRIOR * np.exp(log_w)
        raw = PRIOR * np.exp((log_w - alpha * centred) / (1.0 + alpha * 3.0))
        c = np.where(seen, c[seen].sum() * raw / raw[seen].sum(), c)
        log_w = np.log(c / PRIOR)
        np.testing.assert_allclose(state.weights, c, rtol=1e-5)
        np.testing.assert_allclose(state.inner.log_w, log_w, atol=1e-5)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("strength", [2.0, 30.0, 1e6])
def test_no_pull_is_too_strong_and_vmap_equals_a_loop(adaptive, strength):
    rule = kl_to_prior(mirror_descent(1.0, adaptive=adaptive), strength)
    rng = np.random.default_rng(3)
    slopes = rng.normal(size=(4, 200, 3)).astype(np.float32)

    def run(slopes):
        def step(state, slope):
            state = rule.update(state, counts=COUNTS, hypergrads=slope)
            return state, state.weights

        return jax.lax.scan(step, rule.init(PRIOR), slopes)[1]

    batched, one = jax.jit(jax.vmap(run))(slopes), jax.jit(run)
    for weights, slope in zip(batched, slopes, strict=True):
        np.testing.assert_allclose(weights, one(slope), atol=1e-5)
    # A pull of strength lambda holds log(c / prior) within the spread of the hypergradients over lambda.
    spread = np.ptp(slopes, axis=-1).max() / strength
    assert np.abs(np.log(batched / PRIOR)).max() <= spread + 1e-5


def test_the_pull_to_the_prior_needs_a_rule_that_tells_its_step():
    for rule in (projected_gradient(), floor(mirror_descent(), 0.1)):
        with pytest.raises(TypeError, match="kl_to_prior takes mirror_descent"):
            kl_to_prior(rule, 1.0).init(PRIOR)

"""Tests ADO against the paper"s algorithm in float64, with a fit of all past losses in every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import ado, scaling_law

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.array([0.5, 0.3, 0.2])
EXPONENTS = np.linspace(0.05, 0.8, 31)


def fitted(numbers, losses):
    """The exponent, intercept and slope of least squared error on the whole history, by NumPy"s least squares."""
    best = None
    for alpha in EXPONENTS:
        design = np.stack([np.ones(len(numbers)), numbers**-alpha], axis=1)
        solution = np.linalg.lstsq(design, losses, rcond=None)[0]
        error = np.sum((design @ solution - losses) ** 2)
        if best is None or error < best[0]:
            best = error, alpha, *solution
    return best[1:]


class Reference:
    """The paper"s algorithm with its whole history; ``total`` counts the examples of all domains together."""

    def __init__(self, warmup, skip, total, delta_min):
        self.warmup, self.skip, self.total, self.delta_min = warmup, skip, total, delta_min
        self.q, self.h, self.mean = PRIOR.copy(), PRIOR.copy(), PRIOR.copy()
        self.n, self.t, self.history = np.zeros(3), 0, [[], [], []]

    def update(self, counts, losses):
        self.n += counts.sum() if self.total else counts
        if self.t >= self.skip:
            for d in np.flatnonzero(counts):
                self.history[d].append((self.n[d], losses[d]))
        self.t += 1
        if self.t <= self.warmup:
            return
        self.h = 0.9 * self.h + 0.1 * self.q
        speeds = np.full(3, np.nan)
        for d, history in enumerate(self.history):
            if len(history) >= 3:
                alpha, _, beta = fitted(*np.array(history).T)
                speeds[d] = alpha * max(beta, 0.0) * self.n[d] ** (-alpha - 1.0)
        known = np.isfinite(speeds)
        scores = np.where(known, PRIOR * np.sqrt(self.h) * speeds, 0.0)
        rho = np.where(known, PRIOR[known].sum() * scores / max(scores.sum(), 1e-300), PRIOR)
        policy = np.maximum(0.1 * rho + 0.9 * self.mean, self.delta_min)
        self.q = policy / policy.sum()
        self.mean += (rho - self.mean) / (self.t + 1.0)


def losses_of_a_law(rng, n):
    return np.array([2.0, 1.0, 0.5]) + np.array([9.0, 3.0, 5.0]) * n ** -np.array([0.5, 0.2, 0.3]) + rng.normal(0, 0.01)


@pytest.mark.parametrize(("total", "delta_min", "absent"), [(False, 0.01, 0.0), (True, 0.25, 0.0), (False, 0.01, 0.4)])
def test_ado_over_60_steps(total, delta_min, absent):
    rng = np.random.default_rng(0)
    rule = ado(warmup=12, skip=6, delta_min=delta_min, count="total" if total else "domain")
    state, update, reference = rule.init(PRIOR), jax.jit(rule.update), Reference(12, 6, total, delta_min)
    seen = np.zeros(3)
    for t in range(60):
        counts = rng.integers(10, 30, 3) * (rng.random(3) >= absent)
        counts[2] *= t > 20  # the last domain has no law until long after the others
        counts[0] += not counts.any()
        seen += counts
        losses = losses_of_a_law(rng, np.maximum(seen, 1))
        state = update(state, counts=counts, losses=np.where(counts > 0, losses, np.nan))
        reference.update(counts, losses)
        np.testing.assert_allclose(state.weights, reference.q, rtol=1e-3)
        np.testing.assert_allclose(state.credit, reference.h, rtol=1e-3)
        np.testing.assert_allclose(state.num_examples, reference.n)
    assert np.abs(state.weights - PRIOR).max() > 0.02


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_fit_finds_a_known_law(noise):
    rng, rule = np.random.default_rng(1), ado(skip=20)
    epsilon, beta, alpha = np.array([2.0, 1.0, 3.0]), np.array([30.0, 5.0, 10.0]), np.array([0.5, 0.2, 0.33])
    counts = rng.integers(50, 200, (3000, 3))
    numbers = counts.cumsum(axis=0)
    losses = epsilon + beta * numbers**-alpha + noise * rng.normal(size=numbers.shape)

    def step(state, signals):
        return rule.update(state, **signals), None

    state = jax.lax.scan(step, rule.init(PRIOR), {"counts": counts, "losses": jnp.float32(losses)})[0]
    law = scaling_law(state)
    # The third exponent is between two of the grid. The speed at the end, which the weights depend on, is right anyhow.
    np.testing.assert_allclose(law["alpha"], alpha, atol=0.0126 + noise)
    np.testing.assert_allclose(law["epsilon"], epsilon, atol=0.01 + 2 * noise)
    np.testing.assert_allclose(law["beta"][:2], beta[:2], rtol=1e-3 if noise == 0 else 0.2)
    speed = alpha * beta * numbers[-1] ** (-alpha - 1)
    np.testing.assert_allclose(
        law["alpha"] * law["beta"] * numbers[-1] ** (-law["alpha"] - 1), speed, rtol=0.02 + 2 * noise
    )


def test_the_fit_of_a_short_tail_at_1e9_examples_keeps_its_digits():
    rule = ado(skip=0)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    state = state._replace(num_examples=jnp.full(3, 1e9))
    numbers = 1e9 + 1e7 * np.arange(1, 41)
    for n in numbers:
        losses = np.array([2.0, 1.0, 3.0]) + np.array([60.0, 30.0, 90.0]) * n ** -np.array([0.2, 0.1, 0.3])
        state = update(state, counts=np.full(3, 10_000_000), losses=losses)
    alpha, beta = np.array([0.2, 0.1, 0.3]), np.array([60.0, 30.0, 90.0])
    law = scaling_law(state)
    speed = np.log(np.float64(law["alpha"] * law["beta"])) - (np.float64(law["alpha"]) + 1) * np.log(numbers[-1])
    np.testing.assert_allclose(speed, np.log(alpha * beta) - (alpha + 1) * np.log(numbers[-1]), atol=0.02)


def test_small_batches_still_count_after_1e10_examples():
    rule, start = ado(), 1e10
    state = rule.init(PRIOR)._replace(num_examples=jnp.full(3, start, jnp.float32))
    signals = {"counts": jnp.array([100, 7, 1]), "losses": jnp.ones(3)}
    state = jax.lax.fori_loop(0, 10_000, lambda _, state: rule.update(state, **signals), state)
    numbers = np.float64(state.num_examples) + np.float64(state.rounding)
    np.testing.assert_allclose(numbers - start, [1e6, 7e4, 1e4], rtol=1e-3)


def test_weights_stay_at_the_prior_during_the_warm_up():
    rule = ado(warmup=10, skip=0)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    for t in range(1, 12):
        np.testing.assert_array_equal(state.weights, rule.init(PRIOR).weights)
        state = update(state, counts=np.full(3, 8), losses=np.array([1.0, 1.0, 1.0 / t]))
    assert state.weights[2] > 0.25


def test_no_law_with_fewer_than_three_losses():
    rule = ado(skip=0)
    state = rule.init(PRIOR)
    for counts in ([1, 1, 0], [1, 1, 0], [1, 0, 1]):
        state = rule.update(state, counts=np.array(counts), losses=np.array([1.0, 2.0, 3.0]))
    assert np.isfinite(scaling_law(state)["alpha"]).tolist() == [True, False, False]


def test_where_no_loss_falls_the_weights_return_to_the_prior():
    rule = ado(warmup=0, skip=0, delta_min=0.0)
    update, state = jax.jit(rule.update), rule.init(PRIOR)
    for t in range(20):
        state = update(state, counts=np.full(3, 8), losses=np.array([2.0, 1.0 + t, 3.0]))
    np.testing.assert_allclose(state.weights, PRIOR, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ado(gamma1=-0.1), "gamma1"),
        (lambda: ado(gamma2=1.1), "gamma2"),
        (lambda: ado(s=-1.0), "s must be"),
        (lambda: ado(delta_min=2.0), "delta_min"),
        (lambda: ado(warmup=-1), "warmup"),
        (lambda: ado(skip=0.5), "skip"),
        (lambda: ado(count="tokens"), "count"),
    ],
)
def test_hyperparameters_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()

"""Paper 004, sections 2, 3.1, 3.3 and 11: the robust loss, its maximiser and what moves it, in float64.

Where the paper slips, the tests follow what is true:

- Eq. 32 has ``-mu_i`` where a maximum under ``p_i >= 0`` has ``+mu_i``: an entry that is cut has
  ``v_i - phi'(0) / beta + lambda <= 0``. Eq. 34, which everything rests on, is right.
- Example 3.1's phi is (1 / n)-strongly convex on [0, n] (its second derivative is 1 / z), so for KL the constant of
  lemma 3.1 is ``beta`` whatever ``n``: not ``beta / n``, as ``rho = 1`` would give.
- Theorem 3.2's "increasing" is "non-decreasing" for Pearson's divergence: an entry that is cut stays at zero for a
  while. For KL it is strict.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mixjax.rules import robust_loss, robust_weights
from tests.laws.reference import paper004

pytestmark = pytest.mark.usefixtures("quick_compilation")

N = 8
DIVERGENCES = ("kl", "chi2")
UNIFORM = np.full(N, 1 / N)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def cases(count, seed=0):
    """Random losses and a beta between 0.1 and 30; a good part of chi2's maximisers has entries of zero."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.exponential(size=N), 10.0 ** rng.uniform(-1.0, 1.5), rng


jitted_weights = jax.jit(robust_weights, static_argnums=3)


def weights_of(losses, beta, divergence, prior=UNIFORM):
    return np.asarray(jitted_weights(losses, prior, beta, divergence))


def solve(losses, prior, beta, divergence):
    """Eq. 3's maximiser by sequential quadratic programming, which knows no closed form."""
    found = minimize(
        lambda q: -paper004.eq3(q, losses, prior, beta, divergence),
        prior,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(losses),
        constraints=[{"type": "eq", "fun": lambda q: q.sum() - 1.0}],
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_closed_forms_solve_eq_3(divergence):
    cut = 0
    for losses, beta, rng in cases(10):
        for prior in (UNIFORM, rng.dirichlet(np.full(N, 3.0))):
            p = weights_of(losses, beta, divergence, prior)
            np.testing.assert_allclose(p, solve(losses, prior, beta, divergence), atol=2e-5)
            best = paper004.eq3(p, losses, prior, beta, divergence)
            np.testing.assert_allclose(robust_loss(losses, prior, beta, divergence), best, rtol=1e-12)
            for other in rng.dirichlet(np.ones(N), 50):  # and no mixture with another point does better
                mixed = p + 10.0 ** rng.uniform(-6, 0) * (other - p)
                assert paper004.eq3(mixed, losses, prior, beta, divergence) <= best + 1e-13
            cut += (p == 0).any()
    assert (cut >= 4) == (divergence == "chi2")


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_maximisers_satisfy_the_kkt_conditions_with_plus_mu(divergence):
    """``v_i - phi'(n p_i) / beta + lambda + mu_i = 0``, ``mu_i >= 0``, ``mu_i p_i = 0``."""
    cut = 0
    for losses, beta, _ in cases(30, seed=1):
        z = N * weights_of(losses, beta, divergence)
        slope = np.log(np.maximum(z, 1e-300)) if divergence == "kl" else 2.0 * (z - 1.0)
        slack = slope / beta - losses  # lambda + mu
        support = z > 0
        multiplier = slack[support].mean()
        np.testing.assert_allclose(slack[support], multiplier, rtol=1e-9, atol=1e-9)
        assert (slack[~support] >= multiplier).all()
        cut += (~support).sum()
    assert (cut > 10) == (divergence == "chi2")


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_lemma_3_1_g_is_strongly_convex_with_constant_n_rho_over_beta(divergence):
    """``G(t p + (1-t) q) <= t G(p) + (1-t) G(q) - c t (1-t) |p - q|² / 2``; sharp for chi2, nearly so for KL."""
    beta, rng = 2.0, np.random.default_rng(0)
    constant = N * paper004.strong_convexity(N, divergence) / beta
    least = np.inf
    for _ in range(2000):
        p, q = rng.dirichlet(np.full(N, rng.choice([0.1, 1.0])), 2)
        t = rng.uniform(0.05, 0.95)
        g = [paper004.eq2(x, UNIFORM, divergence) / beta for x in (t * p + (1 - t) * q, p, q)]
        least = min(least, 2.0 * (t * g[1] + (1 - t) * g[2] - g[0]) / (t * (1 - t) * np.sum((p - q) ** 2)))
    assert least >= constant * (1 - 1e-9)
    assert least < (1 + 1e-6 if divergence == "chi2" else 3.0) * constant


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_lemma_3_1_r_is_gradient_lipschitz_with_constant_beta_over_n_rho(divergence):
    """For KL this is ``beta``: ``beta / n``, i.e. ``rho = 1``, is exceeded."""
    for beta in (0.3, 2.0, 20.0):
        bound = beta / (N * paper004.strong_convexity(N, divergence))
        largest, rng = 0.0, np.random.default_rng(1)
        for _ in range(400):
            losses = rng.exponential(size=N) * rng.choice([0.01, 1.0])
            if rng.random() < 0.5:  # two entries far above the rest share everything: the softmax is steepest
                losses[:2] = 50.0 + 0.01 * rng.random(2)
            step = 10.0 ** rng.uniform(-4, 0) * rng.normal(size=N)
            step[:2] = step[0] * np.array([1.0, -1.0]) if rng.random() < 0.5 else step[:2]
            change = weights_of(losses + step, beta, divergence) - weights_of(losses, beta, divergence)
            largest = max(largest, np.linalg.norm(change) / np.linalg.norm(step))
        assert largest <= bound * (1 + 1e-9)
        assert largest > 0.3 * bound
        if divergence == "kl":
            assert largest > beta / N


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_gradient_of_r_is_the_maximiser(divergence):
    for losses, beta, _ in cases(5, seed=2):
        p, step = weights_of(losses, beta, divergence), 1e-6
        values = jax.jit(jax.vmap(lambda x, b=beta: robust_loss(x, UNIFORM, b, divergence)))
        ahead, behind = (values(losses + sign * step * np.eye(N)) for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * step), p, atol=1e-7)
        np.testing.assert_allclose(jax.grad(robust_loss)(losses, UNIFORM, beta, divergence), p, atol=1e-15)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_lemma_3_2_gradient_law_on_a_network(divergence):
    """``grad_theta R(L(h(theta))) = E_{i ~ p̄} [grad_theta L_i]``, also against differences of eq. 3's value."""
    keys = jax.random.split(jax.random.key(0), 5)
    x, y = jax.random.normal(keys[0], (N, 3)), jax.random.normal(keys[1], (N, 2))
    theta = [jax.random.normal(keys[2], (3, 6)), jax.random.normal(keys[3], (6, 2))]

    def losses(theta):
        return jnp.sum(jnp.square(jax.nn.relu(x @ theta[0]) @ theta[1] - y), axis=1)

    for beta in (0.05, 0.5):

        def robust(theta, beta=beta):
            return robust_loss(losses(theta), UNIFORM, beta, divergence)

        grad = jax.grad(robust)(theta)
        p = weights_of(losses(theta), beta, divergence)
        assert p.max() > 2 * p.min()
        expected = jax.tree.map(lambda leaf, p=p: jnp.tensordot(p, leaf, 1), jax.jacrev(losses)(theta))
        for a, b in zip(grad, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

        direction = [jax.random.normal(keys[4], leaf.shape) for leaf in theta]
        ends = []
        for sign in (1e-6, -1e-6):
            v = np.asarray(losses(jax.tree.map(lambda a, d, s=sign: a + s * d, theta, direction)))
            ends.append(paper004.eq3(weights_of(v, beta, divergence), v, UNIFORM, beta, divergence))
        slope = sum(jnp.vdot(a, d) for a, d in zip(grad, direction, strict=True))
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_theorem_3_2_harder_examples_are_drawn_more_often(divergence):
    """Raising ``L_i`` never lowers ``p_i`` and never raises ``p_j``; chi2's ``p_i`` can stay at zero."""
    flat = moved = 0
    for losses, beta, rng in cases(300, seed=3):
        raised = losses + rng.exponential() * np.eye(N)[0]
        before, after = (weights_of(v, beta, divergence) for v in (losses, raised))
        assert after[0] >= before[0] - 1e-15
        assert (after[1:] <= before[1:] + 1e-15).all()
        flat += after[0] <= before[0] < 1 - 1e-12
        moved += (after[1:] < before[1:]).any()
    assert moved > 200
    assert (flat > 20) == (divergence == "chi2")
    assert divergence == "chi2" or flat == 0


def test_the_difference_of_two_constants_is_a_factor_of_beta():
    for losses, beta, _ in cases(5, seed=4):
        halved = robust_weights(losses, UNIFORM, beta, "chi2", scale=0.5)
        np.testing.assert_allclose(halved, robust_weights(losses, UNIFORM, 2 * beta, "chi2"), atol=1e-15)
        np.testing.assert_allclose(halved, paper004.eq34(losses, UNIFORM, beta, 0.5), atol=1e-13)

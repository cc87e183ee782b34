"""DRO weights against numbers computed by hand and paper 004's equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.objectives import robust_loss, robust_weights
from mixjax.rules import dro
from tests.laws.reference import paper004

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])
DIVERGENCES = ("kl", "chi2", "cvar")


def after(losses, prior=PRIOR, counts=COUNTS, **kwargs):
    rule = dro(**kwargs)
    return rule.update(rule.init(prior), counts=counts, losses=np.float32(losses))


def reference(divergence, losses, prior, beta, scale=1.0):
    if divergence == "kl":
        return paper004.eq12(losses, prior, beta / scale)
    if divergence == "chi2":
        return paper004.eq34(losses, prior, beta, scale)
    return paper004.cvar(losses, prior, 1.0 / (1.0 + beta))


def test_kl_by_hand():
    # exp(beta L) = (1, 2, 5) times (.5, .3, .2) is (.5, .6, 1)
    weights = after(np.log([1.0, 2.0, 5.0]) / 2, beta=2.0).weights
    np.testing.assert_allclose(weights, [0.5 / 2.1, 0.6 / 2.1, 1.0 / 2.1], rtol=1e-6)


def test_chi2_by_hand():
    # uniform prior, L = (0, 1, 2), so lambda = -1 while nothing is cut: ratios 1 + beta (-1, 0, 1) / 2
    uniform = np.ones(3)
    np.testing.assert_allclose(after([0, 1, 2], uniform, beta=1.0, divergence="chi2").weights, [1 / 6, 1 / 3, 1 / 2])
    # beta = 4: 1 + 2 (L + lambda); domain 0 is cut, and (2 + 4 lambda + 6) / 3 = 1 gives lambda = -5/4: (0, 1/2, 5/2)
    weights = after([0, 1, 2], uniform, beta=4.0, divergence="chi2").weights
    np.testing.assert_allclose(weights, [0.0, 1 / 6, 5 / 6], rtol=1e-6)


def test_half_the_pearson_constant_is_twice_beta():
    halved = after([0, 1, 2], beta=0.8, divergence="chi2", scale=0.5).weights
    np.testing.assert_allclose(halved, after([0, 1, 2], beta=1.6, divergence="chi2").weights, rtol=1e-6)
    assert np.abs(halved - after([0, 1, 2], beta=0.8, divergence="chi2").weights).max() > 0.1


def test_cvar_by_hand():
    # the worst half: all of domain 2 (.2), and .3 of the .3 of domain 1
    np.testing.assert_allclose(after([1, 2, 3], beta=1.0, divergence="cvar").weights, [0.0, 0.6, 0.4], rtol=1e-6)
    # the worst 0.8
    np.testing.assert_allclose(after([1, 2, 3], beta=0.25, divergence="cvar").weights, [0.375, 0.375, 0.25], rtol=1e-6)
    # domains 0 and 1 tie at the cut: the .3 that is left of the level goes to them as 5 : 3
    np.testing.assert_allclose(after([2, 2, 3], beta=1.0, divergence="cvar").weights, [0.375, 0.225, 0.4], rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(2))
def test_over_20_steps_with_absent_rows(divergence, beta, seed):
    rng, rule = np.random.default_rng(seed), dro(beta, divergence)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    last, seen = np.zeros(3), np.zeros(3, bool)
    for t in range(20):
        losses = rng.uniform(0.0, 3.0, 3).astype(np.float32)
        there = (rng.random(3) > 0.4) & (np.arange(3) <= t)  # domain 2 not before step 2
        state = update(state, counts=np.where(there, 8, 0), losses=np.where(there, losses, np.nan))
        last, seen = np.where(there, losses, last), seen | there
        expected = PRIOR.copy()
        if seen.any():
            part = PRIOR[seen]
            expected[seen] = part.sum() * reference(divergence, last[seen], part / part.sum(), beta)
        np.testing.assert_allclose(state.weights, expected, rtol=2e-5, atol=1e-30)
    assert seen.all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.0, 1e-30])
def test_beta_zero_is_exactly_the_prior(divergence, beta):
    state = after([0.0, 1e30, 3.0], beta=beta, divergence=divergence)
    if beta == 0:
        np.testing.assert_array_equal(state.weights, state.prior)
    near = after([0.0, 1.0, 3.0], beta=beta, divergence=divergence)
    np.testing.assert_allclose(near.weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [1e9, 1e30, np.inf])
def test_beta_infinite_is_the_prior_on_the_hardest(divergence, beta):
    np.testing.assert_allclose(after([1, 3, 3], beta=beta, divergence=divergence).weights, [0.0, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(after([1, 2, 3], beta=beta, divergence=divergence).weights, [0.0, 0.0, 1.0])
    np.testing.assert_allclose(after([2, 2, 2], beta=beta, divergence=divergence).weights, PRIOR, rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.0, 1e-30, 1.0, 1e30, np.inf])
@pytest.mark.parametrize("losses", [[1e30, 0.0, -1e30], [3e38, -3e38, 3e38], [1e-38, 0.0, 2e-38], [0.0, 0.0, 0.0]])
def test_weights_are_finite_at_extremes(divergence, beta, losses):
    for prior in (PRIOR, np.array([1e-30, 1.0, 0.0])):
        weights = np.asarray(after(losses, prior, beta=beta, divergence=divergence).weights, np.float64)
        assert np.isfinite(weights).all() and abs(weights.sum() - 1) < 1e-6 and (weights[prior == 0] == 0).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_padding_may_hold_anything(divergence):
    rng = np.random.default_rng(0)
    losses, prior = rng.uniform(size=5).astype(np.float32), rng.dirichlet(np.ones(5)).astype(np.float32)
    for beta in (0.0, 2.0, np.inf):
        short, value = robust_weights(losses, prior, beta, divergence), robust_loss(losses, prior, beta, divergence)
        for pad in (-np.inf, np.inf, np.nan, 9.0):
            longer = np.append(losses, np.float32([pad, pad])), np.append(prior, np.float32([0, 0]))
            np.testing.assert_allclose(robust_weights(*longer, beta, divergence), [*short, 0, 0], rtol=1e-6)
            np.testing.assert_allclose(robust_loss(*longer, beta, divergence), value, rtol=1e-6)
            grad = jax.grad(robust_loss)(jnp.asarray(longer[0]), longer[1], beta, divergence)
            np.testing.assert_allclose(grad, [*short, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.1, 3.0, 1000.0])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_hundred_thousand_examples(divergence, beta, uniform):
    rng, n = np.random.default_rng(0), 100_000
    losses = rng.exponential(size=n).astype(np.float32)
    prior = np.full(n, 1 / n) if uniform else rng.dirichlet(np.full(n, 2.0))
    weights = robust_weights(losses, prior, beta, divergence)
    if divergence == "chi2":
        expected = paper004.eq34_by_sorting(losses, prior, beta)
        np.testing.assert_allclose(expected, paper004.eq34(losses, prior, beta), atol=1e-12)
    else:
        expected = reference(divergence, losses, prior, beta)
    assert 0.5 * np.abs(weights - expected).sum() < 5e-6


def test_kl_and_chi2_do_not_sort():
    for divergence, sorts in (("kl", False), ("chi2", False), ("cvar", True)):
        program = jax.make_jaxpr(lambda x, d=divergence: robust_weights(x, jnp.ones(8), 1.0, d))(jnp.arange(8.0))
        assert ("sort" in str(program)) == sorts


def test_newton_is_exact_where_the_support_shrinks_one_by_one():
    losses, prior = -(2.0 ** np.arange(24)), np.full(24, 1 / 24)
    with jax.enable_x64(True):
        for beta in (1e-6, 1e-3, 0.1, 1.0, 10.0):
            weights = robust_weights(losses, prior, beta, "chi2")
            np.testing.assert_allclose(weights, paper004.eq34_by_sorting(losses, prior, beta), atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_robust_loss_is_eq_3_at_its_maximiser(divergence):
    rng = np.random.default_rng(1)
    losses, prior = rng.exponential(size=9), rng.dirichlet(np.ones(9))
    with jax.enable_x64(True):
        for beta in (1e-4, 0.3, 2.0, 50.0):
            p = reference(divergence, losses, prior, beta, 0.7)
            value = p @ losses if divergence == "cvar" else paper004.eq3(p, losses, prior, beta, divergence, 0.7)
            np.testing.assert_allclose(robust_loss(losses, prior, beta, divergence, scale=0.7), value, rtol=1e-10)
        np.testing.assert_allclose(robust_loss(losses, prior, 0.0, divergence), prior @ losses, rtol=1e-12)
        np.testing.assert_allclose(robust_loss(losses, prior, np.inf, divergence), losses.max(), rtol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_small_beta_keeps_its_digits_in_float32(divergence):
    losses, prior = np.float32([0.2, 1.0, 1.7, 0.4]), np.full(4, 0.25)
    for beta in (1e-6, 1e-3):
        value = float(robust_loss(losses, prior, beta, divergence))
        p = reference(divergence, losses, prior, beta)
        exact = p @ losses if divergence == "cvar" else paper004.eq3(p, losses, prior, beta, divergence)
        assert abs(value - exact) < 5e-7


def test_pearson_at_small_beta_is_the_mean_plus_a_variance():
    """``R = mean + (beta / 4) Var`` as long as nothing is cut; with phi = (z - 1)² / 2 it would be beta / 2."""
    losses, prior = np.float32([0.2, 1.0, 1.7, 0.4]), np.full(4, 0.25)
    for scale, factor in ((1.0, 4.0), (0.5, 2.0)):
        value = robust_loss(losses, prior, 0.5, "chi2", scale=scale)
        np.testing.assert_allclose(value, losses.mean() + 0.5 / factor * losses.var(), rtol=1e-6)


def test_works_under_jit_vmap_and_grad_with_traced_beta():
    losses, prior = jnp.array([0.3, 1.0, 2.0]), jnp.asarray(PRIOR)
    betas = jnp.array([0.0, 0.5, 2.0, jnp.inf])
    for divergence in DIVERGENCES:
        grads = jax.jit(jax.vmap(lambda b, d=divergence: jax.grad(robust_loss)(losses, prior, b, d)))(betas)
        for grad, beta in zip(grads, betas, strict=True):
            np.testing.assert_allclose(grad, robust_weights(losses, prior, beta, divergence), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta": -1.0}, r"beta must be in \[0, inf\], got -1.0"),
        ({"beta": np.nan}, "beta must be in"),
        ({"divergence": "tv"}, "divergence must be one of 'kl', 'chi2', 'cvar', got 'tv'"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": np.inf}, "scale must be in"),
    ],
)
def test_bad_arguments_are_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        dro(**kwargs)
    with pytest.raises(ValueError, match=message):
        robust_loss([1.0, 2.0], [0.5, 0.5], **{"beta": 1.0} | kwargs)


@pytest.mark.parametrize(("losses", "prior"), [([1.0, 2.0], [1.0]), (1.0, 1.0), ([[1.0]], [[1.0]])])
def test_shapes_must_match(losses, prior):
    with pytest.raises(ValueError, match="losses and prior must have one entry for each example"):
        robust_weights(losses, prior, 1.0)
    with pytest.raises(ValueError, match="prior must be finite"):
        robust_weights([1.0, 2.0], [0.5, -0.5], 1.0)

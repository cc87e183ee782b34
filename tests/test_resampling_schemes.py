"""Resampling-reweighting: unbiased, of least variance, and what it would gain, against float64 and by draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mixjax import resampling
from mixjax.grad_norms import norm

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
PRIOR = np.float32([0.1, 0.4, 0.2, 0.3])
GRADS = np.float32([[1, 2], [-30, 0.5], [0, 0], [0.1, -0.2]])


@pytest.mark.parametrize("defensive", [0.0, 0.3])
def test_the_estimate_is_unbiased_and_its_variance_is_the_formula(defensive):
    q = resampling.probabilities(norm(GRADS), PRIOR, defensive)
    masses = PRIOR * np.linalg.norm(GRADS, axis=1)
    np.testing.assert_allclose(q, (1 - defensive) * masses / masses.sum() + defensive * PRIOR, rtol=1e-6)
    keys = jax.random.split(KEY, 100_000)
    draws = np.float64(jax.jit(jax.vmap(lambda key: resampling.estimate(key, GRADS, PRIOR, q)))(keys))
    expected, error = PRIOR @ GRADS, draws.std(0) / len(draws) ** 0.5
    assert (abs(draws.mean(0) - expected) < 4 * error + 1e-5).all()
    np.testing.assert_allclose(draws.var(0).sum(), resampling.variance(GRADS, PRIOR, q), rtol=0.03)


def test_no_weights_have_less_variance_than_those_by_norms():
    """Eq. 3.45: at most plain SGD's trace, and at most that of any other q."""
    random = np.random.default_rng(0)
    grads = (random.normal(size=(500, 8, 3)) * np.exp(2 * random.normal(size=(500, 8, 1)))).astype(np.float32)
    prior, other = (random.dirichlet(np.ones(8), 500).astype(np.float32) for _ in range(2))
    best = jax.vmap(lambda g, p: resampling.probabilities(norm(g), p))(grads, prior)
    least, plain, mixed = (jax.vmap(resampling.variance)(grads, prior, q) for q in (best, prior, (prior + other) / 2))
    assert (least <= plain * (1 + 1e-4) + 1e-6).all() and (least <= mixed * (1 + 1e-4) + 1e-6).all()
    lengths, mean = np.linalg.norm(grads, axis=-1), (prior[..., None] * grads).sum(1)
    exact = (prior * lengths).sum(-1) ** 2 - (mean**2).sum(-1)
    np.testing.assert_allclose(least, exact, rtol=1e-3, atol=1e-4 * float(np.square(grads).max()) / 100)


def test_all_zero_scores_are_the_prior_and_zeros_are_never_drawn():
    np.testing.assert_allclose(resampling.probabilities(np.zeros(4), PRIOR), PRIOR, rtol=1e-6)
    np.testing.assert_allclose(resampling.probabilities([0, 2e-38, 0, 0], PRIOR), [0, 1, 0, 0], rtol=1e-6)
    assert np.isfinite(resampling.probabilities([1e38, 3e38, 0, 0], PRIOR)).all()
    drawn = jax.vmap(lambda key: resampling.draw(key, jnp.array([0.0, 0.5, 0.0, 0.5, 0.0])))(
        jax.random.split(KEY, 2000)
    )
    assert set(drawn.tolist()) == {1, 3}
    nothing = resampling.estimate(KEY, np.zeros((4, 2)), PRIOR, resampling.probabilities(np.zeros(4), PRIOR))
    assert nothing.tolist() == [0.0, 0.0]


def test_rejection_draws_by_the_scores_and_tries_as_often_as_they_are_uneven():
    scores = jnp.array([0.0, 1.0, 2.0, 5.0])
    run = jax.jit(jax.vmap(lambda key: resampling.draw_by_rejection(key, lambda i: scores[i], 4, 5.0)))
    indices, tries, accepted = map(np.asarray, run(jax.random.split(KEY, 20_000)))
    counts = np.bincount(indices, minlength=4)
    assert counts[0] == 0 and stats.chisquare(counts[1:], 20_000 * np.array([1, 2, 5]) / 8).pvalue > 1e-4
    np.testing.assert_allclose(tries.mean(), 5 / 2, rtol=0.03)
    assert accepted.all()
    _, tries, accepted = resampling.draw_by_rejection(KEY, lambda i: 0.0, 4, 5.0, max_tries=7)
    assert tries == 7 and not accepted
    with pytest.raises(ValueError, match="n >= 1"):
        resampling.draw_by_rejection(KEY, lambda i: 1.0, 0, 1.0)


def test_the_group_estimate_is_unbiased_over_elements_and_groups():
    groups = np.split(np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32) * 3, [2])
    shares = np.float32([2 / 12, 10 / 12])

    def one(key):
        keys = jax.random.split(key, 3)
        pick = [g[jax.random.randint(k, (), 0, len(g))] for g, k in zip(map(jnp.asarray, groups), keys, strict=False)]
        return resampling.group_estimate(keys[2], jnp.stack(pick), shares)

    draws = np.float64(jax.jit(jax.vmap(one))(jax.random.split(KEY, 100_000)))
    error = draws.std(0) / len(draws) ** 0.5
    assert (abs(draws.mean(0) - np.concatenate(groups).mean(0)) < 4 * error).all()


def test_a_prior_of_sizes_is_normalised_and_terms_without_a_score_are_left_out():
    sizes, grads = np.float32([800, 4000]), np.float32([[1.0], [1.0]])
    q = resampling.probabilities(norm(grads), sizes)
    assert resampling.estimate(KEY, grads, sizes, q).tolist() == [1.0]
    assert resampling.group_estimate(KEY, grads, sizes).tolist() == [1.0]
    assert resampling.variance(grads, sizes, q) < 1e-10
    np.testing.assert_allclose(resampling.probabilities([1, 5, np.nan, 2], np.ones(4)), [1 / 8, 5 / 8, 0, 2 / 8])
    np.testing.assert_allclose(resampling.probabilities([np.inf, -1, 0, 2], np.ones(4)), [0, 0, 0, 1])
    np.testing.assert_allclose(resampling.probabilities([1e30, 1e-12, 3e-12], [0, 1, 1]), [0, 0.25, 0.75], rtol=1e-6)
    assert resampling.variance([[1.0], [3.0]], [0.5, 0.5], [0.0, 1.0]) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resampling.probabilities(np.ones(3), PRIOR), "scores and prior must both be"),
        (lambda: resampling.probabilities(np.ones(2), [0.0, 0.0]), "prior must be finite"),
        (lambda: resampling.probabilities(np.ones(2), [0.5, 0.5], defensive=2.0), "defensive must be in"),
        (lambda: resampling.estimate(KEY, GRADS, PRIOR[:2], PRIOR[:2]), "need grads"),
        (lambda: resampling.variance(GRADS[:, 0], PRIOR, PRIOR), "need grads"),
        (lambda: resampling.gains(lambda p, x: p * x, 1.0, jnp.ones(30)), "at least 40 examples"),
        (lambda: resampling.gains(lambda p, x: p * x, 1.0, jnp.ones(30), num_blocks=1), "at least 2 blocks"),
        (lambda: resampling.gains(lambda p, x: p * x[0], 1.0, (jnp.ones(50), jnp.ones(40))), "arrays of one length"),
        (lambda: resampling.gains(lambda p, x: p * x, 1.0, jnp.ones(50), jnp.zeros(50, int)), "go together"),
        (lambda: resampling.gains(lambda p, x: p * x, 1.0, jnp.ones(50), jnp.zeros(4, int), 2), "domain_ids must be"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def least_squares(params, example):
    x, y = example
    return 0.5 * jnp.square(x @ params["slope"] + params["bias"] - y)


def made_up(seed, n):
    random = np.random.default_rng(seed)
    ids = random.integers(3, size=n)
    x = random.normal(size=(n, 4)) * np.array([1.0, 3.0, 8.0])[ids, None]
    y = x @ np.arange(4) + random.normal(size=n)
    return (x.astype(np.float32), y.astype(np.float32)), ids


PARAMS = {"slope": jnp.array([0.2, 0.9, 2.5, 2.0]), "bias": jnp.float32(0.5)}


def exact_variances(examples, ids):
    """In float64, for the points themselves."""
    x, y = map(np.float64, examples)
    residuals = x @ np.float64(PARAMS["slope"]) + 0.5 - y
    grads = residuals[:, None] * np.concatenate([x, np.ones((len(x), 1))], axis=1)
    lengths, mean = np.linalg.norm(grads, axis=1), grads.mean(0)
    spread = [grads[ids == d].var(0).sum() for d in range(3)]
    shares = np.bincount(ids, minlength=3) / len(ids)
    sgd, per_term = (lengths**2).mean() - mean @ mean, lengths.mean() ** 2 - mean @ mean
    stratified, aware = shares @ spread, (shares @ np.sqrt(spread)) ** 2
    return [sgd, per_term, per_term / sgd, stratified, aware, aware / stratified]


def test_gains_are_near_the_populations_within_their_errors():
    whole = exact_variances(*made_up(0, 400_000))
    find = jax.jit(lambda examples, ids: resampling.gains(least_squares, PARAMS, examples, ids, 3))
    found = np.array([np.array(find(*made_up(seed, 1000))) for seed in range(1, 41)])  # [run, number, (value, error)]
    z = (found[..., 0] - whole) / found[..., 1]
    assert (abs(z.mean(0)) < 0.8).all(), z.mean(0)  # heavy tails: a little bias
    assert (z.std(0) > 0.6).all() and (z.std(0) < 1.7).all(), z.std(0)
    np.testing.assert_allclose(np.median(found[..., 0], 0), whole, rtol=0.15)


def jackknife(examples, ids, num_domains, num_blocks=20):
    """The numbers and their errors in float64, on the blocks that ``gains`` makes."""
    x, y = map(np.float64, examples)
    grads = (x @ np.float64(PARAMS["slope"]) + 0.5 - y)[:, None] * np.concatenate([x, np.ones((len(x), 1))], axis=1)
    order = np.asarray(jax.random.permutation(jax.random.key(0), len(ids)))

    def square_of_mean(g):
        return (np.square(g.sum(0)).sum() - np.square(g).sum()) / (len(g) * (len(g) - 1))

    def numbers(keep):
        keep = [i for i in keep if 0 <= ids[i] < num_domains]
        g, d = grads[keep], ids[keep]
        lengths, mean = np.linalg.norm(g, axis=1), square_of_mean(g)
        per_term = (lengths.sum() ** 2 - (lengths**2).sum()) / (len(g) * (len(g) - 1)) - mean
        sgd, present = (lengths**2).mean() - mean, np.unique(d)
        spread = np.array([(lengths[d == k] ** 2).mean() - square_of_mean(g[d == k]) for k in present])
        shares = np.array([(d == k).mean() for k in present])
        return np.array(
            [sgd, per_term, per_term / sgd, a := shares @ spread, b := (shares @ np.sqrt(spread)) ** 2, b / a]
        )

    whole = numbers(order)
    left_out = np.array([numbers(np.delete(order, np.s_[k::num_blocks])) for k in range(num_blocks)])
    return num_blocks * whole - (num_blocks - 1) * left_out.mean(0), np.sqrt((num_blocks - 1) * left_out.var(0))


def test_gains_are_the_jackknifes_with_padding_and_an_absent_domain():
    examples, ids = made_up(5, 413)
    ids = np.where(np.arange(413) % 11 == 0, np.where(np.arange(413) % 2 == 0, -1, 9), np.where(ids == 1, 3, ids))
    found = resampling.gains(least_squares, PARAMS, examples, ids, 4)
    for ours, expected, error in zip(found, *jackknife(examples, ids, 4), strict=True):
        np.testing.assert_allclose(ours[0], expected, rtol=2e-3)
        np.testing.assert_allclose(ours[1], error, rtol=2e-2)


def test_gains_leave_out_what_is_not_finite_and_do_not_guess_a_domain_of_one():
    (x, y), ids = made_up(6, 400)
    broken = y.copy()
    broken[[3, 77]] = np.nan
    left = resampling.gains(least_squares, PARAMS, (x, broken), ids, 3)
    marked = np.where(np.isnan(broken), -1, ids)
    for ours, expected in zip(left, resampling.gains(least_squares, PARAMS, (x, y), marked, 3), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    alone = resampling.gains(least_squares, PARAMS, (x, y), np.where(np.arange(400) == 7, 3, ids), 4)
    assert np.isnan(alone.variance_aware_ratio[0]) and np.isfinite(alone.per_term_ratio[0])


def test_gains_without_domains_and_with_equal_gradients():
    examples, ids = made_up(0, 500)
    found = resampling.gains(least_squares, PARAMS, examples)
    np.testing.assert_allclose(found.stratified[0], found.sgd[0], rtol=1e-4)
    np.testing.assert_allclose(found.variance_aware_ratio[0], 1.0, rtol=1e-4)
    exact = exact_variances(examples, ids)
    np.testing.assert_allclose(found.sgd[0], exact[0] * 500 / 499, rtol=1e-3)
    signs = jnp.where(jnp.arange(400) % 40 < 20, 1.0, -1.0)  # equal norms, no gain
    same = resampling.gains(lambda slope, x: slope * x, jnp.array(1.0), signs)
    np.testing.assert_allclose(same.per_term_ratio, (1.0, 0.0), atol=1e-4)

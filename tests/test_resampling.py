"""The variance that resampling would save, against float64 and populations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import resampling
from mixjax.types import UNKNOWN

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("call", "message"),
    [
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
        stratified, aware = shares @ spread, (shares @ np.sqrt(spread)) ** 2
        return np.array([sgd, per_term, per_term / sgd, stratified, aware, aware / stratified])

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
    assert alone.variance_aware_ratio == (UNKNOWN, UNKNOWN) and np.isfinite(alone.per_term_ratio[0])


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


def test_gains_of_complex_parameters_are_those_of_their_real_and_imaginary_parts():
    z = jnp.asarray(np.random.default_rng(5).normal(size=(12, 2, 2)) @ np.array([1.0, 1j]), jnp.complex64)
    theta = jnp.array([1 + 1j, -0.5j])

    def loss(theta, z):
        return jnp.square(jnp.abs(jnp.sum(theta * z) - 1.0))

    def real_loss(parts, z):
        return loss(parts[..., 0] + 1j * parts[..., 1], z)

    got = resampling.gains(loss, theta, z, num_blocks=3)
    want = resampling.gains(real_loss, jnp.stack([theta.real, theta.imag], axis=-1), z, num_blocks=3)
    np.testing.assert_allclose(got.sgd, want.sgd, rtol=1e-4)
    np.testing.assert_allclose(got.per_term_ratio, want.per_term_ratio, rtol=1e-4)

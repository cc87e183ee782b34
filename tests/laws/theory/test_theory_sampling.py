"""Paper 000, section 4 as tests: the variance of the stratified gradient estimate, and the counts that minimise it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax import signals
from mixjax.rules import fixed, variance_aware
from mixjax.samplers import allocate, counts_to_ids


def eq_14(c, v, counts):
    """Variance of the stratified estimate, ``sum_d c_d^2 v_d^2 / b_d``, in float64."""
    return np.sum(np.square(np.asarray(c, float) * v) / np.asarray(counts, float), axis=-1)


def va_counts(c, v, batch_size):
    """Counts by the rule and the sampler under test: ``variance_aware`` (eq. 16), then ``allocate``."""
    rule = variance_aware()
    c, v = jnp.asarray(c, jnp.float32), jnp.asarray(v, jnp.float32)
    state = rule.update(rule.init(c), counts=jnp.ones(c.size), loss_weights=c, grad_stds=v)
    return allocate(state.weights, batch_size)


def compositions(total, parts):
    """All ways to write ``total`` as a sum of ``parts`` positive integers."""
    cuts = np.array(list(itertools.combinations(range(1, total), parts - 1)))
    return np.diff(cuts, prepend=0, append=total, axis=1)


SIZES = np.array([30, 50, 20])
IDS = np.repeat(np.arange(3), SIZES)
C = np.array([0.5, 0.2, 0.3])
BATCH_SIZE = 24


def regression_data(d=8):
    """A fixed data set of three domains that differ in scale and noise, and a parameter away from the optimum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(IDS.size, d)) * np.array([1.0, 0.3, 2.0])[IDS, None]
    y = x @ np.ones(d) + np.array([0.5, 3.0, 1.0])[IDS] * rng.normal(size=IDS.size)
    return x, y, rng.normal(size=d) / d


@jax.jit
def gradient_estimates(keys, data, counts):
    """Gradients [key, d] of ``weighted_loss`` on batches drawn with replacement from each domain, in ``counts``."""
    x, y, theta = data
    ids, rule = counts_to_ids(counts, BATCH_SIZE), fixed()
    starts, sizes = jnp.asarray(np.cumsum(SIZES) - SIZES)[ids], jnp.asarray(SIZES)[ids]

    def estimate(key):
        rows = starts + jax.random.randint(key, ids.shape, 0, sizes)

        def objective(theta):
            return mixjax.weighted_loss(rule, rule.init(C), jnp.square(x[rows] @ theta - y[rows]), ids)[0]

        return jax.grad(objective)(theta)

    return jax.lax.map(estimate, keys, batch_size=1000)


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ["variance_aware", "uniform", "proportional"])
def test_measured_variance_of_the_gradient_is_eq_14(allocation):
    """Eq. 14: E ||g - grad L_c||^2 = sum_d c_d^2 v_d^2 / b_d for the gradient of ``weighted_loss``, and E g = grad L_c.

    The batch is drawn i.i.d. with replacement from each domain's examples, as eq. 14 needs: the algorithms' "batch
    B_i ⊆ S_i", without replacement, has (n_i - b_i) / (n_i - 1) of it. Eq. 13 subtracts the gradient of the unweighted
    risk; it must be that of the weighted one, ``L_{S, pi, w}``.
    """
    x, y, theta = regression_data()
    grads = 2 * (x @ theta - y)[:, None] * x
    means = np.array([grads[d == IDS].mean(0) for d in range(3)])
    v = np.array([np.sqrt(np.square(grads[d == IDS] - means[d]).sum(1).mean()) for d in range(3)])

    data = [jnp.asarray(a, jnp.float32) for a in (x, y, theta)]
    measured = signals.grad_stds(lambda t, z: jnp.square(z[0] @ t - z[1]), data[2], (data[0], data[1]), IDS, 3)
    np.testing.assert_allclose(measured * np.sqrt(1 - 1 / SIZES), v, rtol=1e-5)  # eq. 15 divides by n, grad_stds by n-1

    counts = {
        "variance_aware": lambda: va_counts(C, v, BATCH_SIZE),
        "uniform": lambda: allocate(jnp.ones(3), BATCH_SIZE),
        "proportional": lambda: allocate(C, BATCH_SIZE),
    }[allocation]()
    keys = jax.random.split(jax.random.key(1), 30000)
    g, target = np.asarray(gradient_estimates(keys, data, counts), np.float64), C @ means
    error = g.std(axis=0) / len(g) ** 0.5
    assert np.all(np.abs(g.mean(0) - target) < 4.5 * error)

    squares = np.square(g - target).sum(1)
    expected, error = eq_14(C, v, counts), squares.std() / len(g) ** 0.5
    assert error < 0.01 * expected
    assert abs(squares.mean() - expected) < 4 * error


@pytest.mark.parametrize(("num_domains", "batch_size"), [(2, 9), (3, 12), (4, 13)])
def test_va_counts_are_the_best_of_all_counts(num_domains, batch_size):
    """Eq. 16 with ``allocate``: no integer counts have less variance, by brute force over all of them."""
    rng = np.random.default_rng(1)
    c = rng.dirichlet(np.ones(num_domains), size=200)
    v = np.exp(1.5 * rng.normal(size=(200, num_domains)))
    found = jax.jit(jax.vmap(lambda c, v: va_counts(c, v, batch_size)))(c, v)
    everything = compositions(batch_size, num_domains)
    least = np.array([eq_14(c[i], v[i], everything).min() for i in range(200)])
    got = eq_14(c, v, found)
    assert np.all(np.asarray(found).sum(1) == batch_size)
    np.testing.assert_allclose(got, least, rtol=1e-5)  # float32 may pick the other of two that tie
    assert np.all(least >= np.square(np.sum(c * v, axis=1)) / batch_size * (1 - 1e-12))  # the real-valued optimum


def test_va_variance_value_and_its_limits():
    """At eq. 16's ``b ∝ c v`` eq. 14 is ``(sum_d c_d v_d)^2 / B``, at most D times below the uniform split's.

    Uniform over optimal is ``D sum (c v)^2 / (sum c v)^2``: 1 where all ``c v`` are equal (Cauchy-Schwarz), D in the
    limit where one domain has it all. So VA cannot promise more than a factor D in variance, sqrt(D) in distance.
    """
    rng = np.random.default_rng(2)
    num_domains, batch_size = 4, 400
    c = rng.dirichlet(np.ones(num_domains), size=300)
    v = np.exp(2 * rng.normal(size=(300, num_domains)))
    optimum = np.square(np.sum(c * v, axis=1)) / batch_size

    rule = variance_aware()
    state = jax.vmap(rule.init)(jnp.asarray(c))
    q = jax.vmap(rule.update)(state, counts=jnp.ones_like(c), loss_weights=jnp.asarray(c), grad_stds=jnp.asarray(v))
    real = np.asarray(q.weights, np.float64) * batch_size
    np.testing.assert_allclose(eq_14(c, v, real), optimum, rtol=1e-5)
    for other in rng.dirichlet(np.ones(num_domains), size=50):
        assert np.all(eq_14(c, v, batch_size * other) >= optimum)

    whole = jax.jit(jax.vmap(lambda c, v: va_counts(c, v, batch_size)))(c, v)
    excess = eq_14(c, v, whole) / optimum - 1
    assert excess.min() > -1e-9
    assert excess.max() < num_domains / (batch_size - num_domains)  # ceil(q_d (B - D)) fits into B

    gain = eq_14(c, v, batch_size / num_domains) / optimum
    assert 1 - 1e-9 < gain.min() <= gain.max() < num_domains
    assert gain.max() > 0.9 * num_domains
    np.testing.assert_allclose(eq_14(c, 1 / c, batch_size / num_domains), num_domains**2 / batch_size)


def test_a_domain_of_duplicates_gets_a_lower_share():
    """Sections 4 and 6: a domain that repeats few distinct examples gets less of the batch from VA.

    Of ``m`` distinct examples, each repeated equally often, eq. 15's ``v^2`` has expectation ``(1 - 1/m) v_pop^2``. So
    the share rises with m from 0 (m = 1: one example has no variance) as ``sqrt(1 - 1/m)``: the effect is there, and it
    is small except for extreme redundancy. m = 2 takes 29 % off v, m = 16 takes 3 %, whatever the number of copies.
    VA notices that gradients are *similar*; it does not count distinct examples.
    """
    copies, d, reps = 32, 6, 3000
    distinct = np.array([1, 2, 4, 8, 16, 32])
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(reps, copies, d))  # domain 0 never repeats
    fresh = rng.normal(size=(reps, copies, d))
    ids = np.repeat([0, 1], copies)
    theta = jnp.zeros(d)

    @jax.jit
    def measure(reference, domain):
        x = jnp.concatenate([reference, domain])
        stds = signals.grad_stds(lambda t, x: jnp.square(x @ (t - 1.0)), theta, x, ids, 2)
        rule = variance_aware()
        c = jnp.array([0.5, 0.5])
        return stds, rule.update(rule.init(c), counts=jnp.ones(2), loss_weights=c, grad_stds=stds).weights

    # One example: g = 2 (x . u) x with u = -1 of squared norm d; v_pop^2 = E ||g||^2 - ||E g||^2 = 4 ((d + 2) d - d).
    v_pop_squared = 4 * (d + 1) * d
    shares = []
    for m in distinct:
        stds, q = jax.vmap(measure)(jnp.asarray(reference), jnp.asarray(np.tile(fresh[:, :m], (1, copies // m, 1))))
        squares = np.square(np.asarray(stds, np.float64)) * (copies - 1) / copies  # eq. 15 divides by n
        for column, count in [(0, copies), (1, m)]:
            mean, error = squares[:, column].mean(), squares[:, column].std() / reps**0.5
            assert abs(mean - (1 - 1 / count) * v_pop_squared) <= 4 * error + 1e-6
        assert np.all(np.asarray(q) > 0)  # the floor: a domain without variance can come back
        shares.append(np.asarray(q, np.float64)[:, 1])
    means = np.mean(shares, axis=1)
    assert np.all(np.diff(means) > 0)
    for fewer, more in itertools.pairwise(shares):
        paired = more - fewer
        assert paired.mean() > 4 * paired.std() / reps**0.5
    last = shares[-1]
    assert abs(last.mean() - 0.5) < 4 * last.std() / reps**0.5
    assert means[0] < 1e-5

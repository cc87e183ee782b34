"""Domain moments and gradient spreads against float64 NumPy, merged over microbatches, scans, runs and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import signals
from mixjax.types import UNKNOWN
from tests.laws.reference import paper000

pytestmark = pytest.mark.usefixtures("quick_compilation")

D, B = 4, 24


def batch(seed, size=B, offset=0.0, scale=1.0):
    """Values and ids; domain 3 is absent and id -1 or 7 is padding."""
    rng = np.random.default_rng(seed)
    ids = rng.choice([0, 1, 2, -1, 7], size=size, p=[0.3, 0.3, 0.2, 0.1, 0.1])
    ids[:6] = [0, 0, 1, 1, 2, 2]
    return (offset + scale * rng.normal(size=size)).astype(np.float32), ids


def numpy_moments(values, ids):
    rows = [np.float64(values)[ids == d] for d in range(D)]
    mean = np.array([row.mean() if row.size else UNKNOWN for row in rows])
    var = np.array([row.var(ddof=1) if row.size > 1 else UNKNOWN for row in rows])
    return np.array([row.size for row in rows]), mean, var


moments = jax.jit(functools.partial(signals.moments, num_domains=D))
merge = jax.jit(signals.merge)


def assert_moments(m, values, ids, rtol=1e-5, var_rtol=1e-4):
    count, mean, var = numpy_moments(values, ids)
    out = m.signals()
    np.testing.assert_array_equal(out["counts"], count)
    np.testing.assert_allclose(out["losses"], mean, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(out["loss_vars"], var, rtol=var_rtol, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_moments_are_numpys(seed):
    values, ids = batch(seed)
    m = moments(values, ids)
    assert_moments(m, values, ids)
    assert m.count[3] == m.mean[3] == m.m2[3] == 0
    assert {x.dtype for x in m} == {jnp.dtype("float32")}


def test_signals_say_where_they_are_unknown():
    out = moments(np.float32([1.0, 3.0, 5.0] + [0.0] * 21), np.array([0, 0, 1] + [-1] * 21)).signals()
    np.testing.assert_array_equal(out["counts"], [2, 1, 0, 0])
    np.testing.assert_array_equal(out["losses"], [2.0, 5.0, UNKNOWN, UNKNOWN])
    np.testing.assert_array_equal(out["loss_vars"], [2.0, UNKNOWN, UNKNOWN, UNKNOWN])


@pytest.mark.parametrize("size", [B, 1000, 10000])
@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_small_spread_at_a_large_offset(size, offset):
    values, ids = batch(0, size=size, offset=offset)
    assert_moments(moments(values, ids), values, ids, rtol=1e-7, var_rtol=1e-3)


def test_small_spread_at_a_large_offset_survives_merging():
    values, ids = batch(1, size=40 * B, offset=1e6)
    m = signals.Moments(*jnp.zeros((3, D)))
    for part in range(40):
        rows = slice(part * B, (part + 1) * B)
        m = merge(m, moments(values[rows], ids[rows]))
    assert_moments(m, values, ids, rtol=1e-6, var_rtol=0.02)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float64, np.int32])
def test_moments_are_float32_whatever_the_dtype(dtype):
    values, ids = batch(2, scale=10)
    values = values.astype(dtype)
    m = moments(values, ids)
    assert {x.dtype for x in m} == {jnp.dtype("float32")}
    assert_moments(m, np.asarray(values, np.float64), ids)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_value_spoils_its_own_row_only(bad):
    values, ids = batch(3)
    clean = moments(values, ids)
    values[np.flatnonzero(ids == 1)[0]] = bad
    spoilt = moments(values, ids)
    assert not np.isfinite(spoilt.signals()["losses"][1]) and not np.isfinite(spoilt.signals()["loss_vars"][1])
    for a, b in zip(clean, spoilt, strict=True):
        np.testing.assert_array_equal(np.delete(a, 1), np.delete(b, 1))
    for both in (merge(spoilt, clean), merge(clean, spoilt)):
        assert not np.isfinite(both.mean[1]) and np.isfinite(np.delete(both.mean, 1)).all()


def test_padding_is_not_looked_at():
    values, ids = batch(4)
    padding = (ids < 0) | (ids >= D)
    assert padding.any()
    clean, spoilt = moments(values, ids), moments(np.where(padding, np.nan, values), ids)
    np.testing.assert_array_equal(np.stack(clean), np.stack(spoilt))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_merged_microbatches_are_one_batch(parts):
    values, ids = batch(5, scale=3.0)
    ids[: B // parts] = 0  # the other domains are absent from the first microbatch
    m = signals.Moments(*jnp.zeros((3, D)))
    for rows in np.split(np.arange(B), parts):
        m = merge(m, moments(values[rows], ids[rows]))
    assert_moments(m, values, ids)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=B, max_size=B), st.integers(0, 2**31))
def test_merge_is_commutative_and_associative_with_the_empty_moments_as_unit(values, seed):
    ids = np.random.default_rng(seed).integers(-1, D, B)
    a, b, c = (moments(np.float32(values[i::3]), ids[i::3]) for i in range(3))
    unit = jax.tree.map(jnp.zeros_like, a)
    np.testing.assert_array_equal(np.stack(merge(a, unit)), np.stack(a))
    np.testing.assert_array_equal(np.stack(merge(unit, a)), np.stack(a))
    for left, right in ((merge(a, b), merge(b, a)), (merge(merge(a, b), c), merge(a, merge(b, c)))):
        np.testing.assert_array_equal(left.count, right.count)
        np.testing.assert_allclose(left.mean, right.mean, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(left.m2, right.m2, rtol=1e-4, atol=1e-1)


def test_merge_in_scan():
    values, ids = batch(6)

    def step(m, part):
        return signals.merge(m, signals.moments(*part, D)), None

    parts = (values.reshape(6, 4), ids.reshape(6, 4))
    m, _ = jax.jit(lambda parts: jax.lax.scan(step, signals.Moments(*jnp.zeros((3, D))), parts))(parts)
    assert_moments(m, values, ids)


def test_moments_under_vmap():
    batches = [batch(seed) for seed in range(3)]
    values, ids = map(np.stack, zip(*batches, strict=True))
    m = jax.vmap(moments)(values, ids)
    for run in range(3):
        assert_moments(jax.tree.map(lambda x, run=run: x[run], m), *batches[run])


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_psum_under_vmap(offset):
    values, ids = batch(7, offset=offset)
    ids[:3] = 0  # other domains absent from the first row
    shards = (values.reshape(8, 3), ids.reshape(8, 3))
    m = jax.vmap(lambda v, i: signals.psum(moments(v, i), "devices"), axis_name="devices")(*shards)
    for row in (0, 7):
        assert_moments(
            jax.tree.map(lambda x, row=row: x[row], m), values, ids, rtol=2e-7 if offset else 1e-5, var_rtol=2e-2
        )


def test_psum_under_shard_map():
    values, ids = batch(8)
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    assert mesh.size == 8

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("devices"), out_specs=P())
    def whole(values, ids):
        return signals.psum(signals.moments(values, ids, D), "devices")

    assert_moments(whole(values, ids), values, ids)


@pytest.mark.parametrize(
    ("values", "ids", "mask", "message"),
    [
        ((3,), (4,), None, r"domain_ids must have the leading axes of values, of shape \(3,\), got shape \(4,\)"),
        ((2, 3), (3,), None, r"domain_ids must have the leading axes of values, of shape \(2, 3\), got shape \(3,\)"),
        ((2,), (2, 3), None, r"domain_ids must have the leading axes of values, of shape \(2,\), got shape \(2, 3\)"),
        ((2,), (), None, r"domain_ids must have the leading axes of values, of shape \(2,\), got shape \(\)"),
        ((2, 3), (2,), (3,), r"mask must have the leading axes of values, of shape \(2, 3\), got shape \(3,\)"),
        ((), (), None, "values must have at least one axis, got a scalar"),
    ],
)
def test_the_shapes_of_moments_must_fit(values, ids, mask, message):
    mask = None if mask is None else np.ones(mask)
    with pytest.raises(ValueError, match=f"^{message}"):
        signals.moments(np.zeros(values), np.zeros(ids, int), 2, mask=mask)


@pytest.mark.parametrize("num_domains", [3, 20])
def test_sums_over_more_axes_than_the_ids_have(num_domains):
    x, ids = np.random.default_rng(0).integers(0, 9, (4, 5, 2)), np.array([0, 2, -1, 0])
    total, per_example = signals.domain_sums(ids, num_domains)
    expected = np.zeros(num_domains)
    expected[0], expected[2] = x[[0, 3]].sum(), x[1].sum()
    np.testing.assert_array_equal(total(jnp.asarray(x)), expected)
    np.testing.assert_array_equal(per_example(jnp.arange(1.0, num_domains + 1)), [1, 3, 0, 1])
    wide, _ = signals.domain_sums(np.broadcast_to(ids[:, None, None], x.shape), num_domains)
    np.testing.assert_array_equal(wide(jnp.asarray(x)), expected)


def test_counts_beyond_two_to_the_24_are_exact():
    ids = np.zeros(2**24 + 3, np.uint8)
    found = jax.jit(lambda x: signals.moments(x, ids, 5).count)(np.zeros(ids.shape, np.float16))
    assert found[0] == np.float32(2**24 + 4)  # the nearest float32; a sum of ones stops at 2^24


# Gradient standard deviations.


def loss(params, example):
    """A tiny model with two leaves and non-constant gradients."""
    x, y = example
    return jnp.square(jnp.tanh(params["w"] @ x) @ params["v"] - y)


PARAMS = {"w": jnp.array([[0.3, -0.5, 1.0], [1.0, 0.2, -0.4]]), "v": jnp.array([1.5, -0.7])}


def examples(seed, size):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, 3)).astype(np.float32), rng.normal(size=size).astype(np.float32)


def flat_gradients(data):
    """Per-example gradients in float64, by central differences of the model in NumPy."""
    x, y = map(np.float64, data)
    theta = np.concatenate([np.float64(PARAMS["w"]).ravel(), np.float64(PARAMS["v"])])

    def value(theta):
        return np.square(np.tanh(x @ theta[:6].reshape(2, 3).T) @ theta[6:] - y)

    return np.stack([(value(theta + e) - value(theta - e)) / 2e-5 for e in 1e-5 * np.eye(8)], axis=1)


grad_stds = jax.jit(functools.partial(signals.grad_stds, loss, num_domains=D))
microbatch_grad_stds = jax.jit(signals.microbatch_grad_stds)


def test_grad_stds_are_eq_15_with_the_unbiased_divisor():
    data = examples(0, B)
    ids = np.array([0] * 10 + [1] * 8 + [2] + [-1, 9, 0, 1, 0])  # domain 2 has one example, domain 3 none
    gradients = flat_gradients(data)
    stds = grad_stds(PARAMS, data, ids)
    for d in (0, 1):
        rows = gradients[ids == d]
        np.testing.assert_allclose(stds[d] ** 2, paper000.eq15(rows) * len(rows) / (len(rows) - 1), rtol=1e-4)
    assert (stds[2:] == UNKNOWN).all() and stds.dtype == jnp.float32


def test_grad_stds_by_hand():
    x, ids = jnp.array([1.0, 3.0, 5.0, 5.0]), jnp.array([0, 0, 1, 1])
    stds = jax.jit(lambda x: signals.grad_stds(lambda slope, x: slope * x, jnp.array(2.0), x, ids, 2))(x)
    np.testing.assert_allclose(stds, [np.sqrt(2.0), 0.0], rtol=1e-6)


def test_padding_and_nan_gradients_stay_out_of_other_rows():
    x, y = examples(1, B)
    ids = np.arange(B) % 5 - 1  # -1 is padding
    clean = grad_stds(PARAMS, (x, y), ids)
    assert np.isfinite(clean).all()
    bad = grad_stds(PARAMS, (x, np.where(ids < 0, np.nan, y).astype("float32")), ids)
    np.testing.assert_array_equal(bad, clean)
    bad = grad_stds(PARAMS, (x, np.where(ids == 1, np.nan, y).astype("float32")), ids)
    np.testing.assert_array_equal(bad, clean.at[1].set(np.nan))


def test_grad_stds_of_bfloat16_parameters_are_float32():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    data, ids = examples(2, B), np.arange(B) % D
    stds = grad_stds(params, data, ids)
    assert stds.dtype == jnp.float32
    np.testing.assert_allclose(stds, grad_stds(PARAMS, data, ids), rtol=0.1)


def test_grad_stds_under_vmap_over_parameters():
    params = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    data, ids = examples(3, B), np.arange(B) % 3
    batched = jax.vmap(lambda p: grad_stds(p, data, ids))(params)
    for run in range(2):
        single = grad_stds(jax.tree.map(lambda p, run=run: p[run], params), data, ids)
        np.testing.assert_allclose(batched[run], single, rtol=1e-5)


def test_microbatch_grad_stds_by_hand():
    # counts 4 and 1, means 1 and 6: the grand mean is 2, and (4 * 1 + 1 * 16) / (2 - 1) = 20
    grads, counts = jnp.array([[[1.0]], [[6.0]]]), jnp.array([[4], [1]])
    np.testing.assert_allclose(microbatch_grad_stds(grads, counts), [np.sqrt(20.0)], rtol=1e-6)


def test_microbatches_of_one_example_are_the_exact_grad_stds():
    data = examples(4, B)
    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(PARAMS, data)
    stacked = jax.tree.map(lambda g: g.reshape(B // 2, 2, *g.shape[1:]), grads)
    exact = grad_stds(PARAMS, data, np.arange(B) % 2)[:2]
    np.testing.assert_allclose(microbatch_grad_stds(stacked, jnp.ones((B // 2, 2))), exact, rtol=1e-5)


def test_microbatch_grad_stds_is_unbiased_for_any_counts():
    counts = np.array([[1, 5, 0], [4, 5, 2], [9, 0, 2], [2, 5, 2]])  # a domain absent from some microbatches
    v2, mean, runs = np.array([2.0, 0.5, 9.0]), np.array([3.0, -1.0, 0.0]), 20_000

    @jax.jit
    @jax.vmap
    def square(key):  # means of n draws of variance v^2 / 2 in each of two coordinates
        spread = jnp.sqrt(v2 / 2 / jnp.maximum(counts, 1))
        grads = jax.random.normal(key, (*counts.shape, 2)) * spread[..., None] + mean[:, None]
        return jnp.square(signals.microbatch_grad_stds(jnp.where(counts[..., None] > 0, grads, jnp.nan), counts))

    squares = np.float64(square(jax.random.split(jax.random.key(0), runs)))
    error = squares.mean(axis=0) - v2
    stderr = squares.std(axis=0) / np.sqrt(runs)
    assert (stderr < 0.02 * v2).all()
    assert (np.abs(error) < 4 * stderr).all(), error / stderr
    rows, r = (counts > 0).sum(axis=0), 2  # the docstring's relative standard error of the square
    np.testing.assert_allclose(squares.std(axis=0) / v2, np.sqrt(2 / ((rows - 1) * r)), rtol=0.05)


def test_microbatch_grad_stds_needs_two_microbatches():
    grads = jnp.ones((3, 2, 4))
    stds = microbatch_grad_stds(grads, jnp.array([[5, 5], [0, 5], [0, 5]]))
    np.testing.assert_allclose(stds, [UNKNOWN, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((3,), r"counts must be \[M, D\]"),
        ((3, 2, 4), r"counts must be \[M, D\]"),
        ((2, 3), r"mean_grads must have the leading axes \(2, 3\) of counts, got a leaf of shape \(3, 2, 4\)"),
    ],
)
def test_microbatch_counts_must_match(shape, message):
    with pytest.raises(ValueError, match=message):
        signals.microbatch_grad_stds(jnp.ones((3, 2, 4)), jnp.ones(shape))


def test_moments_of_many_domains_make_no_table_of_domains_and_examples():
    jaxpr = jax.make_jaxpr(lambda x, ids: signals.moments(x, ids, 10_000))(jnp.zeros(64), jnp.zeros(64, int))
    assert max(v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars) <= 10_001


@pytest.mark.parametrize("num_domains", [1, 100])
def test_a_million_values_keep_their_variance(num_domains):
    values = (np.random.default_rng(0).random(10**6) < 0.01).astype(np.float32)
    m = jax.jit(functools.partial(signals.moments, num_domains=num_domains))(values, np.zeros(10**6, int))
    np.testing.assert_allclose(m.m2[0], values.astype(float).var() * 10**6, rtol=3e-4)


COMPLEX = np.random.default_rng(5).normal(size=(12, 3, 2)) @ np.array([1.0, 1j])


def complex_loss(theta, z):
    return jnp.square(jnp.abs(jnp.sum(theta * z) - 1.0))


def test_complex_gradients_have_two_real_coordinates_an_entry():
    theta, ids, z = jnp.array([1 + 1j, 0.5, -1j]), np.arange(12) % 2, jnp.asarray(COMPLEX, jnp.complex64)
    real_theta = jnp.stack([theta.real, theta.imag], axis=-1)

    def real_loss(theta, z):
        return complex_loss(theta[..., 0] + 1j * theta[..., 1], z)

    got, want = (
        signals.grad_stds(loss, params, z, ids, 2) for loss, params in ((complex_loss, theta), (real_loss, real_theta))
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)
    grads = jax.vmap(jax.grad(complex_loss), (None, 0))(theta, z).reshape(6, 2, 3)
    parts = jnp.stack([grads.real, grads.imag], axis=-1)
    counts = np.ones((6, 2))
    got, want = (signals.microbatch_grad_stds(g, counts) for g in (grads, parts))
    np.testing.assert_allclose(got, want, rtol=1e-5)

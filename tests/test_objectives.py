"""Tests the objectives: values by hand, expectations by enumeration, scale, and bad days."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mixjax
from mixjax import rules, samplers, signals
from mixjax.objectives import example_weights
from tests.laws.reference import paper000

pytestmark = pytest.mark.usefixtures("quick_compilation")

HALF = np.float32([0.5, 0.5])


def objective(rule, prior, losses, ids, **kwargs):
    return mixjax.weighted_loss(rule, rule.init(prior), jnp.asarray(losses), np.array(ids), **kwargs)


# Values by hand.


def test_stratified_by_hand():
    value, state = objective(rules.fixed(), [0.25, 0.75], [1.0, 3.0, 10.0], [0, 0, 1])
    np.testing.assert_allclose(value, 0.25 * 2 + 0.75 * 10, rtol=1e-6)
    np.testing.assert_allclose(state.weights, [0.25, 0.75])
    assert value.shape == () and value.dtype == jnp.float32


def test_horvitz_thompson_by_hand():
    kwargs = {"estimator": "horvitz_thompson", "sampling_weights": np.float32([0.2, 0.8])}
    value, _ = objective(rules.fixed(), HALF, [1.0, 3.0, 10.0], [0, 0, 1], **kwargs)
    np.testing.assert_allclose(value, (2.5 * 1 + 2.5 * 3 + 0.625 * 10) / 3, rtol=1e-6)


def test_update_uses_the_new_weights():
    value, state = objective(rules.fgls(), HALF, [1.0, 1.0, 3.0], [0, 0, 1])
    np.testing.assert_allclose(state.weights, [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(value, 0.75 * 1 + 0.25 * 3, rtol=1e-6)


def test_without_update_the_states_weights_are_used_and_it_comes_back():
    rule = rules.fgls()
    state = rule.update(rule.init(HALF), counts=np.array([1, 1]), losses=np.float32([4.0, 1.0]))
    value, new = mixjax.weighted_loss(rule, state, jnp.array([1.0, 3.0]), np.array([0, 1]), update=False)
    assert new is state
    np.testing.assert_allclose(value, 0.2 * 1 + 0.8 * 3, rtol=1e-6)


def test_the_measured_signals_are_the_batchs():
    rule = rules.erma(0.4, 0.6)
    losses, ids = np.float32([1.0, 3.0, 2.0, 5.0, 8.0]), np.array([0, 0, 1, 1, 1])
    _, state = objective(rule, HALF, losses, ids)
    expected = rule.update(
        rule.init(HALF), counts=np.array([2, 3]), losses=np.float32([2, 5]), loss_vars=np.float32([2, 9])
    )
    np.testing.assert_allclose(state.weights, expected.weights, rtol=1e-5)


def test_signals_override_the_measured_ones():
    seen = {}

    def update(state, *, counts, losses, loss_vars, grad_norms, **signals):
        seen.update(counts=counts, loss_vars=loss_vars, grad_norms=grad_norms)
        return state

    rule = mixjax.WeightRule(rules.fixed().init, update)
    given = {"counts": np.array([7, 8]), "loss_vars": np.float32([5, 6]), "grad_norms": np.float32([1, 2])}
    value, _ = objective(rule, HALF, [1.0, 2.0, 3.0], [0, 0, 1], **given)
    for name, expected in given.items():
        np.testing.assert_array_equal(seen[name], expected)
    np.testing.assert_allclose(value, 0.5 * 1.5 + 0.5 * 3.0, rtol=1e-6)  # the batch's own counts weight its losses


def test_sampling_weights_reach_the_rule():
    seen = {}

    def update(state, *, counts, sampling_weights=None, **signals):
        seen["q"] = sampling_weights
        return state

    rule = mixjax.WeightRule(rules.fixed().init, update)
    objective(rule, HALF, [1.0, 3.0], [0, 1], sampling_weights=HALF)
    np.testing.assert_array_equal(seen["q"], HALF)


def test_example_weights_by_hand():
    ids, counts = np.array([0, 0, 1, 5, -1]), np.array([2, 1, 0])
    c, q = np.float32([0.5, 0.3, 0.2]), np.float32([0.25, 0.5, 0.25])
    np.testing.assert_allclose(example_weights(c, ids, counts), [0.25, 0.25, 0.3, 0, 0], rtol=1e-6)
    rows = example_weights(c, ids, counts, estimator="horvitz_thompson", sampling_weights=q)
    np.testing.assert_allclose(rows, np.array([2, 2, 0.6, 0, 0]) / 3, rtol=1e-6)


def test_c_over_q_is_zero_where_either_is():
    rows = example_weights(
        np.float32([0.0, 1.0, 0.0]),
        np.array([0, 1, 2]),
        np.ones(3),
        estimator="horvitz_thompson",
        sampling_weights=np.float32([0.5, 0.0, 0.0]),
    )
    np.testing.assert_array_equal(rows, np.zeros(3))


def test_gradient_is_line_5_of_algorithm_1():
    rng = np.random.default_rng(0)
    x, y, ids = rng.normal(size=(9, 2)), rng.normal(size=9), np.repeat([0, 1, 2], [2, 3, 4])
    prior, variances, theta = [0.2, 0.3, 0.5], [1.0, 4.0, 0.5], np.array([0.5, -1.0])

    def loss(theta):
        return objective(rules.gls(variances), prior, jnp.square(x @ theta - y), ids)[0]

    gradients = 2 * (x @ theta - y)[:, None] * x
    expected = paper000.algorithm1_line5(prior, paper000.eq9(variances), [gradients[ids == d] for d in range(3)])
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.array(theta)), expected, rtol=1e-5)


# Expectations by enumeration: five examples in two domains, linear losses, so that gradients are known vectors.

OWNER = np.array([0, 0, 1, 1, 1])
GRADS = np.float32([[1.0, 0.0], [3.0, -2.0], [0.0, 5.0], [4.0, 1.0], [-1.0, 2.0]])
C, Q = np.float32([0.3, 0.7]), np.float32([0.6, 0.4])
TARGET = C[0] * GRADS[:2].mean(axis=0) + C[1] * GRADS[2:].mean(axis=0)


@functools.partial(jax.jit, static_argnames="estimator")
def gradients(batches, estimator):
    """The estimate's gradient for each batch of example indices ``[runs, B]``."""
    rule = rules.fixed(C)
    state, grads, owner = rule.init(HALF), jnp.asarray(GRADS), jnp.asarray(OWNER)

    def one(index):
        def loss(theta):
            kwargs = {"update": False, "estimator": estimator, "sampling_weights": Q}
            return mixjax.weighted_loss(rule, state, grads[index] @ theta, owner[index], **kwargs)[0]

        return jax.grad(loss)(jnp.zeros(2))

    return jax.vmap(one)(batches)


def all_draws():
    """Every batch of two draws with domains by Q and examples uniform within them, with its probability."""
    batches = np.array(list(itertools.product(range(5), repeat=2)))
    each = Q[OWNER] / np.bincount(OWNER)[OWNER]
    return batches, each[batches].prod(axis=1)


def test_stratified_is_unbiased_for_fixed_counts():
    first, rest = range(2), itertools.product(range(2, 5), repeat=2)  # counts (1, 2)
    batches = np.array([(a, *b) for a, b in itertools.product(first, rest)])
    np.testing.assert_allclose(np.asarray(gradients(batches, "stratified")).mean(axis=0), TARGET, rtol=1e-5)


def test_horvitz_thompson_is_unbiased_with_absent_domains():
    batches, probability = all_draws()
    mean = probability @ np.asarray(gradients(batches, "horvitz_thompson"))
    np.testing.assert_allclose(mean, TARGET, rtol=1e-5)


def test_stratified_loses_absent_domains_and_rescales_nothing():
    batches, probability = all_draws()
    mean = probability @ np.asarray(gradients(batches, "stratified"))
    present = 1.0 - (1.0 - Q) ** 2
    biased = present[0] * C[0] * GRADS[:2].mean(axis=0) + present[1] * C[1] * GRADS[2:].mean(axis=0)
    np.testing.assert_allclose(mean, biased, rtol=1e-5)
    assert np.abs(mean - TARGET).max() > 0.1
    alone = gradients(np.array([[0, 1]]), "stratified")[0]
    np.testing.assert_allclose(alone, C[0] * GRADS[:2].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("draw", [samplers.multinomial, samplers.systematic, samplers.stratified])
def test_horvitz_thompson_is_unbiased_under_every_random_draw(draw):
    groups = samplers.partition(OWNER)

    @jax.jit
    @jax.vmap
    def batch(key):
        first, second = jax.random.split(key)
        return samplers.with_replacement(second, groups, draw(first, Q, 3))

    estimates = np.float64(gradients(batch(jax.random.split(jax.random.key(0), 20_000)), "horvitz_thompson"))
    stderr = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (stderr < 0.05).all()
    assert (np.abs(estimates.mean(axis=0) - TARGET) < 4 * stderr).all()


def test_horvitz_thompson_with_allocated_counts_is_biased():
    # the docstring's "never": counts (1, 1) are not B q
    batches = np.array(list(itertools.product(range(2), range(2, 5))))
    mean = np.asarray(gradients(batches, "horvitz_thompson")).mean(axis=0)
    assert np.abs(mean - TARGET).max() > 0.1


# Scale.


@pytest.mark.parametrize("counts", [(1, 1), (1, 9), (20, 3)])
def test_scale_does_not_depend_on_the_composition(counts):
    ids = np.repeat([0, 1, -1], [*counts, 23 - sum(counts)])
    value, _ = objective(rules.fixed([0.3, 0.7]), HALF, np.where(ids == 0, 2.0, 5.0), ids)
    np.testing.assert_allclose(value, 0.3 * 2 + 0.7 * 5, rtol=1e-6)


@pytest.mark.parametrize("estimator", ["stratified", "horvitz_thompson"])
def test_scale_does_not_depend_on_duplication(estimator):
    rule = rules.fgls()

    @jax.jit
    @jax.grad
    def gradient(losses, ids):
        kwargs = {"estimator": estimator, "sampling_weights": np.float32([0.4, 0.6])}
        return mixjax.weighted_loss(rule, rule.init(HALF), losses, ids, **kwargs)[0]

    losses, ids = np.float32([1.0, 4.0, 2.0, 7.0] * 2), np.array([0, 1, 1, 0] * 2)
    once, twice = gradient(losses, np.where(np.arange(8) < 4, ids, -1)), gradient(losses, ids)
    np.testing.assert_allclose(once[:4], twice[:4] + twice[4:], rtol=1e-5)
    assert np.abs(once[:4]).min() > 0


@pytest.mark.parametrize("estimator", ["stratified", "horvitz_thompson"])
@pytest.mark.parametrize("num_domains", [1, 7])
def test_scale_does_not_depend_on_the_number_of_domains(estimator, num_domains):
    ids, prior = np.arange(14) % num_domains, np.full(num_domains, 1 / num_domains)
    kwargs = {"estimator": estimator, "sampling_weights": prior}
    value, _ = objective(rules.fixed(), prior, np.full(14, 3.0), ids, **kwargs)
    np.testing.assert_allclose(value, 3.0, rtol=1e-6)


def test_padding_counts_for_nothing():
    losses, ids = np.float32([1.0, 3.0, 10.0]), [0, 0, 1]
    padded, more = np.float32([1.0, np.nan, 3.0, 10.0, np.inf]), [0, -1, 0, 1, 2]
    for estimator in ("stratified", "horvitz_thompson"):
        kwargs = {"estimator": estimator, "sampling_weights": HALF}
        a, b = (objective(rules.fgls(), HALF, *batch, **kwargs) for batch in ((losses, ids), (padded, more)))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6)
        np.testing.assert_array_equal(a[1].weights, b[1].weights)


# Bad days.


def test_nan_in_a_domain_of_weight_zero_is_harmless():
    rule, ids = rules.fixed([0.0, 1.0]), np.array([0, 1, 1])

    def loss(x):
        return mixjax.weighted_loss(rule, rule.init(HALF), x, ids)[0]

    value, grad = jax.value_and_grad(loss)(jnp.array([np.nan, 1.0, 3.0]))
    assert value == 2.0
    np.testing.assert_array_equal(grad, [0.0, 0.5, 0.5])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("make", [rules.fgls, rules.one_shot_fgls, rules.erma, rules.fixed])
def test_nan_in_a_weighted_domain_shows_and_leaves_the_state_finite(make, bad):
    rule = make()
    good = {"counts": np.array([3, 3]), "losses": np.float32([1.0, 2.0]), "loss_vars": np.float32([1.0, 2.0])}
    state = rule.update(rule.init(HALF), **good)
    value, new = mixjax.weighted_loss(rule, state, jnp.array([bad, 1.0, 1.0, 3.0]), np.array([0, 0, 1, 1]))
    assert not np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))
    unseen = {"counts": np.array([0, 2]), "losses": np.float32([np.nan, 2.0]), "loss_vars": np.float32([np.nan, 2.0])}
    np.testing.assert_allclose(new.weights, rule.update(state, **unseen).weights, rtol=1e-6)


def test_bfloat16_losses_are_summed_in_float32():
    n, dtype = 3000, jnp.bfloat16  # a bfloat16 sum of ones stalls at 256
    rule = rules.fixed()

    def loss(x):
        return mixjax.weighted_loss(rule, rule.init([1.0]), x, np.zeros(n, int))

    (value, state), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.ones(n, dtype))
    np.testing.assert_allclose(value, 1.0, rtol=1e-5)
    assert value.dtype == state.weights.dtype == jnp.float32 and grad.dtype == dtype
    np.testing.assert_allclose(np.float32(grad), 1 / n, rtol=1e-2)


def test_horvitz_thompson_needs_sampling_weights():
    with pytest.raises(ValueError, match="needs sampling_weights"):
        objective(rules.fixed(), HALF, [1.0, 2.0], [0, 1], estimator="horvitz_thompson")


def test_the_estimator_must_be_known():
    with pytest.raises(ValueError, match=r"estimator must be one of .*'mean'"):
        objective(rules.fixed(), HALF, [1.0, 2.0], [0, 1], estimator="mean")


@pytest.mark.parametrize(
    ("losses", "ids", "mask", "message"),
    [
        ([1.0, 2.0], [0], None, r"domain_ids must have the leading axes of losses, of shape \(2,\), got shape \(1,\)"),
        ([1.0, 2.0], [[0], [1]], None, r"domain_ids must have the leading axes of losses, of shape \(2,\), got"),
        ([1.0, 2.0], [0, 1], [1], r"mask must have the leading axes of losses, of shape \(2,\), got shape \(1,\)"),
        (1.0, 0, None, "losses must have at least one axis, got a scalar"),
    ],
)
def test_shapes_must_fit(losses, ids, mask, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        objective(rules.fixed(), HALF, losses, ids, mask=mask)


@pytest.mark.parametrize("name", ["weights", "counts", "sampling_weights"])
def test_the_shapes_of_domains_must_fit(name):
    rows = {"weights": HALF, "counts": np.ones(2), "sampling_weights": HALF}
    rows[name] = np.ones((1, 3))
    weights, counts, q = rows.values()
    with pytest.raises(ValueError, match=rf"^{name} must be \[.*one entry per domain, got shape \(1, 3\)"):
        example_weights(weights, [0, 1], counts, estimator="horvitz_thompson", sampling_weights=q)


# Fixed weights, without a rule.


@pytest.mark.parametrize("update", [{}, {"update": False}, {"update": True}])
def test_without_a_rule_the_weights_are_the_arrays(update):
    weights, losses, ids = np.float32([0.75, 0.25]), jnp.array([1.0, 1.0, 3.0]), [0, 0, 1]
    value, same = mixjax.weighted_loss(None, weights, losses, ids, **update)
    assert float(value) == 1.5 and same is weights
    state = rules.fixed(weights).init(HALF)
    value, same = mixjax.weighted_loss(None, state, losses, ids, **update)
    assert float(value) == 1.5 and same is state


def test_the_weights_of_an_optimizer_state_fit():
    tx = optax.chain(mixjax.track(rules.fgls(), HALF), optax.sgd(0.1))
    losses, ids = jnp.array([1.0, 1.0, 3.0]), np.array([0, 0, 1])
    _, opt_state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), losses=np.float32([1.0, 3.0]), counts=np.array([2, 1]))
    value, _ = mixjax.weighted_loss(None, mixjax.get_weights(opt_state), losses, ids)
    np.testing.assert_allclose(value, 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "state", "error", "message"),
    [
        (None, np.ones((2, 2)), ValueError, r"weights must be \[D\], one entry per domain, got shape \(2, 2\)"),
        (None, 1.0, ValueError, r"weights must be \[D\], one entry per domain, got shape \(\)"),
        (None, (), ValueError, r"weights must have at least one entry, one per domain, got shape \(0,\)"),
        (None, {"c": HALF}, TypeError, r"without a rule, state must be weights \[D\], got dict"),
        (None, None, TypeError, r"without a rule, state must be weights \[D\], got NoneType"),
        (rules.fgls(), HALF, TypeError, r"state must be the rule's, from rule.init\(prior\), got ndarray; for fixed"),
    ],
)
def test_what_is_no_state_is_refused(rule, state, error, message):
    with pytest.raises(error, match=f"^{message}"):
        mixjax.weighted_loss(rule, state, jnp.ones(2), np.array([0, 1]))


def test_weights_that_are_nan_show():
    value, _ = mixjax.weighted_loss(None, np.float32([np.nan, 1.0]), jnp.ones(2), np.array([0, 1]))
    assert np.isnan(value)


def test_a_signal_that_nobody_gave_is_named():
    with pytest.raises(TypeError, match="grad_stds"):
        objective(rules.variance_aware(), HALF, [1.0, 2.0], [0, 1], loss_weights=HALF)


# Batches spread over a mapped axis.

SHARDS, PER = 8, 3
X = np.random.default_rng(1).normal(size=(SHARDS * PER, 2)).astype(np.float32)
Y = np.random.default_rng(2).normal(size=SHARDS * PER).astype(np.float32)
IDS = np.random.default_rng(3).integers(-1, 3, SHARDS * PER)  # -1 is padding
IDS[:PER] = 0  # the other domains are absent from the first shard
PRIOR, THETA = np.float32([0.5, 0.3, 0.2]), jnp.array([0.4, -0.9])
SPREAD = {
    "erma, stratified": (rules.erma(0.3, 0.5), {}),
    "fgls, Horvitz-Thompson": (rules.fgls(), {"estimator": "horvitz_thompson", "sampling_weights": PRIOR}),
}


def value_and_grad(name, theta, x, y, ids, axis_name):
    rule, kwargs = SPREAD[name]

    def loss(theta):
        losses = jnp.square(x @ theta - y)
        return mixjax.weighted_loss(rule, rule.init(PRIOR), losses, ids, axis_name=axis_name, **kwargs)

    (value, state), grad = jax.value_and_grad(loss, has_aux=True)(theta)
    return value, grad, state.weights


def assert_whole(name, value, grad, weights):
    for a, b in zip((value, grad, weights), value_and_grad(name, THETA, X, Y, IDS, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SPREAD)
def test_axis_name_under_vmap(name):
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0, 0), axis_name="batch")
    def step(theta, x, y, ids):
        value, grad, weights = value_and_grad(name, theta, x, y, ids, "batch")
        return value, jax.lax.pmean(grad, "batch"), weights

    shards = [x.reshape(SHARDS, PER, *x.shape[1:]) for x in (X, Y, IDS)]
    out = step(THETA, *shards)
    for row in (0, SHARDS - 1):
        assert_whole(name, *(x[row] for x in out))


@pytest.mark.parametrize("name", SPREAD)
def test_axis_name_under_shard_map(name):
    mesh = jax.make_mesh((SHARDS,), ("batch",), axis_types=(AxisType.Auto,))
    specs = {"mesh": mesh, "in_specs": (P(), P("batch"), P("batch"), P("batch")), "out_specs": P()}
    step = jax.jit(jax.shard_map(functools.partial(value_and_grad, name, axis_name="batch"), **specs))
    assert_whole(name, *step(THETA, X, Y, IDS))


def test_gradient_through_shard_map():
    mesh = jax.make_mesh((SHARDS,), ("batch",), axis_types=(AxisType.Auto,))
    rule = rules.erma(0.3, 0.5)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), *[P("batch")] * 3), out_specs=(P(), P()))
    def loss(theta, x, y, ids):
        return mixjax.weighted_loss(rule, rule.init(PRIOR), jnp.square(x @ theta - y), ids, axis_name="batch")

    (value, state), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(THETA, X, Y, IDS)
    assert_whole("erma, stratified", value, grad, state.weights)


def test_a_probes_signals_replace_all_measured_ones():
    rule = rules.erma(0.3, 0.5)
    probe = signals.moments(jnp.square(X @ THETA - Y), IDS, 3).signals()
    value, state = mixjax.weighted_loss(rule, rule.init(PRIOR), jnp.float32([1, 5, 9]), np.arange(3), **probe)
    np.testing.assert_allclose(state.weights, rule.update(rule.init(PRIOR), **probe).weights, rtol=1e-6)
    np.testing.assert_allclose(value, state.weights @ jnp.float32([1, 5, 9]), rtol=1e-6)

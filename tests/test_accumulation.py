"""Microbatches: k of them give the update of one batch, wherever that is promised; and what optax.MultiSteps loses."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mixjax
from mixjax import accumulate, aggregate, get_weights, rules, signals, track, weighted_loss
from mixjax.types import SIGNALS, UNKNOWN

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = np.float32([0.5, 0.3, 0.2])
K, PER, D = 4, 6, 3
X = np.random.default_rng(0).normal(size=(2, K * PER, 2)).astype(np.float32)  # two batches
Y = np.random.default_rng(1).normal(size=(2, K * PER)).astype(np.float32)
THETA = jnp.array([0.3, -0.8])
# counts differ, domain 1 is absent from the first microbatch, domain 2 from the first and the last
UNEQUAL = np.array([[0] * 6, [0, 1, 1, 1, 2, 2], [2, 0, 1, 2, 0, 1], [0, 1, 0, 1, 1, 1]])
EQUAL = np.array([[0, 0, 0, 1, 1, 2]] * K)


def losses(theta, x, y):
    return jnp.square(x @ theta - y)


@jax.jit
def stacked(theta, x, y, ids):
    """Per-domain mean gradients (zeros where absent) and the signals of a (micro)batch."""
    per_example = jax.jacrev(losses)(theta, x, y)
    members = ids == jnp.arange(D)[:, None]
    counts = members.sum(axis=1)
    grads = jnp.where(members[..., None], per_example, 0.0).sum(axis=1) / jnp.maximum(counts, 1)[:, None]
    return grads, signals.moments(losses(theta, x, y), ids, D).signals()


def parts(x, y, ids):
    return [(x[m * PER : (m + 1) * PER], y[m * PER : (m + 1) * PER], ids[m]) for m in range(K)]


AGGREGATED = {
    "fgls": rules.fgls(),
    "erma": rules.erma(0.3, 0.5),
    "one_shot_fgls": rules.one_shot_fgls(0.3),
    "every": rules.every(rules.erma(0.3, 0.5), 2),
}


@pytest.mark.parametrize("name", AGGREGATED)
def test_aggregate_over_microbatches_is_aggregate_over_the_batch(name):
    inner = optax.chain(aggregate(AGGREGATED[name], PRIOR), optax.sgd(0.1, 0.9))
    tx = accumulate(inner, K)
    update = jax.jit(tx.update)
    theta, state = THETA, tx.init(THETA)
    whole, whole_state = THETA, inner.init(THETA)
    for x, y in zip(X, Y, strict=True):
        grads, measured = stacked(whole, x, y, UNEQUAL.reshape(-1))
        updates, whole_state = inner.update(grads, whole_state, whole, **measured)
        whole = optax.apply_updates(whole, updates)
        for part in parts(x, y, UNEQUAL):
            grads, measured = stacked(theta, *part)
            updates, state = update(grads, state, theta, **measured)
            theta = optax.apply_updates(theta, updates)
        np.testing.assert_allclose(theta, whole, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(state.inner, whole_state, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(get_weights(state), get_weights(whole_state), rtol=1e-5)
    assert np.abs(get_weights(state) - PRIOR).max() > 1e-3


def track_run(ids, estimator, q=PRIOR):
    """Two batches in microbatches and whole: (parameters, weights) of each after every batch."""
    rule = rules.erma(0.3, 0.5)
    inner = optax.chain(track(rule, PRIOR), optax.sgd(0.1, 0.9))
    tx = accumulate(inner, K)

    def gradient(theta, x, y, ids, rule_weights):
        def objective(theta):
            fixed = rules.fixed(rule_weights)
            kwargs = {"update": False, "estimator": estimator, "sampling_weights": q}
            return weighted_loss(fixed, fixed.init(PRIOR), losses(theta, x, y), ids, **kwargs)[0]

        return jax.grad(objective)(theta), signals.moments(losses(theta, x, y), ids, D).signals()

    @functools.partial(jax.jit, static_argnums=0)
    def step(update, theta, state, x, y, ids):
        grads, measured = gradient(theta, x, y, ids, get_weights(state))
        updates, state = update(grads, state, theta, **measured)
        return optax.apply_updates(theta, updates), state

    theta, state, whole, whole_state, out = THETA, tx.init(THETA), THETA, inner.init(THETA), []
    for x, y in zip(X, Y, strict=True):
        whole, whole_state = step(inner.update, whole, whole_state, x, y, ids.reshape(-1))
        for part in parts(x, y, ids):
            theta, state = step(tx.update, theta, state, *part)
        out.append((theta, get_weights(state), whole, get_weights(whole_state)))
    return out


@pytest.mark.parametrize(("ids", "estimator"), [(UNEQUAL, "horvitz_thompson"), (EQUAL, "stratified")])
def test_track_over_microbatches_is_track_over_the_batch(ids, estimator):
    for theta, weights, whole, whole_weights in track_run(ids, estimator):
        np.testing.assert_allclose(theta, whole, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(weights, whole_weights, rtol=1e-4)
        assert np.abs(weights - PRIOR).max() > 1e-3


def test_track_with_the_stratified_estimator_needs_constant_counts():
    theta, weights, whole, whole_weights = track_run(UNEQUAL, "stratified")[0]
    np.testing.assert_allclose(weights, whole_weights, rtol=1e-4)  # the signals are still exact
    assert np.abs(theta - whole).max() > 1e-3


def recording(names):
    """A rule that keeps the signals it was given."""

    def init(prior):
        zeros = {name: jnp.zeros(D) for name in names}
        return rules.states.WrapperState(jnp.asarray(prior), jnp.asarray(prior), zeros)

    def update(state, **signals):
        return state._replace(inner={name: jnp.float32(signals[name]) for name in names})

    return mixjax.WeightRule(init, update)


def merged(microbatches):
    """What the rule sees after the microbatches' signals."""
    names = tuple(microbatches[0])
    tx = accumulate(track(recording(names), PRIOR), len(microbatches))
    state = tx.init(THETA)
    for given in microbatches:
        _, state = tx.update(THETA, state, THETA, **given)
    return state.inner.rule_state.inner


def test_signals_are_merged_exactly():
    values, ids = np.random.default_rng(2).normal(1e3, 1.0, K * PER).astype(np.float32), UNEQUAL.reshape(-1)
    measured = [signals.moments(values[m * PER : (m + 1) * PER], UNEQUAL[m], D).signals() for m in range(K)]
    assert measured[0]["losses"][1] == UNKNOWN and np.isfinite(measured[2]["loss_vars"]).all()
    out = merged(measured)
    rows = [np.float64(values[d == ids]) for d in range(D)]
    np.testing.assert_array_equal(out["counts"], [len(row) for row in rows])
    np.testing.assert_allclose(out["losses"], [row.mean() for row in rows], rtol=1e-6)
    np.testing.assert_allclose(out["loss_vars"], [row.var(ddof=1) for row in rows], rtol=1e-3)


def test_a_variance_of_single_examples_comes_from_between_them():
    one = {"counts": np.array([1, 2, 0]), "losses": np.float32([1, 5, np.nan]), "loss_vars": np.float32([np.nan, 8, 9])}
    two = {"counts": np.array([1, 0, 0]), "losses": np.float32([3, np.nan, np.nan]), "loss_vars": np.full(3, np.nan)}
    out = merged([one, two])
    np.testing.assert_array_equal(out["counts"], [2, 2, 0])
    np.testing.assert_array_equal(out["losses"], [2, 5, UNKNOWN])
    np.testing.assert_array_equal(out["loss_vars"], [2, 8, UNKNOWN])


def test_a_non_finite_loss_in_one_microbatch_makes_the_row_unseen():
    good = {"counts": np.array([2, 2, 2]), "losses": np.float32([1, 2, 4]), "loss_vars": np.float32([1, 1, 1])}
    for order in ([0, 1], [1, 0]):
        bad = good | {"losses": np.float32([1, np.nan, 4])}
        out = merged([[good, bad][i] for i in order])
        assert np.isnan(out["losses"][1]) and np.isfinite(np.delete(out["losses"], 1)).all()


def test_other_signals_are_merged_as_documented():
    one = {"counts": np.array([1, 2, 4]), "grad_stds": np.float32([1, 2, 3]), "loss_weights": np.float32([1, 0, 0])}
    two = {
        "counts": np.array([3, 0, 4]),
        "grad_stds": np.float32([5, np.nan, 1]),
        "loss_weights": np.float32([0, 1, 0]),
    }
    out = merged([one | {"sampling_weights": PRIOR}, two | {"sampling_weights": PRIOR[::-1]}])
    np.testing.assert_allclose(out["grad_stds"], [5, 2, np.sqrt(5)], rtol=1e-6)
    np.testing.assert_array_equal(out["loss_weights"], [0, 1, 0])
    np.testing.assert_array_equal(out["sampling_weights"], PRIOR[::-1])


def test_updates_are_zero_and_the_inner_state_rests_in_between():
    inner = optax.chain(aggregate(rules.fgls(), PRIOR), optax.adam(0.1))
    tx = accumulate(inner, 3)
    update = jax.jit(tx.update)
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2, jnp.bfloat16)}
    grads = jax.tree.map(lambda p: jnp.ones((D, *p.shape), p.dtype), params)
    state = first = tx.init(params)
    given = {"counts": np.array([1, 2, 3]), "losses": np.float32([1, 2, 3])}
    for t in range(6):
        updates, new = update(grads, state, params, **given)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        moved = all(bool(jnp.any(u != 0)) for u in jax.tree.leaves(updates))
        rested = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state.inner, new.inner)), strict=True)]
        if t % 3 == 2:
            assert moved and not all(rested) and new.microbatch == 0
            chex.assert_trees_all_equal(new[2:], first[2:])  # nothing is left over
        else:
            assert not any(bool(jnp.any(u != 0)) for u in jax.tree.leaves(updates))
            assert all(rested) and new.microbatch == t % 3 + 1
        state = new
    assert {x.dtype for x in jax.tree.leaves((state.grads, state.moments))} == {jnp.dtype("float32")}


def test_half_precision_gradients_are_summed_in_float32():
    k, params = 400, jnp.zeros(2, jnp.bfloat16)  # a bfloat16 sum of ones stalls at 256
    for tx, lead in ((aggregate(rules.fixed(), PRIOR), (D,)), (track(rules.fixed(), PRIOR), ())):
        tx = accumulate(tx, k)
        grads = jnp.ones((*lead, 2), jnp.bfloat16)

        def run(tx=tx, grads=grads):
            def step(state, _):
                updates, state = tx.update(grads, state, params, counts=jnp.ones(D))
                return state, updates

            return jax.lax.scan(step, tx.init(params), None, length=k)[1]

        np.testing.assert_allclose(np.float32(jax.jit(run)())[-1], 1.0, rtol=1e-2)


def test_k_of_one_is_the_wrapped_transformation():
    inner = optax.chain(aggregate(rules.erma(0.3, 0.5), PRIOR), optax.sgd(0.1))
    tx = accumulate(inner, 1)
    grads, measured = stacked(THETA, X[0], Y[0], UNEQUAL.reshape(-1))
    expected, _ = inner.update(grads, inner.init(THETA), THETA, **measured)
    np.testing.assert_allclose(tx.update(grads, tx.init(THETA), THETA, **measured)[0], expected, rtol=1e-5)


def test_rows_that_stay_absent_stay_unseen():
    tx = accumulate(optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(1.0)), 2)
    state, grads = tx.init(THETA), jnp.array([[1.0, 0.0], [0.0, 1.0], [jnp.nan, jnp.nan]])
    update = jax.jit(tx.update)
    given = {"counts": np.array([2, 1, 0]), "losses": np.float32([1.0, 2.0, np.nan])}
    for _ in range(2):
        updates, state = update(grads, state, THETA, **given)
    weights = get_weights(state)
    np.testing.assert_allclose(weights, [0.8 * 0.5 / 0.65, 0.8 * 0.15 / 0.65, 0.2], rtol=1e-5)
    np.testing.assert_allclose(updates, [-weights[0], -weights[1]], rtol=1e-5)


def test_runs_in_scan_with_one_trace():
    tx, traces = accumulate(optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(0.1)), K), []

    @jax.jit
    def step(theta, state, part):
        traces.append(0)
        grads, measured = stacked(theta, *part)
        updates, state = tx.update(grads, state, theta, **measured)
        return optax.apply_updates(theta, updates), state

    theta, state = THETA, tx.init(THETA)
    for part in parts(X[0], Y[0], UNEQUAL):
        theta, state = step(theta, state, part)
    assert len(traces) == 1
    whole = jax.tree.map(lambda *rows: np.stack(rows), *parts(X[0], Y[0], UNEQUAL))
    scanned, _ = jax.lax.scan(lambda carry, part: (step(*carry, part), None), (THETA, tx.init(THETA)), whole)
    np.testing.assert_allclose(scanned[0], theta, rtol=1e-5)


def test_under_vmap():
    tx = accumulate(optax.chain(aggregate(rules.fgls(), PRIOR), optax.sgd(0.1)), 2)

    def run(scale):
        theta, state = THETA, tx.init(THETA)
        for part in parts(X[0], Y[0], UNEQUAL)[1:3]:
            grads, measured = stacked(theta, scale * part[0], *part[1:])
            updates, state = tx.update(grads, state, theta, **measured)
            theta = optax.apply_updates(theta, updates)
        return theta

    scales, single = jnp.array([1.0, 2.0]), jax.jit(run)
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(scales), np.stack([single(s) for s in scales]), rtol=1e-5)


def test_multi_steps_keeps_only_the_last_microbatchs_signals():
    inner = optax.chain(track(rules.fgls(), PRIOR), optax.sgd(0.1))
    given = [{"counts": np.array([8, 8, 8]), "losses": np.float32(row)} for row in ([1, 1, 1], [1, 4, 1])]
    kept, lost = accumulate(inner, 2), optax.MultiSteps(inner, 2)
    kept_state, lost_state = kept.init(THETA), lost.init(THETA)
    kept_update, lost_update = jax.jit(kept.update), jax.jit(lost.update)
    for signal in given:
        kept_out, kept_state = kept_update(THETA, kept_state, THETA, **signal)
        lost_out, lost_state = lost_update(THETA, lost_state, THETA, **signal)
    np.testing.assert_allclose(kept_out, lost_out, rtol=1e-6)  # the gradients agree, the weights do not
    mean, last = PRIOR / np.float32([1, 2.5, 1]), PRIOR / np.float32([1, 4, 1])
    np.testing.assert_allclose(get_weights(kept_state), mean / mean.sum(), rtol=1e-5)
    np.testing.assert_allclose(get_weights(lost_state), last / last.sum(), rtol=1e-5)


# Errors.


@pytest.mark.parametrize("k", [0, -1, 2.0, None, "2"])
def test_k_must_be_a_positive_integer(k):
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        accumulate(track(rules.fgls(), PRIOR), k)


def test_there_must_be_a_rule():
    with pytest.raises(ValueError, match=r"contains mixjax.aggregate or mixjax.track"):
        accumulate(optax.adam(0.1), 2).init(THETA)


def test_signals_must_arrive():
    tx = accumulate(track(rules.fgls(), PRIOR), 2)
    with pytest.raises(TypeError, match="accumulate got no domain signals"):
        tx.update(THETA, tx.init(THETA), THETA, losses=np.ones(D))
    with pytest.raises(TypeError, match="losses"):
        tx.update(THETA, tx.init(THETA), THETA, counts=np.ones(D))


def test_a_variance_without_its_mean_is_an_error():
    tx = accumulate(track(rules.fixed(), PRIOR), 2)
    with pytest.raises(TypeError, match="cannot merge loss_vars without losses"):
        tx.update(THETA, tx.init(THETA), THETA, counts=np.ones(D), loss_vars=np.ones(D))


@pytest.mark.parametrize("name", [name for name in SIGNALS if name not in ("loss_weights", "sampling_weights")])
def test_a_signal_of_another_shape_is_named(name):
    tx = accumulate(track(rules.fixed(), PRIOR), 2)
    given = {"counts": np.ones(D), "losses": np.ones(D)} | {name: np.ones(2)}
    with pytest.raises(ValueError, match=f"signal '{name}' must be"):
        tx.update(THETA, tx.init(THETA), THETA, **given)


def test_gradients_that_are_not_stacked_are_an_error():
    tx = accumulate(aggregate(rules.fixed(), PRIOR), 2)
    with pytest.raises(ValueError, match=r"stacked gradients of shape \(3, 2\), got \(2,\)"):
        tx.update(THETA, tx.init(THETA), THETA, counts=np.ones(D))


def test_complex_gradients_of_real_parameters_are_an_error():
    tx = accumulate(track(rules.fixed(), PRIOR), 2)
    with pytest.raises(TypeError, match="complex64 gradients for a real parameter"):
        tx.update(THETA * 1j, tx.init(THETA), THETA, counts=np.ones(D))


def test_grad_stds_are_pooled_and_a_single_example_says_nothing():
    prior = jnp.array([0.5, 0.5])
    tx = mixjax.accumulate(mixjax.track(mixjax.rules.variance_aware(), prior), 2)
    params = jnp.zeros(())
    state = tx.init(params)
    for counts, stds in (([4, 1], [1.0, jnp.nan]), ([4, 4], [1.0, 3.0])):
        _, state = tx.update(
            jnp.ones(()), state, params, counts=jnp.array(counts), grad_stds=jnp.array(stds), loss_weights=prior
        )
    np.testing.assert_allclose(mixjax.get_weights(state), [0.25, 0.75], rtol=1e-6)


def test_other_extra_arguments_reach_the_inner_transformation():
    tx = accumulate(optax.chain(track(rules.fixed(), PRIOR), optax.contrib.reduce_on_plateau(patience=1)), 2)
    params = jnp.ones(2)
    state = tx.init(params)
    for value in (3.0, 1.0):
        _, state = tx.update(jnp.ones(2), state, params, counts=np.ones(D), value=value)
    assert float(optax.tree.get(state, "best_value")) == 1.0


def test_an_inner_state_may_hold_python_numbers():
    counting = optax.GradientTransformation(
        lambda params: {"calls": 0}, lambda updates, state, params=None: (updates, {"calls": state["calls"] + 1})
    )
    tx = accumulate(optax.chain(track(rules.fixed(), PRIOR), counting), 2)
    state = tx.init(THETA)
    for _ in range(4):
        _, state = tx.update(THETA, state, THETA, counts=np.ones(D))
    assert state.inner[1]["calls"] == 2

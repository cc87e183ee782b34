"""Tests that microbatches in ``accumulate`` are one batch: for every rule, signal, split, dtype and place."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax import accumulate, aggregate, get_weights, rules, track
from mixjax.rules.states import WrapperState
from mixjax.types import SIGNALS, WeightRule
from tests.laws.contract.cases import CASES, PRIOR, assert_bitwise, every_case, jitted

pytestmark = pytest.mark.usefixtures("quick_compilation")

D, K, N = 3, 3, 24
RNG = np.random.default_rng(0)
IDS = np.arange(N) % D
# What is measured on each example of a batch.
EXAMPLES = {name: RNG.uniform(0.2, 3.0, N) for name in ("losses", "reference_losses", "grad_norms", "hypergrads")}
GRADS = RNG.normal(size=(N, 2))
LOSS_WEIGHTS = np.float32([0.2, 0.3, 0.5])
AVERAGED = ("reference_losses", "hypergrads", "grad_norms", "grad_stds")


def measure(rows):
    """The stacked mean gradients and every signal of the examples ``rows``; unknown ones are NaN."""
    members = [rows[IDS[rows] == domain] for domain in range(D)]
    counts = np.array([len(row) for row in members])

    def mean(values):
        return np.array([values[row].mean() if len(row) else np.nan for row in members])

    def variance(values):
        return np.array([values[row].var(ddof=1) if len(row) > 1 else np.nan for row in members])

    measured = {
        "counts": counts,
        "losses": mean(EXAMPLES["losses"]),
        "loss_vars": variance(EXAMPLES["losses"]),
        "reference_losses": mean(EXAMPLES["reference_losses"]),
        "hypergrads": -mean(EXAMPLES["hypergrads"]),
        "grad_norms": np.sqrt(mean(EXAMPLES["grad_norms"] ** 2)),
        "grad_stds": np.sqrt(sum(variance(column) for column in GRADS.T)),
        "loss_weights": LOSS_WEIGHTS,
        "sampling_weights": PRIOR,
    }
    assert set(measured) == set(SIGNALS)
    grads = np.stack([GRADS[row].mean(axis=0) if len(row) else np.zeros(2) for row in members])
    return np.float32(grads), {name: np.float32(value) for name, value in measured.items()}


def splits(seed):
    """The examples in K parts of random sizes; every part holds at least two examples."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, N // 2), K - 1, replace=False)) * 2
    return np.split(rng.permutation(N), cuts)


def pooled(parts):
    """The estimate of ``grad_stds`` that accumulate promises."""
    measured = [measure(rows)[1] for rows in parts]
    freedom = np.stack([np.maximum(m["counts"] - 1, 0) for m in measured])
    squares = np.stack([np.where(m["counts"] > 1, m["grad_stds"] ** 2, 0.0) for m in measured])
    return np.sqrt((freedom * squares).sum(axis=0) / freedom.sum(axis=0))


@every_case
def test_microbatches_are_one_batch_however_it_is_split(name):
    rule, make = jitted(name), track if CASES[name].sampling else aggregate
    inner = optax.chain(make(rule, PRIOR), optax.sgd(0.1))
    tx, params = accumulate(inner, K), jnp.zeros(2)
    step = jax.jit(lambda state, grads, measured: tx.update(grads, state, params, **measured))
    for seed in range(3):
        parts = splits(seed)
        state, whole_state = tx.init(params), inner.init(params)
        for _ in range(CASES[name].period):
            for rows in parts:
                grads, measured = measure(rows)
                grads = grads if make is aggregate else np.float32(GRADS[rows].mean(axis=0) * len(rows) * K / N)
                updates, state = step(state, grads, measured)
            grads, measured = measure(np.arange(N))
            grads = grads if make is aggregate else np.float32(GRADS.mean(axis=0))
            measured = measured | {"grad_stds": pooled(parts)}
            want, whole_state = inner.update(grads, whole_state, params, **measured)
        np.testing.assert_allclose(updates, want, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(state.inner, whole_state, rtol=1e-4, atol=1e-6)
        assert state.microbatch == 0


# Signals.


def recording(names):
    """A rule that keeps the signals it was given."""

    def init(prior):
        return WrapperState(jnp.asarray(prior), jnp.asarray(prior), {name: jnp.zeros(D) for name in names})

    def update(state, **given):
        assert set(given) == set(names)
        return state._replace(inner={name: jnp.float32(given[name]) for name in names})

    return WeightRule(init, update)


def merged(microbatches):
    """What the rule sees after the microbatches' signals."""
    tx = accumulate(track(recording(tuple(microbatches[0])), PRIOR), len(microbatches))
    state = tx.init(jnp.zeros(()))
    update = jax.jit(lambda state, given: tx.update(jnp.zeros(()), state, None, **given)[1])
    for given in microbatches:
        state = update(state, given)
    return state.inner.rule_state.inner


@pytest.mark.parametrize("name", [name for name in SIGNALS if name != "counts"])
def test_every_signal_of_the_vocabulary_reaches_the_rule_and_no_other(name):
    parts = splits(0)
    names = {"counts", name} | ({"losses"} if name == "loss_vars" else set())
    whole = measure(np.arange(N))[1] | {"grad_stds": pooled(parts)}
    out = merged([{key: measure(rows)[1][key] for key in names} for rows in parts])
    for key in names:
        np.testing.assert_allclose(out[key], whole[key], rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", AVERAGED)
def test_a_value_that_is_not_finite_is_left_out_of_its_row_only(name, value):
    parts = [measure(rows)[1] for rows in np.split(np.arange(N), K)]
    bad = {key: np.array(row) for key, row in parts[1].items()}
    bad[name][2] = value
    want = merged(parts) | {name: np.array(merged(parts)[name])}
    want[name][2] = merged([parts[0], parts[2]])[name][2]
    chex.assert_trees_all_close(merged([parts[0], bad, parts[2]]), want, rtol=1e-6)
    # Known nowhere, it is unknown to the rule as well.
    nowhere = [{key: np.array(row) for key, row in part.items()} for part in parts]
    for part in nowhere:
        part[name][2] = value
    out = merged(nowhere)
    assert not np.isfinite(out[name][2]) and np.isfinite(np.delete(out[name], 2)).all()


def test_gradients_flow_through_the_gradients_only():
    tx = accumulate(optax.chain(aggregate(rules.gradient_norm(), PRIOR), optax.sgd(1.0)), 2)
    grads, measured = measure(np.arange(N))

    def moved(scale, grads):
        state = tx.init(jnp.zeros(2))
        for _ in range(2):
            norms = {"grad_norms": scale * measured["grad_norms"]}
            updates, state = tx.update(grads, state, None, counts=measured["counts"], **norms)
        return updates.sum()

    by_norms, by_grads = jax.jit(jax.grad(moved, (0, 1)))(jnp.ones(3), grads)
    np.testing.assert_array_equal(by_norms, 0.0)
    np.testing.assert_allclose(by_grads.sum(), -2.0, rtol=1e-5)


def test_norms_whose_squares_are_infinite_still_merge():
    one = {"counts": np.float32([1, 3, 2]), "grad_norms": np.float32([3e38, 1e30, 1e-30])}
    out = merged([one, one | {"grad_norms": np.float32([3e38, 3e30, 1e-30])}])
    np.testing.assert_allclose(out["grad_norms"], [3e38, np.sqrt(5) * 1e30, 1e-30], rtol=1e-5)


# Dtypes of gradients and parameters.

REAL, COMPLEX = ("float16", "bfloat16", "float32", "float64"), ("complex64", "complex128")
PAIRS = [(grads, params) for params in REAL for grads in REAL]
PAIRS += [(grads, params) for params in COMPLEX for grads in ("float32", "float64", *COMPLEX)]
INNER = {"adam": optax.adam, "adamw": optax.adamw, "lion": optax.lion, "adafactor": optax.adafactor}
TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2}


def scanned(tx, params, grads, length):
    """The parameters after updates with equal gradients, in a scan, whose carry has to keep its type."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grads, state, params, counts=jnp.ones(D))
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), None, length=length)[0][0]


@pytest.mark.parametrize(
    ("name", "grads", "params"),
    [("adam", *pair) for pair in PAIRS] + [(name, "float32", "bfloat16") for name in INNER if name != "adam"],
)
def test_any_gradients_with_any_parameters_as_in_multi_steps(name, grads, params):
    with jax.enable_x64("64" in grads + params or "128" in grads + params):
        start, gradient = jnp.ones((2, 2), params), jnp.array([[1.0, -2.0], [3.0, 0.5]]).astype(grads)
        if grads in COMPLEX:
            gradient = gradient * (1 + 2j)
        optimizer = INNER[name](0.1)
        ours = accumulate(optax.chain(track(rules.fixed(), PRIOR), optimizer), 2)
        alone = optax.with_extra_args_support(optimizer)

        def both(start, gradient):
            got = scanned(ours, start, gradient, 4)
            if grads in COMPLEX:  # of which MultiSteps sums the real parts only
                return got, scanned(alone, start, gradient.astype(params), 2)
            return got, scanned(optax.MultiSteps(alone, 2), start, gradient, 4)

        got, want = jax.jit(both)(start, gradient)
        assert got.dtype == start.dtype and bool(jnp.all(got != start))
        tolerance = max(TOLERANCES.get(grads, 1e-5), TOLERANCES.get(params, 1e-5))
        np.testing.assert_allclose(np.complex128(got), np.complex128(want), rtol=tolerance)


@pytest.mark.parametrize("dtype", [*REAL, *COMPLEX])
def test_stacked_gradients_keep_their_dtype_and_their_imaginary_part(dtype):
    with jax.enable_x64("64" in dtype or "128" in dtype):
        stacked = (jnp.arange(6.0).reshape(D, 2) - 2.0).astype(dtype)
        if dtype in COMPLEX:
            stacked = stacked * (1 - 2j)
        # A part of the gradient that float32 cannot hold.
        stacked = stacked + (1e-9 if dtype in ("float64", "complex128") else 0.0)
        inner, params = aggregate(rules.fixed(), PRIOR), jnp.zeros(2, dtype)
        out, _ = inner.update(stacked, inner.init(params), params, counts=jnp.ones(D))
        tx = accumulate(inner, 2)
        _, state = tx.update(stacked, tx.init(params), params, counts=jnp.ones(D))
        twice, _ = tx.update(stacked, state, params, counts=jnp.ones(D))
        assert out.dtype == twice.dtype == stacked.dtype
        precise = np.complex128(stacked)
        want, tolerance = np.float64(inner.init(params).rule_state.weights) @ precise, TOLERANCES.get(dtype, 1e-6)
        assert dtype not in COMPLEX or np.abs(want.imag).min() > 0.1
        for got in (out, twice):
            np.testing.assert_allclose(np.complex128(got), want, rtol=tolerance)


# Checkpoints from the middle of a window.


@pytest.mark.parametrize(("before", "after"), [(4, 2), (4, 3), (2, 4), (5, 1)])
@pytest.mark.parametrize("make", [aggregate, track])
def test_a_window_goes_on_under_another_length(make, before, after):
    inner, params = optax.chain(make(rules.fgls(), PRIOR), optax.sgd(1.0)), jnp.zeros(2)
    parts = [measure(rows) for rows in np.split(np.arange(N), 8)]

    def grads(index):
        return parts[index][0] if make is aggregate else parts[index][0].mean(axis=0)

    gathered = before - 1
    state, began = accumulate(inner, before).init(params), jax.jit(accumulate(inner, before).update)
    for index in range(gathered):
        _, state = began(grads(index), state, params, **parts[index][1])
    resumed = jax.jit(accumulate(inner, after).update)
    for index in range(gathered, max(after, gathered + 1)):
        updates, state = resumed(grads(index), state, params, **parts[index][1])
    assert state.microbatch == 0, "the window closes with the first microbatch that makes it long enough"
    # The same window from the start, under the length that it had in the end.
    length = max(after, before)
    whole, state = jax.jit(accumulate(inner, length).update), accumulate(inner, length).init(params)
    for index in range(length):
        want, state = whole(grads(index), state, params, **parts[index][1])
    np.testing.assert_allclose(updates, want, rtol=1e-6)
    assert np.abs(want).max() > 1e-3


# Places and modes.


def run(update, state, params=None):
    for rows in splits(2):
        grads, measured = measure(rows)
        updates, state = update(grads, state, params, **measured)
    return updates, state


def chained(rule=None):
    return accumulate(optax.chain(aggregate(rule or rules.erma(0.3, 0.5), PRIOR), optax.sgd(0.1, 0.9)), K)


def test_fresh_and_later_states_can_be_donated_with_the_parameters():
    make = functools.partial(track, rules.erma(0.3, 0.5), PRIOR)
    for tx, stacked in (
        (aggregate(rules.erma(0.3, 0.5), PRIOR), True),
        (make(), False),
        (chained(), True),
        (optax.named_chain(("c", make()), ("q", make()), ("adam", optax.adam(0.1))), False),
    ):

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, tx=tx, stacked=stacked):
            grads, measured = measure(np.arange(N))
            updates, state = tx.update(grads if stacked else grads[0], state, params, **measured)
            return optax.apply_updates(params, updates), state

        params, state = jnp.zeros(2), tx.init(jnp.zeros(2))
        name = "c" if isinstance(state, dict) else None
        before = get_weights(state, name)
        for _ in range(3):
            params, state = step(params, state)
        np.testing.assert_allclose(before, PRIOR, rtol=1e-6)  # what was read is not deleted with the state
        assert not np.allclose(get_weights(state, name), PRIOR)


@pytest.mark.parametrize("check_vma", [True, False])
def test_replicated_state_meets_each_devices_gradients_and_signals(check_vma):
    tx, mesh = chained(), jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    grads, measured = jax.tree.map(
        lambda *rows: jnp.stack(rows), *(measure(rows) for rows in np.split(np.arange(N), 2))
    )

    def on_device(grads, measured):
        state = tx.init(jnp.zeros(2))
        for _ in range(K):
            updates, state = tx.update(grads, state, None, **measured)
        return updates, state

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=check_vma)
    def mapped(grads, measured):
        return jax.tree.map(lambda x: x[None], on_device(*jax.tree.map(lambda x: x[0], (grads, measured))))

    got = jax.jit(mapped)(grads, measured)
    chex.assert_trees_all_close(got, jax.jit(jax.vmap(on_device))(grads, measured), rtol=1e-5, atol=1e-6)


def test_weights_of_shared_signals_stay_equal_on_all_devices():
    tx, mesh = chained(), jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    grads, measured = measure(np.arange(N))

    # The gradients are each device's own, the signals are not: the rule's state may leave as one for all devices.
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("d"), P()), out_specs=P())
    def weights(grads, measured):
        state = tx.init(jnp.zeros(2))
        for _ in range(K):
            _, state = tx.update(grads[0], state, None, **measured)
        return get_weights(state)

    one = tx.init(jnp.zeros(2))
    for _ in range(K):
        _, one = tx.update(grads, one, None, **measured)
    np.testing.assert_allclose(jax.jit(weights)(jnp.stack([grads, 2 * grads]), measured), get_weights(one), rtol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Explicit, AxisType.Auto])
def test_parameters_that_are_sharded_over_a_mesh(axis_type):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(axis_type,))
    tx = chained()
    want, _ = run(jax.jit(tx.update), tx.init(jnp.zeros(2)))
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.zeros(2), P("d"))
        state = jax.jit(tx.init)(params)

        def update(grads, state, params, **measured):
            return tx.update(jax.device_put(grads, P(None, "d")), state, params, **measured)

        got, state = run(jax.jit(update), state, params)
        assert axis_type is AxisType.Auto or got.sharding.spec == P("d")
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("make", [aggregate, track])
def test_gradients_and_signals_that_are_spread_otherwise_than_the_state(make):
    """On an Explicit mesh arrays have their sharding in their type, and the state keeps its own."""
    prior, params = np.float32([0.4, 0.3, 0.2, 0.1]), jnp.zeros(2)
    tx = accumulate(optax.chain(make(rules.fgls(), prior), optax.sgd(0.1, 0.9)), 2)
    given = {"counts": np.float32([4, 5, 6, 7]), "losses": np.float32([1, 2, 3, 4])}
    grads = np.arange(8, dtype=np.float32).reshape(4, 2) if make is aggregate else np.float32([1, 2])

    def run(place):
        state = tx.init(params)
        for _ in range(2):
            updates, new = jax.jit(tx.update)(place(grads), state, params, **jax.tree.map(place, given))
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            state = new
        return np.asarray(updates), np.asarray(get_weights(state))

    want = run(jnp.asarray)
    with jax.set_mesh(jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))):
        got = run(lambda x: jax.device_put(jnp.asarray(x), P("d")))
    chex.assert_trees_all_close(got, want, rtol=1e-5)


def test_strict_promotions_and_debug_nans():
    tx = chained()
    want = run(jax.jit(tx.update), tx.init(jnp.zeros(2)))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert_bitwise(run(jax.jit(tx.update), tx.init(jnp.zeros(2))), want)
        tx.update(*measure(np.arange(N))[:1], tx.init(jnp.zeros(2)), **measure(np.arange(N))[1])
    # One domain is absent from all microbatches, and no NaN is made on its behalf.
    grads, measured = measure(np.flatnonzero(IDS != 1))
    measured = {name: np.where(np.isnan(row), np.inf, row) for name, row in measured.items()}
    with jax.debug_nans(True):
        for update in (jax.jit(tx.update), tx.update):
            state = tx.init(jnp.zeros(2))
            for _ in range(K):
                updates, state = update(grads, state, None, **measured)
            assert np.isfinite(updates).all()

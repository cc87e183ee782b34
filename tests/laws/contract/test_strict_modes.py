"""JAX's strict modes: no implicit promotion of dtypes or ranks, no NaN that is meant, the same numbers with 64 bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax import rules, samplers, signals
from tests.laws.contract.batches import OF_BATCHES, OF_OTHERS, OF_WEIGHTS, batch, weights_of
from tests.laws.contract.cases import CASES, MEASURED, PRIOR, ROWS, change, draw_signals, every_case, jitted
from tests.laws.contract.test_state import SIXTY_FOUR_BIT

pytestmark = pytest.mark.usefixtures("quick_compilation")

FUNCTIONS = {**OF_BATCHES, **{f"{name} of weights": f for name, f in OF_WEIGHTS.items()}, **OF_OTHERS}
SHAPES = [(name, 5) for name in FUNCTIONS] + [("allocate of weights", 40), ("weighted_loss", 3), ("moments", 3)]
"""Five domains take segment sums, three take masks; ``allocate`` bisects for more than 32."""


def inputs_of(num_domains):
    return batch(num_domains) | {"weights": weights_of(num_domains)}


def call(name, num_domains, inputs, compiled=True):
    function = jax.jit(FUNCTIONS[name], static_argnums=1) if compiled else FUNCTIONS[name]
    return function(inputs, num_domains)


@functools.cache
def wanted(name, num_domains):
    return call(name, num_domains, inputs_of(num_domains))


def assert_close(got, want, **tolerances):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), **({"rtol": 2e-5, "atol": 1e-6} | tolerances))


@pytest.mark.parametrize(("name", "num_domains"), SHAPES)
def test_dtypes_and_ranks_are_promoted_by_hand(name, num_domains):
    want = wanted(name, num_domains)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert_close(call(name, num_domains, inputs_of(num_domains)), want)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.uint8, jnp.bfloat16])
def test_counts_of_every_type_in_strict_mode(dtype):
    counts, ids = np.array([2, 1, 0]), np.array([0, 0, 1])
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        rows = mixjax.objectives.example_weights(np.ones(3), ids, jnp.asarray(counts, dtype))
        listed = samplers.counts_to_ids(jnp.asarray(counts, dtype), 3)
        stds = signals.microbatch_grad_stds(jnp.ones((2, 3, 4)), jnp.asarray([counts, counts], dtype))
    np.testing.assert_allclose(rows, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(listed, ids)
    np.testing.assert_allclose(stds, [0.0, 0.0, np.inf], atol=1e-6)


def hostile(num_domains):
    """Inputs with a domain of one example, a domain of none, and padding that is NaN."""
    inputs = inputs_of(num_domains)
    ids = np.array([0, 0, 0, 1, -1] + [2] * 6 + [-1] * 5)
    padding = (ids < 0)[:, None] | ~inputs["mask"]
    inputs["weights"] = np.where(np.arange(num_domains) == 1, 0.0, inputs["weights"]).astype(np.float32)
    return inputs | {
        "ids": ids,
        "losses": np.where(ids < 0, np.inf, inputs["losses"]).astype(np.float32),
        "tokens": np.where(padding, np.inf, inputs["tokens"]).astype(np.float32),
    }


# These take gradients of examples, which are the user's own business in padding, where hostile inputs are infinite.
CLEAN = {"grad_stds", "microbatch_grad_stds", "gains", "training", "probes", "merge and psum"}


# The others are scans, compiled in any case, or take the same functions.
EAGER = ["weighted_loss of tokens", "example_weights", "allocate of weights", "multinomial of weights", "by_domain"]


@pytest.mark.parametrize(("name", "compiled"), [(name, True) for name in FUNCTIONS] + [(name, False) for name in EAGER])
def test_nothing_is_nan_on_purpose(name, compiled):
    inputs = hostile(5) if name not in CLEAN else inputs_of(5) | {"ids": hostile(5)["ids"]}
    with jax.debug_nans(True):
        got = call(name, 5, inputs, compiled)
    assert not any(np.isnan(x).any() for x in map(np.asarray, jax.tree.leaves(got)) if x.dtype == np.float32)


def test_signals_of_every_batch_without_nan():
    with jax.debug_nans(True):
        for ids in ([0, 0, 1], [2, 2, 2], [-1, 3, -1]):
            found = jax.jit(lambda x, ids: signals.moments(x, ids, 3).signals())(jnp.ones(3), np.array(ids))
            for rule in (rules.fgls(), rules.erma()):
                value, state = mixjax.weighted_loss(rule, rule.init(np.ones(3)), jnp.ones(3), np.array(ids))
                assert np.isfinite(value) and np.isfinite(state.weights).all()
            assert np.isinf(found["losses"]).tolist() == [d not in ids for d in range(3)]


def wide(x):
    kinds = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}
    return x.astype(kinds.get(x.dtype, x.dtype))


@pytest.mark.parametrize(("name", "num_domains"), SHAPES)
def test_64_bits_change_neither_types_nor_draws(name, num_domains):
    want = wanted(name, num_domains)
    with jax.enable_x64(True):
        got = call(name, num_domains, jax.tree.map(wide, inputs_of(num_domains)))
    assert_close(got, want, rtol=1e-4, atol=1e-5)
    # The gradient, which comes last, has the type of the losses.
    if name.startswith("weighted_loss") and name in OF_BATCHES:
        got, want = jax.tree.leaves(got)[:-1], jax.tree.leaves(want)[:-1]
    # A sum of domain_sums has the type of what is summed.
    if name != "domain_sums":
        assert [x.dtype for x in jax.tree.leaves(got)] == [x.dtype for x in jax.tree.leaves(want)]


@pytest.mark.parametrize("name", ["weighted_loss", "weighted_loss of tokens", "moments", "by_domain"])
def test_bfloat16_losses_give_float32_signals(name):
    inputs = inputs_of(5)
    narrow = inputs | {key: jnp.asarray(inputs[key], jnp.bfloat16) for key in ("losses", "tokens")}
    exact = inputs | {key: np.float32(narrow[key]) for key in ("losses", "tokens")}
    got, want = jax.tree.leaves(call(name, 5, narrow)), jax.tree.leaves(call(name, 5, exact))
    if name in ("weighted_loss", "weighted_loss of tokens"):
        # The gradient, which comes last, has the type of the losses.
        assert got[-1].dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(got.pop()), want.pop(), rtol=1e-2)
    assert all(x.dtype == jnp.float32 for x in got)
    assert_close(got, want)


@every_case
def test_rules_promote_dtypes_and_ranks_by_hand(name):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        rule = CASES[name].make(ROWS)
        state, inputs = rule.init(PRIOR), draw_signals(0)
        # Promotions are refused while a function is traced, so nothing need be compiled.
        for dtype in (np.int32, np.float32, np.uint8, np.bool_, jnp.bfloat16):
            given = inputs | {"counts": inputs["counts"].astype(dtype)}
            assert jax.eval_shape(rule.update, state, **given).weights.dtype == jnp.float32
        halves = {key: jnp.asarray(value, jnp.float16) for key, value in inputs.items()}
        jax.eval_shape(rule.update, state, **halves)


@pytest.mark.parametrize("name", SIXTY_FOUR_BIT)
def test_hyperparameters_of_any_width_in_strict_mode(name):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.enable_x64(True):
        for value in (np.float64(0.5), jnp.float32(0.5), jnp.float64(0.5), 0.5):
            rule = SIXTY_FOUR_BIT[name](value)
            jax.eval_shape(rule.update, rule.init(PRIOR), **draw_signals(0))


# One select is enough, since each runs only one of its rules.
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("select") or name == "select(erma)"])
def test_rules_make_no_nan_of_rows_unseen(name):
    prior = np.float32([0.6, 0.0, 0.4])
    first = change(draw_signals(0), 0, counts=0, **dict.fromkeys(MEASURED, np.inf))
    nothing = draw_signals(1) | dict.fromkeys(MEASURED, np.full(3, np.inf, np.float32))
    steps, rule = [first, nothing, draw_signals(2)], CASES[name].make(ROWS)
    want = jitted(name).init(prior)
    for inputs in steps:
        want = jitted(name).update(want, **inputs)
    # Without jit every single operation is looked at.
    with jax.debug_nans(True):
        state = rule.init(prior)
        for inputs in steps:
            state = rule.update(state, **inputs)
    assert_close(state, want)

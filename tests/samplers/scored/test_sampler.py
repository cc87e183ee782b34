"""The sampler's state: what starts it, what an update stores, how it resumes, and that no step copies it."""

import functools
import itertools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax.samplers import hardness
from tests.samplers.scored.cases import KEY, LOSSES, PRIOR, USUAL, VARIANTS, N, both_modes, compiled, expected_p


def test_initial_values():
    sampler = USUAL
    np.testing.assert_array_equal(sampler.init(2.0).values, np.full(N, 2.0, np.float32))
    noisy = np.asarray(compiled(hardness(2000, 1.0)).init(2.0, key=KEY).values)
    assert 0.0018 < noisy.std() < 0.0022
    assert len(np.unique(noisy)) > 1900
    for given_ in (2.0, np.full(N, 2.0), jnp.full(N, 2.0, jnp.bfloat16)):
        assert jax.eval_shape(sampler.init, given_).values.dtype == jnp.float32


def test_several_losses_of_one_example_are_averaged_in_any_order():
    sampler = compiled(hardness(3, 1.0))
    state = sampler.init(0.5)
    for order in itertools.permutations([(1, 2.0), (1, 4.0), (2, 1.0), (1, np.nan)]):
        ids, losses = zip(*order, strict=True)
        new = sampler.update(state, jnp.array(ids), jnp.array(losses))
        np.testing.assert_allclose(new.values, [0.5, 3.0, 1.0], rtol=1e-6)
        chex.assert_trees_all_close(new.sums, sampler.rebuild(new).sums, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_losses_that_are_not_finite_are_kept_out(bad):
    """One NaN in the authors' history makes every later draw fail."""
    sampler = USUAL
    state = sampler.init(LOSSES)
    new = sampler.update(state, jnp.array([4, 5]), jnp.array([bad, 0.25]))
    np.testing.assert_array_equal(new.values, np.r_[LOSSES[:5], 0.25, LOSSES[6:]])
    assert np.isfinite(sampler.log_probs(new)).all()
    for kind in ("clipped", "tree", "self_normalised"):
        assert np.isfinite(sampler.importance_weights(state, jnp.array([4, 5]), jnp.array([bad, 0.25]), kind)).all()
    assert sampler.init(np.r_[LOSSES[:-1], bad]).values[-1] == LOSSES[:-1].max()


@jax.jit
def tree_weights(beta, ids, losses):
    sampler = hardness(N, beta)
    return sampler.importance_weights(sampler.init(LOSSES), ids, losses, "tree")


@pytest.mark.parametrize("ids", [[7], [2, 7, 11]], ids=["eq. 13", "batch"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0, 100.0])
def test_tree_weights_are_the_exact_ratio(beta, ids):
    ids, new = np.array(ids), np.float32([0.3, -1.0, 2.5])[: len(ids)]
    after = LOSSES.copy()
    after[ids] = new
    ratio = (expected_p(beta, losses=after)[0] / expected_p(beta)[0])[ids]
    # The exponent is rounded in float32: an error that grows with beta.
    weights = tree_weights(beta, jnp.array(ids), new)
    np.testing.assert_allclose(weights, np.minimum(ratio, np.exp(80)), rtol=1e-5 + 2e-6 * beta, atol=1e-30)


def test_beta_changes_by_a_rebuild():
    state = USUAL.init(LOSSES)
    colder = compiled(hardness(N, 5.0))
    chex.assert_trees_all_close(colder.rebuild(state), colder.init(LOSSES), rtol=1e-6)
    assert not np.allclose(state.sums[-1].log, colder.rebuild(state).sums[-1].log)


def test_a_first_pass_over_many_examples_takes_memory_in_proportion():
    n = 1 << 16
    sampler = hardness(n, 1.0)
    ids, losses = (jax.ShapeDtypeStruct((n,), dtype) for dtype in (jnp.int32, jnp.float32))
    update = jax.jit(sampler.update).lower(jax.eval_shape(sampler.init, 0.0), ids, losses).compile()
    assert update.memory_analysis().temp_size_in_bytes < 1000 * n


def test_nothing_is_wider_than_32_bits_where_64_are_on():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        sampler = hardness(N, 1.0, prior=PRIOR, floor=0.1, replacement=False)

        def run(key):
            state = sampler.update(sampler.init(np.float64(LOSSES), key), jnp.arange(3), jnp.ones(3))
            return state, sampler.sample(state, key, 3), sampler.log_probs(state)

        out = jax.eval_shape(run, KEY)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(out)} == {"float32", "int32"}


def run_steps(sampler, state, keys):
    def step(state, key):
        indices, weights = sampler.sample(state, key, 6)
        losses = jnp.sin(indices + jnp.float32(state.sums[-1].log[0]))
        importance = sampler.importance_weights(state, indices, losses, "tree")
        return sampler.update(state, indices, losses), (indices, weights, importance)

    return jax.lax.scan(step, state, keys)


@both_modes
def test_resume_is_bit_identical(replacement):
    sampler = compiled(hardness(N, 3.0, replacement=replacement, decay=0.5, floor=0.1))
    run = jax.jit(functools.partial(run_steps, sampler))
    keys = jax.random.split(KEY, 20)
    whole, rows = run(sampler.init(LOSSES), keys)
    middle, first = run(sampler.init(LOSSES), keys[:10])
    blobs = serialization.to_bytes(middle), pickle.dumps(jax.device_get(middle))
    for restored in (serialization.from_bytes(sampler.init(0.0), blobs[0]), pickle.loads(blobs[1])):
        last, second = run(restored, keys[10:])
        chex.assert_trees_all_equal(last, whole)
        chex.assert_trees_all_equal(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second), rows)


@both_modes
def test_a_batch_of_runs_is_a_loop(replacement):
    def run(beta, key, losses):
        sampler = hardness(N, beta, replacement=replacement, **VARIANTS["prior and floor"])
        return run_steps(sampler, sampler.init(losses), jax.random.split(key, 3))[1]

    betas, keys = jnp.array([0.0, 1.0, 5.0]), jax.random.split(KEY, 3)
    batched = jax.jit(jax.vmap(run, in_axes=(0, 0, None)))(betas, keys, LOSSES)
    alone_in_jit = jax.jit(run)
    for i in range(3):
        alone = alone_in_jit(betas[i], keys[i], LOSSES)
        np.testing.assert_array_equal(alone[0], batched[0][i])
        chex.assert_trees_all_close(alone, jax.tree.map(lambda x, i=i: x[i], batched), rtol=1e-4, atol=1e-6)


def test_one_trace_over_three_steps_and_a_state_that_is_a_fixpoint():
    sampler = hardness(N, 1.0, floor=0.1)
    state, traces = jax.jit(sampler.init)(LOSSES, KEY), []

    @jax.jit
    def step(state, key):
        traces.append(1)
        indices, _ = sampler.sample(state, key, 4)
        return sampler.update(state, indices, jnp.ones(4, jnp.bfloat16))

    for key in jax.random.split(KEY, 3):
        new = step(state, key)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        assert all(not leaf.weak_type for leaf in jax.tree.leaves(new))
        state = new
    assert len(traces) == 1


@pytest.mark.parametrize(("replacement", "kind"), [(True, None), (False, None), (True, "tree"), (True, "stored")])
def test_a_donated_state_is_updated_in_place(replacement, kind):
    """No step copies the history: the compiled loop's scratch memory is far below n floats."""
    n = 1 << 17
    sampler = hardness(n, 1.0, replacement=replacement)

    def step(state, key):
        indices, weights = sampler.sample(state, key, 8)
        losses = jnp.sin(indices.astype(jnp.float32) if kind != "stored" else state.values[indices])
        if kind == "tree":
            weights = sampler.importance_weights(state, indices, losses, kind)
        return sampler.update(state, indices, losses), weights.sum()

    loop = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys), donate_argnums=0)
    state = jax.eval_shape(sampler.init, 0.0)
    memory = loop.lower(state, jax.random.split(KEY, 3)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < n // 2  # an eighth of the history


def test_no_gradient_flows_through_the_history():
    sampler = USUAL
    state = sampler.init(LOSSES)

    def objective(losses):
        weights = sampler.importance_weights(state, jnp.arange(3), losses, "self_normalised")
        new = sampler.update(state, jnp.arange(3), losses)
        first = hardness(3, 1.0).init(losses)
        return weights.sum() + sampler.log_probs(new).sum() + hardness(3, 1.0).log_probs(first)[0]

    np.testing.assert_array_equal(jax.jit(jax.grad(objective))(jnp.ones(3)), np.zeros(3))


@jax.jit
def _after_an_update(beta, values, indices):
    sampler = hardness(10, beta)
    state = sampler.update(sampler.init(0.5), indices, values)
    return state.values, sampler.log_probs(state), sampler.sample(state, KEY, 4)


@settings(derandomize=True, deadline=None, max_examples=200, database=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([np.nan, np.inf]), min_size=5, max_size=5),
    st.lists(st.integers(-3, 12), min_size=5, max_size=5),
    st.sampled_from([0.0, 1e-3, 1.0, 1e4, 1e30, np.inf]),
)
def test_whatever_comes_the_distribution_stays_one(values, indices, beta):
    args = np.float32(beta), np.float32(values), np.int32(indices)
    stored, log_probs, (drawn, weights) = jax.tree.map(np.asarray, _after_an_update(*args))
    assert np.isfinite(stored).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)
    assert ((drawn >= 0) & (drawn < 10)).all()
    assert not np.isnan(weights).any()
    untouched = sorted(set(range(10)) - set(indices))
    assert (stored[untouched] == 0.5).all()

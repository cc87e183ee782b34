"""Hardness weighted sampling: distribution, exact weights, resume, shards; and the faults of other samplers."""

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

from mixjax import samplers
from mixjax.samplers import hardness, proportional

N = 24
LOSSES = np.random.default_rng(0).normal(size=N).astype(np.float32)
PRIOR = np.r_[0.0, np.arange(1.0, N)]
KEY = jax.random.key(0)
both_modes = pytest.mark.parametrize("replacement", [True, False])
VARIANTS = {
    "plain": {},
    "floor": {"floor": 0.3},
    "prior": {"prior": PRIOR},
    "prior and floor": {"prior": PRIOR, "floor": 0.2},
}


def expected_p(beta=1.0, prior=None, floor=0.0, losses=LOSSES):
    prior = np.full(N, 1 / N) if prior is None else np.float64(prior) / np.sum(prior)
    p = prior * np.exp(beta * (np.float64(losses) - losses.max()))
    return (1 - floor) * p / p.sum() + floor * prior, prior


def compiled(sampler):
    """The same sampler; every function is one program, where eager ones are dozens."""
    return sampler._replace(
        init=jax.jit(sampler.init),
        sample=jax.jit(sampler.sample, static_argnums=2),
        log_probs=jax.jit(sampler.log_probs),
        update=jax.jit(sampler.update),
        importance_weights=jax.jit(sampler.importance_weights, static_argnums=3),
        rebuild=jax.jit(sampler.rebuild),
    )


@functools.lru_cache
def many_batches(variant, replacement, size, widest=4, runs=20_000):
    sampler = compiled(hardness(N, 1.0, replacement=replacement, **VARIANTS[variant]))
    state = sampler.init(LOSSES)
    keys = jax.random.split(jax.random.key(3), runs)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: sampler.sample(state, key, size)))(keys))


@pytest.mark.parametrize("variant", VARIANTS)
def test_probabilities(variant):
    sampler = compiled(hardness(N, 1.0, **VARIANTS[variant]))
    state = sampler.init(LOSSES)
    p, _ = expected_p(**VARIANTS[variant])
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), p, rtol=2e-6, atol=1e-9)
    some = jnp.array([3, 0, 3])
    np.testing.assert_array_equal(sampler.log_probs(state, some), sampler.log_probs(state)[some])


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@both_modes
@pytest.mark.parametrize("variant", VARIANTS)
def test_first_draws_follow_the_probabilities(variant, replacement, widest):
    indices, _ = many_batches(variant, replacement, 4, widest)
    p, _ = expected_p(**VARIANTS[variant])
    counts = np.bincount(indices[:, 0], minlength=N)
    assert (counts[p == 0] == 0).all()
    z = (counts - len(indices) * p)[p > 0] / np.sqrt(len(indices) * p * (1 - p))[p > 0]
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@both_modes
@pytest.mark.parametrize("variant", VARIANTS)
def test_weighted_means_are_unbiased_for_the_prior(variant, replacement, widest):
    indices, weights = many_batches(variant, replacement, 4, widest)
    p, prior = expected_p(**VARIANTS[variant])
    for values in (LOSSES, np.arange(N) == 5, np.ones(N)):
        estimates = (weights * values[indices]).mean(1)
        stderr = estimates.std() / len(estimates) ** 0.5
        assert abs(estimates.mean() - prior @ values) < 4.5 * stderr + 1e-6
    if replacement:
        np.testing.assert_allclose(weights, (prior / np.maximum(p, 1e-30))[indices], rtol=1e-5)


def test_without_replacement_a_plain_mean_is_biased_and_a_weighted_one_is_not():
    """The authors' draw without replacement breaks lemma 3.2; ``weights * p / prior`` mends it."""
    indices, weights = many_batches("plain", False, 4)
    p, prior = expected_p()
    plain, mended = LOSSES[indices].mean(1), (weights * (p / prior)[indices] * LOSSES[indices]).mean(1)
    stderr = mended.std() / len(mended) ** 0.5
    assert abs(mended.mean() - p @ LOSSES) < 4.5 * stderr
    assert abs(plain.mean() - p @ LOSSES) > 10 * stderr
    literal, _ = many_batches("plain", True, 4)
    means = LOSSES[literal].mean(1)
    assert abs(means.mean() - p @ LOSSES) < 4.5 * means.std() / len(means) ** 0.5


def test_without_replacement_the_whole_set_is_a_permutation_of_weight_one():
    sampler = compiled(hardness(N, 3.0, replacement=False))
    indices, weights = sampler.sample(sampler.init(LOSSES), KEY, N)
    assert sorted(indices.tolist()) == list(range(N))
    np.testing.assert_allclose(weights, 1.0, rtol=1e-5)


def test_too_few_examples_to_draw_repeat_the_first_with_weight_zero():
    sampler = compiled(hardness(3, 1.0, prior=[0.0, 1.0, 1.0], replacement=False))
    indices, weights = sampler.sample(sampler.init(1.0), KEY, 3)
    assert set(indices.tolist()) == {1, 2}
    assert indices[2] == indices[0]
    np.testing.assert_allclose(weights, [1.5, 1.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(np.mean(weights * np.array([7.0, 7.0, 7.0])), 7.0, rtol=1e-5)


@both_modes
def test_beta_zero_is_the_prior_exactly(replacement):
    for prior in (None, PRIOR):
        sampler = compiled(hardness(N, 0.0, prior=prior, replacement=replacement))
        same = sampler.log_probs(sampler.init(1e30 * LOSSES)), sampler.log_probs(sampler.init(0.0))
        np.testing.assert_array_equal(*same)
        np.testing.assert_allclose(np.exp(same[0]), expected_p(0.0, prior)[0], rtol=1e-6)


@functools.partial(jax.jit, static_argnames="replacement")
def four_examples(beta, losses, replacement):
    sampler = hardness(4, beta, replacement=replacement)
    state = sampler.init(losses)
    many, _ = hardness(4, beta).sample(state, KEY, 64)
    importance = sampler.importance_weights(state, jnp.arange(2), losses[:2])
    return jnp.exp(sampler.log_probs(state)), many, *sampler.sample(state, KEY, 2), importance


@both_modes
@pytest.mark.parametrize("beta", [1e6, 1e30, np.inf])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_huge_beta_draws_the_hardest(replacement, beta, scale):
    losses = np.float32([0.1, 0.9, 0.9, -1.0]) * np.float32(scale)
    probs, many, indices, weights, importance = four_examples(beta, losses, replacement)
    np.testing.assert_allclose(probs, [0, 0.5, 0.5, 0], rtol=1e-6)
    assert set(many.tolist()) == {1, 2}
    assert set(indices.tolist()) <= {1, 2}
    assert np.isfinite(weights).all() and np.isfinite(importance).all()


def test_update_of_one_example_by_hand():
    sampler = compiled(hardness(2, 2.0, momentum=0.25))
    state = sampler.update(sampler.init(jnp.array([1.0, 1.0])), jnp.array([1]), jnp.array([3.0]))
    assert state.values.tolist() == [1.0, 2.5]
    p = np.exp(2 * 2.5) / (np.exp(2 * 2.5) + np.exp(2.0))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)[1]), p, rtol=1e-6)


def test_several_losses_of_one_example_are_averaged_in_any_order():
    sampler = compiled(hardness(3, 1.0))
    state = sampler.init(0.5)
    for order in itertools.permutations([(1, 2.0), (1, 4.0), (2, 1.0), (1, np.nan)]):
        ids, losses = zip(*order, strict=True)
        new = sampler.update(state, jnp.array(ids), jnp.array(losses))
        np.testing.assert_allclose(new.values, [0.5, 3.0, 1.0], rtol=1e-6)
        chex.assert_trees_all_close(new.sums, sampler.rebuild(new).sums, rtol=1e-6)


USUAL = compiled(hardness(N, 1.0))


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


def test_initial_values():
    sampler = USUAL
    np.testing.assert_array_equal(sampler.init(2.0).values, np.full(N, 2.0, np.float32))
    noisy = np.asarray(compiled(hardness(2000, 1.0)).init(2.0, key=KEY).values)
    assert 0.0018 < noisy.std() < 0.0022
    assert len(np.unique(noisy)) > 1900
    for given_ in (2.0, np.full(N, 2.0), jnp.full(N, 2.0, jnp.bfloat16)):
        assert jax.eval_shape(sampler.init, given_).values.dtype == jnp.float32


def test_clipped_weights_by_hand():
    sampler = compiled(hardness(3, 2.0))
    state = sampler.init(1.0)
    new = 1.0 + np.array([0.1, 5.0, -5.0], np.float32)
    weights = sampler.importance_weights(state, jnp.arange(3), new)
    np.testing.assert_allclose(weights, [np.exp(0.2), 10.0, 0.1], rtol=1e-6)
    wide = hardness(3, 2.0, clip=(1e-9, 1e9)).importance_weights(state, jnp.arange(3), new)
    np.testing.assert_allclose(wide, np.exp(2.0 * (new - 1.0)), rtol=1e-5)
    np.testing.assert_allclose(
        sampler.importance_weights(state, jnp.arange(3), new, "self_normalised"), 3 * wide / wide.sum(), rtol=1e-5
    )


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


@pytest.mark.parametrize("kind", ["clipped", "self_normalised"])
def test_ratios_of_scores_that_were_or_become_zero(kind):
    sampler = compiled(proportional(4, floor=0.5))
    state = sampler.init(jnp.array([0.0, 0.0, 2.0, 2.0]))
    weights = sampler.importance_weights(state, jnp.arange(4), jnp.array([3.0, 0.0, 0.0, 4.0]), kind)
    expected = {"clipped": [10.0, 1.0, 0.1, 2.0], "self_normalised": [4.0, 0.0, 0.0, 0.0]}
    np.testing.assert_allclose(weights, expected[kind], rtol=1e-6)


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


def test_example_of_almost_all_mass_is_in_every_batch():
    """Without replacement the authors' floor fills 63 of 64 places; here they hold the next hardest."""
    losses = np.r_[10.0, np.linspace(0.0, 1.0, 999)].astype(np.float32)
    sampler = compiled(hardness(1000, 20.0, replacement=False))
    state = sampler.init(losses)
    keys = jax.random.split(KEY, 100)
    indices = np.asarray(jax.jit(jax.vmap(lambda key: sampler.sample(state, key, 64)[0]))(keys))
    assert (indices == 0).any(1).all()
    assert losses[indices[indices > 0]].mean() > 0.9


def test_scores_are_drawn_in_proportion_and_fall_back_to_the_prior():
    sampler = compiled(proportional(4, prior=[1.0, 1.0, 1.0, 3.0]))
    state = sampler.init(jnp.array([1.0, 2.0, 0.0, 1.0]))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), np.array([1, 2, 0, 3]) / 6, rtol=1e-6)
    state = sampler.update(state, jnp.arange(4), jnp.zeros(4))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), np.array([1, 1, 1, 3]) / 6, rtol=1e-6)
    keys = jax.random.split(KEY, 4000)
    for mode in (True, False):
        drawer = proportional(4, prior=[1.0, 1.0, 1.0, 3.0], replacement=mode)
        first = np.asarray(jax.jit(jax.vmap(lambda key, s=drawer: s.sample(state, key, 2)[0][0]))(keys))
        np.testing.assert_allclose(np.bincount(first, minlength=4) / 4000, np.array([1, 1, 1, 3]) / 6, atol=0.04)


def test_a_vanished_score_comes_back_with_a_floor():
    sampler = compiled(proportional(3, floor=0.3))
    state = sampler.init(jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), [0.45, 0.45, 0.1], rtol=1e-6)
    for negative in (-1.0, -1e30):
        assert sampler.update(state, jnp.array([0]), jnp.array([negative])).values[0] < 0
        assert np.isfinite(sampler.log_probs(sampler.update(state, jnp.array([0]), jnp.array([negative])))).all()


def test_beta_changes_by_a_rebuild():
    state = USUAL.init(LOSSES)
    colder = compiled(hardness(N, 5.0))
    chex.assert_trees_all_close(colder.rebuild(state), colder.init(LOSSES), rtol=1e-6)
    assert not np.allclose(state.sums[-1].log, colder.rebuild(state).sums[-1].log)


def run_steps(sampler, state, keys):
    def step(state, key):
        indices, weights = sampler.sample(state, key, 6)
        losses = jnp.sin(indices + jnp.float32(state.sums[-1].log[0]))
        importance = sampler.importance_weights(state, indices, losses, "tree")
        return sampler.update(state, indices, losses), (indices, weights, importance)

    return jax.lax.scan(step, state, keys)


@both_modes
def test_resume_is_bit_identical(replacement):
    sampler = compiled(hardness(N, 3.0, replacement=replacement, momentum=0.5, floor=0.1))
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


def test_state_is_at_most_three_floats_an_example():
    for kwargs, most in ({}, 1.3), ({"prior": np.ones(10_000), "floor": 0.1}, 2.6):
        state = jax.eval_shape(hardness(10_000, 1.0, **kwargs).init, 0.0)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) < most * 10_000


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


ERRORS = {
    "n must": (lambda: hardness(0, 1.0), "n >= 1"),
    "beta": (lambda: hardness(3, -1.0), "beta must be"),
    "beta nan": (lambda: hardness(3, np.nan), "beta must be"),
    "momentum": (lambda: hardness(3, 1.0, momentum=1.5), "momentum must be"),
    "floor": (lambda: hardness(3, 1.0, floor=-0.1), "floor must be"),
    "clip": (lambda: hardness(3, 1.0, clip=(0.0, 1.0)), "clip must be"),
    "clip order": (lambda: hardness(3, 1.0, clip=(10.0, 0.1)), "clip must be a lowest and a highest"),
    "prior shape": (lambda: hardness(3, 1.0, prior=[1.0]), "prior must have shape"),
    "prior sign": (lambda: hardness(2, 1.0, prior=[1.0, -1.0]).init(0.0), "prior must be"),
    "values shape": (lambda: hardness(3, 1.0).init(np.ones(2)), "initial values must"),
    "values nan": (lambda: hardness(3, 1.0).init(np.nan), "initial values must be finite"),
    "batch of none": (lambda: hardness(3, 1.0).sample(hardness(3, 1.0).init(0.0), KEY, 0), "batch_size must be"),
    "batch above n": (
        lambda: hardness(3, 1.0, replacement=False).sample(hardness(3, 1.0).init(0.0), KEY, 4),
        r"batch_size must be in \[1, 3\]",
    ),
    "kind": (
        lambda: hardness(3, 1.0).importance_weights(hardness(3, 1.0).init(0.0), jnp.arange(2), jnp.ones(2), "exact"),
        "kind must be one of",
    ),
    "a loss reduced over the batch": (
        lambda: hardness(3, 1.0).update(hardness(3, 1.0).init(0.0), jnp.arange(2), jnp.float32(1.0)),
        "vectors of one length",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_public_names():
    for name in ("hardness", "proportional", "hardest", "with_ages", "effective_sample_size", "ExampleSampler"):
        assert name in samplers.__all__


def test_a_batch_has_at_most_2_to_the_24_examples():
    shape = jax.ShapeDtypeStruct((2**24 + 1,), jnp.float32)
    with pytest.raises(ValueError, match="a batch has at most 16777216 examples, got 16777217"):
        jax.eval_shape(lambda x: USUAL.update(USUAL.init(0.0), x.astype(jnp.int32), x), shape)

"""Importance sampling that turns itself off: when it is on, that it stays unbiased, and what it does with bad norms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import proportional, when_it_pays

N = 200
UNEVEN = np.where(np.arange(N) % 40 == 0, 30.0, 1.0).astype(np.float32)
KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnames=("sampler", "steps"))
def run(sampler, norms, steps=80, state=None):
    """``norms [steps, n]`` or ``[n]``; the state and the ratio after every step."""
    state = sampler.init(1.0) if state is None else state
    norms = jnp.broadcast_to(norms, (steps, N))

    def step(state, inputs):
        key, now = inputs
        indices, _ = sampler.sample(state, key, 32)
        state = sampler.update(state, indices, now[indices])
        return state, state.ratio

    return jax.lax.scan(step, state, (jax.random.split(KEY, steps), norms))


PLAIN = when_it_pays(proportional(N, floor=0.1), threshold=0.8)
SAMPLER = PLAIN._replace(  # every function is one program
    init=jax.jit(PLAIN.init),
    sample=jax.jit(PLAIN.sample, static_argnums=2),
    log_probs=jax.jit(PLAIN.log_probs),
    update=jax.jit(PLAIN.update),
    importance_weights=jax.jit(PLAIN.importance_weights),
)


def test_on_where_norms_are_uneven_and_off_where_they_are_equal():
    state, ratios = run(SAMPLER, UNEVEN)
    best = UNEVEN.mean() ** 2 / np.square(UNEVEN).mean()
    assert ratios[-1] < 2.5 * best < 0.5
    np.testing.assert_allclose(np.exp(SAMPLER.log_probs(state)).sum(), 1.0, rtol=1e-5)
    assert np.exp(SAMPLER.log_probs(state)).max() > 10 / N
    state, ratios = run(SAMPLER, np.ones(N, np.float32))
    np.testing.assert_allclose(ratios, 1.0, rtol=1e-5)
    indices, weights = SAMPLER.sample(state, KEY, 1000)
    assert (weights == 1).all() and len(set(indices.tolist())) > 0.9 * N
    np.testing.assert_allclose(SAMPLER.log_probs(state, jnp.array([3])), -np.log(N), rtol=1e-6)


def test_a_history_that_is_wrong_turns_it_off():
    """The large norms move every step: draws by the old ones are worse than uniform ones, which the ratio sees."""
    moving = np.stack([np.roll(UNEVEN, 7 * step) for step in range(300)])

    @jax.jit
    @jax.vmap
    def ratios(threshold):
        return run(when_it_pays(proportional(N, floor=0.1), threshold, 0.9), moving, 300)[1]

    switched, always = ratios(jnp.array([0.8, 1e9]))  # a threshold that keeps it on
    assert np.median(always) > 1.0
    assert np.mean(switched > 0.8) > 0.15


@pytest.mark.parametrize("norms", [UNEVEN, np.ones(N, np.float32)], ids=["on", "off"])
def test_weighted_means_are_unbiased(norms):
    state, _ = run(SAMPLER, norms)
    values = np.sin(np.arange(N))
    indices, weights = jax.jit(jax.vmap(lambda key: SAMPLER.sample(state, key, 8)))(jax.random.split(KEY, 20_000))
    means = np.float64(weights * values[np.asarray(indices)]).mean(1)
    assert abs(means.mean() - values.mean()) < 4.5 * means.std() / len(means) ** 0.5


def test_norms_that_are_not_finite_change_nothing_of_the_ratio():
    state, _ = run(SAMPLER, UNEVEN)
    ids = jnp.arange(4)
    same = SAMPLER.update(state, ids, jnp.full(4, jnp.nan))
    assert same.ratio == state.ratio and (same.values == state.values).all()
    part = SAMPLER.update(state, ids, jnp.array([jnp.inf, 1.0, jnp.nan, 1.0]))
    assert np.isfinite(part.ratio) and part.ratio != state.ratio
    assert SAMPLER.update(SAMPLER.init(1.0), ids, jnp.zeros(4)).ratio == 1.0  # nothing to draw by


@pytest.mark.parametrize("size", [1, 2, 32])
def test_small_batches_find_out_too(size):
    def step(state, key):
        indices, _ = SAMPLER.sample(state, key, size)
        return SAMPLER.update(state, indices, jnp.asarray(UNEVEN)[indices]), state.on

    on = jax.jit(lambda s, k: jax.lax.scan(step, s, k)[1])(SAMPLER.init(1.0), jax.random.split(KEY, 3000))
    assert on[1000:].mean() > 0.8


def test_what_it_cannot_wrap_is_refused_and_weights_are_one_while_off():
    with pytest.raises(ValueError, match="prior must be uniform"):
        when_it_pays(proportional(4, prior=[1.0, 2.0, 3.0, 4.0])).init(1.0)
    assert (SAMPLER.importance_weights(SAMPLER.init(1.0), jnp.arange(2), jnp.array([4.0, 1.0])) == 1).all()


def test_state_is_a_fixpoint_and_resumes():
    state, _ = run(SAMPLER, UNEVEN, 20)
    shapes = [
        jax.eval_shape(SAMPLER.init, 1.0),
        jax.eval_shape(lambda s: SAMPLER.update(s, jnp.arange(3), jnp.ones(3)), state),
    ]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes[0]) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes[1]
    )
    stored = jax.tree.map(np.asarray, state)
    a, b = (run(SAMPLER, UNEVEN, 20, s)[1] for s in (state, stored))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"threshold": 0.0}, "threshold"), ({"decay": 1.5}, "decay"), ({"decay": 1.0}, "decay must be in")],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        when_it_pays(proportional(N), **change)

"""Example samplers on any losses, priors and hyperparameters: the distribution, what is drawn, what an update keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from mixjax import samplers
from mixjax.samplers.scored import levels
from tests.laws.properties.cases import FLOAT, cases, rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, B, FANOUT = 11, 4, 3
HUGE, TINY = float(FLOAT.max), float(FLOAT.tiny)
LARGEST = 1e30


@pytest.fixture(autouse=True, scope="module")
def narrow(module_monkeypatch):
    """A tree of three levels over eleven examples."""
    module_monkeypatch.setattr(levels, "WIDEST", 3)


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


VARIANTS = {
    "hardness": (samplers.hardness, True, False),
    "hardness, floor": (samplers.hardness, True, True),
    "hardness, distinct": (samplers.hardness, False, False),
    "proportional": (samplers.proportional, True, False),
    "proportional, floor, distinct": (samplers.proportional, False, True),
}


@functools.cache
def program(name):
    """Everything that a sampler does in a step, with all hyperparameters traced."""
    make, replacement, with_floor = VARIANTS[name]

    @jax.jit
    def run(beta, prior, decay, floor, values, indices, new, seed):
        args = (beta,) if make is samplers.hardness else ()
        sampler = make(
            N,
            *args,
            prior=prior,
            decay=decay,
            floor=floor if with_floor else None,
            replacement=replacement,
            fanout=FANOUT,
        )
        before = sampler.init(values)
        kinds = ("clipped", "tree", "self_normalised")
        importance = jnp.stack([sampler.importance_weights(before, indices, new, kind) for kind in kinds])
        after = sampler.update(before, indices, new)
        log_probs = sampler.log_probs(after)
        return {
            "before": before.values,
            "after": after.values,
            "refreshed": after.sums,
            "rebuilt": sampler.rebuild(after).sums,
            "log_probs": log_probs,
            "size": samplers.effective_sample_size(log_probs),
            "importance": importance,
            "drawn": sampler.sample(after, jax.random.key(seed), B),
            "changes": (sampler.log_probs(before, indices), sampler.log_probs(after, indices)),
        }

    return run


def expected_values(before, indices, new, decay):
    """What the store holds after an update, in float64: the mean of an example's finite values, smoothed."""
    after, m = np.float64(before), np.float64(decay)
    for i in set(indices.tolist()) & set(range(N)):
        finite = np.float64(new[(indices == i) & np.isfinite(new)]).clip(-LARGEST, LARGEST)
        if finite.size:
            after[i] = m * before[i] + (1 - m) * finite.mean()
    return after


def expected_probs(name, values, prior, beta, floor):
    """The distribution in float64."""
    make, _, with_floor = VARIANTS[name]
    prior = np.float64(prior) / np.float64(prior).sum()
    with np.errstate(all="ignore"):
        values = np.float64(values)
        if make is samplers.hardness:
            gaps = np.where(prior > 0, values[prior > 0].max() - values, 0.0)
            scores = prior * np.exp(-min(float(beta), 1e30) * gaps)
        else:
            scores = prior * np.where(values >= TINY, values, 0.0)
    probs = scores / scores.sum() if scores.sum() > 0 else prior
    return (1 - floor) * probs + floor * prior if with_floor else probs


LOSSES = (0.0, 1.0, 1.0 + 2**-23, -1.0, 1e3, 1e30, -1e30, HUGE, np.nan, np.inf, -np.inf)
UNIT = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32, allow_subnormal=False)


@pytest.mark.parametrize("name", VARIANTS)
@cases(
    150,
    beta=st.sampled_from([0.0, 1e-6, 1.0, 1e4, 1e30, np.inf]) | st.floats(0, 100, width=32, allow_subnormal=False),
    prior=rows(N, 0.0, 0.0, 1e-6, 1.0, low=2.0**-20).filter(any),
    decay=UNIT,
    floor=UNIT,
    values=rows(N, *LOSSES, high=4.0).filter(lambda values: np.isfinite(values).any()),
    indices=st.lists(st.integers(-2, N + 1), min_size=B, max_size=B).map(np.int32),
    new=rows(B, *LOSSES, high=4.0),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_distribution_is_what_it_says_before_and_after_an_update(
    name, beta, prior, decay, floor, values, indices, new, seed
):
    numbers = np.float32(beta), prior, np.float32(decay), np.float32(floor)
    out = jax.tree.map(np.asarray, program(name)(*numbers, values, indices, new, seed))
    largest = values[np.isfinite(values)].max()
    np.testing.assert_array_equal(out["before"], np.where(np.isfinite(values), values, largest).clip(-LARGEST, LARGEST))
    untouched = ~np.isin(np.arange(N), indices[np.isfinite(new)])
    np.testing.assert_array_equal(out["after"][untouched], out["before"][untouched])
    scale = np.abs(out["before"]).max() + np.abs(new[np.isfinite(new)]).clip(0, LARGEST).max(initial=0.0)
    expected = expected_values(out["before"], indices, new, numbers[2])
    np.testing.assert_allclose(out["after"], expected, rtol=1e-6, atol=1e-6 * scale)
    jax.tree.map(np.testing.assert_array_equal, out["refreshed"], out["rebuilt"])  # sums do not drift

    probs = expected_probs(name, out["after"], prior, *(np.float64(x) for x in (numbers[0], numbers[3])))
    np.testing.assert_allclose(np.exp(out["log_probs"]), probs, rtol=1e-3, atol=1e-6)
    assert (out["log_probs"][prior == 0] == -np.inf).all()
    assert 1 - 1e-4 <= out["size"] <= N * (1 + 1e-4)

    drawn, weights = out["drawn"]
    assert drawn.dtype == np.int32 and ((drawn >= 0) & (drawn < N)).all()
    assert (out["log_probs"][drawn] > -np.inf).all()
    assert np.isfinite(weights).all() and (weights >= 0).all()
    if not VARIANTS[name][1]:
        real = drawn[weights > 0]
        assert len(set(real)) == len(real)
        assert (drawn[weights == 0] == drawn[0]).all()
    clipped, ratio, normalised = out["importance"]
    assert np.isfinite(out["importance"]).all()
    assert ((clipped >= np.float32(0.1)) & (clipped <= 10)).all()
    np.testing.assert_allclose(normalised.mean(), 1.0, rtol=1e-5)
    was, becomes = out["changes"]
    with np.errstate(invalid="ignore"):
        expected = np.where(becomes > -np.inf, np.exp((becomes - was).clip(max=80)), 0.0)
    np.testing.assert_allclose(ratio, expected, rtol=1e-4, atol=TINY)


hardest = jax.jit(samplers.hardest, static_argnums=1)


@cases(100, values=st.lists(st.integers(-3, 40), min_size=200, max_size=200), k=st.sampled_from([1, 3, 200]))
def test_hardest_is_the_head_of_a_stable_sort(values, k):
    indices, top = hardest(np.float32(values), k)
    expected = np.argsort(-np.array(values), kind="stable")[:k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(top, np.float32(values)[expected])


def test_weights_of_a_loss_that_rises_without_bound_are_finite():
    """With ``beta = inf`` the ratio's log is beyond float32; found by the property above."""
    sampler, values = samplers.hardness(3, np.inf), np.float32([0.0, 1e9, 2e9])
    weights = sampler.importance_weights(sampler.init(0.0), jnp.arange(3), values, "self_normalised")
    np.testing.assert_allclose(weights.sum(), 3.0)
    host = samplers.HostSampler(3, 0.0, np.inf)
    np.testing.assert_array_equal(host.importance_weights(np.arange(3), values, "self_normalised"), weights)


def test_the_weight_of_what_cannot_be_drawn_is_zero():
    """And not 0 / 0; found by the property above."""
    prior, indices, values = np.float32([0.0, 1.0, 1.0]), np.arange(3), np.zeros(3, np.float32)
    sampler = samplers.hardness(3, 1.0, prior=prior)
    weights = sampler.importance_weights(sampler.init(1.0), indices, values, "tree")
    np.testing.assert_allclose(weights, [0.0, 1.0, 1.0], rtol=1e-6)
    host = samplers.HostSampler(3, 1.0, 1.0, prior=prior)
    np.testing.assert_allclose(host.importance_weights(indices, values, "tree"), weights, rtol=1e-6)

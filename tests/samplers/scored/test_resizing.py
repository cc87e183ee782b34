"""Examples that are added and removed: the rest keep their history, and draws are those of a sampler made anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import HostSampler, hardness, proportional, when_it_pays, with_ages
from tests.samplers.scored.cases import KEY, LOSSES, N, compiled
from tests.samplers.scored.host_cases import assert_states_agree

MORE = 5
NEW = np.float32([0.3, np.nan, 2.0, 1.0, 0.1])
VALUES = np.abs(LOSSES) + np.float32(0.1)
KEPT = np.array([i for i in range(N) if i not in (0, 7, 8, N - 1)])
GONE = np.array([7, 0, N - 1, 8, 7], np.uint8)


def makers():
    def prior_of(n):
        return np.arange(1.0, n + 1)

    return {
        "hardness": lambda n: hardness(n, 2.0),
        "with prior and floor": lambda n: hardness(n, 2.0, prior=prior_of(n), floor=0.2),
        "without replacement": lambda n: hardness(n, 2.0, replacement=False, decay=0.5),
        "proportional": lambda n: proportional(n, floor=0.1),
        "with ages": lambda n: with_ages(hardness(n, 2.0)),
        "when it pays": lambda n: when_it_pays(proportional(n, floor=0.1)),
    }


def assert_same_draws(sampler, state, fresh):
    # Two programs round differently.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, fresh)
    got, want = sampler.sample(state, KEY, 6), sampler.sample(fresh, KEY, 6)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5)
    np.testing.assert_allclose(sampler.log_probs(state), sampler.log_probs(fresh), rtol=1e-5)


@pytest.mark.parametrize("name", makers())
def test_a_state_is_that_of_a_sampler_made_anew_with_the_same_values(name):
    make = makers()[name]
    old, more, fewer = (compiled(make(n)) for n in (N, N + MORE, len(KEPT)))
    state = old.update(old.init(VALUES), jnp.arange(4), jnp.array([3.0, 4.0, 5.0, 6.0]))
    stored = np.asarray(state.values)

    extended = more.extend(state, NEW)
    known = np.where(np.isnan(NEW), stored.max(), NEW)
    np.testing.assert_array_equal(extended.values, np.append(stored, known))
    removed = fewer.remove(state, GONE)
    np.testing.assert_array_equal(removed.values, stored[KEPT])

    if name == "with ages":
        assert extended.visits.tolist() == [1] * 4 + [0] * (N + MORE - 4) and int(extended.step) == 1
        assert extended.ages.tolist() == [0] * 4 + [1] * (N + MORE - 4)
        assert removed.visits.tolist() == np.asarray(state.visits)[KEPT].tolist()
        extended, removed = extended.inner, removed.inner
        more, fewer = (compiled(hardness(n, 2.0)) for n in (N + MORE, len(KEPT)))
    if name == "when it pays":
        for field in ("on", "mass", "norm", "uniform", "drawn"):
            assert getattr(extended, field) == getattr(removed, field) == getattr(state, field)
        extended, removed = extended.inner, removed.inner
        more, fewer = (compiled(proportional(n, floor=0.1)) for n in (N + MORE, len(KEPT)))
    assert_same_draws(more, extended, more.init(np.append(stored, known)))
    assert_same_draws(fewer, removed, fewer.init(stored[KEPT]))


def test_a_scalar_is_for_all_new_ones_and_a_key_breaks_their_ties_only():
    state = hardness(N, 1.0).init(VALUES)
    more = hardness(N + MORE, 1.0)
    assert more.extend(state, 1.0).values[N:].tolist() == [1.0] * MORE
    values = np.asarray(more.extend(state, 1.0, KEY).values)
    np.testing.assert_array_equal(values[:N], VALUES)
    assert len(set(values[N:])) == MORE and np.abs(values[N:] - 1.0).max() < 0.01
    np.testing.assert_array_equal(hardness(N, 1.0).extend(state, ()).values, VALUES)


@pytest.mark.parametrize("settings", [{}, {"prior": True, "floor": 0.1}])
def test_the_hosts_sampler_extends_and_removes_as_jaxs(settings):
    def given(n):
        return {**settings, "prior": np.arange(1.0, n + 1)} if settings else {}

    host, sampler = HostSampler(N, VALUES, 1.5, **given(N)), hardness(N, 1.5, **given(N))
    state = sampler.init(VALUES)
    more, fewer = N + MORE, N + MORE - 3
    state = hardness(more, 1.5, **given(more)).extend(state, NEW)
    host.extend(NEW, given(more).get("prior"))
    assert_states_agree(host.state, state)
    state = hardness(fewer, 1.5, **given(fewer)).remove(state, [0, 5, 6])
    host.remove([0, 5, 6], given(fewer).get("prior"))
    assert_states_agree(host.state, state)
    indices, _ = host.sample(3, 8)
    want, _ = hardness(fewer, 1.5, **given(fewer)).sample(state, jax.random.key(3), 8)
    assert indices.tolist() == want.tolist() and host.n == fewer


def test_what_does_not_fit_is_named():
    state, host = hardness(4, 1.0).init(1.0), HostSampler(4, 1.0, 1.0)
    with pytest.raises(ValueError, match="extend takes the state of at most 3 examples, got one of 4"):
        hardness(3, 1.0).extend(state, 1.0)
    with pytest.raises(ValueError, match=r"values must be a scalar or have shape \(2,\), got \(3,\)"):
        hardness(6, 1.0).extend(state, np.ones(3))
    with pytest.raises(ValueError, match="remove leaves 3 of 4 examples, and the sampler is for 2"):
        hardness(2, 1.0).remove(state, [1])
    for remove in (lambda indices: hardness(3, 1.0).remove(state, indices), host.remove):
        with pytest.raises(ValueError, match=r"indices must be in \[0, 4\), got 4 to 4"):
            remove([4])
        with pytest.raises(TypeError, match="indices must be integers, got float64"):
            remove([1.0])
    with pytest.raises(TypeError, match="remove needs indices that are not traced"):
        jax.jit(hardness(3, 1.0).remove)(state, jnp.array([1]))
    with pytest.raises(ValueError, match="extend is for samplers on one device, got axis_name='data'"):
        hardness(6, 1.0, axis_name="data").extend(state, 1.0)
    with pytest.raises(ValueError, match="values must be a vector, one entry per new example"):
        host.extend(1.0)
    with pytest.raises(ValueError, match="must leave at least one of 4 examples"):
        host.remove([0, 1, 2, 3])
    with pytest.raises(ValueError, match="prior must be given where the sampler has one, and only there"):
        host.extend([1.0], np.ones(5))
    weighted = HostSampler(4, 1.0, 1.0, prior=np.ones(4))
    with pytest.raises(ValueError, match=r"prior must have shape \(5,\), got \(4,\)"):
        weighted.extend([1.0], np.ones(4))

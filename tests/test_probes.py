import jax
import numpy as np
import pytest

from mixjax import probes, samplers

GROUPS = samplers.partition(np.repeat([0, 1], [40, 60]))
KEY = jax.random.key(0)


def test_fixed_points_are_the_first_of_each_domain_at_every_update():
    source = probes.fixed_points(GROUPS, 3)
    for key in jax.random.split(KEY, 2):
        indices, ids = source(key)
        assert indices.tolist() == [0, 1, 2, 40, 41, 42] and ids.tolist() == [0, 0, 0, 1, 1, 1]


def test_fixed_points_take_all_of_a_smaller_domain():
    indices, ids = probes.fixed_points(samplers.partition([0, 1, 1]), 100)(KEY)
    assert indices.tolist() == [0, 1, 2] and ids.tolist() == [0, 1, 1]


def test_whole_hold_out_is_disjoint_from_training():
    train, held_out = samplers.split(GROUPS, 0.9)
    indices, ids = probes.whole_hold_out(held_out)(KEY)
    assert indices.tolist() == [36, 37, 38, 39, 94, 95, 96, 97, 98, 99] and ids.tolist() == [0] * 4 + [1] * 6
    drawn = samplers.with_replacement(KEY, train, np.repeat([0, 1], 500))
    assert not set(np.asarray(drawn).tolist()) & set(indices.tolist())


def test_hold_out_draws_follow_algorithm_1():
    _, held_out = samplers.split(GROUPS, 0.5)
    source = jax.jit(probes.hold_out_draws(held_out, [40, 60], rho=0.5, rounds=5))  # M = 0.1: 4 and 6 points
    draws = [source(key) for key in jax.random.split(KEY, 200)]
    for indices, ids in draws:
        assert ids.tolist() == [0] * 4 + [1] * 6
        assert len(set(indices.tolist())) == 10
        assert ((indices[:4] >= 20) & (indices[:4] < 40)).all() and (indices[4:] >= 70).all()
    seen = np.concatenate([indices for indices, _ in draws])
    assert len(set(seen.tolist())) == 50  # R_d does not shrink: every held-out point keeps coming


def test_hold_out_draws_take_at_least_one_point():
    _, held_out = samplers.split(GROUPS, 0.9)
    indices, _ = probes.hold_out_draws(held_out, [40, 60], rho=0.9, rounds=1000)(KEY)
    assert indices.shape == (2,)


def test_fresh_draws_differ_from_update_to_update():
    source = probes.fresh_draws(GROUPS, 16)
    (a, ids), (b, _) = (source(key) for key in jax.random.split(KEY, 2))
    assert ids.tolist() == [0] * 16 + [1] * 16 and (np.asarray(a) != np.asarray(b)).any()
    assert (a[:16] < 40).all() and (a[16:] >= 40).all()


def test_sources_run_under_jit_and_vmap():
    _, held_out = samplers.split(GROUPS, 0.5)
    for source in (
        probes.fixed_points(GROUPS, 3),
        probes.hold_out_draws(held_out, [40, 60], rho=0.5, rounds=5),
        probes.fresh_draws(GROUPS, 4),
    ):
        keys = jax.random.split(KEY, 3)
        batched = jax.jit(jax.vmap(lambda key, source=source: source(key)[0], out_axes=0))(keys)
        for row, key in zip(batched, keys, strict=True):
            np.testing.assert_array_equal(row, source(key)[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: probes.fixed_points(GROUPS, 0),
        lambda: probes.fresh_draws(GROUPS, 0),
        lambda: probes.hold_out_draws(GROUPS, [40, 60], rho=1.0, rounds=5),
        lambda: probes.hold_out_draws(GROUPS, [40, 60], rho=0.5, rounds=0),
    ],
)
def test_ranges_are_checked(make):
    with pytest.raises(ValueError, match=r"at least 1|rho in \(0, 1\)"):
        make()

"""Tests the mixtures of swarms: their bounds, their centre, and how evenly they fill the simplex."""

import numpy as np
import pytest

import mixjax
from mixjax import design

PRIOR = np.array([0.7, 0.2, 0.1])


@pytest.mark.parametrize("kind", ["dirichlet", "sobol", "d_optimal"])
def test_mixtures_are_within_bounds_repeated_and_the_same_again(kind):
    found = design.swarm(PRIOR, 30, kind=kind, floor=0.02, min_share=[0.05, 0, 0], max_share=0.8, repeats=2)
    assert found.shape == (60, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found[::2], found[1::2])
    assert (found[:, 0] >= 0.05 - 1e-9).all() and (found <= 0.8 + 1e-9).all()
    assert ((found == 0) | (found >= 0.02)).all()
    assert len(np.unique(found, axis=0)) == 30
    again = design.swarm(PRIOR, 30, kind=kind, floor=0.02, min_share=[0.05, 0, 0], max_share=0.8, repeats=2)
    np.testing.assert_array_equal(again, found)
    other = design.swarm(PRIOR, 30, kind=kind, floor=0.02, min_share=[0.05, 0, 0], max_share=0.8, seed=1)
    assert not np.array_equal(other, found[::2])


@pytest.mark.parametrize(("temperature", "centre"), [(1.0, PRIOR), (0.0, np.full(3, 1 / 3))])
def test_the_centre_is_the_tempered_prior(temperature, centre):
    found = design.swarm(PRIOR, 4000, temperature=temperature)
    np.testing.assert_allclose(found.mean(axis=0), centre, atol=4 * 0.4 / np.sqrt(4000))
    # The strengths go from nearly one domain alone to near the centre.
    assert (found.max(axis=1) > 0.99).mean() > 0.05 and (np.abs(found - centre).max(axis=1) < 0.1).any()


def test_a_domain_without_prior_stays_out():
    assert (design.swarm([0.5, 0.5, 0.0], 20, temperature=0.0)[:, 2] == 0).all()


def test_sobol_fills_the_simplex_more_evenly_than_chance():
    """The share of mixtures in which a domain has less than a half is 3/4 for each of three domains."""
    even = design.swarm(PRIOR, 64, kind="sobol")
    np.testing.assert_allclose((even < 0.5).mean(axis=0), 0.75, atol=0.04)
    np.testing.assert_allclose(even.mean(axis=0), 1 / 3, atol=0.01)


@pytest.mark.parametrize(("size", "num", "max_share"), [(4, 20, 0.4), (5, 40, 0.3)])
@pytest.mark.parametrize("kind", ["dirichlet", "sobol"])
def test_bounds_that_few_mixtures_meet_take_many_draws(kind, size, num, max_share):
    found = design.swarm(np.ones(size), num, kind=kind, max_share=max_share)
    assert len(np.unique(found, axis=0)) == num and (found <= max_share + 1e-9).all()


def test_the_mixtures_are_points_of_a_sweep():
    def train(key, hparams, data):
        return {"loss": (hparams["mixture"] ** 2).sum()}

    mixtures = design.swarm(PRIOR, 4)
    result = mixjax.sweep(train, seeds=2, points={"mixture": mixtures.tolist()})
    np.testing.assert_allclose(result.loss.values[:, 0], (mixtures**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": [0.5, -0.5]}, "prior must be finite, non-negative"),
        ({"num": 0}, "num must be an integer of at least 1, got 0"),
        ({"repeats": 0}, "repeats must be an integer of at least 1, got 0"),
        ({"kind": "grid"}, "kind must be one of 'dirichlet', 'sobol', 'd_optimal', got 'grid'"),
        ({"temperature": 2.0}, r"temperature must be in \[0, 1\], got 2.0"),
        ({"floor": 0.5}, r"floor must be in \[0, 0.333333\], got 0.5"),
        ({"max_share": 0.2}, "max_share must leave room"),
        ({"min_share": [0.999, 0.0005, 0.0005]}, "the bounds leave too little room: of 32000 mixtures 0 were within"),
    ],
)
def test_what_cannot_be_drawn_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        design.swarm(**({"prior": PRIOR, "num": 4} | changes))

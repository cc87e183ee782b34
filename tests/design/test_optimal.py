"""Tests D-optimal designs against all designs of small cases, against theory, and against other swarms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax import design
from mixjax.design.laws import LAWS
from mixjax.design.optimal import d_optimal, nominal_jacobian


def information(rows):
    """Returns the sum of the logarithms of the determinants, for designs [K, n, P]."""
    return np.linalg.slogdet(np.einsum("knp,knq->kpq", rows, rows))[1].sum()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_no_exchange_of_one_run_is_better(seed, num_designs):
    rows = np.random.default_rng(seed).normal(size=(num_designs, 9, 2))
    chosen = d_optimal(rows, 4)
    assert len(set(chosen.tolist())) == 4
    found = information(rows[:, chosen])
    for place, other in itertools.product(range(4), set(range(9)) - set(chosen.tolist())):
        changed = chosen.copy()
        changed[place] = other
        assert information(rows[:, changed]) <= found + 1e-6
    everything = max(information(rows[:, list(each)]) for each in itertools.combinations(range(9), 4))
    # An exchange of one at a time may end at a design that is best among its neighbours alone.
    assert found >= everything - 0.3


def test_the_quadratic_law_gets_the_lattice_of_scheffe():
    """Kiefer, 1961: corners and midpoints of edges, for any number of domains."""
    corners = np.eye(4)
    midpoints = np.array([0.5 * (corners[a] + corners[b]) for a, b in itertools.combinations(range(4), 2)])
    pool = np.concatenate([np.random.default_rng(0).dirichlet(np.ones(4), 300), corners, midpoints])
    chosen = d_optimal(nominal_jacobian(LAWS["quadratic"], pool), 10)
    assert sorted(chosen) == list(range(300, 310))


@pytest.mark.parametrize("law", LAWS)
def test_a_swarm_tells_more_about_its_law_than_others_do(law):
    prior = np.ones(4)
    found = {kind: design.swarm(prior, 16, kind=kind, law=law) for kind in ("d_optimal", "dirichlet", "sobol")}
    # At parameters that are not the nominal ones.
    together = np.concatenate(list(found.values()))
    losses = np.exp(-2.0 * together.T) + 0.3 * together @ np.arange(4.0)
    params = LAWS[law].fit(together, losses, np.full(4, np.inf), None)
    told = {kind: information(LAWS[law].jacobian(params, mixtures)) for kind, mixtures in found.items()}
    assert told["d_optimal"] > max(told["dirichlet"], told["sobol"]) + 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num": 4}, "num must be above the 4 parameters of the law 'log_linear', got 4"),
        ({"law": "cubic"}, "law must be one of 'log_linear', 'power', 'quadratic', got 'cubic'"),
        ({"prior": [0.5, 0.5, 0.0]}, "prior must be positive for 'd_optimal', got 0 for 'domain_2'"),
        ({"domains": ["a"]}, "domains must have a name for each of 3 shares of the prior, got 1"),
    ],
)
def test_what_cannot_be_designed_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        design.swarm(**({"prior": np.ones(3), "num": 9, "kind": "d_optimal"} | changes))

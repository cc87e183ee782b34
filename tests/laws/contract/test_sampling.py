"""Tests that sampling rules draw from every weighted domain and fall back to the loss weights."""

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.laws.contract.cases import (
    BASE,
    CASES,
    PRIOR,
    PRIORS,
    assert_simplex,
    change,
    draw_signals,
    extreme_signals,
    jitted,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(PRIORS, st.lists(extreme_signals(), min_size=3, max_size=3))
def test_sampling_rules_draw_from_every_weighted_domain(prior, steps):
    for name in CASES:
        if CASES[name].sampling:
            note(name)
            state = jitted(name).init(prior)
            for signals in steps:
                state = jitted(name).update(state, **signals)
                if signals["counts"].any():
                    needed = (signals["loss_weights"] > 0) & (prior > 0)
                    assert (np.asarray(state.weights)[needed] > 0).all()


@pytest.mark.parametrize("name", [name for name in BASE if BASE[name].sampling])
@pytest.mark.parametrize("counts", [[4, 4, 4], [0, 4, 4]])
@pytest.mark.parametrize("c", [[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
def test_all_zero_scores_fall_back_to_the_loss_weights(name, counts, c):
    zeros = draw_signals(0) | {key: np.zeros(3, np.float32) for key in ("grad_stds", "grad_norms", "losses")}
    c = np.float32(c)
    state = jitted(name).update(jitted(name).init(c), **zeros | {"loss_weights": c, "counts": np.int32(counts)})
    np.testing.assert_allclose(state.weights, c, rtol=1e-6)
    state = jitted(name).update(jitted(name).init(PRIOR), **zeros | {"loss_weights": c, "counts": np.int32([4, 4, 4])})
    np.testing.assert_allclose(state.weights, c, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("name", [name for name in BASE if BASE[name].sampling])
def test_weight_only_on_rows_never_seen_stays_on_the_simplex(name):
    c = np.float32([1.0, 0.0, 0.0])
    signals = change(draw_signals(0) | {"loss_weights": c}, 0, counts=0)
    state = jitted(name).update(jitted(name).init(PRIOR), **signals)
    assert_simplex(state.weights)
    assert state.weights[0] > 0

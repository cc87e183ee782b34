"""Tests the experiment on lemma 2.1 of paper 003."""

import numpy as np
import pytest

from experiments.resampling_reweighting import equilibrium
from experiments.resampling_reweighting.two_slopes import Piecewise


def test_log_odds_of_the_lemma_fall_with_the_learning_rate():
    odds = [equilibrium.log_odds(equilibrium.lemma_mass(Piecewise(), rate)) for rate in (0.2, 0.1, 0.04)]
    assert (np.diff(odds) < 0).all()
    assert equilibrium.log_odds(0.5) == 0.0
    np.testing.assert_allclose(equilibrium.log_odds(0.2), -equilibrium.log_odds(0.8))


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(run_tiny):
    rows = run_tiny("equilibrium", "num_steps=400")
    assert set(rows) == {"sgd_equilibrium", "sgd_prefers_flat", "rr_equilibrium", "exact_equilibrium"}

"""Tests how laws are compared: left-out mixtures, scores, and the sentence about them."""

import numpy as np
import pytest
import scipy.stats

from mixjax import design
from mixjax.design.choosing import verdict
from tests.design.synthetic import swarm


@pytest.fixture(scope="module")
def runs():
    _, mixtures, losses = swarm(3, 2, 30, 0.02, seed=0, repeats=2)
    return design.as_swarm(mixtures, losses)


@pytest.fixture(scope="module")
def scores(runs):
    return design.cross_validate(runs, seed=1)


def test_scores_are_those_of_the_predictions(runs, scores):
    assert [score.law for score in scores] == ["log_linear", "power", "quadratic"] or scores[0].law != "quadratic"
    assert np.all(np.diff([score.errors.mean() for score in scores]) >= 0)
    for score in scores:
        for m in range(2):
            expected = scipy.stats.spearmanr(score.predicted[:, m], runs.losses[:, m]).statistic
            assert score.spearman[m] == pytest.approx(expected)
        error = np.square(score.predicted - runs.losses).mean(axis=0) / runs.losses.var(axis=0)
        np.testing.assert_allclose(score.r2, 1 - error)
        assert score.errors.mean() == pytest.approx(error.mean())
        assert (score.coverage > 0.75).all()


def test_repeats_of_a_mixture_are_left_out_together(runs, scores):
    """Else the prediction for a run would know its twin: both runs of a mixture have the same one."""
    np.testing.assert_array_equal(scores[0].predicted[::2], scores[0].predicted[1::2])


def test_a_left_out_run_does_not_move_its_own_prediction(runs, scores):
    losses = runs.losses.copy()
    losses[:2] += 1.0
    moved = design.cross_validate(design.as_swarm(runs.mixtures, losses), ["quadratic"], seed=1, resamples=20)
    (before,) = (score for score in scores if score.law == "quadratic")
    np.testing.assert_allclose(moved[0].predicted[:2], before.predicted[:2], rtol=1e-12)
    assert not np.allclose(moved[0].predicted[2:], before.predicted[2:], rtol=1e-3)


def test_the_verdict_says_by_how_much(runs, scores):
    text = verdict(scores, runs)
    assert text.startswith(f"{scores[0].law} predicts left-out runs best: R² 0.9") and "± " in text
    assert verdict(scores[:1], runs).startswith(f"{scores[0].law} alone was tried: R² 0.9")
    same = verdict((scores[0], scores[0]._replace(law="twin")), runs)
    assert same.endswith("which is no clear difference")


def test_laws_and_folds_are_checked(runs):
    with pytest.raises(ValueError, match=r"laws must be one of 'log_linear', 'power', .*, got 'cubic'"):
        design.cross_validate(runs, ["cubic"])
    with pytest.raises(ValueError, match="folds must be an integer of at least 2, got 1"):
        design.cross_validate(runs, folds=1)
    few = design.as_swarm(runs.mixtures[:10], runs.losses[:10])
    with pytest.raises(ValueError, match=r"5 mixtures must be left .* got 5 mixtures in all; add runs, or name a law"):
        design.cross_validate(few)
    with pytest.raises(ValueError, match="'quadratic' has 6 parameters for 3 domains and needs more mixtures"):
        design.cross_validate(few, ["quadratic"])

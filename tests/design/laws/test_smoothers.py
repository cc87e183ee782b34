"""Laws that hold for every regression without a formula: shapes, derivatives, units, outliers, and their proposals."""

import builtins
import pickle

import numpy as np
import pytest

from mixjax import design
from mixjax.design.laws import LAWS, SMOOTHERS
from tests.design.synthetic import swarm

FRESH = np.random.default_rng(9).dirichlet(np.ones(3), 30)


@pytest.fixture(scope="module", params=list(SMOOTHERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def runs():
    return swarm(3, 2, 40, 0.01, seed=0)


@pytest.fixture(scope="module")
def fitted(name, runs):
    _, mixtures, losses = runs
    return design.fit(mixtures, losses, law=name, resamples=20)


def test_predicts_a_smooth_law_with_intervals_around(fitted, runs):
    truth = LAWS["log_linear"].predict(runs[0], FRESH).T
    mean, low, high = fitted.predict(FRESH)
    assert (low <= mean).all() and (mean <= high).all()
    error = np.square(mean - truth).mean() / truth.var()
    assert error < (0.01 if fitted.law == "gaussian_process" else 0.3)
    assert np.mean((low <= truth) & (truth <= high)) > 0.6
    wide = fitted.predict(FRESH, "run")
    np.testing.assert_array_equal(wide[0], mean)
    assert (wide[2] - wide[1]).mean() >= 0.99 * (high - low).mean()


def test_same_seed_same_fit_and_pickled_fits_predict_the_same(fitted, runs):
    _, mixtures, losses = runs
    again = design.fit(mixtures, losses, law=fitted.law, resamples=20).predict(FRESH)
    copied = pickle.loads(pickle.dumps(fitted)).predict(FRESH)
    for mine, other, third in zip(fitted.predict(FRESH), again, copied, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-9)
        np.testing.assert_array_equal(third, mine)


def test_does_not_depend_on_the_unit_of_the_losses(name, runs):
    _, mixtures, losses = runs
    plain = design.fit(mixtures, losses[:, :1], law=name, resamples=20).predict(FRESH)
    changed = design.fit(mixtures, 100.0 * losses[:, :1] - 7.0, law=name, resamples=20).predict(FRESH)
    for mine, other in zip(plain, changed, strict=True):
        np.testing.assert_allclose((other + 7.0) / 100.0, mine, atol=5e-3)


def test_slopes_are_derivatives_of_the_predictions(fitted):
    surface = fitted.surface()
    values, slopes = surface.slopes(surface.resampled[:2], FRESH[:2])
    assert values.shape == (2, 2) and slopes.shape == (2, 2, 3)
    for b in range(2):
        expected = surface.predict(surface.resampled[b], FRESH[b : b + 1])[:, 0]
        np.testing.assert_allclose(values[b], expected, rtol=1e-9)
        if surface.is_smooth:
            for d in range(2):
                moved = np.array(FRESH[b : b + 1])
                moved[0, d] += 1e-6
                moved[0, 2] -= 1e-6
                numeric = (surface.predict(surface.resampled[b], moved)[:, 0] - values[b]) / 1e-6
                np.testing.assert_allclose(slopes[b, :, d] - slopes[b, :, 2], numeric, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [3.0, 1e6, -50.0])
def test_a_run_that_diverged_moves_the_predictions_little(name, runs, size):
    _, mixtures, losses = runs
    mean, _, _ = design.fit(mixtures, losses[:, :1], law=name, resamples=20).predict(FRESH)
    losses = losses[:, :1].copy()
    losses[4] += size
    moved, low, high = design.fit(mixtures, losses, law=name, resamples=20).predict(FRESH)
    assert np.abs(moved - mean).mean() < 0.1 * np.ptp(mean)
    assert (high - low).mean() < np.ptp(mean)


def test_proposals_are_good_by_the_fit_and_within_bounds(fitted, runs):
    found = design.propose(fitted, max_share=0.7)
    values = fitted.predict(FRESH)[0].mean(axis=1)
    allowed = found.bounds.allow(FRESH)
    assert found.value <= np.quantile(values[allowed], 0.2) and found.low <= found.value <= found.high
    assert found.weights.sum() == pytest.approx(1.0) and found.weights.max() <= 0.7 + 1e-9
    assert found.contains(found.region).all()
    truth = LAWS["log_linear"].predict(runs[0], np.vstack([found.weights, FRESH])).mean(axis=0)
    assert truth[0] <= np.quantile(truth[1:], 0.2)


def test_few_mixtures_are_an_error(name):
    _, mixtures, losses = swarm(3, 1, 3, 0.01, seed=0)
    with pytest.raises(ValueError, match=rf"the law '{name}' needs more than \d+ mixtures for 3 domains, got 3"):
        design.fit(mixtures, losses, law=name)


@pytest.mark.parametrize(
    ("law", "module", "package"),
    [("gaussian_process", "sklearn", "scikit-learn"), ("lightgbm", "lightgbm", "lightgbm")],
)
def test_a_missing_package_is_named_as_pip_knows_it(monkeypatch, runs, law, module, package):
    plain = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=rf"the law '{law}' needs {module}: pip install {package}"):
        design.fit(runs[1], runs[2], law=law, resamples=20)


def test_laws_and_regressions_are_compared_where_they_are_named(runs):
    _, mixtures, losses = runs
    fitted = design.fit(mixtures, losses[:, :1], law=["quadratic", "gaussian_process"], resamples=20)
    assert {score.law for score in fitted.scores} == {"quadratic", "gaussian_process"}
    assert fitted.law == fitted.scores[0].law == "gaussian_process"
    assert (fitted.scores[0].r2 > 0.98).all() and (fitted.scores[0].coverage > 0.7).all()
    with pytest.raises(ValueError, match="several names without 'auto'"):
        design.fit(mixtures, losses, law=["power", "auto"])

"""Laws that hold for every law in tokens: at one budget it is the law of the mixture, and it extrapolates to others."""

import numpy as np
import pytest

from mixjax import design
from mixjax.design.laws import LAWS, TOKEN_LAWS

RNG = np.random.default_rng(3)
MIXTURES = RNG.dirichlet(np.ones(3), 30).repeat(2, axis=0)
BUDGETS = np.resize([1e6, 4e6, 1.6e7], 60)
FRESH = RNG.dirichlet(np.ones(3), 20)
PARAMS = {
    "log_linear": np.array([[1.0, -2.0, 0.3, 0.2, -0.3], [2.0, 0.4, -3.0, 0.1, -0.15]]),
    "power": np.array([[1.0, 0.5, 0.3, 30.0, 2.0, 1.0], [2.0, 0.7, 0.15, 1.0, 25.0, 3.0]]),
}


def logs(budgets):
    return np.log(budgets) - np.log(BUDGETS).mean()


INPUTS = np.column_stack([MIXTURES, logs(BUDGETS)])


@pytest.fixture(scope="module", params=list(TOKEN_LAWS))
def law(request):
    return TOKEN_LAWS[request.param]


@pytest.fixture(scope="module")
def fitted(law):
    noise = 0.003 * np.random.default_rng(0).normal(size=(60, 2))
    losses = law.predict(PARAMS[law.name], INPUTS).T + noise
    return design.fit(MIXTURES, losses, law=law.name, budgets=BUDGETS, resamples=60)


def test_at_one_budget_it_is_the_law_of_the_mixture(law):
    inputs = np.column_stack([FRESH, np.full(20, 1.7)])
    plain = LAWS[law.name].predict(law.at(PARAMS[law.name], 1.7), FRESH)
    np.testing.assert_allclose(law.predict(PARAMS[law.name], inputs), plain, rtol=1e-9)
    assert law.num_parameters(4) == PARAMS[law.name].shape[1] == law.plain.num_parameters(3) + 1


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_finds_its_own_parameters_again_in_any_unit_and_from_a_start(law, unit):
    losses = unit * law.predict(PARAMS[law.name], INPUTS)
    found = law.fit(INPUTS, losses, np.full(2, np.inf), None)
    np.testing.assert_allclose(law.predict(found, INPUTS), losses, atol=2e-3 * unit)
    again = law.fit(INPUTS, losses, np.full(2, np.inf), found)
    np.testing.assert_allclose(law.predict(again, INPUTS), losses, atol=2e-3 * unit)


def test_jacobian_is_the_derivative_by_the_parameters(law):
    params = PARAMS[law.name]
    plain, jacobian = law.predict(params, INPUTS), law.jacobian(params, INPUTS)
    for p in range(params.shape[1]):
        moved = params.copy()
        moved[:, p] += 1e-6
        numeric = (law.predict(moved, INPUTS) - plain) / 1e-6
        np.testing.assert_allclose(jacobian[..., p], numeric, rtol=1e-3, atol=1e-5)


def test_size_and_mixture_extrapolate_together(law, fitted):
    """Three times the largest budget of a run, at mixtures that no run had."""
    budget = 5e7
    truth = law.plain.predict(law.at(PARAMS[law.name], float(logs(budget))), FRESH).T
    mean, low, high = fitted.predict(FRESH, budget=budget)
    assert np.abs(mean - truth).max() < 0.05 and ((low <= truth) & (truth <= high)).mean() > 0.6
    assert (fitted.predict(FRESH, budget=1e6)[0] > mean).all()
    mixed = fitted.predict(FRESH[:2], budget=[1e6, budget])[0]
    np.testing.assert_allclose(mixed[1], mean[1])
    np.testing.assert_allclose(mixed[0], fitted.predict(FRESH[:1], budget=1e6)[0][0])


def test_proposals_are_for_a_budget(fitted):
    small, big = (design.propose(fitted, budget=budget) for budget in (1e6, 1e9))
    assert big.value < small.value and big.low <= big.value <= big.high
    assert big.value == pytest.approx(fitted.predict(big.weights, budget=1e9)[0].mean())
    # The metric whose loss falls more slowly with tokens counts for more, the more tokens there are.
    assert np.abs(big.weights - small.weights).max() > 0.01
    assert big.comparisons[-1].name == "the swarm's best run"


def test_auto_compares_the_laws_in_tokens():
    noise = 0.003 * np.random.default_rng(0).normal(size=60)
    losses = (TOKEN_LAWS["power"].predict(PARAMS["power"][0], INPUTS) + noise)[:, None]
    found = design.fit(MIXTURES, losses, budgets=BUDGETS, resamples=20)
    assert {score.law for score in found.scores} == set(TOKEN_LAWS)
    assert found.law == "power" and found.scores[0].r2[0] > 0.99
    # A mixture at another budget is left out with it: its own losses there would tell too much.
    losses[MIXTURES[:, 0] == MIXTURES[0, 0]] += 0.2
    moved = design.cross_validate(design.as_swarm(MIXTURES, losses, budgets=BUDGETS), ["power"], resamples=20)
    np.testing.assert_allclose(moved[0].predicted[:2], found.scores[0].predicted[:2], atol=1e-3)


def test_an_outlier_moves_the_fit_little(law):
    losses = law.predict(PARAMS[law.name], INPUTS).T + 0.003 * np.random.default_rng(0).normal(size=(60, 2))
    losses[7] += 1e3
    mean, _, _ = design.fit(MIXTURES, losses, law=law.name, budgets=BUDGETS, resamples=20).predict(FRESH, budget=4e6)
    truth = law.plain.predict(law.at(PARAMS[law.name], float(logs(4e6))), FRESH).T
    assert np.abs(mean - truth).mean() < 0.01


def test_budgets_are_checked(fitted):
    mixtures, losses = fitted.swarm.mixtures, fitted.swarm.losses
    for budgets, message in [
        (BUDGETS[:5], r"budgets must be \[60\], a number of tokens per run, got shape \(5,\)"),
        (np.where(np.arange(60) == 3, -1.0, BUDGETS), "row 3: the budget must be a positive number of tokens, got -1"),
        (np.full(60, 2e6), r"budgets must differ between runs, got 2e\+06 for all of them; leave them out"),
    ]:
        with pytest.raises(ValueError, match=message):
            design.fit(mixtures, losses, law="power", budgets=budgets)
    with pytest.raises(TypeError, match="budgets must be numbers of tokens, got list"):
        design.fit(mixtures, losses, budgets=["a"] * 60)
    with pytest.raises(ValueError, match="law must be one of 'auto', 'log_linear', 'power', got 'quadratic'"):
        design.fit(mixtures, losses, law="quadratic", budgets=BUDGETS)
    for budget in (None, -1.0, np.inf):
        with pytest.raises(ValueError, match="budget must be a positive number of tokens, got"):
            fitted.predict(FRESH, budget=budget)
    with pytest.raises(ValueError, match=r"budget must be one number or \[20\], got shape \(3,\)"):
        fitted.predict(FRESH, budget=[1e6] * 3)
    plain = design.fit(mixtures[::2], losses[::2], law="quadratic", resamples=20)
    with pytest.raises(ValueError, match="budget must be None, since the law was fitted to runs without budgets"):
        design.propose(plain, budget=1e6)

"""Tests further rounds of a swarm: where their mixtures are, what they tell, and when the rounds end."""

import numpy as np
import pytest

from mixjax import design
from mixjax.design.laws import LAWS
from tests.design.synthetic import swarm


def proposed(params, mixtures, noise, seed=0, **changes):
    losses = LAWS["log_linear"].predict(params, mixtures).T
    losses = losses + noise * np.random.default_rng(seed).normal(size=losses.shape)
    return losses, design.propose(design.fit(mixtures, losses, law="log_linear", resamples=50), **changes)


@pytest.fixture(scope="module")
def proposal():
    params, mixtures, _ = swarm(4, 4, 24, 0.0, seed=0)
    return proposed(params, mixtures, 0.05, max_share=0.6, min_share={"domain_1": 0.05})[1]


@pytest.mark.parametrize("kind", ["informative", "thompson"])
def test_mixtures_are_within_bounds_and_the_same_again(proposal, kind):
    found = design.next_round(proposal, 12, kind=kind)
    assert found.mixtures.shape == (12, 4) and proposal.bounds.allow(found.mixtures).all()
    np.testing.assert_allclose(found.mixtures.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found.mixtures, design.next_round(proposal, 12, kind=kind).mixtures)
    assert not np.array_equal(found.mixtures, design.next_round(proposal, 12, kind=kind, seed=1).mixtures)
    assert not found.stop and str(found).startswith("go on with 12 mixtures; the proposal may lose ")
    # More than there are resamples.
    assert len(design.next_round(proposal, 60, kind=kind).mixtures) == 60


def test_thompson_takes_the_best_of_resamples(proposal):
    for mixture in design.next_round(proposal, 5, kind="thompson").mixtures:
        assert (proposal.optima == mixture).all(axis=1).any()


def left_to_learn(proposal, mixtures):
    """Returns the variance of the differences from the resamples' best that runs of these mixtures would leave."""
    points = np.concatenate([proposal.weights[None], proposal.optima, mixtures])
    losses = LAWS["log_linear"].predict(proposal.fitted.resampled, points).swapaxes(1, 2)
    covariance = np.cov(proposal.objective.value(losses).T)
    runs = proposal.fitted.swarm.losses
    noise = (proposal.objective.value(runs) - proposal.objective.value(runs - proposal.fitted.noise.T)).var()
    num = len(proposal.optima) + 1
    told = covariance[:, num:] @ np.linalg.solve(
        covariance[num:, num:] + noise * np.eye(len(mixtures)), covariance[num:]
    )
    rest = (covariance - told)[:num, :num]
    return (np.diag(rest)[1:] - 2 * rest[0, 1:] + rest[0, 0]).sum()


@pytest.mark.parametrize("objective", [None, "worst", ["loss_0", "loss_2"]])
def test_informative_runs_tell_the_best_mixtures_apart(proposal, objective):
    asked = design.propose(proposal.fitted, objective)
    found = left_to_learn(asked, design.next_round(asked, 8).mixtures)
    rng = np.random.default_rng(0)
    others = [left_to_learn(asked, rng.dirichlet(np.ones(4), 8)) for _ in range(20)]
    others += [left_to_learn(asked, design.next_round(asked, 8, kind="thompson", seed=s).mixtures) for s in range(5)]
    assert found < min(others)
    # More runs tell more.
    assert left_to_learn(asked, design.next_round(asked, 9).mixtures) < found


def test_two_rounds_are_surer_than_one_sweep():
    """The same number of runs, half of them chosen by the others, leave less that the proposal may lose."""
    informed, once = [], []
    for seed in range(5):
        params, mixtures, _ = swarm(3, 3, 24, 0.0, seed=seed)
        more = design.next_round(proposed(params, mixtures[:12], 0.02, seed)[1], 12).mixtures
        informed.append(proposed(params, np.concatenate([mixtures[:12], more]), 0.02, seed)[1].slack)
        once.append(proposed(params, mixtures, 0.02, seed)[1].slack)
    assert np.mean(informed) < np.mean(once)


def test_rounds_end_with_a_reason(proposal):
    whole = design.next_round(proposal, 3)
    assert whole.slack == proposal.slack and 0 < whole.diameter <= 1
    ends = {
        "no runs are left": design.next_round(proposal, 0),
        "the proposal loses at most": design.next_round(proposal, 3, slack=1.01 * proposal.slack),
        "the region is within": design.next_round(proposal, 3, diameter=1.01 * whole.diameter),
    }
    for reason, found in ends.items():
        assert found.stop.startswith(reason) and found.mixtures.shape == (0, 4)
        assert str(found).startswith(f"stop: {reason}")
        assert (found.slack, found.diameter) == (whole.slack, whole.diameter)
    limits = {"slack": 0.99 * proposal.slack, "diameter": 0.99 * whole.diameter}
    np.testing.assert_array_equal(design.next_round(proposal, 3, **limits).mixtures, whole.mixtures)


def test_rounds_without_noise_end_by_themselves():
    params, mixtures, _ = swarm(3, 3, 12, 0.0, seed=0)
    assert design.next_round(proposed(params, mixtures, 0.0)[1], 4, slack=1e-6).stop


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num": -1}, "num must be an integer of at least 0, got -1"),
        ({"num": 1.5}, "num must be an integer of at least 0, got 1.5"),
        ({"kind": "greedy"}, "kind must be one of 'informative', 'thompson', got 'greedy'"),
        ({"slack": -1.0}, "slack must be in"),
        ({"diameter": -0.1}, "diameter must be in"),
    ],
)
def test_what_is_no_round_is_named(proposal, changes, message):
    with pytest.raises(ValueError, match=message):
        design.next_round(proposal, **({"num": 2} | changes))

"""Tests that a designed mixture is judged against mixes that move by what is known of their losses."""

import numpy as np
import pytest

from experiments.live_mix.comparison import Comparison
from experiments.mixture_design import against_moving
from experiments.mixture_design.against_moving import Designed, designed, section, settings_of
from mixjax import design
from tests.experiments.live_mix.fake_comparison import DOMAINS, EFFECTS, results


@pytest.fixture(scope="module")
def proposal():
    mixtures = design.swarm(np.ones(4), 30, seed=0)
    noise = np.random.default_rng(0).normal(0, 0.01, (30, 4))
    losses = 1 + np.exp(-3 * mixtures) + noise
    return design.propose(design.fit(mixtures, losses, law="log_linear", domains=DOMAINS, metrics=DOMAINS))


def found_with(proposal, effect):
    """Returns a designed mixture whose losses are those of the uniform mix and an effect."""
    effects = EFFECTS | {"designed": ((effect,) * 4, effect)}
    return Designed(proposal, 30, results(timed=(), effects=effects, names=[*EFFECTS, "designed"])["designed"])


def test_verdicts_follow_the_losses(proposal):
    own = results(timed=(), effects={name: EFFECTS[name] for name in ("uniform", "odm", "ado", "aioli", "doge")})
    text = section(found_with(proposal, -0.2), own, own)
    assert "Beside the 4 mixes that move" in text and "better than Aioli, DoGE; worse than ODM, ADO." in text
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.count(" | ") == 3}
    assert "better" in rows["uniform"] and "**-0.2" in rows["uniform"] and "worse" in rows["ODM"]
    # Sorted by how far the designed mixture is above a method, most last.
    assert [name for name in rows if name in ("Aioli", "uniform", "ODM")] == ["Aioli", "uniform", "ODM"]


def test_equal_cost_is_decided_only_by_a_longer_run_that_is_better(proposal):
    own = results(timed=(), names=["uniform", "odm", "ado"])
    longer = {name: data.assign_coords(step=data.step * 4) for name, data in own.items()}
    text = section(found_with(proposal, 0.0), own, longer)
    assert "costs 31 trainings. ODM in 4 times the steps, on 4 times the rows, costs about 4, and ends 0.4" in text
    assert "a mix that moves and trains longer is better at this size" in text
    undecided = section(found_with(proposal, -0.9), own, longer)
    assert "at equal cost, the swarm included, is undecided" in undecided


def test_seeds_of_the_swarm_may_not_judge_it(proposal, monkeypatch):
    monkeypatch.setattr(against_moving, "SWARM_SEED", 1000)
    own = results(timed=(), names=["uniform", "odm"])
    with pytest.raises(ValueError, match="seed"):
        section(found_with(proposal, 0.0), own, own)


def test_settings_are_those_that_all_runs_share():
    config = {"experiment": "x:y", "width": 16, "domains": ["help", "perl"], "run": [{"name": "odm"}], "sweep": {}}
    assert settings_of(config) == Comparison(method="uniform", width=16, domains=("help", "perl"))


@pytest.mark.slow
def test_a_swarm_is_trained_and_its_mixture_too(tmp_path):
    config = Comparison(
        domains=("python", "c"), target="reference", vocabulary=256, length=8, batch_size=4, num_steps=20, width=8,
        heads=2, eval_size=4,
    )  # fmt: skip
    found = designed(config, np.arange(3), 12, tmp_path)
    assert found.num_runs == 12 and found.data["loss"].dims == ("seed", "step", "domain")
    assert np.isfinite(found.data["loss"]).all() and found.data["seed"].values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.data["sampling_weight"].isel(seed=0)[-1], found.proposal.weights, atol=0.05)
    again = designed(config, np.arange(3), 12, tmp_path)
    np.testing.assert_array_equal(found.data["loss"], again.data["loss"])

"""Tests the design of a mixture for real text: its stages, what proxies see, and what is judged by which runs."""

import dataclasses
import json

import numpy as np
import pytest
import xarray

from experiments.mixture_design import text_analysis
from experiments.mixture_design.text import Text, designed, text
from experiments.mixture_design.text_analysis import CANDIDATES, LARGE_CANDIDATES, resampled_spearman
from experiments.mixture_design.text_corpus import Corpus, rows_of
from experiments.mixture_design.text_page import section
from experiments.mixture_design.text_results import claims
from experiments.shared.token_training import Proxy
from mixjax import design
from mixjax.sweeps import HostRun

TINY = Text(
    length=8,
    eval_size=4,
    num_mixtures=12,
    fresh_seeds=3,
    large_seeds=3,
    num_transfer=4,
    grid_steps=2,
    grid_swarm=8,
    num_finalists=2,
    final_seeds=3,
    batch_size=4,
    num_steps=3,
    width=4,
    large_batch_size=4,
    large_num_steps=4,
    large_layers=1,
    large_width=8,
    large_heads=2,
)


class Killed(Exception):
    pass


def run_in(folder, killed_at=None):
    def report(part):
        if killed_at is not None and part >= killed_at:
            raise Killed

    for name in ("scratch", "files"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return designed(HostRun(0, {}, None, folder / "scratch", folder / "files", report), TINY)


@pytest.mark.slow
def test_a_killed_design_ends_like_one_that_was_not(tmp_path):
    whole = run_in(tmp_path / "whole")
    with pytest.raises(Killed):
        run_in(tmp_path / "killed", killed_at=0.6)
    again = run_in(tmp_path / "killed")
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, name)
    found = json.loads((tmp_path / "killed" / "files" / "design" / "mixture.json").read_text())
    np.testing.assert_allclose(list(found["weights"].values()), whole["candidate_mixture"][0], atol=1e-6)
    swarm = design.read_tables(*(tmp_path / "whole" / "files" / "design" / f"{n}.csv" for n in ("ratios", "metrics")))
    np.testing.assert_allclose(swarm.losses, whole["loss"].reshape(-1, 3), rtol=1e-6)
    assert (whole["loss"][:, 0] != whole["loss"][:, 1]).all()
    for mixture, limit in (("mixture", "limit"), ("grid_mixture", "grid_limit")):
        assert (whole[mixture] <= whole[limit] + 1e-9).all()
    experiment = text(TINY)
    assert experiment.dims.keys() == whole.keys()
    for name, values in whole.items():
        sizes = [len(experiment.coords[dim]) for dim in experiment.dims[name] if dim in experiment.coords]
        assert values.ndim == len(experiment.dims[name]) and set(sizes) <= set(values.shape), name


@pytest.fixture
def corpus():
    rows = {
        name: np.full((size, 5), d, np.uint8) for d, (name, size) in enumerate({"a": 400, "b": 80, "c": 20}.items())
    }
    return Corpus(rows, {name: text[:3] for name, text in rows.items()}, 256)


@pytest.mark.parametrize("repetition", [1.0, 4.0, 2.5])
@pytest.mark.parametrize("num_steps", [10, 25])
def test_proxies_repeat_as_the_big_run_does(corpus, repetition, num_steps):
    proxy = Proxy(width=4, layers=1, heads=1, batch_size=8, num_steps=num_steps, learning_rate=0.1)
    rows, sizes = rows_of(corpus, ("a", "b", "c"), ("a", "c"), proxy, repetition)
    big = np.array([400, 80, 20])
    # Passes of a run that spends all on one domain, up to the rounding of the rows.
    wanted = proxy.num_rows / (repetition * big.sum() / big)
    assert np.abs(np.array(sizes) - wanted).max() <= 0.5
    assert len(rows.train) == sum(sizes) and rows.test.shape == (2, 3, 5)
    # In the order of the domains.
    assert np.asarray(rows.train[:, 0]).tolist() == [d for d, size in enumerate(sizes) for _ in range(size)]


def test_limits_are_passes_over_a_domain_in_the_big_run():
    config = dataclasses.replace(TINY, repetition=2.0, max_epochs=6.0)
    # A run of twice the rows there are, spent on a domain of a tenth of them alone, passes over it 20 times.
    np.testing.assert_allclose(config.limits(np.array([0.1, 0.3, 0.6])), [0.3, 0.9, 1.0])


def test_without_repetition_no_run_can_repeat_a_row(corpus):
    proxy = Proxy(width=4, layers=1, heads=1, batch_size=5, num_steps=10, learning_rate=0.1)
    assert rows_of(corpus, ("a", "b", "c"), ("a",), proxy, None)[1] == (50, 50, 20)


def results_of(*, best=0.0, repeated_worse=0.1, large=True):
    """Makes the result of a design whose losses are known: lowest at equal shares."""
    rng, names = np.random.default_rng(0), ["a", "b", "c"]
    mixtures, prior = design.swarm([0.6, 0.3, 0.1], 40), np.array([0.6, 0.3, 0.1])
    steps = 5
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps

    def losses(mixtures, seeds):
        noise = 0.002 * rng.normal(size=(len(mixtures), seeds, 3))
        return 2.0 + np.exp(-3.0 * np.asarray(mixtures))[:, None] + noise

    candidates = {name: prior for name in CANDIDATES} | {name: np.full(3, 1 / 3) for name in ("proposal", "uniform")}
    candidate_losses = losses(list(candidates.values()), 8)
    candidate_losses[CANDIDATES.index("all_rows")] += repeated_worse
    finalists = np.vstack([np.full(3, 1 / 3), grid[:2]])
    finalist_losses = losses(np.full((3, 3), 1 / 3), 16)
    finalist_losses[1:] -= best
    values = {
        "prior": prior,
        "limit": np.ones(3),
        "grid_limit": np.ones(3),
        "mixture": mixtures,
        "loss": losses(mixtures, 2),
        "all_rows_loss": losses(mixtures, 1),
        "candidate_mixture": np.stack(list(candidates.values())),
        "candidate_loss": candidate_losses,
        "grid_mixture": grid,
        "grid_loss": losses(grid, 1)[:, 0],
        "three_mixture": mixtures,
        "three_loss": losses(mixtures, 2),
        "finalist_mixture": finalists,
        "finalist_loss": finalist_losses,
    }
    if large:
        values |= {
            "large_loss": losses([candidates[name] for name in LARGE_CANDIDATES], 5) - 0.5,
            "transfer_place": np.arange(10),
            "transfer_loss": losses(mixtures[:10], 1)[:, 0] - 0.5,
        }
    experiment = text(
        dataclasses.replace(TINY, domains=tuple(names), grid_domains=tuple(names), large_seeds=int(large))
    )
    variables = {name: (("seed", *experiment.dims[name]), value[None]) for name, value in values.items()}
    return {"run": xarray.Dataset(variables, {"seed": [0], **experiment.coords})}, experiment


@pytest.fixture(scope="module")
def judged():
    results, experiment = results_of()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_analysis, "_DRAWS", 3)
        return {claim.name: claim for claim in claims(results)}, results, experiment


def test_judges_a_design_whose_losses_are_known(judged):
    found, _, _ = judged
    expected = {
        "held_out_spearman": True,
        "exponential_form": True,
        "better_than_proportional": True,
        # The proposal is the uniform mixture here, and its noise is another.
        "better_than_uniform": None,
        "regret": True,
        "simulated_epochs_are_better": True,
        "rank_invariance": True,
        "better_than_proportional_large": True,
        "runs_for_three_domains": True,
        "proposal_without_simulated_epochs_is_far": False,
    }
    assert {name: found[name].holds for name in expected} == expected
    assert "all_rows" not in {name.removeprefix("better_than_") for name in found}


def test_a_better_mixture_of_the_grid_is_regret(judged, monkeypatch):
    # The fits are those of the other result: only the finalists differ.
    results, _ = results_of(best=0.05)
    analysis = text_analysis.analysed(judged[1]["run"].isel(seed=0, drop=True))
    monkeypatch.setattr("experiments.mixture_design.text_results.analysed", lambda data: analysis)
    regret = {claim.name: claim for claim in claims(results)}["regret"]
    assert regret.holds is False and regret.value == pytest.approx(0.05, abs=0.005)


def test_without_the_large_size_its_claims_are_undecided(judged, monkeypatch):
    analysis = text_analysis.analysed(judged[1]["run"].isel(seed=0, drop=True))
    monkeypatch.setattr("experiments.mixture_design.text_results.analysed", lambda d: analysis._replace(large=None))
    results, _ = results_of(large=False)
    found = {claim.name: claim for claim in claims(results)}
    assert found["rank_invariance"].holds is None and not any(name.endswith("_large") for name in found)


def test_draws_and_tabulates(judged):
    _, results, experiment = judged
    figure = experiment.figure(results)
    assert len([axis for axis in figure.axes if axis.get_title()]) == 8
    lines = experiment.summary(results).splitlines()
    assert any(line.startswith("| proposal |") for line in lines)
    page = section(
        results, {"experiment": "a:b", "folder": "", "length": 8, "sweep": {}, "domains": ["a"]}
    ).splitlines()
    assert "Settings: length 8." in page[2]
    (said,) = [line for line in page if line.startswith("- At the size of the proxies the proposal's mean loss")]
    names = [row.name.removeprefix("better_than_") for row in claims(results) if row.name.startswith("better_than_")]
    assert all(name.removesuffix("_large") in said for name in names) and "uniform" in names
    judged_rows = [line for line in page if line.startswith("| ours: ") and line.count("|") == 6]
    assert len(judged_rows) >= 8
    assert "| domain | size | proposal | region | without simulated epochs |" in lines


def test_smaller_swarms_are_parts_that_leave_runs_to_predict(judged):
    _, results, _ = judged
    found = text_analysis.analysed(results["run"].isel(seed=0, drop=True))
    assert [each.num_mixtures for each in found.sizes] == [6, 9, 12, 24]
    assert all(each.spearman.shape == each.regret.shape == (3,) for each in found.sizes)


def test_rank_correlations_of_resampled_mixtures():
    a = np.arange(30.0)
    value, draws = resampled_spearman(a, a**3, 50)
    assert value == pytest.approx(1.0) and draws == pytest.approx(1.0)
    value, draws = resampled_spearman(a, np.random.default_rng(0).normal(size=30), 200)
    assert draws.min() < 0 < draws.max()

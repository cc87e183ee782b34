"""Tests fits: what they refuse, what they find, and how often their intervals hold the truth."""

import numpy as np
import pandas as pd
import pytest

import mixjax
from mixjax import design
from mixjax.design.laws import LAWS
from tests.design.synthetic import swarm


def test_predicts_a_known_law_with_intervals():
    params, mixtures, losses = swarm(3, 2, 40, 0.01, seed=0)
    fitted = mixjax.design.fit(mixtures, losses, law="log_linear", resamples=200)
    fresh = np.random.default_rng(1).dirichlet(np.ones(3), 50)
    mean, low, high = fitted.predict(fresh)
    truth = LAWS["log_linear"].predict(params, fresh).T
    assert mean.shape == low.shape == high.shape == (50, 2)
    assert (low <= mean).all() and (mean <= high).all()
    assert np.abs(mean - truth).max() < 0.05
    again = design.fit(mixtures, losses, law="log_linear", resamples=200).predict(fresh)
    other = design.fit(mixtures, losses, law="log_linear", resamples=200, seed=1).predict(fresh)
    np.testing.assert_array_equal(again[1], low)
    np.testing.assert_array_equal(other[0], mean)
    assert not np.array_equal(other[1], low)


def test_auto_takes_the_law_that_predicts_left_out_runs_best():
    _, mixtures, losses = swarm(3, 2, 40, 0.005, seed=0)
    fitted = design.fit(mixtures, losses, resamples=50)
    assert fitted.law == "log_linear" == fitted.scores[0].law
    curved = np.square(mixtures - 0.3) @ np.array([[-1.0, 2.0], [2.0, -1.0], [3.0, 1.0]])
    noise = 0.002 * np.random.default_rng(0).normal(size=curved.shape)
    assert design.fit(mixtures, curved + noise, resamples=50).law == "quadratic"


@pytest.mark.parametrize("law", ["log_linear", "quadratic"])
def test_intervals_hold_the_truth_nine_times_in_ten(law):
    """The mean loss in 90 % ± 5 of the cases, and a new run about as often in the wider interval."""
    mean_hits, run_hits = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        params, mixtures, _ = swarm(3, 3, 48, 0.0, seed)
        if law == "quadratic":
            params = rng.uniform(1.0, 2.0, (3, 6))
        truth = LAWS[law].predict(params, mixtures).T
        fitted = design.fit(mixtures, truth + 0.02 * rng.normal(size=truth.shape), law=law, resamples=200)
        fresh = rng.dirichlet(np.ones(3), 10)
        expected = LAWS[law].predict(params, fresh).T
        _, low, high = fitted.predict(fresh)
        mean_hits.append(((low <= expected) & (expected <= high)).mean())
        runs = expected + 0.02 * rng.normal(size=expected.shape)
        _, low, high = fitted.predict(fresh, "run")
        run_hits.append(((low <= runs) & (runs <= high)).mean())
    # 24 swarms tell the coverage to about 2.5 %.
    assert 0.83 <= np.mean(mean_hits) <= 0.96
    assert 0.84 <= np.mean(run_hits) <= 0.95


@pytest.mark.parametrize("size", [2.0, 1e6, -1e3])
def test_outliers_move_the_fit_little(size):
    params, mixtures, losses = swarm(3, 1, 60, 0.005, seed=4)
    fresh = np.random.default_rng(1).dirichlet(np.ones(3), 50)
    truth = LAWS["log_linear"].predict(params, fresh).T
    losses[[3, 17, 40]] += size
    mean, low, high = design.fit(mixtures, losses, law="log_linear", resamples=50).predict(fresh)
    assert np.abs(mean - truth).mean() < 0.01 and (high - low).mean() < 0.03


def test_repeats_of_a_mixture_are_drawn_together():
    """A law that is wrong by mixture must not look precise because each mixture was run many times."""
    rng = np.random.default_rng(0)
    _, mixtures, losses = swarm(3, 1, 20, 0.0, seed=0)
    misfit = 0.05 * rng.normal(size=losses.shape)
    once = design.fit(mixtures, losses + misfit, law="log_linear", resamples=200)
    often = design.fit(mixtures.repeat(8, axis=0), (losses + misfit).repeat(8, axis=0), law="log_linear", resamples=200)
    widths = [np.mean(high - low) for _, low, high in (once.predict(mixtures), often.predict(mixtures))]
    assert widths[1] > 0.7 * widths[0]


def test_names_come_from_data_frames_and_columns_may_be_in_another_order():
    _, mixtures, losses = swarm(3, 2, 20, 0.01, seed=0)
    frame = pd.DataFrame(mixtures, columns=["web", "code", "books"])
    fitted = design.fit(frame, pd.DataFrame(losses, columns=["a", "b"]), law="log_linear", resamples=20)
    assert fitted.swarm.domains == ("web", "code", "books") and fitted.swarm.metrics == ("a", "b")
    turned = frame[["books", "web", "code"]]
    np.testing.assert_array_equal(fitted.predict(turned)[0], fitted.predict(mixtures)[0])
    with pytest.raises(ValueError, match="the column 'code' is missing"):
        fitted.predict(frame[["web", "books"]])


def test_data_frames_of_different_indices_are_refused():
    mixtures = pd.DataFrame(np.random.default_rng(0).dirichlet(np.ones(2), 12), columns=["a", "b"])
    losses = pd.DataFrame({"x": mixtures["a"] ** 2})
    shuffled = losses.sample(frac=1.0, random_state=0)
    with pytest.raises(ValueError, match="mixtures and losses must have the same index; sort both by it"):
        design.as_swarm(mixtures, shuffled)
    found = design.as_swarm(mixtures, shuffled.sort_index())
    np.testing.assert_array_equal(found.losses, losses)
    # An array has the order of the rows alone.
    np.testing.assert_array_equal(design.as_swarm(mixtures, shuffled.to_numpy()).losses, shuffled)


@pytest.mark.parametrize("rows", [[[0.5, 0.5], [1.0]], [["a", "b"], ["c", "d"]]])
def test_rows_that_are_no_table_of_numbers_are_named(rows):
    with pytest.raises(TypeError, match="mixtures must be a table of numbers, got list with other entries or rows of"):
        design.as_swarm(rows, [[1.0], [2.0]])
    with pytest.raises(TypeError, match="losses must be a table of numbers, got list with other entries or rows of"):
        design.as_swarm([[0.5, 0.5], [0.2, 0.8]], rows)
    with pytest.raises(TypeError, match="mixtures must be a table of numbers"):
        design.runs.as_mixtures("mixtures", rows, ("a", "b"))


def test_losses_without_noise_are_fitted_exactly():
    _, mixtures, losses = swarm(3, 2, 20, 0.0, seed=0)
    mean, low, high = design.fit(mixtures, losses, law="log_linear", resamples=20).predict(mixtures)
    np.testing.assert_allclose(mean, losses, atol=1e-4)
    assert (high - low).max() < 1e-3


GOOD = np.random.default_rng(0).dirichlet(np.ones(3), 12)
LOSS = 1.0 + GOOD[:, :1]


def changed(array, row, column, value):
    array = np.array(array)
    array[row, column] = value
    return array


@pytest.mark.parametrize(
    ("mixtures", "losses", "message"),
    [
        (changed(GOOD, 2, 0, 1.5), LOSS, r"mixtures, row 2: the shares must sum to 1, got [\d.]+"),
        (changed(GOOD, 2, 0, -0.5), LOSS, "mixtures, row 2: the share of 'domain_0' is -0.5, which is no share"),
        (changed(GOOD, 2, 1, np.nan), LOSS, "mixtures, row 2: the share of 'domain_1' is missing"),
        (GOOD, changed(LOSS, 5, 0, np.nan), "losses, row 5: the loss 'loss_0' is missing"),
        (GOOD, changed(LOSS, 5, 0, np.inf), "losses, row 5: the loss 'loss_0' is infinite"),
        (GOOD, LOSS[:-1], "must have a row for each run, got 12 and 11 rows"),
        (GOOD[:1], LOSS[:1], "needs several runs of different mixtures, got 1"),
        (GOOD[0], LOSS, "mixtures must be a table with a row for each run, got shape"),
        (GOOD, LOSS[:, 0], "losses must be a table"),
        (np.c_[GOOD, np.zeros(12)], LOSS, "the domain 'domain_3' is 0 in every run"),
        (GOOD, np.ones((12, 1)), "the metric 'loss_0' is 1 in every run"),
        (np.c_[GOOD[:, :2], GOOD[:, 2:] / 2, GOOD[:, 2:] / 2], LOSS, "got 3 independent mixtures of 4 domains"),
        (GOOD[:3], LOSS[:3], "has 4 parameters for 3 domains and needs more mixtures than that, got 3"),
    ],
)
def test_runs_that_no_law_can_be_fitted_to_are_named(mixtures, losses, message):
    with pytest.raises(ValueError, match=message):
        design.fit(mixtures, losses, law="log_linear")


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="law must be one of 'auto', 'log_linear'"):
        design.fit(GOOD, LOSS, law="linear")
    with pytest.raises(ValueError, match="resamples must be an integer of at least 20, got 3"):
        design.fit(GOOD, LOSS, resamples=3)
    with pytest.raises(TypeError, match="mixtures must be a table of numbers"):
        design.fit([["a", "b"]], LOSS)
    with pytest.raises(ValueError, match="domains must have a name each, got 'a' twice"):
        design.fit(GOOD, LOSS, domains=["a", "a", "b"])
    with pytest.raises(ValueError, match="metrics must have a name for each column, got 2 for 1"):
        design.fit(GOOD, LOSS, metrics=["a", "b"])
    fitted = design.fit(GOOD, LOSS + 0.01 * GOOD[:, 1:2] ** 2, law="log_linear", resamples=20)
    with pytest.raises(ValueError, match=r"mixtures must be \[m, 3\], a share per domain, got shape \(1, 2\)"):
        fitted.predict([0.5, 0.5])
    with pytest.raises(ValueError, match="interval must be one of 'mean', 'run', got 'both'"):
        fitted.predict(GOOD, "both")


@pytest.mark.parametrize("big", [3.0, 1e6, -50.0])
def test_one_run_that_diverged_does_not_decide_into_which_valley_the_fit_goes(big):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mixtures = rng.dirichlet(np.ones(3), 30)
        truth = np.exp(-3.0 * mixtures)
        losses = truth + 0.003 * rng.normal(size=truth.shape)
        losses[4] = big
        mean, _, _ = design.fit(mixtures, losses, law="log_linear", resamples=20).predict(mixtures)
        assert np.abs(mean - truth).max() < 0.01


def _fitted():
    _, mixtures, losses = swarm(3, 2, 12, 0.01, seed=0)
    return design.fit(mixtures, losses, law="log_linear", resamples=20)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: design.propose(_fitted(), max_share="0.5"), "max_share"),
        (lambda: design.propose(_fitted(), max_share={"domain_0": "x"}), "max_share of 'domain_0'"),
        (lambda: design.propose(_fitted(), min_share=[[0.1], [0.1, 0.2]]), "min_share"),
        (lambda: design.propose(_fitted(), {"loss_0": "x"}), "objective of 'loss_0'"),
        (lambda: design.propose(_fitted(), prior=["a", "b", "c"]), "prior"),
        (lambda: design.propose(_fitted(), seed=0.5), "seed"),
        (lambda: design.swarm(["a", "b"], 3), "prior"),
        (lambda: design.swarm([1, 2], 3, seed=-1), "seed"),
        (lambda: design.fit(np.eye(2), np.eye(2), seed="x"), "seed"),
        (lambda: design.subset(3, 2, seed=0.5), "seed"),
        (lambda: design.next_round(design.propose(_fitted()), 2, seed=0.5), "seed"),
        (lambda: design.validate({"proposal": [1, 2, 3], "u": [2, 3, 4]}, seeds=[0, 0.5, 1]), "seeds"),
        (lambda: design.validate({"proposal": [1, 2, 3], "u": [2, 3, 4]}, used_seeds=["a"]), "used_seeds"),
    ],
)
def test_what_is_no_number_is_named_by_its_argument(call, name):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must be .*, got "):
        call()


def test_a_law_may_be_named_alone_in_a_cross_validation():
    _, mixtures, losses = swarm(3, 2, 12, 0.01, seed=0)
    found = design.as_swarm(mixtures, losses)
    (alone,) = design.cross_validate(found, "log_linear", resamples=20)
    (listed,) = design.cross_validate(found, ["log_linear"], resamples=20)
    np.testing.assert_array_equal(alone.predicted, listed.predicted)

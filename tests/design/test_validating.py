"""Tests the verdicts on a proposal: errors under no difference, their words, and the mixtures to compare with."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax import design
from mixjax.statistics import holm
from tests.design.synthetic import swarm


def losses(gaps, num_seeds=8, noise=0.01, seed=0):
    """Returns losses of mixtures that are worse than the proposal by the gaps."""
    drawn = np.random.default_rng(seed).normal(size=(len(gaps) + 1, num_seeds))
    common = np.random.default_rng([seed, 1]).normal(size=num_seeds)  # of the seeds, which pairs take out
    names = ["proposal", *gaps]
    return {name: 1.0 + common + gaps.get(name, 0.0) + noise * row for name, row in zip(names, drawn, strict=True)}


def outcomes(found):
    return {verdict.name: verdict.outcome for verdict in found.verdicts}


def test_tells_better_from_worse_and_from_noise():
    found = design.validate(losses({"far": 0.1, "near": 0.0, "below": -0.1}))
    assert outcomes(found) == {"far": "better", "near": "noise", "below": "worse"}
    assert not found.is_better and design.validate(losses({"far": 0.1})).is_better
    far, near, below = map(str, found.verdicts)
    assert far.startswith("better than far: 0.08") and "lower in 8 of 8 seeds" in far
    assert near.startswith("not better than noise against near: ")
    assert (
        re.match(r"worse than below: 0\.1\d* higher \(0\.\d+ to 0\.\d+\)", below) and "lower in 0 of 8 seeds" in below
    )
    assert str(found).count("\n") == 6 and "over 8 seeds" in str(found)


def test_the_numbers_are_those_of_paired_tests_with_holms_correction():
    given = losses({"a": 0.01, "b": 0.004, "c": 0.0})
    found = design.validate(given)
    tests = [scipy.stats.ttest_rel(given[name], given["proposal"]) for name in "abc"]
    np.testing.assert_allclose([verdict.p_value for verdict in found.verdicts], holm([test.pvalue for test in tests]))
    for verdict, test in zip(found.verdicts, tests, strict=True):
        low, high = test.confidence_interval(0.95)
        assert (verdict.low, verdict.high) == pytest.approx((low, high))
        assert verdict.gain == pytest.approx((given[verdict.name] - given["proposal"]).mean())


def test_a_false_verdict_is_rare():
    """The level is 5 % for any false verdict among five; 400 swarms have a standard error of 1.1 %."""
    names = dict.fromkeys("abcde", 0.0)
    false = [set(outcomes(design.validate(losses(names, 5, seed=seed))).values()) != {"noise"} for seed in range(400)]
    assert np.mean(false) <= 0.05 + 3 * 0.011


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.permutations(["a", "b", "c"]), st.floats(0.01, 100.0))
def test_neither_order_nor_unit_matters(seed, order, unit):
    given = losses({"a": 0.02, "b": 0.0, "c": -0.02}, 4, seed=seed)
    found = {verdict.name: verdict for verdict in design.validate(given).verdicts}
    again = design.validate({name: unit * given[name][::-1] for name in [*order, "proposal"]})
    assert [verdict.name for verdict in again.verdicts] == order
    for verdict in again.verdicts:
        assert verdict.outcome == found[verdict.name].outcome
        assert verdict.gain == pytest.approx(unit * found[verdict.name].gain)


@pytest.mark.parametrize(
    ("own", "other", "outcome"),
    [
        ([1.0, 1.1], [2.0, 2.2], "undecided"),  # two seeds
        ([1.0, 1.1, math.nan, math.inf], [2.0, 2.2, 2.1, 2.3], "undecided"),  # half diverged
        ([1.0, 1.1, 1.2, math.nan], [2.0, 2.2, 2.3, 2.3], "better"),
        ([1.0, 1.1, 1.2], [1.5, 1.6, 1.7], "better"),  # always by the same amount
        ([1.0, 1.1, 1.2], [0.5, 0.6, 0.7], "worse"),
        ([1.0, 1.1, 1.2], [1.0, 1.1, 1.2], "noise"),
        ([1e308, 1e308, -1e308], [-1e308, -1e308, 1e308], "undecided"),  # no mean
        ([math.nan] * 4, [1.0] * 4, "undecided"),
    ],
)
def test_few_diverged_and_equal_runs(own, other, outcome):
    verdict = design.validate({"proposal": np.float32(own) if max(own) < 9 else own, "other": other}).verdicts[0]
    assert verdict.outcome == outcome
    assert verdict.num_seeds + verdict.left_out == len(own)
    assert ("diverged" in str(verdict)) == (verdict.left_out > 0)


def test_the_objective_is_of_the_metrics():
    rng = np.random.default_rng(0)
    own, other = 0.01 * rng.normal(size=(2, 8, 2))
    other[:, 0] += 1.0
    own[:, 1] += 0.5
    given = {"best": own, "other": other}
    for objective, outcome in (("web", "better"), ("code", "worse"), ({"web": 0.4, "code": 0.8}, "noise")):
        found = design.validate(given, objective, proposal="best", metrics=["web", "code"])
        assert outcomes(found) == {"other": outcome}
    # A metric that does not count may be missing.
    assert outcomes(design.validate({"best": np.c_[own[:, :1], own[:, 1:] * np.nan], "other": other}, [1.0, 0.0],
                                    proposal="best")) == {"other": "better"}  # fmt: skip


def test_data_frames_and_files_give_the_same(tmp_path):
    given = losses({"a": 0.1, "b": 0.0})
    rows = [(name, 7 + s, value) for name, values in given.items() for s, value in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["mixture", "seed", "loss_0"]).sample(frac=1.0, random_state=0)
    frame.to_csv(tmp_path / "losses.csv")  # with a column without a name
    of_file = design.read_losses(tmp_path / "losses.csv")
    expected = {verdict.name: verdict for verdict in design.validate(given).verdicts}
    for measured in (frame, of_file):
        found = design.validate(measured, used_seeds=[0, 6])
        assert sorted(found.seeds) == list(range(7, 15))
        for verdict in found.verdicts:
            assert verdict[2:] == pytest.approx(expected[verdict.name][2:])


@pytest.mark.parametrize(
    ("given", "changes", "error", "message"),
    [
        ({}, {}, ValueError, "losses must be those of two mixtures or more, got 0"),
        ({"proposal": [1.0]}, {}, ValueError, "losses must be those of two mixtures or more, got 1"),
        ([1.0], {}, TypeError, "losses must be a mapping of names to arrays or a data frame, got list"),
        ({"proposal": ["x"], "b": [1.0]}, {}, TypeError, "losses of 'proposal' must be numbers, got list"),
        ({"proposal": 1.0, "b": [1.0]}, {}, ValueError, r"losses of 'proposal' must be \[seeds\] or"),
        ({"proposal": [1.0], "b": [1.0, 2.0]}, {}, ValueError, r"one shape, got \(1, 1\) of 'proposal' and \(2, 1\)"),
        ({"best": [1.0], "b": [1.0]}, {}, ValueError, "proposal must be one of the mixtures, got 'proposal'; "),
        ({"proposal": [1.0], "b": [1.0]}, {"seeds": [1, 2]}, ValueError, "seeds must be 1, one for each loss"),
        ({"proposal": [1.0, 2.0], "b": [1.0, 2.0]}, {"seeds": [1, 1]}, ValueError, "seeds must differ, got 1 twice"),
        ({"proposal": [1.0], "b": [1.0]}, {"metrics": ["x", "y"]}, ValueError, "metrics must be 1, one for each loss"),
        ({"proposal": [1.0], "b": [1.0]}, {"used_seeds": [0]}, ValueError, "seeds must be fresh, but the swarm has us"),
        ({"proposal": [1.0], "b": [1.0]}, {"objective": "x"}, ValueError, "objective names 'x', which is no metric"),
        (pd.DataFrame({"seed": [1], "x": [1.0]}), {}, ValueError, "must have a column 'mixture', got seed, x"),
        (pd.DataFrame({"mixture": ["a"], "seed": [1], "x": ["y"]}), {}, TypeError, "numbers in the columns x"),
        (
            pd.DataFrame({"mixture": ["a", "a", "b"], "seed": [1, 2, 1], "x": 1.0}),
            {},
            ValueError,
            "'b' has no run of the seed 2; all mixtures need the same seeds",
        ),
        (
            pd.DataFrame({"mixture": ["a", "a"], "seed": [1, 1], "x": 1.0}),
            {},
            ValueError,
            "losses, row 1: 'a' has a run of the seed 1 already, losses, row 0",
        ),
    ],
)
def test_what_cannot_be_judged_is_named(given, changes, error, message):
    with pytest.raises(error, match=message):
        design.validate(given, **changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixture,x\na,1\n", "losses.csv: the column 'seed' is missing"),
        ("mixture,seed\na,1\n", "losses.csv: has no column of losses besides 'mixture' and 'seed'"),
        ("mixture,seed,x\na,1,\n", "losses.csv, line 2: 'x' is missing; a run that diverged has nan"),
        ("mixture,seed,x\na,1,y\n", "losses.csv, line 2: 'x' must be a number, got 'y'"),
        ("mixture,seed,x\na,1.5,1\n", "losses.csv, line 2: 'seed' must be an integer, got 1.5"),
        ("mixture,seed,x\na,nan,1\n", "losses.csv, line 2: 'seed' must be an integer, got nan"),
        ("mixture,seed,x\na,1,1\na,1,2\n", "losses.csv, line 3: 'a' has a run of the seed 1 already, .*line 2"),
    ],
)
def test_a_bad_file_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "losses.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        design.read_losses(tmp_path / "losses.csv")


@pytest.fixture(scope="module")
def fitted():
    _, mixtures, measured = swarm(3, 2, 30, 0.01, seed=0)
    return design.fit(mixtures, measured, law="log_linear", resamples=20, domains=["web", "code", "books"])


def test_the_mixtures_that_need_no_design(fitted):
    prior = np.array([0.5, 0.25, 0.25])
    found = design.propose(fitted, prior=prior, max_share={"books": 0.1, "code": 0.4})
    tried = design.candidates(found, {"ours": [0.2, 0.3, 0.5]}, temperature=0.5)
    assert list(tried) == ["proposal", "swarm_best", "uniform", "proportional", "temperature", "unimax", "ours"]
    np.testing.assert_allclose(np.stack(list(tried.values())).sum(axis=1), 1.0)
    np.testing.assert_array_equal(tried["proposal"], found.weights)
    best = np.argmin(fitted.swarm.losses.mean(axis=1))
    np.testing.assert_array_equal(tried["swarm_best"], fitted.swarm.mixtures[best])
    np.testing.assert_allclose(tried["temperature"], np.sqrt(prior) / np.sqrt(prior).sum())
    np.testing.assert_allclose(tried["unimax"], [0.5, 0.4, 0.1])
    assert list(design.candidates(design.propose(fitted))) == ["proposal", "swarm_best", "uniform"]


def test_unimax_is_that_of_the_rules(fitted):
    import jax.numpy as jnp

    from mixjax import rules

    high = np.array([0.15, 0.9, 0.3])
    tried = design.candidates(design.propose(fitted, max_share=high))
    expected = rules.cap(rules.fixed(), high).init(jnp.ones(3)).weights
    np.testing.assert_allclose(tried["unimax"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ({"uniform": [1, 0, 0]}, {}, "others must have names besides proposal, swarm_best, uniform, got 'uniform'"),
        ({"ours": [0.5, 0.2, 0.1]}, {}, r"others\['ours'\], row 0: the shares must sum to 1, got 0.8"),
        ({"ours": [0.5, 0.5]}, {}, r"others\['ours'\] must be \[m, 3\], a share per domain"),
        (None, {"temperature": 2.0}, r"temperature must be in \[0, 1\], got 2.0"),
    ],
)
def test_what_is_no_candidate_is_named(fitted, others, changes, message):
    with pytest.raises(ValueError, match=message):
        design.candidates(design.propose(fitted), others, **changes)

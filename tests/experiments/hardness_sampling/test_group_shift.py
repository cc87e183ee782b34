"""Tests the methods on made-up tables with group shifts, and the config."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.hardness_sampling import group_shift, group_shift_report
from experiments.hardness_sampling.group_shift import GroupShift, Strengths
from experiments.hardness_sampling.group_shift_report import METHODS
from mixjax.runner import configs
from tests.experiments.hardness_sampling.cases import GROUPS, fake_table, made_up

CONFIG = Path(__file__).parents[3] / "configs" / "hardness_sampling" / "group_shift.toml"


def trained(rows, seed=0, **settings):
    config = GroupShift(**settings)
    sizes = np.bincount(rows.groups)
    metrics = jax.jit(lambda key, rows: group_shift.train(key, config, rows, sizes))(jax.random.key(seed), rows)
    methods = list(METHODS)
    return lambda metric, method: np.asarray(metrics[metric][methods.index(method)])


def test_strength_zero_is_the_unweighted_method():
    found = trained(made_up([80, 40]), num_steps=30, batch_size=20, factor=0.0)
    for method in ("kl", "chi2", "cvar"):
        np.testing.assert_allclose(found("group_accuracy", method), found("group_accuracy", "erm"), atol=1e-4)
        np.testing.assert_allclose(found("worst_loss", method), found("worst_loss", "erm"), rtol=1e-4)
    np.testing.assert_allclose(found("worst_loss", "group_dro"), found("worst_loss", "group_kl"), rtol=1e-4)
    assert abs(found("worst_loss", "hardness") - found("worst_loss", "erm")) < 0.1  # other batches


def test_where_robustness_must_help_it_does():
    """One group in ten needs another feature: the worst group is that one, and its loss is what each method sees."""
    strengths = Strengths(group_dro=0.1, group_kl=10.0, kl=3.0, chi2=3.0, cvar=3.0, hardness=3.0, hardness_wr=3.0)
    found = trained(made_up([900, 100]), num_steps=300, batch_size=40, strengths=strengths)
    for method in METHODS:
        values = found("group_accuracy", method)
        assert found("worst_accuracy", method) == values.min()
        np.testing.assert_allclose(found("group_mean_accuracy", method), values.mean(), rtol=1e-5)
        np.testing.assert_allclose(found("accuracy", method), values @ np.array([0.9, 0.1]), rtol=1e-5)
        if method != "erm":
            assert found("worst_loss", method) < found("worst_loss", "erm") - 0.05, method
    for method in ("group_dro", "group_kl", "balanced", "hardness"):
        assert found("worst_accuracy", method) > found("worst_accuracy", "erm") + 3, method


def test_the_batch_must_fit_groups_and_rows(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    for size in (5, 211):
        with pytest.raises(ValueError, match=rf"batch_size must be in \[6 groups, 210 rows\], got {size}"):
            group_shift.group_shift(GroupShift(table="compas", batch_size=size))


def test_every_run_of_the_config_gives_claims(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    config = configs.load(CONFIG)
    # The text is not a table: group_selection.toml may have it.
    assert {run.values.table for run in config.runs} == set(GROUPS) - {"opinions"}
    assert {group_shift_report.SHORT, group_shift_report.LONG} <= {run.name for run in config.runs}
    assert config.sweep.first_seed >= 1000 and config.sweep.seeds >= 50
    rng, results = np.random.default_rng(0), {}
    for run in config.runs:
        experiment = config.function(run.values)
        shapes = jax.eval_shape(experiment.train, jax.random.key(0), {}, experiment.data)
        assert shapes["group_accuracy"].shape == (len(METHODS), GROUPS[run.values.table])
        variables = {k: (("seed", *experiment.dims[k]), rng.random((3, *v.shape))) for k, v in shapes.items()}
        results[run.name] = xarray.Dataset(variables, {"seed": np.arange(3), **experiment.coords})
    names = Counter(claim.name for claim in experiment.claims(results))
    assert max(names.values()) == 1 and len(names) == len(config.runs) * (2 * (len(METHODS) - 1) + 3) + 3

"""Group shifts in tables, on made-up tables: nothing here needs the cache."""

from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import mixjax.data
from experiments.hardness_sampling import group_shift, tabular
from experiments.hardness_sampling.group_shift import METHODS, GroupShift, Strengths
from experiments.hardness_sampling.tabular import Rows
from mixjax import rules, samplers
from mixjax.runner import configs

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = Path(__file__).parents[2] / "configs" / "hardness_sampling" / "group_shift.toml"
GROUPS = {"adult": 10, "compas": 6, "heart": 4}


def made_up(sizes, key=0):
    """Two features of which the first decides the label in every group but the last, where the second does."""
    rng = np.random.default_rng(key)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    features = rng.normal(size=(len(groups), 2)).astype(np.float32)
    deciding = np.where(groups == len(sizes) - 1, features[:, 1], features[:, 0])
    order = rng.permutation(len(groups))
    return Rows(*map(jnp.asarray, (features[order], (deciding > 0).astype(np.int32)[order], groups[order])))


def fake_table(name, **kwargs):
    rows = made_up([70] * GROUPS[name])
    names = tuple(f"group {g}" for g in range(GROUPS[name]))
    return mixjax.data.Table(*map(np.asarray, rows), names, ("first", "second"), "made up")


def trained(rows, seed=0, **settings):
    config = GroupShift(**settings)
    sizes = np.bincount(rows.groups)
    metrics = jax.jit(lambda key, rows: group_shift.train(key, config, rows, sizes))(jax.random.key(seed), rows)
    methods = list(METHODS)
    return lambda metric, method: np.asarray(metrics[metric][methods.index(method)])


# --- the split ------------------------------------------------------------------------------------------------------


def test_the_split_is_a_partition_stratified_by_group():
    rows = made_up([100, 41, 9])
    rows = rows._replace(features=np.arange(150, dtype=np.float32)[:, None])  # to tell rows apart
    sizes = tabular.part_sizes(np.bincount(rows.groups))
    assert sizes.tolist() == [[50, 21, 4], [20, 8, 2], [30, 12, 3]]
    parts = tabular.split(jax.random.key(0), rows, sizes)
    for part, of_groups in zip(parts, sizes, strict=True):
        assert np.bincount(part.groups).tolist() == of_groups.tolist() and (np.diff(part.groups) >= 0).all()
    ids = np.concatenate([part.features[:, 0] for part in parts]).astype(int)
    assert sorted(ids) == list(range(150))
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), rows.labels[ids])
    np.testing.assert_array_equal(np.concatenate([part.groups for part in parts]), rows.groups[ids])
    other = tabular.split(jax.random.key(1), rows, sizes)
    assert set(other[2].features[:, 0].tolist()) != set(parts[2].features[:, 0].tolist())


def test_measure_is_each_groups_accuracy_and_loss():
    rows = made_up([5, 3])
    params = [(jnp.array([[0.7], [-0.2]]), jnp.array([0.1]))]
    found = tabular.measure(params, rows, 2)
    odds = np.asarray(rows.features) @ [0.7, -0.2] + 0.1
    losses = np.log1p(np.exp(-np.where(rows.labels == 1, odds, -odds)))
    for group in range(2):
        own = rows.groups == group
        right = (odds > 0) == (rows.labels == 1)
        np.testing.assert_allclose(found["accuracy"][group], 100 * right[own].mean(), rtol=1e-5)
        np.testing.assert_allclose(found["loss"][group], losses[own].mean(), rtol=1e-5)


def test_a_hidden_layer_is_one_layer_of_relus_before_the_last():
    params = tabular.init(jax.random.key(0), 2, hidden=5)
    assert [w.shape for w, _ in params] == [(2, 5), (5, 1)]
    (w, _), _ = params
    params[1] = (jnp.arange(5.0)[:, None], jnp.array([2.0]))
    x = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_allclose(
        tabular.scores(params, x), np.maximum(x @ np.asarray(w), 0) @ np.arange(5) + 2, rtol=1e-4
    )


# --- training -------------------------------------------------------------------------------------------------------


def logistic_sgd(rows, indices, coefficients, rate):
    """Logistic regression by hand, in float64: params <- params - rate * sum_i coefficient_i * gradient_i."""
    weights, bias = np.zeros(2), 0.0
    for batch in np.asarray(indices):
        x, y = np.asarray(rows.features, np.float64)[batch], np.asarray(rows.labels)[batch]
        errors = coefficients * (1 / (1 + np.exp(-(x @ weights + bias))) - y)
        weights, bias = weights - rate * errors @ x, bias - rate * errors.sum()
    return weights, bias


def test_a_rule_weights_the_groups_of_the_batch():
    rows = made_up([20, 10])
    indices = np.random.default_rng(1).integers(0, 30, (4, 6))
    domain_ids, c = np.array([0, 0, 0, 0, 1, 1]), np.array([0.3, 0.7])
    params = tabular.init(jax.random.key(0), 2, 0)

    def draw(weights, step):
        return jnp.asarray(indices)[step], domain_ids

    fitted = tabular.train_with_rule(optax.sgd(0.5), rules.fixed(c), [0.5, 0.5], params, rows, draw, np.arange(4))
    weights, bias = logistic_sgd(rows, indices, np.repeat(c / [4, 2], [4, 2]), 0.5)
    np.testing.assert_allclose(fitted[0][0][:, 0], weights, rtol=1e-4)
    np.testing.assert_allclose(fitted[0][1], [bias], rtol=1e-4)


def test_half_of_a_batch_goes_by_weight_and_half_evenly():
    draw = tabular.rows_by_weight(np.array([50, 20, 10]), 60)
    indices, domain_ids = draw(jnp.array([0.8, 0.2, 0.0]), jax.random.key(0))
    assert np.bincount(domain_ids).tolist() == [34, 16, 10]  # 30 times the weight, and 10
    groups = np.repeat([0, 1, 2], [50, 20, 10])
    assert groups[np.asarray(indices)].tolist() == domain_ids.tolist() and len(set(indices.tolist())) > 30


def test_the_sampler_trains_on_the_batches_it_draws():
    rows, keys = made_up([20, 10]), jax.random.split(jax.random.key(3), 5)
    sampler = samplers.hardness(30, 2.0, replacement=False)
    params = tabular.init(jax.random.key(0), 2, 0)
    fitted = tabular.train_with_sampler(optax.sgd(0.5), sampler, params, rows, 6, keys)
    state, drawn, sample = sampler.init(tabular.losses(params, rows)), [], jax.jit(sampler.sample, static_argnums=2)
    for key in keys:
        drawn.append(np.asarray(sample(state, key, 6)[0]))
        weights, bias = logistic_sgd(rows, drawn[:-1], np.full(6, 1 / 6), 0.5)
        now = [(jnp.asarray(weights)[:, None], jnp.array([bias]))]
        state = jax.jit(sampler.update)(
            state, drawn[-1], tabular.losses(now, jax.tree.map(lambda x: x[drawn[-1]], rows))
        )
    weights, bias = logistic_sgd(rows, drawn, np.full(6, 1 / 6), 0.5)
    np.testing.assert_allclose(fitted[0][0][:, 0], weights, rtol=1e-4)
    assert len(set(np.concatenate(drawn))) > 6


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


# --- the config, its claims and its figure --------------------------------------------------------------------------


def made_up_results(value, seeds=3):
    """Each method's worst-group and average accuracy by `value(method)`, the same for every seed but for noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, (seeds, 1))
    levels = np.array([value(method) for method in METHODS]) + noise
    variables = {name: (("seed", "method"), levels) for name in ("accuracy", "worst_accuracy")}
    variables["worst_loss"] = (("seed", "method"), -levels / 100)
    variables["group_accuracy"] = (("seed", "method", "group"), np.stack([levels + 3, levels], axis=2))
    variables["test_rows"] = (("seed", "group"), np.tile([50.0, 40.0], (seeds, 1)))
    coords = {"seed": np.arange(seeds), "method": list(METHODS), "group": ["large", "small"]}
    return {name: xarray.Dataset(variables, coords) for name in ("Adult", "heart disease")}


def test_claims_judge_the_difference_from_erm():
    better = {
        claim.name: claim for claim in group_shift.claims(made_up_results(lambda m: 70.0 if m == "erm" else 72.0))
    }
    assert all(claim.statement.startswith("ours") for claim in better.values())
    assert better["adult_group_dro_helps"].holds and better["heart_disease_hardness_worst_loss"].holds
    assert better["adult_cvar_price"].holds and better["adult_group_labels_help"].holds is False
    assert "small (40 test rows): 2" in better["adult_kl_helps"].note
    worse = group_shift.claims(made_up_results(lambda m: 70.0 if m == "erm" else 68.0))
    assert not any(claim.holds for claim in worse)
    assert {claim.name for claim in worse} == set(better)


def test_a_grid_is_judged_at_its_first_point():
    results = made_up_results(lambda m: 70.0 if m == "erm" else 72.0)
    grid = {
        name: xarray.concat([d, d * 0 + 50.0], "factor").assign_coords(factor=[1.0, 3.0]) for name, d in results.items()
    }
    assert group_shift.claims(grid) == group_shift.claims(results)
    assert len(group_shift.figure(grid).axes) == 2


def test_claims_compare_the_short_run_with_the_long_one():
    (_, long), (_, short) = (
        next(iter(made_up_results(lambda m, g=g: 70.0 + g * (m != "erm")).items())) for g in (1.0, 3.0)
    )
    found = {c.name: c for c in group_shift.claims({group_shift.LONG: long, group_shift.SHORT: short})}
    claim = found["adult_100_steps_hardness_gains_more"]
    assert claim.holds and round(claim.value, 3) == 2.0


def test_the_figure_shows_every_method_once():
    figure = group_shift.figure(made_up_results(lambda m: 70.0 + len(m)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(METHODS.values())
    assert [len(axis.containers) for axis in figure.axes] == [len(METHODS)] * 2
    assert all("%" in axis.get_xlabel() and "%" in axis.get_ylabel() for axis in figure.axes)


def test_the_batch_must_fit_groups_and_rows(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    for size in (5, 211):
        with pytest.raises(ValueError, match=rf"batch_size must be in \[6 groups, 210 rows\], got {size}"):
            group_shift.group_shift(GroupShift(table="compas", batch_size=size))


def test_every_run_of_the_config_gives_claims(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    config = configs.load(CONFIG)
    assert {run.values.table for run in config.runs} == set(GROUPS)
    assert {group_shift.SHORT, group_shift.LONG} <= {run.name for run in config.runs}
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

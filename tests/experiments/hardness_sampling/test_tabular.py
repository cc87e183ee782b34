"""Tests the split of tables by group, the small classifier, and its training with rules and samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.hardness_sampling import tabular
from mixjax import rules, samplers
from tests.experiments.hardness_sampling.cases import made_up


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

    fitted = tabular.train_with_rule(
        optax.sgd(0.5), params, rows, np.arange(4), rule=rules.fixed(c), prior=[0.5, 0.5], draw=draw
    )
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
    fitted = tabular.train_with_sampler(optax.sgd(0.5), params, rows, keys, sampler=sampler, batch_size=6)
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

"""Section 3's experiment: its helpers against NumPy, and a tiny run from the config to the claims."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import glm
from experiments import least_squares as ls
from experiments.sentences import SENTENCES
from mixjax import configs, estimation, experiment, samplers

CONFIG = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights" / "least_squares.toml"
SMALL = ls.LeastSquares(
    dim=6,
    sizes=(20,),
    shown_size=20,
    num_shares=5,
    updates=3,
    small_sizes=(2, 6, 20),
    hold_out_size=30,
    early=dataclasses.replace(ls.LeastSquares().early, dim=10, num_examples=20, num_steps=20, estimation_size=5),
)
NOISE = np.array(SMALL.noise)
KEY = jax.random.key(0)
THETA = np.full(6, 6**-0.5)


def data(num=20):
    return tuple(np.asarray(part, np.float64) for part in ls.draw(KEY, SMALL, num))


def wls(x, y, c):
    """Weighted least squares by QR on the rows."""
    root = np.sqrt(np.repeat(c, x.shape[1]) / x.shape[1])
    return np.linalg.lstsq(root[:, None] * x.reshape(-1, x.shape[-1]), root * y.reshape(-1))[0]


def test_fit_is_weighted_least_squares():
    x, y = data()
    for c in ([0.5, 0.5], [0.9, 0.1]):
        found = ls.fit(jnp.asarray(c), ls.summarise(jnp.asarray(x), jnp.asarray(y)))
        np.testing.assert_allclose(found, wls(x, y, np.array(c)), rtol=1e-3, atol=1e-4)


def test_expected_error_is_the_trace_of_the_variance():
    x, y = data()
    c, num = np.array([0.8, 0.2]), x.shape[1]
    rows, w, variances = x.reshape(-1, 6), np.repeat(c, num), np.repeat(NOISE, num)
    a = np.linalg.inv(rows.T @ (w[:, None] * rows)) @ (rows * w[:, None]).T
    gram = ls.summarise(jnp.asarray(x), jnp.asarray(y)).gram
    found = ls.expected_error(jnp.asarray(c), gram, jnp.asarray(NOISE), num)
    np.testing.assert_allclose(found, np.trace(a * variances @ a.T), rtol=1e-4)


def test_draws_have_the_stated_moments():
    x, y = data(20000)
    residuals = y - x @ THETA
    np.testing.assert_allclose(residuals.var(axis=1), NOISE, rtol=0.02)
    np.testing.assert_allclose(x.var(axis=(1, 2)), 1.0, rtol=0.02)
    gap = np.linspace(-0.5, 0.5, 6)
    mean, variance, largest = ls.loss_moments(jnp.asarray(THETA + gap), SMALL)
    losses = np.square(x @ (THETA + gap) - y)
    np.testing.assert_allclose(mean, losses.mean(axis=1), rtol=0.03)
    np.testing.assert_allclose(variance, losses.var(axis=1), rtol=0.03)
    assert losses.max() <= largest


def test_one_shot_is_algorithm_1_with_exact_fits():
    x, y = data()
    kept, held_out = samplers.split(samplers.partition(np.repeat(np.arange(2), 20)), 0.8)
    size = int(kept.sizes[0])
    theta = wls(x[:, :size], y[:, :size], np.array([0.5, 0.5]))
    expected = []
    for _ in range(3):
        w = 1 / np.square(x[:, size:] @ theta - y[:, size:]).mean(axis=1)
        theta = wls(x[:, :size], y[:, :size], w / w.sum())
        expected.append(theta)
    train = ls.summarise(jnp.asarray(x[:, :size]), jnp.asarray(y[:, :size]))
    path, share = ls.one_shot(KEY, estimation.whole_hold_out(held_out), jnp.asarray(x), jnp.asarray(y), train, 3)
    np.testing.assert_allclose(path, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(share, w[0] / w.sum(), rtol=1e-3)


def test_residuals_are_those_of_the_minimum_norm_fit():
    found = jax.jit(ls.residuals, static_argnums=1)(KEY, SMALL)
    train_key, hold_out_key = jax.random.split(KEY)
    x, y = (np.asarray(part, np.float64) for part in ls.draw(train_key, SMALL, 20))
    far_x, far_y = (np.asarray(part, np.float64) for part in ls.draw(hold_out_key, SMALL, 30))
    for row, num in enumerate(SMALL.small_sizes):
        near_x, near_y = x[:, :num], y[:, :num]
        theta = np.linalg.pinv(near_x.reshape(-1, 6)) @ near_y.reshape(-1)
        train = np.square(near_x @ theta - near_y).mean(axis=1)
        far = np.square(far_x @ theta - far_y).mean(axis=1)
        np.testing.assert_allclose(found["residual"][row], [train.mean(), far.mean()], rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(found["estimate"][row, 1], far[1] / far.sum(), rtol=1e-3)
        if 2 * num > 6:
            np.testing.assert_allclose(found["estimate"][row, 0], train[1] / train.sum(), rtol=1e-3)
            np.testing.assert_allclose(found["relative_residual"][row], (train / NOISE).max(), rtol=1e-3)
    assert found["relative_residual"][0] < 1e-8  # 4 points, 6 parameters
    np.testing.assert_allclose(found["estimate"][:, 1], found["reordered"][:, 1], rtol=1e-4)
    np.testing.assert_allclose(found["estimate"][1:, 0], found["reordered"][1:, 0], rtol=1e-3)


def test_bound_is_theorem_a5():
    """One iterate; after one update from w = 1, G = 0 and ERMA's w is ``exp(-gamma2 pi Var)``."""
    theta = THETA + 0.1
    found = ls.bound(KEY, SMALL, jnp.asarray(theta)[None])
    x, y = (np.asarray(part, np.float64) for part in ls.draw(KEY, SMALL, 30))
    values = np.square(x @ theta - y)
    losses, variances, largest = (np.asarray(part, np.float64) for part in ls.loss_moments(jnp.asarray(theta), SMALL))
    log_term, ratios = np.log(2 / SMALL.delta), []
    for w in (np.ones(2), np.exp(-np.minimum(SMALL.gamma2 * 0.5 * values.var(axis=1, ddof=1), 5.0))):
        gap = np.square(0.5 * losses.sum() - 0.5 * np.sum(w * values.mean(axis=1)))
        bound = 2 * np.square(0.5 * np.sum((1 - w) * losses)) + 32 * log_term * np.sum(w**2 / 4 * variances / 30)
        ratios.append(gap / bound)
    np.testing.assert_allclose(found["bound_ratio"], max(ratios), rtol=1e-3)
    np.testing.assert_allclose(found["needed_size"], largest**2 * log_term / (18 * variances.max()), rtol=1e-4)


def test_early_estimates_are_fgls_weights_of_the_losses():
    """Before training has moved anything the estimate would be ``L_2 / (L_1 + L_2)`` at zero."""
    problem = dataclasses.replace(SMALL.early, learning_rate=0.0)
    found = jax.jit(ls.early_estimates, static_argnums=1)(KEY, dataclasses.replace(SMALL, early=problem))
    assert found.shape == (2, 2, 5)
    data_key = jax.random.split(KEY, 3)[0]
    for row, scales in zip(found, ls.SETTINGS.values(), strict=True):
        settings = dataclasses.replace(problem, scales=scales, noise=SMALL.noise)
        y = np.asarray(glm.data_set(data_key, settings, ls.linear.label).target, np.float64).reshape(2, -1)[:, :5]
        losses = np.square(y).mean(axis=1)
        np.testing.assert_allclose(row[0], losses[1] / losses.sum(), rtol=1e-4)


def test_ratio_is_a_ratio_of_means():
    rng = np.random.default_rng(0)
    b = rng.uniform(1, 3, size=400)
    a = 1.5 * b + rng.normal(size=400)
    values = ls.ratio(a, b)
    np.testing.assert_allclose(values.mean(), a.mean() / b.mean())
    resampled = [a[i].mean() / b[i].mean() for i in rng.integers(0, 400, size=(2000, 400))]
    np.testing.assert_allclose(values.std(ddof=1) / 20, np.std(resampled), rtol=0.1)


@pytest.mark.parametrize("change", [{"shown_size": 7}, {"small_sizes": (3, 20)}])
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(SMALL, **change)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    """The whole chain; what 60 draws of a tiny problem can decide is decided rightly."""
    changes = {
        **{f.name: getattr(SMALL, f.name) for f in dataclasses.fields(SMALL) if f.name != "early"},
        **{f"early.{name}": getattr(SMALL.early, name) for name in ("dim", "num_examples", "num_steps")},
        "early.estimation_size": 5,
        "sweep.seeds": 60,
        "sweep.batch_size": 60,
    }
    texts = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in changes.items()]
    path = experiment.run(configs.load(CONFIG, texts), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert all(row["statement"].startswith("ours") for name, row in rows.items() if name not in SENTENCES)
    named = {"gls_beats_ols", "gls_is_best", "noisier_domains_reduced", "fgls_ill_defined", "bound_holds"}
    named |= {"training_residuals_deviate", "one_shot_fgls_ratio", "early_estimates_poor"}
    assert named <= set(rows)
    for name in ("gls_beats_ols", "gls_is_best", "fgls_ill_defined", "training_residuals_deviate", "bound_holds"):
        assert rows[name]["holds"], rows[name]
    assert (path / "figure.png").stat().st_size > 10_000

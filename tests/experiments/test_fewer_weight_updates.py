"""Data mixing on quadratics: closed forms, rounds beside mixing.fit, laws on constructed results, tiny runs."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import xarray

import mixjax
from experiments.fewer_weight_updates import (
    budgets,
    full_gradients,
    laws,
    quadratics,
    sentences,
    stochastic_gradients,
    two_domains,
    two_domains_report,
)
from mixjax import mixing, rules
from mixjax.runner import configs, experiment

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(__file__).parents[2] / "configs" / "fewer_weight_updates"
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("T", "share", "left"),
    [(1, 0.863636, 3.765e-1), (2, 0.760504, 2.606e-1), (5, 0.5642, 9.872e-2), (20, 0.298542, 2.356e-3)],
)
def test_closed_forms_of_two_domains(T, share, left):
    """By hand: u = (1, -0.5), epsilon 0.1, so that p* = 0.25 and uniform weights leave 0.0625."""
    target = (1.0, -0.5)
    found = two_domains.last_share("mirror_descent", target, T, 0.1)
    np.testing.assert_allclose([found, two_domains.excess(found, target)], [share, left], rtol=1e-3)
    assert two_domains.best_share(target) == 0.25 and two_domains.excess(0.5, target) == 0.0625
    assert two_domains.last_share("implicit", target, T, 0.1) == 0.25
    np.testing.assert_allclose(two_domains.last_share("alignment", target, T, 0.1), 0.863636, rtol=1e-5)


def test_closed_forms_at_a_vertex_and_with_resets():
    shares = [two_domains.last_share("projected_gradient", (1.3, -1.5), T, 0.1) for T in (1, 20, 80)]
    assert shares == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(two_domains.last_share("reset", (1.0, -0.5), 1, 0.1), 0.9406, rtol=1e-4)


def test_the_abstract_is_quoted_as_such():
    assert sentences.quote("one_step_fails")["source"] == "paper 001, abstract"


def test_horizons_of_two_domains_are_checked():
    with pytest.raises(ValueError, match="horizons must begin with 1"):
        two_domains.TwoDomains(horizons=(2, 4))
    with pytest.raises(ValueError, match="leave 100 rounds in 700 steps"):
        two_domains.TwoDomains(num_steps=700, horizons=(1, 8))


@pytest.fixture(scope="module")
def problem():
    return jax.jit(quadratics.instance, static_argnums=(1, 2))(KEY, 3, 4)


def test_the_best_weights_of_an_instance_are_the_best(problem):
    others = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    best = problem.best @ problem.minima
    slope = best - problem.target
    np.testing.assert_allclose(np.linalg.norm(slope), 1.0, rtol=1e-5)
    np.testing.assert_allclose((problem.minima - best) @ slope, 0.0, atol=1e-5)
    assert problem.best.min() >= quadratics.LEAST_SHARE
    np.testing.assert_allclose(problem.best.sum(), 1.0, rtol=1e-6)
    losses = np.square(others @ problem.minima - problem.target).sum(-1) / 2
    np.testing.assert_allclose(quadratics.excess(problem, others), losses - 0.5, atol=1e-4)
    np.testing.assert_allclose(quadratics.excess_of(problem, others @ problem.minima), losses - 0.5, atol=1e-4)
    slopes = problem.minima @ (problem.minima - problem.target).T
    np.testing.assert_allclose(quadratics.largest_slope(problem), abs(slopes - slopes.mean(0)).max(), rtol=1e-5)
    inside = problem.minima @ (others @ problem.minima - problem.target).T
    assert abs(inside - inside.mean(0)).max() <= quadratics.largest_slope(problem)


T, ROUNDS, RATE = 5, 6, 0.3
RULE = rules.mirror_descent(0.1, adaptive=False)


@pytest.fixture(scope="module")
def loop(problem):
    """``loop(sigma)``: the last state of mixing.fit, and the noise ``[step, D, d]`` that its steps saw."""
    tx, quadratic = optax.sgd(RATE), quadratics.loss_of(problem)

    def loss(x, batch):
        minimum, noise = batch
        return quadratic(x, minimum) + noise @ x

    def val_loss(x, target):
        return jnp.sum(jnp.square(x - target)) / 2

    @jax.jit
    def run(sigma):
        def draw(key):
            return problem.minima, sigma * jax.random.normal(key, (3, 4))

        state = mixing.init_state(jnp.zeros(4), tx, jnp.ones(3), RULE)
        last, _ = mixing.fit(
            loss, val_loss, tx, RULE, draw, lambda key: problem.target, state, KEY, num_steps=T * ROUNDS, T=T
        )
        step_key = jax.random.split(KEY, 4)[0]  # as mixing.fit makes a step's key
        return last, jax.vmap(lambda i: draw(jax.random.fold_in(step_key, i))[1])(jnp.arange(T * ROUNDS))

    return run


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_runs_are_those_of_the_loop(problem, loop, sigma):
    last, drawn = loop(sigma)
    shrink = 1 - RATE * problem.curvatures
    powers = shrink ** jnp.arange(T - 1, -1, -1)[:, None]
    gathered = (powers[:, None] * drawn.reshape(ROUNDS, T, 3, 4)).sum(1)
    noise = gathered / quadratics.noise_scale(shrink, T) if sigma else None
    found = quadratics.run(problem, RULE, RATE, T, ROUNDS, noise)
    np.testing.assert_allclose(found.last_weights, last.rule_state.weights, rtol=1e-4)
    np.testing.assert_allclose(found.mean_weights, last.mean_weights, rtol=1e-4)
    np.testing.assert_allclose(found.params, last.params, rtol=1e-4, atol=1e-4)


def test_the_noise_of_a_round_has_the_variance_of_its_steps():
    shrink, T = np.array([0.9, 0.3]), 7
    np.testing.assert_allclose(
        quadratics.noise_scale(shrink, T) ** 2, sum(shrink ** (2 * t) for t in range(T)), rtol=1e-5
    )


def test_the_grid_of_horizons():
    grid = budgets.Budgets(shortest=3, longest=100).horizons
    assert grid[0] == 3 and grid[-1] == 100 and (np.diff(grid[:17]) == 1).all()
    assert (grid[1:] / grid[:-1])[17:].max() < 1.1
    with pytest.raises(ValueError, match="shortest must be 1 to 20 and longest at least 20, got 1 and 19"):
        budgets.Budgets(longest=19)


BUDGETS, GRID = 2 ** np.arange(8, 17), budgets.Budgets(longest=2048).horizons


def constructed(excess, budget=BUDGETS, horizon=GRID, eta=1.0, seeds=20):
    """A data set with an excess of ``excess(N, T)``, times a factor of each instance's own."""
    values = excess(budget[:, None], horizon[None, :].astype(float))
    values = np.exp(0.2 * np.random.default_rng(0).normal(size=(seeds, 1, 1))) * values
    dims = ("seed", "budget", "horizon")
    variables = {metric: (dims, values) for metric in budgets.METRICS}
    variables["rate"] = (dims[:2], np.full(values.shape[:2], 1 - 0.2 * eta))
    variables["eta"] = (("seed", "horizon"), np.full((seeds, len(horizon)), eta))
    return xarray.Dataset(variables, {"seed": np.arange(seeds), "budget": budget, "horizon": horizon})


def decaying(n, T, eta=1.0, q=1.0):
    """Excess with few updates ``(T / N)^q``, and with few steps ``(1 - η μ)^(2 T)``."""
    return (T / n) ** q + (1 - 0.2 * eta) ** (2 * T)


def along(law):
    """Excess that is least at ``T = law(N)``, and falls like ``T / N`` there."""
    return lambda n, T: law(n) / n * (0.1 + np.log(T / law(n)) ** 2)


def test_the_least_is_found_between_grid_points():
    grid = np.array([4, 5, 6, 8, 10])
    losses = np.log(grid / np.array([[5.7], [0.5], [4.2], [60.0]])) ** 2
    np.testing.assert_allclose(laws.refined(losses, grid), [5.7, 4, 4, 10], rtol=1e-6)


@pytest.mark.parametrize("q", [1.0, 2.0])
def test_the_slope_and_the_order_of_a_constructed_law(q):
    data = constructed(functools.partial(decaying, q=q))
    best = laws.best_horizons(data, "mean_weights")
    np.testing.assert_allclose(laws.contraction(data), -np.log(0.8), rtol=1e-6)
    predicted = q / (2 * laws.contraction(data))
    np.testing.assert_allclose(laws.log_slope(best)[0], predicted, rtol=0.08)
    np.testing.assert_allclose(laws.order(best)[0], q, rtol=0.1)
    assert (full_gradients.law(best) > 0).all()
    assert laws.explained(best, "log")[0] > 0.999


def test_a_power_is_told_from_a_logarithm():
    best = laws.best_horizons(constructed(along(lambda n: 2 * n**0.4)), "mean_weights")
    np.testing.assert_allclose(laws.exponent(best)[0], 0.4, atol=1e-3)
    assert laws.explained(best, "power")[0] > 0.9999 and (full_gradients.law(best) < 0).all()


def test_only_budgets_with_enough_rounds_are_settled():
    best = laws.Best(np.array([64, 128, 256, 512, 1024]), np.array([[8.0, 8.0, 16.0, 16.0, 60.0]]), np.ones((1, 5)))
    np.testing.assert_array_equal(laws.settled(best).budgets, [128, 256, 512, 1024])


def test_horizons_choice_is_compared_with_the_best():
    data = constructed(along(lambda n: np.log(n) / (-2 * np.log(0.8))))
    ratio = laws.auto_ratio(data, "mean_weights")
    assert ratio.shape == (1 + laws.RESAMPLES, len(BUDGETS)) and ratio.min() > 1 - 1e-9 and ratio.max() < 1.2
    assert laws.auto_ratio(constructed(along(lambda n: n**0.5)), "mean_weights")[0, -1] > 5


@pytest.mark.parametrize(
    ("values", "holds"), [((1.0, 1.1), True), ((1.0, 3.0), None), ((2.5, 3.0), False), ((-3.0, -2.0), False)]
)
def test_an_interval_decides(values, holds):
    spread = np.r_[np.mean(values), np.linspace(*values, laws.RESAMPLES)]
    claim = laws.judged("a", spread, 0.5, 2.0, 1.0, 9, "", statement="ours", source="paper 001, abstract")
    assert claim.holds is holds and claim.num_seeds == 9


def rows(claims):
    return {claim.name: claim.holds for claim in claims}


def full_results(excess):
    """The runs of full_gradients.toml, with the excess ``excess(N, T, η)`` in all."""
    rates = [1.0, 0.25]
    data = xarray.concat(
        [constructed(lambda n, T, eta=eta: excess(n, T, eta), eta=eta) for eta in rates],
        xarray.DataArray(rates, dims="learning_rate", name="learning_rate"),
    )
    return dict.fromkeys([*full_gradients.RULES, full_gradients.TOO_LARGE], data)


def test_claims_of_full_gradients():
    lawful = rows(full_gradients.claims(full_results(decaying)))
    assert lawful["log_n_full_gradients"] and lawful["slope_sqrt"] and lawful["slope_first_order"]
    assert lawful["one_step_does_not_learn"] and lawful["auto_sqrt_mean_weights"]
    assert lawful["last_weights_no_law"] is False and lawful["too_large_no_law"] is False
    power = rows(full_gradients.claims(full_results(lambda n, T, eta: along(lambda n: n**0.45)(n, T))))
    assert power["log_n_full_gradients"] is False and power["last_weights_no_law"]
    assert power["auto_sqrt_mean_weights"] is False


def test_claims_of_stochastic_gradients():
    root, names = stochastic_gradients.root, [*stochastic_gradients.RULES, *stochastic_gradients.FIXED]
    results = dict.fromkeys(names, constructed(along(lambda n: 0.35 * root(n))))
    results["fixed"] = constructed(functools.partial(decaying, eta=0.125), eta=0.125)
    found = rows(stochastic_gradients.claims(results))
    assert found["sqrt_n_log_n_stochastic_gradients"] and found["sqrt_n_log_n_adaptive"] and found["log_n_fixed"]
    assert found["log_n_fixed_large"] is False and found["falling_rate_needed"] is False
    results["sqrt"] = constructed(along(lambda n: 4 * n**0.3))
    assert rows(stochastic_gradients.claims(results))["sqrt_n_log_n_stochastic_gradients"] is False


def two_domains_results(config, share):
    """A data set whose last weights are ``share(method, target, T)``."""
    made = two_domains_report.experiment(config)
    shares = [[[share(m, u, n) for n in config.horizons] for m in two_domains.METHODS] for u in config.targets]
    others = made.coords["other"]
    predicted = np.ones((3, 2, len(config.horizons), len(others)))
    variables = {
        "share": (("seed", *made.dims["share"]), np.broadcast_to(shares, (3, *np.shape(shares)))),
        "predicted": (("seed", *made.dims["predicted"]), predicted),
        "actual": (("seed", *made.dims["actual"]), predicted + 0.3 * (others - 0.5) ** 2),
    }
    coords = {k: made.coords[k] for k in ("method", "horizon", "other")}
    return {"run": xarray.Dataset(variables, {"seed": np.arange(3), **coords})}, made


def test_claims_of_two_domains():
    config = two_domains.TwoDomains()
    closed, made = two_domains_results(config, lambda m, u, n: two_domains.last_share(m, u, n, config.epsilon))
    assert all(rows(made.claims(closed)).values())
    uniform, _ = two_domains_results(config, lambda m, u, n: 0.4)
    found = rows(made.claims(uniform))
    assert not any(holds for name, holds in found.items() if name != "counterfactual_order")
    assert found["one_step_fails"] is False and found["vertex_mirror_descent"] is False


def test_a_tiny_run_of_two_domains_to_the_end(tmp_path):
    tiny = ["horizons=[1]", "num_steps=600", "num_rounds=20", "sweep.seeds=2", "sweep.first_seed=3"]
    out = experiment.run(configs.load(FOLDER / "two_domains.toml", tiny), out=tmp_path / "two_domains")
    found = {row["name"]: row for row in json.loads((out / "claims.json").read_text())}
    assert (out / "figure.png").stat().st_size > 10_000
    for name in ("one_step_fails", *(f"closed_form_{method}" for method in two_domains.METHODS)):
        assert found[name]["holds"], found[name]
    np.testing.assert_allclose(found["one_step_fails"]["value"], 0.3765 / 0.0625, rtol=1e-3)


def test_a_tiny_run_of_budgets_to_the_end():
    """One run in place of all: compiling is what takes time."""
    config = budgets.Budgets(budgets=(64, 256, 1024), shortest=2, longest=24, sigma=0.5, repeats=2)
    made = stochastic_gradients.stochastic_gradients(config)
    data = mixjax.sweep(made.train, seeds=3, dims=made.dims, coords=made.coords, chunk=3)
    assert all(np.isfinite(data[metric]).all() for metric in (*budgets.METRICS, "rate", "eta"))
    excess = data.mean_weights.mean("seed")
    assert (excess.sel(budget=1024).min() < 0.5 * excess.sel(budget=64).min()) and (data.mean_weights >= 0).all()
    np.testing.assert_allclose(data.rate.sel(budget=1024), 0.8, atol=0.02)  # 1 - η μ
    names = {stochastic_gradients: [*stochastic_gradients.RULES, *stochastic_gradients.FIXED]}
    names[full_gradients] = [*full_gradients.RULES, full_gradients.TOO_LARGE]
    for module, runs in names.items():
        held = data.expand_dims(learning_rate=[1.0]) if module is full_gradients else data
        results = dict.fromkeys(runs, held)
        assert len(module.claims(results)) > 10
        plt.close(module.figure(results))

"""The table of pairs of rules, on tiny problems and made-up tables and images: nothing here needs the cache."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.table import pairs as pairs_lib
from experiments.table import report
from experiments.table.pairs import Pair
from experiments.table.problems import Gaussians, Groups, Images
from experiments.table.table import Table, load, table
from mixjax import WeightRule, signals
from mixjax.rules import RULES
from mixjax.runner import configs
from mixjax.training import init_state

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIGS = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights"
TINY = {"batch_size": 8, "num_steps": 8, "probe_every": 2, "warmup": 0.0, "held_out": 6, "validation": 10}


def fake_images(name, **kwargs):
    rng, side = np.random.default_rng(0), {"mnist": 28, "digits": 8}[name]
    train, test = rng.random((400, side * side), np.float32), rng.random((40, side * side), np.float32)
    labels = [np.arange(len(images), dtype=np.int32) % 10 for images in (train, test)]
    return mixjax.data.Images(train, labels[0], test, labels[1], (side, side), 10, "noise, for shapes only")


def fake_table(name, **kwargs):
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(3, dtype=np.int32), [70, 60, 40])
    labels, names = rng.integers(2, size=groups.size, dtype=np.int32), ("group 0", "group 1", "group 2")
    features = rng.normal(size=(groups.size, 2)).astype(np.float32)
    return mixjax.data.Table(features, labels, groups, names, ("a", "b"), "noise, for shapes only")


@pytest.fixture(scope="module", autouse=True)
def no_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        patch.setattr(mixjax.data, "load_table", fake_table)
        yield


@pytest.fixture(scope="module")
def config():
    return configs.load(CONFIGS / "table.toml")


# --- the config -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table", "table_gpu"])
def test_every_pair_runs_or_is_excluded_with_a_reason_and_all_have_as_many_tries(name):
    config, run_somewhere = configs.load(CONFIGS / f"{name}.toml"), set()
    assert config.sweep.first_seed >= 1000
    assert config.sweep.seeds - config.runs[0].values.selection_seeds >= 20
    assert config.runs[0].values.pairs[0].name == report.BASELINE
    for run in config.runs:
        problem, experiment = load(run.values), table(run.values)
        tries = Counter(experiment.points["pair"])
        left_out = [pair for pair in run.values.pairs if pairs_lib.excluded(pair, problem)]
        assert all(pairs_lib.reason(pair) for pair in left_out)
        assert sorted([*tries, *(pair.name for pair in left_out)]) == sorted(pair.name for pair in run.values.pairs)
        assert len(set(tries.values())) == 1
        run_somewhere |= {
            rule for pair in run.values.pairs if pair.name in tries for rule in (pair.loss, pair.sampling)
        }
    assert run_somewhere == set(RULES)


@pytest.mark.parametrize("number", [0, 6, 9])
def test_the_problems_of_the_large_table_can_be_traced(number):
    experiment = table(configs.load(CONFIGS / "table_gpu.toml").runs[number].values)
    hparams = {name: jax.ShapeDtypeStruct((), np.float32) for name in experiment.points}
    hparams["pair"] = jax.ShapeDtypeStruct((), np.int32)
    shapes = jax.eval_shape(experiment.train, jax.random.key(0), hparams, experiment.data)
    assert set(shapes) == set(experiment.dims)


def test_a_pair_without_a_grid_tries_as_many_learning_rates_between_the_same_ends():
    compared = [Pair("plain"), Pair("robust", loss="dro", grid={"beta": (0.1, 10.0)})]
    columns = pairs_lib.points(compared, (0.25, 1.0))
    assert columns["pair"] == ["plain"] * 4 + ["robust"] * 4
    np.testing.assert_allclose(columns["learning_rate"], [0.25, 0.397, 0.63, 1.0, 0.25, 1.0, 0.25, 1.0], rtol=1e-2)
    np.testing.assert_array_equal(columns["beta"], [np.nan] * 4 + [0.1, 0.1, 10.0, 10.0])


def test_mistakes_in_a_config_are_named():
    with pytest.raises(ValueError, match="'x': no rule 'ermaa'"):
        Pair("x", loss="ermaa")
    with pytest.raises(ValueError, match="'x': neither rule has beta; they have gamma1, gamma2"):
        Pair("x", loss="erma", grid={"beta": (1.0,)})
    with pytest.raises(ValueError, match="'x': all lists of its grid must be equally long"):
        Pair("x", loss="erma", grid={"gamma1": (1.0,), "gamma2": (1.0, 2.0)})
    uneven = [Pair("x", loss="dro", grid={"beta": (1.0,)}), Pair("y", loss="exp3", grid={"decay": (0.5, 0.9)})]
    with pytest.raises(ValueError, match=r"equally long, or some get more tries, got \[1, 2\]"):
        pairs_lib.points(uneven, (1.0,))
    with pytest.raises(ValueError, match="needs one of gaussians, images, groups, got none"):
        load(Table((Pair("x"),)))
    with pytest.raises(ValueError, match="got gaussians and groups"):
        load(Table((Pair("x"),), gaussians=Gaussians(), groups=Groups()))


# --- training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(config):
    """A function of a pair's name, all of which one compiled program runs, on two Gaussian domains."""
    settings = Table(config.runs[0].values.pairs, gaussians=Gaussians(dim=4, num_examples=20), **TINY)
    experiment = table(settings)
    run, points = jax.jit(experiment.train), experiment.points
    names = list(dict.fromkeys(points["pair"]))

    def train(name, key=0, learning_rate=1.0):
        row = points["pair"].index(name)
        hparams = {column: jnp.float32(values[row]) for column, values in points.items() if column != "pair"}
        hparams |= {"pair": jnp.int32(names.index(name)), "learning_rate": jnp.float32(learning_rate)}
        return jax.tree.map(np.asarray, run(jax.random.key(key), hparams, None))

    return train, names, settings


def test_every_pair_trains_and_its_weights_stay_on_the_simplex(trained):
    train, names, _ = trained
    moved = {}
    for name in names:
        found = train(name)
        for kind in ("loss_weights", "sampling_weights"):
            np.testing.assert_allclose(found[kind].sum(), 1.0, rtol=1e-5)
            assert (found[kind] >= 0).all()
        assert np.isfinite(found["validation"]) and np.isfinite(found["test"])
        moved[name] = [abs(found[kind][0] - 0.5) > 1e-6 for kind in ("loss_weights", "sampling_weights")]
    assert moved["no weighting"] == moved["no weighting, random counts"] == [False, False]
    assert moved["VA"] == moved["gradient norm"] == [False, True]
    assert (
        moved["ERMA"] == moved["one-shot FGLS"] == moved["two-stage FGLS"] == moved["mirror descent"] == [True, False]
    )
    assert moved["ERMA + VA"] == moved["Aitken + VA"] == [True, True]


def test_no_weighting_is_sgd_on_the_mean_of_the_domains(trained):
    train, _, settings = trained
    setup_key, fit_key, _ = jax.random.split(jax.random.key(0), 3)
    setup = load(settings).setup(setup_key, None)
    step_key, ids = jax.random.split(fit_key)[0], jnp.repeat(jnp.arange(2), 4)
    params = np.zeros(4)
    for step in range(settings.num_steps):
        batch = setup.draw(jax.random.fold_in(step_key, step), ids)
        x, y = np.asarray(batch.scale)[:, None] * np.asarray(batch.x), np.asarray(batch.target)
        params = params - settings.learning_rate * 2.0 * (x @ params - y) @ x / 8
    np.testing.assert_allclose(train("no weighting")["test"], np.linalg.norm(params - 0.5), rtol=1e-4)
    held = setup.judge(jnp.asarray(params, jnp.float32))["validation"]
    np.testing.assert_allclose(train("no weighting")["validation"], held, rtol=1e-4)


class Heard(NamedTuple):
    weights: jax.Array
    prior: jax.Array
    signals: dict


def test_a_probe_tells_each_rule_what_it_looks_at_and_nothing_else():
    compared = [Pair("losses"), Pair("spread", "fixed", "variance_aware"), Pair("reference", "doremi")]
    compared += [Pair("slopes", "doge"), Pair("one", "exp3"), Pair("residuals", "fgls")]
    problem = load(Table(tuple(compared), gaussians=Gaussians(dim=3, num_examples=20), **TINY))
    setup = problem.setup(jax.random.key(1), None)
    listener = WeightRule(
        lambda prior: Heard(jnp.asarray(prior), jnp.asarray(prior), {}),
        lambda state, **told: state._replace(signals=told),
    )
    params = jnp.array([0.3, -0.2, 0.1])

    @jax.jit
    def told(index):
        state = init_state(params, fixed_optimizer, problem.prior, listener, listener)
        probe = pairs_lib.make_probe(setup, compared, index, listener, listener, problem.prior, params)
        state = probe(state, jax.random.key(2))
        return state.loss_state.signals, state.sampling_state.signals

    fixed_optimizer = pairs_lib.optax.sgd(0.1)
    values, unit = setup.losses(params, setup.held_out), setup.losses(setup.params, setup.held_out).mean()
    heard = [told(jnp.int32(i)) for i in range(len(compared))]
    for loss_told, _ in heard[:4]:
        np.testing.assert_allclose(loss_told["losses"], values.mean(axis=1) / unit, rtol=1e-5)
        np.testing.assert_allclose(loss_told["loss_vars"], values.var(axis=1, ddof=1) / unit**2, rtol=1e-4)
    for number, name in ((0, "hypergrads"), (1, "reference_losses"), (2, "grad_norms")):
        assert np.isnan(heard[number][0][name]).all()
    assert np.isnan(heard[0][1]["grad_stds"]).all()
    examples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), setup.held_out)
    stds = signals.grad_stds(lambda p, z: setup.losses(p, z) / unit, params, examples, np.repeat([0, 1], 6), 2)
    np.testing.assert_allclose(heard[1][1]["grad_stds"], stds, rtol=1e-3)
    np.testing.assert_allclose(heard[2][0]["reference_losses"], heard[2][0]["losses"], rtol=1e-5)  # its own reference
    assert np.isfinite(heard[3][0]["hypergrads"]).all() and (heard[3][0]["grad_norms"] > 0).all()
    assert sorted(heard[4][0]["counts"].tolist()) == [0.0, 6.0]
    assert (heard[5][0]["losses"] != heard[0][0]["losses"]).all()


@pytest.mark.parametrize("settings", [{"images": Images(distinct=3, hidden=4)}, {"groups": Groups()}])
def test_parts_of_real_data_share_no_example(settings):
    sizes = {"held_out": 6, "validation": 10}
    problem = load(Table((Pair("x"),), **settings, **sizes))
    setup = problem.setup(jax.random.key(0), problem.data)
    drawn = setup.draw(jax.random.key(1), jnp.zeros(200, int))
    ours, theirs = (np.asarray(jax.tree.leaves(batch)[0]) for batch in (setup.held_out, drawn))
    ours = ours[0]  # of the first domain
    assert not (ours[:, None] == theirs[None]).all(axis=-1).any()


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(config):
    """Made-up numbers of the right shapes for every problem, three seeds to choose and three to judge."""
    rng, found = np.random.default_rng(0), {}
    for run in config.runs:
        points = table(run.values).points
        coords = {name: ("point", values) for name, values in points.items()}
        sizes = (len(points["pair"]), 6)
        variables = {name: (("point", "seed"), 1.0 + rng.random(sizes)) for name in ("validation", "test")}
        found[run.name] = xarray.Dataset(variables, coords | {"seed": np.arange(1000, 1006)})
    return found


def test_points_are_chosen_on_the_first_seeds_alone(results):
    data = results["linear (100, 1)"].copy(deep=True)
    own = np.flatnonzero(data["pair"].values == "ERMA")
    data["validation"][own[4], :3] = 0.1
    data["validation"][own[7], :3] = [0.0, 0.0, np.nan]  # diverged once: never chosen
    data["validation"][own[2], 3:] = 0.0  # good on the judging seeds only
    kept = report.judged(data, 3)
    chosen = kept.sel(pair="ERMA")
    assert chosen["point"].item() if "point" in chosen.coords else True
    np.testing.assert_array_equal(chosen["test"], data["test"][own[4], 3:])
    assert kept["seed"].values.tolist() == [1003, 1004, 1005]
    with pytest.raises(ValueError, match="5 seeds choose and two or more must judge, got 6 in all"):
        report.judged(data, 5)


def test_every_pair_has_a_row_and_a_better_one_is_ranked_first(results):
    better = {name: data.copy(deep=True) for name, data in results.items()}
    own = better["Adult"]["pair"].values == "group DRO"
    better["Adult"]["test"][own] = (
        better["Adult"]["test"][better["Adult"]["pair"].values == "no weighting"].values - 1.0
    )
    own = np.flatnonzero(better["Adult"]["pair"].values == "EXP3")
    better["Adult"]["test"][own, 4] = np.nan
    rows = {claim.name: claim for claim in report.claims(better, 3)}
    expected = sum(len(set(data["pair"].values)) - 1 for data in results.values())
    assert len([name for name in rows if rows[name].statement.startswith("ours")]) == expected
    assert {"va_effective_100_1", "erma_improves_10_100", "mnist_erma_improves"} <= set(rows)
    compared = report.compared(better, 3)
    assert compared[compared.problem == "Adult"].iloc[0].pair == "group DRO"
    exp3 = compared[(compared.problem == "Adult") & (compared.pair == "EXP3")].iloc[0]
    assert exp3.left_out == 1 and exp3.num_seeds == 2 and np.isclose(exp3.diverged, 1 / 6)


def test_the_table_lists_what_is_excluded_and_the_figure_has_a_panel_a_problem(results, config):
    text = report.markdown(results, config.runs[0].values.pairs, 3)
    assert "Aitken on linear (100, 1), equal noise; logistic (100, 100)" in text
    assert "two-stage FGLS on logistic (100, 100); logistic (10, 100): needs residuals" in text
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(lines) == 1 + len(config.runs[0].values.pairs)
    drawn = report.figure(results, 3)
    assert len(drawn.axes) == len(results) + 1
    plt.close(drawn)


def test_a_pair_that_no_problem_runs_is_still_listed(results, config):
    never = dataclasses.replace(config.runs[0].values.pairs[5], name="never")
    assert "| never | | excluded" in report.markdown(results, [*config.runs[0].values.pairs, never], 3)

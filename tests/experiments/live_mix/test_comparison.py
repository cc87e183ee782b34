"""Tests the comparison of mixing methods: its settings, its data, and that weights which cannot move change nothing."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from experiments.live_mix.comparison import Comparison, load, train
from experiments.live_mix.methods import METHODS, Settings, check_run, rules_of
from experiments.live_mix.stages import Corpus
from experiments.live_mix.tuning import GRIDS, chosen, summary
from mixjax.runner import configs

CONFIGS = Path(__file__).parents[3] / "configs" / "live_mix"
TINY = Comparison(
    domains=("a", "b", "c", "d"),
    target="e",
    vocabulary=11,
    length=6,
    batch_size=8,
    num_steps=20,
    layers=0,
    width=8,
    proxy_width=4,
    heads=2,
    probe_every=2,
    window=2,
    hold=1,
    rounds=1,
    probe_size=2,
    law_size=2,
    eval_size=4,
)


@pytest.fixture(scope="module")
def corpus():
    """Domains of 10 to 40 rows of random tokens, some of which are rarer in some domains."""
    rng = np.random.default_rng(0)

    def rows(domain, *shape):
        return rng.choice(11, (*shape, 7), p=rng.dirichlet(np.full(11, 1.0 + domain))).astype(np.uint16)

    held_out = [np.stack([rows(i, 2048) for i in range(num)]) for num in (4, 5)]
    return Corpus(tuple(rows(i, 10 * (i + 1)) for i in range(4)), *held_out)


def trained(corpus, **settings):
    config = dataclasses.replace(TINY, **settings)
    # As one compiled program: op by op, the many small operations of the rules take longer than compiling them.
    return jax.jit(lambda key, corpus: train(key, config, corpus))(jax.random.key(0), corpus)


@pytest.fixture(scope="module")
def uniform(corpus):
    return trained(corpus, method="uniform")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_metrics(corpus, name):
    config = dataclasses.replace(TINY, method=name)
    found = jax.eval_shape(lambda key, corpus: train(key, config, corpus), jax.random.key(0), corpus)
    weights = {"loss_weight": (10, 4), "sampling_weight": (10, 4), "epochs": (4,), "least_effective_domains": ()}
    losses = {"loss": (10, 4), "target_loss": (10,), "validation_loss": (4,)}
    assert {metric: value.shape for metric, value in found.items()} == weights | losses


def test_the_uniform_mix_draws_all_domains_alike_and_learns(uniform):
    np.testing.assert_allclose(uniform["epochs"], 40 / np.array([10.0, 20.0, 30.0, 40.0]), rtol=1e-6)
    np.testing.assert_allclose(uniform["loss_weight"], 0.25)
    np.testing.assert_allclose(uniform["sampling_weight"], 0.25)
    assert float(uniform["least_effective_domains"]) == pytest.approx(4.0)
    assert (uniform["loss"][-1] < uniform["loss"][0]).all() and np.isfinite(uniform["target_loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "group_dro", "step_size": 0.0},
        {"method": "erma_va", "floor": 1.0},
        {"method": "doremi", "step_size": 0.0},
        {"method": "doge", "step_size": 0.0},
    ],
    ids=lambda settings: settings["method"],
)
def test_weights_that_cannot_move_give_the_losses_of_the_uniform_mix(corpus, uniform, settings):
    found = trained(corpus, **settings)
    for metric in ("loss", "target_loss", "validation_loss", "epochs"):
        np.testing.assert_allclose(found[metric], uniform[metric], rtol=1e-4, err_msg=metric)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "erma_va", "gamma1": 20.0, "gamma2": 100.0},
        {"method": "group_dro", "step_size": 1.0},
        {"method": "aioli", "step_size": 2.0},
    ],
    ids=lambda settings: settings["method"],
)
def test_weights_that_move_stay_on_the_simplex_and_change_the_outcome(corpus, uniform, settings):
    found = trained(corpus, **settings)
    for metric in ("loss_weight", "sampling_weight"):
        np.testing.assert_allclose(found[metric].sum(axis=1), 1.0, rtol=1e-5)
    assert float(jnp.abs(found["loss_weight"][-1] - 0.25).max()) > 0.01
    assert float(found["least_effective_domains"]) < 4.0
    assert not np.allclose(found["loss"][-1], uniform["loss"][-1], atol=1e-6)
    drawn = found["epochs"] * jnp.array([10.0, 20.0, 30.0, 40.0])
    assert float(drawn.sum()) == pytest.approx(TINY.num_steps * TINY.batch_size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "umiform"}, "method must be one of uniform, .* got 'umiform'"),
        ({"target": "help"}, "target must not be among the domains, got 'help'"),
        ({"num_steps": 25}, "num_steps must be a positive multiple of 10, got 25"),
        ({"domains": ()}, "domains must be one or more different names, got none"),
        ({"domains": ("help", "help")}, "domains must be one or more different names, got help, help"),
        # Rows are uint16, and a larger vocabulary would wrap.
        ({"vocabulary": 2**16 + 1}, "vocabulary must be from 2 to 65536, got 65537"),
        ({"batch_size": 12, "method": "doge"}, "batch_size must be a multiple of the 8 domains for DoGE, got 12"),
        ({"heads": 3}, "width must be a multiple of heads = 3, got 32"),
        ({"heads": 32}, "proxy_width must be a multiple of heads = 32, got 16"),
        ({"probe_size": 1}, "probe_size must be an integer of at least 2, got 1"),
        # Weights that never move would be compared under the name of a method that moves them.
        ({"method": "va", "num_steps": 10}, "probe_every must be at most num_steps = 10, got 20"),
        ({"method": "aioli", "num_steps": 160}, r"window \* \(1 \+ rounds \* 8 domains\) = 170 for Aioli .* got 160"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Comparison(**settings)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(Comparison) if type(field.default) in (int, float)]
)
def test_no_number_may_be_negative(name):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        dataclasses.replace(TINY, **{name: type(getattr(TINY, name))(-1)})


@pytest.mark.parametrize("num_steps", [49, 50])
def test_a_run_too_short_for_one_estimate_of_aioli_is_refused(num_steps):
    settings = Settings(window=10, rounds=1)
    rule = rules_of(METHODS["aioli"], settings, num_steps)[1]
    state = rule.init(jnp.ones(4))
    for number in range(num_steps // settings.window):
        state = rule.update(state, counts=jnp.ones(4), losses=4.0 - 0.1 * number * jnp.arange(1.0, 5.0))
    is_long_enough = bool(state.measured.any())
    with contextlib.nullcontext() if is_long_enough else pytest.raises(ValueError, match="num_steps must be at least"):
        check_run(METHODS["aioli"], settings, num_steps, 4)
    assert is_long_enough == (num_steps == 50)


def test_domains_are_cut_to_one_pass_of_the_longest_run():
    (run, *_) = configs.load(CONFIGS / "comparison_quick.toml").runs
    config = dataclasses.replace(run.values, num_steps=20, full_steps=50, batch_size=8)
    corpus = load(config)
    assert abs(sum(len(rows) for rows in corpus.train) - 400) <= 1
    assert all(rows.shape[1] == config.length + 1 and len(np.unique(rows, axis=0)) > 1 for rows in corpus.train)
    twice = load(dataclasses.replace(config, repetition=2.0))
    assert abs(sum(len(rows) for rows in twice.train) - 200) <= 1
    assert corpus.test.shape[0] == 3 and corpus.validation.shape[0] == 2


def test_the_config_has_every_method_with_settings_that_were_tried():
    runs = {run.name: run.values for run in configs.load(CONFIGS / "comparison.toml").runs}
    assert [name for name in runs if not name.endswith("_time")] == list(METHODS)
    for name, values in runs.items():
        method = name.removesuffix("_time")
        assert values.method == method
        assert (values.num_steps < values.full_steps) == name.endswith("_time")
        grid = GRIDS.get(method, {})
        tried = list(zip(*grid.values(), strict=True))
        assert not grid or tuple(getattr(values, key) for key in grid) in tried
    assert [run.name for run in configs.load(CONFIGS / "comparison_quick.toml").runs] == list(METHODS)
    tuned = [run.name for run in configs.load(CONFIGS / "comparison_tuning.toml").runs]
    assert set(tuned) >= set(GRIDS) == {name for name, method in METHODS.items() if method.moves}


def test_every_method_gets_as_many_tries():
    assert {len(values) for grid in GRIDS.values() for values in grid.values()} == {4}


def test_the_setting_of_least_finite_validation_loss_is_chosen():
    losses = np.array([[[3.0, 2.0], [3.0, 2.0]], [[1.0, np.nan], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.5]]])
    found = xarray.Dataset(
        {"validation_loss": (("point", "seed", "domain"), losses)},
        coords={"gamma1": ("point", np.float32([0.1, 0.2, 0.4])), "gamma2": ("point", np.float32([1, 2, 3]))},
    )
    assert chosen(found) == {"gamma1": 0.4, "gamma2": 3.0}
    static = found.isel(point=0, drop=True)
    assert chosen(static) == {}
    text = summary({"erma": found, "uniform": static})
    assert '[[run]]\nname = "erma"\nmethod = "erma"\ngamma1 = 0.4\ngamma2 = 3.0\n\n[[run]]\nname = "uniform"' in text
    assert "| erma | gamma1 0.4, gamma2 3 | 2.1250 | chosen |" in text

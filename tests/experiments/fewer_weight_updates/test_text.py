"""The methods on made-up texts, and the config."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax.data
from experiments.fewer_weight_updates import text
from experiments.fewer_weight_updates.text import Texts
from mixjax import mixing
from mixjax.data import load_text
from mixjax.runner import configs
from mixjax.sweeps import in_rounds
from tests.experiments.fewer_weight_updates.made_up_text import CONFIG, TINY, made_up, replace_texts


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    replace_texts(monkeypatch)


def test_row_d_of_a_batch_is_of_domain_d():
    marked = Texts(tuple(jnp.full(20, d, jnp.uint8) for d in range(3)), jnp.zeros(20, jnp.uint8))
    drawn = text.draw(jax.random.key(0), marked.domains, 8, 4)
    assert drawn.shape == (3, 4, 9) and (drawn == np.arange(3)[:, None, None]).all()


def test_few_bytes_are_taken_from_all_of_a_text():
    parts = text.load(dataclasses.replace(TINY, train_bytes=512))
    whole = made_up(b"xyz").train
    np.testing.assert_array_equal(parts["train"].domains[1], np.concatenate([whole[:256], whole[-256:]]))
    assert len(parts["train"].target) == 4000 and [len(part) for part in parts["test"].domains] == [2000, 2000]


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def sweep(monkeypatch):
    """Trains a seed on real text that needs no fetching; Python's library would take seconds to read."""
    monkeypatch.setattr(
        mixjax.data, "load_text", lambda name, **how: made_up(b"de f") if name == "python" else load_text(name, **how)
    )
    monkeypatch.setattr(text, "in_rounds", functools.partial(in_rounds, at_least=0.0))
    made = text.text(TINY)
    settings = {"seeds": 1, "data": made.data, "dims": made.dims, "coords": made.coords}
    return lambda **how: mixjax.sweep(made.train, **settings, **how).isel(seed=0)


def test_uniform_mixing_is_trained_anew_on_the_same_batches(sweep):
    found = sweep()
    np.testing.assert_allclose(found.weights, np.full((2, 2), 0.5))
    np.testing.assert_allclose(found.retrained_loss, found.target_loss[-1], rtol=1e-4)
    assert found.target_loss[1] < found.target_loss[0] < 6 and found.design_effects.shape == (2, 4)


def test_a_run_that_is_killed_after_each_piece_goes_on_to_the_same_bits(sweep, tmp_path):
    reported = []

    def die(done, total):
        reported.append(done)
        raise KilledError

    whole = sweep()
    for _ in range(4):
        with pytest.raises(KilledError):
            sweep(checkpoint=tmp_path, callback=die)
    found = sweep(checkpoint=tmp_path)
    # Nothing is trained twice: two pieces while the weights move, two with their mean.
    assert reported == [0.25, 0.5, 0.75, 1.0]
    for name, values in whole.data_vars.items():
        np.testing.assert_array_equal(found[name], values, err_msg=str(name))


def test_the_domain_with_the_targets_letters_gets_the_weight():
    """Most bytes are in no text: their embeddings' gradients are 0, where Adam's root must not spoil the derivative."""
    config = dataclasses.replace(TINY, method="hypergradient")

    @jax.jit
    def weights(key, parts):
        graphdef, params, optimizer = text.start(config, key)
        rule = text.rule_of(config)
        fit = text.fit_of(config, graphdef, optimizer, parts, key)
        state = mixing.init_state(params, optimizer, [0.5, 0.5], rule)
        return fit(rule, state, num_steps=32, T=8, mode=text.mode_of(config)).rule_state.weights

    assert weights(jax.random.key(0), jax.tree.map(jnp.asarray, text.load(config)))[1] > 0.7


@pytest.mark.parametrize("method", ["erma_sequences", "erma_bytes", "doge"])
def test_signals_are_those_the_method_is_named_after(monkeypatch, method):
    config = dataclasses.replace(TINY, method=method)
    graphdef, params, optimizer = text.start(config, jax.random.key(0))
    monkeypatch.setattr(text.mixing, "fit", lambda *args, signals: (signals, None))
    key, parts = jax.random.key(2), text.load(config)
    signals = text.fit_of(config, graphdef, optimizer, parts, jax.random.key(1))(None, None)
    state = mixing.init_state(params, optimizer, [0.5, 0.5], text.rule_of(config))
    found = jax.jit(signals)(state, key)
    losses = text.losses_of(graphdef)
    if method == "doge":
        batch = text.draw(key, parts["train"].domains, config.length, config.batch_size)
        grads = jax.jit(jax.grad(lambda p: losses(p, batch[1]).mean()))(params)
        squares = sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grads))
        np.testing.assert_allclose(found["grad_norms"][1], squares**0.5, rtol=1e-4)
    else:
        held_out = text.draw(key, parts["validation"].domains, config.length, text.PROBE)
        values = np.asarray(jax.jit(losses)(params, held_out.reshape(-1, 9))).reshape(2, text.PROBE, 8)
        means = values.mean(axis=2).var(axis=1, ddof=1)
        expected = means if method == "erma_sequences" else values.reshape(2, -1).var(axis=1, ddof=1) / 8
        np.testing.assert_allclose(found["loss_vars"], expected, rtol=1e-3)
        np.testing.assert_allclose(found["losses"], values.mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"T": 3}, r"multiple of num_records \* T \* rounds_per_update = 6, got 64"),
        ({"train_bytes": 100}, "train_bytes must be a multiple of 256, got 100"),
        ({"target": "c"}, "target must not be among the domains, got 'c'"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **settings)


def test_every_method_of_the_config_traces():
    config = configs.load(CONFIG)
    assert config.sweep.first_seed >= 1000 and config.sweep.seeds >= 5
    assert [run.values.T for run in config.runs if run.values.method == "hypergradient"][:4] == [1, 4, 16, 64]
    for method, values in {run.values.method: run.values for run in config.runs}.items():
        used = dataclasses.replace(values, layers=0)
        experiment = config.function(used)
        assert set(experiment.dims) == set(experiment.units), method

        def one_piece(key, parts, used=used):
            return text._advance(text._start(key, text.rule_of(used), used), key, parts, used)

        state = jax.eval_shape(one_piece, jax.random.key(0), experiment.data)
        assert state.mean_weights.shape == (6,)

"""The language model of bytes: its losses, their variances, the methods on made-up texts, claims and figure."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from flax import nnx

import mixjax.data
from experiments.fewer_weight_updates import text, text_overhead, text_report
from experiments.fewer_weight_updates.text import DOMAINS, Text, Texts
from experiments.fewer_weight_updates.text_model import Decoder, byte_losses, design_effects, loss_variances
from mixjax import mixing
from mixjax.data import load_text
from mixjax.runner import configs

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = Path(__file__).parents[2] / "configs" / "fewer_weight_updates" / "text.toml"
TINY = Text(
    domains=("python", "c"),
    layers=0,
    width=8,
    length=8,
    batch_size=4,
    val_batch_size=8,
    test_windows=16,
    num_steps=64,
    num_records=2,
    T=8,
    learning_rate=0.05,
)


def made_up(alphabet, size=4000, seed=0):
    letters = np.random.default_rng(seed).choice(np.frombuffer(alphabet, np.uint8), size)
    return mixjax.data.Text(letters, letters[::-1], letters[::2], "made up")


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """The target has the letters of "c" alone."""
    alphabets = {"c": b"xyz", "reference": b"xxyz"}
    monkeypatch.setattr(mixjax.data, "load_text", lambda name: made_up(alphabets.get(name, b"abcdefgh")))


# --- the model and its losses ---------------------------------------------------------------------------------------


def test_a_loss_depends_on_the_bytes_up_to_its_own_alone():
    losses = jax.jit(lambda x: byte_losses(Decoder(1, 8, 2, 6, rngs=nnx.Rngs(0)), x))
    windows = np.random.default_rng(0).integers(0, 256, (3, 7)).astype(np.uint8)
    changed = windows.copy()
    changed[:, 4] += 1
    before, after = losses(np.concatenate([windows, changed])).reshape(2, 3, 6)
    np.testing.assert_allclose(before[:, :3], after[:, :3], rtol=1e-6)
    assert (np.abs(before - after)[:, 3:] > 1e-6).all()  # byte 4 is what loss 3 predicts, and what losses 4 and 5 see


def test_a_loss_is_the_cross_entropy_of_the_next_byte():
    windows = np.arange(12).reshape(2, 6).astype(np.uint8)

    @jax.jit
    def both(windows):
        model = Decoder(0, 4, 1, 5, rngs=nnx.Rngs(0))
        return model(windows[:, :-1]), byte_losses(model, windows)

    logits, found = both(windows)
    logits = np.asarray(logits, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, windows[:, 1:, None].astype(int), axis=-1)[..., 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_two_variances_of_a_sequences_mean_loss():
    losses = np.random.default_rng(0).normal(size=(2, 5, 8)) + np.arange(5)[:, None]
    of_sequences, of_bytes = loss_variances(jnp.asarray(losses))
    np.testing.assert_allclose(of_sequences, losses.mean(axis=2).var(axis=1, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(of_bytes, losses.reshape(2, 40).var(axis=1, ddof=1) / 8, rtol=1e-5)


def test_a_design_effect_is_one_for_independent_losses_and_k_for_equal_ones():
    rng = np.random.default_rng(0)
    independent, equal = rng.normal(size=(2000, 8)), np.repeat(rng.normal(size=(2000, 1)), 8, axis=1)
    found = design_effects(jnp.stack([independent, equal]), [1, 2, 8])
    np.testing.assert_allclose(found, [[1, 1, 1], [1, 2, 8]], rtol=0.15)
    blocks = independent.reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(found[0, 1], 2 * blocks.var(ddof=1) / independent.var(ddof=1), rtol=1e-5)
    of_sequences, of_bytes = loss_variances(jnp.asarray(independent))
    np.testing.assert_allclose(found[0, 2], of_sequences / of_bytes, rtol=1e-2)  # divisors n - 1


# --- training -------------------------------------------------------------------------------------------------------


def test_row_d_of_a_batch_is_of_domain_d():
    marked = Texts(tuple(jnp.full(20, d, jnp.uint8) for d in range(3)), jnp.zeros(20, jnp.uint8))
    drawn = text.draw(jax.random.key(0), marked.domains, 8, 4)
    assert drawn.shape == (3, 4, 9) and (drawn == np.arange(3)[:, None, None]).all()


def test_few_bytes_are_taken_from_all_of_a_text():
    parts = text.load(dataclasses.replace(TINY, train_bytes=512))
    whole = made_up(b"xyz").train
    np.testing.assert_array_equal(parts["train"].domains[1], np.concatenate([whole[:256], whole[-256:]]))
    assert len(parts["train"].target) == 4000 and [len(part) for part in parts["test"].domains] == [2000, 2000]


def test_uniform_mixing_is_trained_anew_on_the_same_batches(monkeypatch):
    """On real text that needs no fetching; Python's library takes seconds to read."""
    monkeypatch.setattr(
        mixjax.data, "load_text", lambda name: made_up(b"de f") if name == "python" else load_text(name)
    )
    data = jax.tree.map(jnp.asarray, text.load(TINY))
    found = jax.jit(lambda key, data: text.train(key, TINY, data))(jax.random.key(0), data)
    np.testing.assert_allclose(found["weights"], np.full((2, 2), 0.5))
    np.testing.assert_allclose(found["retrained_loss"], found["target_loss"][-1], rtol=1e-4)
    assert found["target_loss"][1] < found["target_loss"][0] < 6 and found["design_effects"].shape == (2, 4)


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
        ({"T": 3}, r"multiple of num_records \* T \* every = 6, got 64"),
        ({"train_bytes": 100}, "train_bytes must be a multiple of 256, got 100"),
        ({"target": "c"}, "target must not be among the domains, got 'c'"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **settings)


# --- the config, its claims and its figure --------------------------------------------------------------------------


def made_up_results(gain):
    """Every method gains over uniform mixing, more at a longer T and with ERMA over sequences; or loses so."""
    config, rng, results = configs.load(CONFIG), np.random.default_rng(0), {}
    for run in config.runs:
        values, seeds = run.values, 4
        strength = {"uniform": 0, "hypergradient": values.T**0.5, "erma_sequences": 2}.get(values.method, 1)
        lower = gain * strength * (3 if values.every > 1 and gain < 0 else 1)
        losses = 2.8 - lower + rng.normal(0, 1e-3, (seeds, len(values.steps)))
        share = np.full(6, 1 / 6) + lower * np.array([1, -1, 1, -1, 0, 0])
        blocks = np.array(values.blocks)
        variables = {
            "target_loss": (("seed", "step"), losses),
            "retrained_loss": (("seed",), losses[:, -1]),
            "test_losses": (("seed", "domain"), np.repeat(losses[:, -1:], 6, 1)),
            "train_losses": (("seed", "domain"), np.repeat(losses[:, -1:], 6, 1) - 0.1),
            "weights": (("seed", "step", "domain"), np.tile(share, (seeds, len(values.steps), 1))),
            "mean_weights": (("seed", "domain"), share + rng.normal(0, 1e-4, (seeds, 6))),
            "design_effects": (
                ("seed", "domain", "block"),
                blocks ** np.sign(gain) + rng.normal(0, 1e-3, (seeds, 6, len(blocks))),
            ),
        }
        coords = {"seed": np.arange(seeds), "step": list(values.steps), "domain": list(DOMAINS), "block": blocks}
        results[run.name] = xarray.Dataset(variables, coords)
    return results


def test_claims_can_hold_and_fail():
    better, worse = (
        {claim.name: claim for claim in text_report.claims(made_up_results(gain))} for gain in (0.02, -0.02)
    )
    assert set(better) == set(worse) and len(better) > 20
    assert all(claim.statement.startswith("ours") for claim in better.values())
    for name in better:
        assert better[name].holds, name
        assert worse[name].holds is False or name == "erma_weights_differ", name
    assert "python 0.19" in better["t_1_helps"].note
    same = {claim.name: claim.holds for claim in text_report.claims(made_up_results(0.0))}
    assert same["one_round_in_16_cost"] and same["erma_weights_differ"] is False and same["t_64_helps"] is None


def test_the_figure_shows_every_run():
    figure = text_report.figure(made_up_results(0.02))
    assert len(figure.axes) == 6
    mixing = [label.get_text() for label in figure.axes[2].get_legend().get_texts()]
    erma = [label.get_text() for label in figure.axes[4].get_legend().get_texts()]
    assert set(mixing + erma) == {run.name for run in configs.load(CONFIG).runs}
    assert all(axis.get_ylabel() for axis in figure.axes)


def test_every_method_of_the_config_traces():
    config = configs.load(CONFIG)
    assert config.sweep.first_seed >= 1000 and config.sweep.seeds >= 5
    assert [run.values.T for run in config.runs if run.values.method == "hypergradient"][:4] == [1, 4, 16, 64]
    for method, values in {run.values.method: run.values for run in config.runs}.items():
        experiment = config.function(dataclasses.replace(values, layers=0))
        shapes = jax.eval_shape(experiment.train, jax.random.key(0), {}, experiment.data)
        assert set(shapes) == set(experiment.dims) == set(experiment.units), method


def test_the_overhead_is_told_beside_uniform_mixing():
    seconds = text_overhead.measure({text_overhead.BASELINE: TINY}, turns=2)
    assert len(seconds[text_overhead.BASELINE]) == 2 and min(seconds[text_overhead.BASELINE]) > 0
    found = text_overhead.report({text_overhead.BASELINE: [1.0] * 9, "cheap": [1.2] * 9, "dear": [4.0] * 9})
    assert "| cheap | 1.20 (1.20 to 1.20) | yes |" in found and "| dear | 4.00 (4.00 to 4.00) | no |" in found
    assert {config.every for config in text_overhead.sides().values()} == {1, text_overhead.EVERY}

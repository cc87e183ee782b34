"""Letters in place of text, a tiny model of them, and made-up results of the config."""

from pathlib import Path

import numpy as np
import xarray

import mixjax.data
from experiments.fewer_weight_updates.text import DOMAINS, Text
from mixjax.runner import configs

CONFIG = Path(__file__).parents[3] / "configs" / "fewer_weight_updates" / "text.toml"

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


def replace_texts(monkeypatch):
    """Puts made-up texts in place of all domains'; the target has the letters of "c" alone."""
    alphabets = {"c": b"xyz", "reference": b"xxyz"}
    monkeypatch.setattr(mixjax.data, "load_text", lambda name, **how: made_up(alphabets.get(name, b"abcdefgh")))


def made_up_results(gain):
    """Every method gains over uniform mixing, more at a longer T and with ERMA over sequences; or loses so."""
    config, rng, results = configs.load(CONFIG), np.random.default_rng(0), {}
    for run in config.runs:
        values, seeds = run.values, 4
        strength = {"uniform": 0, "hypergradient": values.T**0.5, "erma_sequences": 2}.get(values.method, 1)
        lower = gain * strength * (3 if values.rounds_per_update > 1 and gain < 0 else 1)
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

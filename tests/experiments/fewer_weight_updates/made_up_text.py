"""Letters in place of text, and a tiny model of them."""

import numpy as np

import mixjax.data
from experiments.fewer_weight_updates.text import Text

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
    monkeypatch.setattr(mixjax.data, "load_text", lambda name: made_up(alphabets.get(name, b"abcdefgh")))

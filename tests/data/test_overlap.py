"""Long runs that two texts share."""

import numpy as np
import pytest

from mixjax.data import overlap


def noise(seed, size):
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def naive(text, others, length=overlap.RUN):
    """The places in a text at which runs begin that another text has, by a set of all runs."""
    runs = {other[i : i + length].tobytes() for other in others for i in range(len(other) - length + 1)}
    return [i for i in range(len(text) - length + 1) if text[i : i + length].tobytes() in runs]


@pytest.mark.parametrize("chunk", [overlap._CHUNK, 200])
@pytest.mark.parametrize("seed", range(40))
def test_every_shared_run_holds_a_window_and_nothing_else_is_found(seed, chunk, monkeypatch):
    monkeypatch.setattr(overlap, "_CHUNK", chunk)
    rng = np.random.default_rng(seed)
    others, text = [noise((seed, k), 700) for k in range(2)], noise((seed, 9), 900)
    for _ in range(3):
        length, other = int(rng.integers(60, 140)), others[rng.integers(2)]
        start, at = rng.integers(700 - length), rng.integers(900 - length)
        text[at : at + length] = other[start : start + length]
    found = overlap.shared_windows(text, overlap.Runs(others[:1]), overlap.Runs(others[1:]))
    for place in naive(text, others):
        assert ((found >= place) & (found + overlap.WINDOW <= place + overlap.RUN)).any()
    assert set(found) <= set(naive(text, others, overlap.WINDOW)) and list(found) == sorted(set(found))


@pytest.mark.parametrize("size", [0, 1, overlap.WINDOW - 1])
def test_short_texts_share_nothing(size):
    short = np.zeros(size, np.uint8)
    assert len(overlap.shared_windows(short, overlap.Runs([np.zeros(500, np.uint8)]))) == 0
    assert len(overlap.shared_windows(np.zeros(500, np.uint8), overlap.Runs([short]), overlap.Runs([]))) == 0
    assert len(overlap.shared_windows(np.zeros(500, np.uint8))) == 0

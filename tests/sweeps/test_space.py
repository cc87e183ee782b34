"""Room on disk for checkpoints is predicted, and missed before anything is computed."""

import shutil
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.space import check_space, checkpoint_bytes

CARRY = 50_000


def train(num=3):
    def init(key, hparams, data):
        return {"x": jnp.zeros(CARRY), "key": key}

    return Segments(init, lambda carry, hparams, data: (carry, {"y": carry["x"][:100]}), num)


def predicted(train, chunk="auto", **arguments):
    return checkpoint_bytes(Prepared.of(Sweep(train, chunk=chunk, devices=jax.devices()[:2], **arguments)), chunk)


def test_metrics_of_all_runs_and_two_carries_of_a_chunk_count():
    metrics, carry = 3 * 100 * 4, CARRY * 4 + 8
    assert predicted(train(), seeds=5, chunk=4) == 5 * metrics + 2 * 4 * carry
    assert predicted(train(), seeds=5, chunk=100) == 5 * metrics + 2 * 5 * carry
    assert predicted(train(), seeds=5) == 5 * metrics + 2 * 2 * carry
    assert predicted(train()._replace(calls=2), seeds=5, chunk=4) == 5 * 2 * metrics + 2 * 2 * carry
    assert predicted(lambda key, hparams, data: {"y": jnp.zeros(100)}, seeds=5) == 5 * 400


def test_the_prediction_is_what_is_written(tmp_path, save_always):
    peak = [0]

    def look(done, total):
        peak[0] = max(peak[0], sum(path.stat().st_size for path in tmp_path.rglob("*")))

    spec = {"seeds": 4, "chunk": 4, "devices": jax.devices()[:2]}
    mixjax.sweep(train(5), checkpoint=tmp_path, callback=look, **spec)
    # Between two segments one carry is there; a second one while it is written.
    assert 0.45 < peak[0] / predicted(train(5), seeds=4, chunk=4) < 0.6


def test_too_little_room_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b.chunks"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1_000_000_000))
    check_space(folder, {"one": 400_000_000, "two": 600_000_000})
    with pytest.raises(
        OSError, match=r"b.chunks: checkpoints will need 1.2 GB on disk, most of it for 'two', and 1 GB"
    ):
        check_space(folder, {"one": 400_000_000, "two": 800_000_000})
    folder.mkdir(parents=True)
    np.save(folder / "there.npy", np.zeros(25_000_000))
    check_space(folder, {"one": 400_000_000, "two": 800_000_000})

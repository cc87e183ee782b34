"""Records, and who is told of them."""

import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps.progress import Progress, together


def test_records_for_a_tracker():
    def train(key, hparams, data):
        return {"loss": jnp.array([9.0, jnp.log(hparams["x"])]), "count": jnp.int32(2)}

    records, dims = [], {"loss": ("step",)}
    mixjax.sweep(train, seeds=2, axes={"x": [-1.0, 1.0, jnp.e]}, dims=dims, chunk=4, tracker=records.append)
    keys = ["done", "total", "segment", "segments", "diverged", "metrics"]
    assert [[record[key] for key in keys] for record in records] == [
        [4, 6, 1, 1, 2, {"loss": 0.0, "count": 2.0}],
        [6, 6, 1, 1, 2, {"loss": pytest.approx(1.0), "count": 2.0}],
    ]
    assert all(record["seconds"] >= 0 for record in records)
    records.clear()
    mixjax.sweep(train, seeds=2, axes={"x": [-1.0]}, tracker=records.append)
    assert records[0]["metrics"]["loss"] is None and records[0]["diverged"] == 2


def test_what_was_at_hand_counts_from_the_start():
    calls, records = [], []
    kept = {0: {"x": np.array([1.0, np.nan])}}
    progress = Progress(
        lambda *args: calls.append(args), records.append, total=4, kept=kept, segments=2, time_axes={"x": 0}
    )
    progress.segment({"x": np.array([[1.0, 2.0], [3.0, np.inf]])}, 1)
    progress.chunk({"x": np.array([[1.0, 2.0], [3.0, 4.0]])})
    assert calls == [(2, 4), (3, 4), (4, 4)]
    assert [(r["done"], r["segment"], r["diverged"], r["metrics"]["x"]) for r in records] == [
        (3, 1, 2, 2.0),
        (4, 2, 1, 3.0),
    ]


def test_a_tracker_that_raises_is_not_called_again(caplog):
    seen = []

    def broken(record):
        seen.append("broken")
        raise OSError("full")

    tracker = together(broken, seen.append)
    tracker("first")
    tracker("second")
    assert seen == ["broken", "first", "second"] and "full" in caplog.text

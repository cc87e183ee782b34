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


def test_records_tell_of_domains_where_a_metric_has_them():
    def train(key, hparams, data):
        return {"loss": hparams["x"] * jnp.array([[9.0, 9.0], [1.0, 3.0]]), "weights": jnp.array([0.25, 0.75])}

    records = []
    arguments = {"dims": {"loss": ("step", "domain"), "weights": ("domain",)}, "tracker": records.append, "seeds": 1}
    mixjax.sweep(train, axes={"x": [1.0, 2.0, jnp.inf]}, coords={"domain": ["web", "code"]}, **arguments)
    assert records[0]["by_domain"] == {"loss": {"web": 1.5, "code": 4.5}, "weights": {"web": 0.25, "code": 0.75}}
    # Without names of domains, as without domains, nothing is added.
    mixjax.sweep(train, axes={"x": [1.0]}, **arguments)
    assert "by_domain" not in records[-1]


def test_a_run_that_reports_itself_makes_few_records(monkeypatch):
    now, calls, records = [0.0], [], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = Progress(lambda *args: calls.append(args), records.append, total=2, kept={}, segments=1, time_axes={})
    for _ in range(10_000):
        now[0] += 1.0
        progress.part(now[0] / 10_000)
    assert len(calls) == 10_000 and 300 < len(records) < 700
    assert records[0]["done"] == 2e-4 and records[0]["metrics"] == {} and records[-1]["done"] > 0.98
    assert [record["seconds"] for record in records[:3]] == [2.0, 4.0, 6.0]

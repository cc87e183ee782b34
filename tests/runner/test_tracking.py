"""Trackers: what they keep, after a kill too, and what a broken one costs."""

import glob
import json
import math
import pathlib
import sys
import types

import jax.numpy as jnp
import pytest

import mixjax
from mixjax.runner import tracking

RECORD = {"run": "a", "done": 1.5, "total": 3, "segment": 1, "segments": 2, "seconds": 0.5, "diverged": 0}
RECORD |= {"metrics": {"loss": 0.25, "lost": None}}
SCALARS = {"a/done": 1.5, "a/total": 3, "a/segment": 1, "a/segments": 2, "a/seconds": 0.5, "a/diverged": 0}
SCALARS |= {"a/loss": 0.25}


def train(key, hparams, data):
    return {"loss": hparams["rate"] * jnp.arange(3.0), "none": jnp.zeros(0), "wave": jnp.complex64(1j)}


def sweep(tracker):
    return mixjax.sweep(train, seeds=2, axes={"rate": [1.0, 2.0, jnp.inf]}, chunk=2, tracker=tracker)


def test_json_lines_append_and_drop_a_line_cut_off(tmp_path):
    path = tmp_path / "progress.jsonl"
    for cut in ('{"done": 2.', '{"done": 1.', ""):
        tracker = tracking.json_lines(path)
        tracker(RECORD)
        tracker(RECORD | {"done": 2})
        with open(path, "a") as file:
            file.write(cut)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [RECORD, RECORD | {"done": 2}] * 3


def test_the_records_of_a_sweep_are_json(tmp_path):
    sweep(tracking.json_lines(tmp_path / "progress.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [(line["done"], line["diverged"]) for line in lines] == [(2, 0), (4, 0), (6, 2)]
    losses = [1.0, 2.0, None]  # no step to take the last of; the last two runs: infinity times 0
    assert [line["metrics"] for line in lines] == [{"loss": loss, "none": None, "wave": None} for loss in losses]


def test_tensorboard(tmp_path):
    with tracking.tensorboard(tmp_path / "logs") as tracker:
        tracker(RECORD)
        tracker(RECORD | {"done": 3})
    (path,) = glob.glob(str(tmp_path / "logs" / "events.*"))
    found = {}
    for event in _events(path):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert {name: values[0] for name, values in found.items()} == {name: (3, x) for name, x in SCALARS.items()}
    assert found["a/done"][1] == (6, 3.0)


def _events(path):
    """Yields the events of a TensorBoard file, which holds length, its checksum, event, its checksum, and so on."""
    from tensorboardX.proto.event_pb2 import Event

    data = pathlib.Path(path).read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


@pytest.mark.parametrize("module", ["wandb", "trackio"])
def test_a_library_like_wandb(monkeypatch, module):
    calls = []
    library = types.SimpleNamespace(
        init=lambda **settings: calls.append(settings), log=calls.append, finish=lambda: calls.append("finish")
    )
    monkeypatch.setitem(sys.modules, module, library)
    with pytest.raises(KeyboardInterrupt), tracking.wandb(module, project="p", config={"x": 1}) as tracker:
        tracker(RECORD)
        raise KeyboardInterrupt
    assert calls == [{"project": "p", "config": {"x": 1}}, SCALARS, "finish"]


@pytest.mark.parametrize(
    ("opened", "package", "message"),
    [
        (lambda: tracking.tensorboard("x"), "tensorboardX", "pip install tensorboardX"),
        (lambda: tracking.wandb(), "wandb", "pip install wandb"),
        (lambda: tracking.wandb("trackio"), "trackio", "pip install 'trackio'"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, opened, package, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message), opened():
        pass


def test_a_broken_tracker_costs_its_records_only(caplog):
    seen, attempts = [], []

    def broken(record):
        attempts.append(record)
        raise OSError("no connection")

    result = mixjax.sweep(
        train, seeds=8, axes={"rate": [1.0, 2.0, 3.0]}, chunk=8, tracker=tracking.together(broken, seen.append)
    )
    assert len(seen) == 3 and len(attempts) == 1 and result.sizes["seed"] == 8
    assert "no connection" in caplog.text and "the sweep goes on" in caplog.text
    sweep(broken)
    assert len(attempts) == 2


def test_means_are_finite_or_none():
    records = []
    mixjax.sweep(
        lambda key, hparams, data: {"huge": jnp.full(2, hparams["x"])},
        seeds=4,
        axes={"x": [3e38]},
        tracker=records.append,
    )
    (record,) = records
    assert math.isclose(record["metrics"]["huge"], 3e38, rel_tol=1e-6)  # no overflow on the way

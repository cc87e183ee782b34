"""Results: the round trip, the report, and that a folder is replaced whole or not at all."""

import json
import math
import os

import ml_dtypes
import numpy as np
import pytest
import xarray as xr

from mixjax.runner import results
from mixjax.runner.configs import ConfigError, load
from tests.runner.written import ROW, dataset, write


def test_round_trip(config, tmp_path):
    given = {"(1, 100)": dataset(2.0), "a/b": dataset(1.0)}  # not in sorted order, a slash in a name
    (tmp_path / "records").write_text("{}\n")
    path = write(config, given, progress=tmp_path / "records")
    assert path == tmp_path / "out" and sorted(p.name for p in path.iterdir()) == sorted(results.FILES)
    read = results.read("out")
    assert list(read) == list(given)
    for name in given:
        xr.testing.assert_identical(read[name], given[name])
        assert read[name].error.dtype == np.float32 and read[name].beta.values[1] == math.inf
    assert load(path / "config.toml").runs == config.runs
    assert json.loads((path / "claims.json").read_text()) == [ROW]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_metrics_json(config):
    path = write(config, {"x": dataset(), "y": dataset()})
    meta = json.loads((path / "metrics.json").read_text())
    assert (meta["num_runs"], meta["compile_seconds"], meta["run_seconds"]) == (12, 3.0, 6.0)
    assert meta["runs"]["x"]["metrics"]["error"] == {"dims": ["beta", "seed", "method", "step"], "units": "nats"}
    assert meta["runs"]["x"]["coords"]["beta"]["values"] == [1.0, "inf"]
    assert {"python", "jax", "numpy", "mixjax"} <= set(meta["versions"]) and "cpu" in meta["device"]
    with np.load(path / "metrics.npz") as arrays:
        assert sorted(arrays) == ["x/count", "x/error", "y/count", "y/error"]


def test_bfloat16_is_kept_as_float32(config):
    values = xr.Dataset({"m": ("seed", np.ones(3, ml_dtypes.bfloat16))}, attrs=dataset().attrs)
    path = write(config, {"x": values})
    assert results.read(path)["x"].m.dtype == np.float32


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", ["report", "json", "rename"])
def test_an_earlier_result_survives_a_failed_write(config, monkeypatch, error, at):
    path = write(config, {"x": dataset(1.0)})
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def fail(*args, **kwargs):
        raise error

    class Summary(str):
        rstrip = fail

    if at == "rename":  # the second of the two renames, when the earlier result has been moved away
        rename, calls = type(path).rename, []

        def fail_once(self, target):
            calls.append(target)
            return fail() if len(calls) == 2 else rename(self, target)

        monkeypatch.setattr(type(path), "rename", fail_once)
    elif at == "json":
        monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(error):
        write(config, {"x": dataset(2.0)}, summary=Summary("all of it") if at == "report" else "")
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_a_failed_first_write_leaves_nothing(config):
    with pytest.raises(KeyError, match="statement"):
        write(
            config, {"x": dataset()}, claims=[{key: ROW[key] for key in ROW if key != "statement"}], out="results/deep"
        )
    assert list((config.path.parent / "results").iterdir()) == []


def test_a_new_result_replaces_the_earlier_one(config, tmp_path):
    write(config, {"x": dataset(1.0)}, figure=b"png")
    write(config, {"y": dataset(2.0)}, figure=None)
    assert list(results.read("out")) == ["y"] and not (tmp_path / "out" / "figure.png").exists()


def test_what_killed_writers_left_is_in_nobodys_way_and_removed(config, tmp_path, monkeypatch):
    # In a container each process may have the same number.
    left = {f".out.{os.getpid()}.new", f".out.{'0' * 32}.new", f".out.{'1' * 32}.old", f".out.other.{'2' * 32}.new"}
    for name in left:
        (tmp_path / name / "below").mkdir(parents=True)
    write(config, {"x": dataset(1.0)}, figure=None)
    others = {f".out.{os.getpid()}.new", f".out.other.{'2' * 32}.new"}
    assert list(results.read("out")) == ["x"] and left & set(os.listdir(tmp_path)) == others


def test_out_that_is_no_result_is_refused(config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"mine: holds 'thesis\.tex', which is no part of a result"):
        write(config, {"x": dataset()}, out="mine")
    with pytest.raises(ConfigError, match="is a file"):
        write(config, {"x": dataset()}, out="mine/thesis.tex")
    with pytest.raises(ConfigError, match="no folder that can be written to"):
        write(config, {"x": dataset()}, out="mine/thesis.tex/deeper")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert write(config, {"x": dataset()}, out="empty").is_dir()


def test_read_needs_a_result(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no result"):
        results.read(tmp_path)


@pytest.mark.parametrize("name", ["metrics.npz", "metrics.json"])
def test_damaged_files_are_named(config, name):
    path = write(config, {"x": dataset()})
    whole = (path / name).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        (path / name).write_bytes(damaged)
        with pytest.raises(OSError, match=r"metrics\.(json|npz):? is damaged; run it again"):
            results.read(path)


def test_arrays_that_hold_no_numbers_are_damaged(config):
    path = write(config, {"x": dataset()})
    with np.load(path / "metrics.npz") as arrays:
        texts = {name: array.astype(str) for name, array in arrays.items()}
    np.savez(path / "metrics.npz", **texts)
    with pytest.raises(OSError, match=r"metrics\.npz is damaged; run it again \(.* in place of numbers\)"):
        results.read(path)


def test_the_current_folder_is_not_replaced(config, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="is the folder you are in, or above it"):
        write(config, {"x": dataset()}, out=".")


def test_render():
    import matplotlib.figure

    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2])
    assert results.render(figure).startswith(b"\x89PNG")
    with pytest.raises(TypeError, match="must be a matplotlib Figure, got int"):
        results.render(3)

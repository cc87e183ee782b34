"""Results: the round trip, the report, and that a folder is replaced whole or not at all."""

import json
import math
import sys

import ml_dtypes
import numpy as np
import pytest
import xarray as xr

from mixjax.runner import claims, results
from mixjax.runner.claims import Claim
from mixjax.runner.configs import ConfigError, load

ROW = {
    "name": "fgls",
    "statement": "FGLS | wins",
    "source": "paper 000, section 5.1",
    "value": 0.5,
    "stderr": 0.125,
    "threshold": 0.0,
    "num_seeds": 3,
    "holds": True,
    "note": "",
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Toy:\n    steps: int = 1\n"
        "def toy(config: Toy): ...\n"
    )
    (tmp_path / "toy.toml").write_text(f'experiment = "{module}:toy"\n[sweep]\nseeds = 3\n')
    return load(tmp_path / "toy.toml", ["steps=2"])


def dataset(value=1.0, units="nats"):
    error = np.full((2, 3, 2, 4), value, np.float32)  # beta, seed, method, step
    coords = {"beta": [1.0, math.inf], "seed": [5, 6, 7], "method": ["sgd", "erma"], "step": [0, 10, 20, 30]}
    variables = {
        "error": (("beta", "seed", "method", "step"), error, {"units": units}),
        "count": (("beta", "seed"), np.arange(6).reshape(2, 3)),
    }
    return xr.Dataset(variables, coords, {"num_runs": 6, "num_computed": 6, "compile_seconds": 1.5, "run_seconds": 3.0})


def write(config, runs, out="out", claims=(ROW,), figure=b"png", **kwargs):
    return results.write(out, config, runs, figure=figure, claims=list(claims), **kwargs)


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


def test_rows_are_plain_and_valid_json():
    claim = Claim("a", "s", "p", np.float32(1.5), np.float64("nan"), 1, np.int64(3), np.bool_(True))
    (row,) = claims.rows([claim])
    assert list(row) == list(ROW)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["value"], row["stderr"], row["num_seeds"], row["holds"], row["note"]) == (1.5, None, 3, True, "")
    assert row["holds"] is True
    with pytest.raises(ValueError, match="two claims are named 'a'"):
        claims.rows([claim, claim])
    with pytest.raises(TypeError, match="list of Claim, got str"):
        claims.rows(["a"])


def test_report_of_a_run_that_went_on(config):
    half = dataset()
    half.attrs["num_computed"] = 3
    text = (write(config, {"run": half}) / "report.md").read_text()
    assert "6 runs, of which 3 by this process, in 3 s, 1e+03 ms each" in text


def test_report(config):
    bad = dataset()
    bad.error[0, 1, 1, 2] = np.nan  # two steps of one run count once
    bad.error[0, 1, 1, 3] = np.inf
    bad.error[1, 0, 1, 0] = np.nan
    undecided = ROW | {"name": "erma", "holds": None, "value": None, "stderr": None, "note": "tried\ntwice"}
    lost = ROW | {"name": "va", "holds": False}
    path = write(config, {"good": dataset(), "bad": bad}, claims=[ROW, undecided, lost])
    text = (path / "report.md").read_text()
    assert text.startswith("# toy\n") and "mixjax run toy.toml --set steps=2" in text
    assert "| fgls | yes | 0.5 ± 0.12 | 0 | 3 | FGLS \\| wins (paper 000, section 5.1) |  |" in text
    assert "| erma | undecided |  | 0 | 3 | FGLS \\| wins (paper 000, section 5.1) | tried twice |" in text
    assert "| va | no |" in text
    assert "| bad | error | erma | 2 of 6 |" in text and "| good |" not in text
    assert "![toy](figure.png)" in text and "12 runs, in 6 s, 500 ms each, after 3 s of compilation" in text
    assert "cpu" in text and "jax " in text


def test_a_summary_comes_before_the_claims(config):
    text = (write(config, {"x": dataset()}, claims=[ROW], summary="| all | of it |\n") / "report.md").read_text()
    assert "## Summary\n\n| all | of it |\n\n## Claims\n" in text


def test_report_without_anything(config):
    path = write(config, {"x": dataset()}, claims=[], figure=None, failures={"figure": "Traceback: boom"})
    text = (path / "report.md").read_text()
    assert "**The figure failed**" in text and "boom" in text and "figure.png" not in text
    assert text.count("None.") == 2 and "Summary" not in text and not (path / "figure.png").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", ["_report", "_write_json", "rename"])
def test_an_earlier_result_survives_a_failed_write(config, monkeypatch, error, at):
    path = write(config, {"x": dataset(1.0)})
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def fail(*args, **kwargs):
        raise error

    if at == "rename":  # the second of the two renames, when the earlier result has been moved away
        rename, calls = type(path).rename, []

        def fail_once(self, target):
            calls.append(target)
            return fail() if len(calls) == 2 else rename(self, target)

        monkeypatch.setattr(type(path), "rename", fail_once)
    else:
        monkeypatch.setattr(results, at, fail)
    with pytest.raises(error):
        write(config, {"x": dataset(2.0)})
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_a_failed_first_write_leaves_nothing(config, monkeypatch):
    monkeypatch.setattr(results, "_report", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(config, {"x": dataset()}, out="results/deep")
    assert list((config.path.parent / "results").iterdir()) == []


def test_a_new_result_replaces_the_earlier_one(config, tmp_path):
    write(config, {"x": dataset(1.0)}, figure=b"png")
    write(config, {"y": dataset(2.0)}, figure=None)
    assert list(results.read("out")) == ["y"] and not (tmp_path / "out" / "figure.png").exists()


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
        with pytest.raises(OSError, match=r"metrics\.json or metrics\.npz is damaged; run it again"):
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
    with pytest.raises(TypeError, match="must return a matplotlib Figure, got int"):
        results.render(3)

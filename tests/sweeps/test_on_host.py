"""Tests that ordinary loops are swept like compiled runs: their results, their folders, and what a kill leaves."""

import json

import numpy as np
import pytest

import mixjax
from mixjax.sweeps import HostLoop, HostRun, Sweep, attempts, checkpoints, dry_run

KILLS = []


def count(run: HostRun):
    """Counts to five, saving each count; the run of seed 1 is killed once at three."""
    saved = run.scratch / "count"
    number = int(saved.read_text()) if saved.exists() else 0
    while number < 5:
        number += 1
        saved.write_text(str(number))
        run.report(number / 5)
        with open(run.files / "ledger", "a") as file:
            file.write(f"{number}\n")
        if number == 3 and run.seed == 1 and KILLS:
            KILLS.pop()
            raise KeyboardInterrupt
    return {"loss": {"train": run.hparams["scale"] * np.arange(3.0)}, "seed_again": run.seed}


def swept(folder, seeds=3, **more):
    arguments = {"dims": {"loss.train": ("step",)}, "axes": {"scale": [1.0, 0.1]}} | more
    return mixjax.sweep(HostLoop(count), seeds=seeds, checkpoint=folder, **arguments)


def test_results_have_the_form_of_a_compiled_sweep():
    seen, records = [], []
    found = swept(None, callback=lambda *numbers: seen.append(numbers), tracker=records.append)
    compiled = mixjax.sweep(
        lambda key, hparams, data: {"loss.train": hparams["scale"] * np.arange(3.0), "seed_again": 0},
        seeds=3,
        axes={"scale": [1.0, 0.1]},
        dims={"loss.train": ("step",)},
    )
    assert dict(found.sizes) == dict(compiled.sizes) and list(found.coords) == list(compiled.coords)
    np.testing.assert_allclose(found["loss.train"], compiled["loss.train"], rtol=1e-6)
    assert found.seed_again.values.tolist() == [[0, 1, 2]] * 2
    assert seen[:6] == [(0.2, 6), (0.4, 6), (0.6, 6), (0.8, 6), (1.0, 6), (1, 6)] and seen[-1] == (6, 6)
    assert [record["done"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[0]["metrics"]["loss.train"] == 2.0


def test_a_killed_run_goes_on_with_what_it_saved(tmp_path):
    KILLS.append("once")
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path)
    found = swept(tmp_path)
    assert found.attrs["num_computed"] == 5
    ledgers = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("ledger"))
    assert ledgers[0] == "files/scale=0.1,seed=0/ledger" and len(ledgers) == 6
    # Not [1, 2, 3, 1, 2, 3, 4, 5]: the run went on.
    assert (tmp_path / "files/scale=1.0,seed=1/ledger").read_text().split() == ["1", "2", "3", "4", "5"]
    assert not any((tmp_path / "scratch").iterdir())
    np.testing.assert_array_equal(found["loss.train"], swept(None)["loss.train"])
    assert swept(tmp_path).attrs["num_computed"] == 0


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("reason", ["memory", "restart", "other"])
def test_a_kill_for_memory_is_told_on_the_next_start_and_at_which_run(tmp_path, monkeypatch, caplog, reason, saves):
    """A killed process leaves its note; a note that is put back afterwards stands for it."""
    kills, note, seen = {"counter": 4}, tmp_path / "attempt_0.json", []
    monkeypatch.setattr(attempts, "memory_kills", lambda root: dict(kills))

    def train(run):
        seen.append(run.seed)
        if run.seed == 1 and len(seen) < 7:
            left.append(note.read_text())
            if saves:
                (run.scratch / "state").write_text(f"attempt {len(left)}")
            raise KeyboardInterrupt
        return {"x": run.seed}

    def sweep():
        return mixjax.sweep(HostLoop(train), seeds=3, axes={"scale": [1.0]}, checkpoint=tmp_path)

    left = []
    for boot in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep()
        note.write_text(left[-1])
        if reason == "memory":
            kills["counter"] += 1
        elif reason == "restart":
            kills = {f"counter after restart {boot}": 0}
    caplog.clear()
    seen += [None] * 7
    assert sweep().x.values.tolist() == [[0, 1, 2]]
    told = [record.getMessage() for record in caplog.records if "killed for memory" in record.getMessage()]
    # After a restart nothing but deaths without anything saved tells of it.
    assert len(told) == (reason == "memory" or (reason == "restart" and not saves))
    assert all("the last attempt was killed for memory at run scale=1.0,seed=1;" in text for text in told)
    assert not note.exists()


def test_a_folder_of_another_sweep_is_refused(tmp_path):
    swept(tmp_path)
    with pytest.raises(checkpoints.ChangedError, match="seeds: 3, now 4"):
        swept(tmp_path, seeds=4)


def test_hyperparameters_are_what_the_user_gave():
    given = []

    def train(run):
        given.append(run.hparams)
        return {"x": 0.0}

    axes = {"rule": ["erma", "dro"], "mixture": [[0.1, 0.9], [0.5, 0.5]]}
    found = mixjax.sweep(HostLoop(train), seeds=1, axes=axes, points={"rate": [0.1]})
    assert {"rule": "dro", "mixture": [0.5, 0.5], "rate": 0.1} in given and len(given) == 4
    assert found.x.dims == ("rule", "mixture", "point", "seed")


def test_values_that_an_axis_has_twice_do_not_share_a_folder(tmp_path):
    swept(tmp_path, axes={"scale": [1.0, 1.0]}, seeds=1)
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert names == ["scale=no0,seed=0", "scale=no1,seed=0"]


def test_runs_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"the metrics of all runs must be alike: seed=1 returned .*\(2,\)"):
        mixjax.sweep(HostLoop(lambda run: {"x": np.zeros(run.seed + 1)}), seeds=2)
    with pytest.raises(ValueError, match="dims name metrics that train does not return"):
        mixjax.sweep(HostLoop(lambda run: {"x": 0.0}), seeds=1, dims={"y": ()})
    with pytest.raises(TypeError, match="train must return a dict of arrays, got NoneType"):
        mixjax.sweep(HostLoop(lambda run: None), seeds=1)


@pytest.mark.parametrize("argument", [{"chunk": 4}, {"vectorize": "vmap"}, {"devices": []}])
def test_arguments_without_a_meaning_are_refused(argument):
    with pytest.raises(ValueError, match="no meaning for a HostLoop"):
        mixjax.sweep(HostLoop(count), seeds=1, **argument)


def test_there_is_no_program_to_size():
    with pytest.raises(ValueError, match="a HostLoop is an ordinary loop: there is no program to compile"):
        dry_run(Sweep(HostLoop(count), seeds=1))


def test_data_may_be_anything_and_is_compared_where_it_can_be(tmp_path):
    def train(run):
        return {"x": len(run.data["files"])}

    def run(files, number=1, rows=(1.0,)):
        data = {"files": files, "number": number, "rows": np.array(rows), "reader": range}
        return mixjax.sweep(HostLoop(train), seeds=1, data=data, checkpoint=tmp_path)

    assert run(["a", "b"]).x.values == [2]
    for changed in ({"files": ["a", "c"]}, {"number": 2}, {"rows": (2.0,)}):
        with pytest.raises(checkpoints.ChangedError, match="data differs"):
            run(**({"files": ["a", "b"]} | changed))


def test_the_identity_is_json(tmp_path):
    swept(tmp_path, seeds=1)
    assert json.loads((tmp_path / "identity.json").read_text())["loop"].endswith("test_on_host:count")

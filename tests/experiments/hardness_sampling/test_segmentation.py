"""Tests the split, and runs the segmentation of brain tumours, tiny, from config to claims."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.faults.cut import make_cases
from experiments.hardness_sampling import segmentation, segmentation_training
from experiments.hardness_sampling.segmentation_training import Segmentation
from mixjax.data import anatomies
from mixjax.data.anatomies import Anatomy
from mixjax.runner import configs, experiment, results

CONFIGS = Path(__file__).parents[3] / "configs" / "hardness_sampling"


def test_split_keeps_the_centres_shares_and_no_case_twice():
    members = [jnp.arange(5), jnp.arange(5, 12)]
    one, other = (segmentation.split(jax.random.key(seed), members, [2, 3]) for seed in (0, 1))
    assert sorted([*one.train.tolist(), *one.test.tolist()]) == list(range(12))
    assert (one.test < 5).tolist() == [True] * 2 + [False] * 3 and (one.train < 5).sum() == 3
    assert one.test.tolist() != other.test.tolist()


def test_each_centre_is_drawn_alike_by_its_prior():
    centres = jnp.array([0, 2, 0, 0, 2, 3])
    prior = segmentation.centre_prior(centres, 4)
    np.testing.assert_allclose([prior[centres == centre].sum() for centre in (0, 2, 3)], 1.0, rtol=1e-6)
    assert len(set(np.asarray(prior[centres == 0]).tolist())) == 1


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Turns augmentation off but in the simulation's run: compiling it takes longer than the other tests do."""
    if request.node.name != "test_the_simulation_end_to_end":
        monkeypatch.setattr(segmentation_training.augmentation, "augment", lambda key, image, label: (image, label))


SMALL = ["patch=8", "num_levels=2", "width=2", "num_heads=1", "num_epochs=2", "batches=2", "sweep.seeds=2"]


def run(path, overrides, tmp_path):
    out = experiment.run(configs.load(path, [*SMALL, *overrides]), out=tmp_path / "result")
    assert (out / "figure.png").stat().st_size > 20_000
    for data in results.read(out).values():
        assert all(np.isfinite(values).all() for values in data.values())
        assert data["dice"].min() >= 0 and data["dice"].max() <= 100
    return results.read(out), {row["name"]: row for row in json.loads((out / "claims.json").read_text())}


def ball(grid):
    places = (np.indices((grid,) * 3) + 0.5) / grid - 0.5
    radius = np.sqrt((places**2).sum(0))
    return Anatomy("ball", np.stack([radius > 0.35, radius < 0.1, radius >= 0.1], -1) * (radius < 0.42)[..., None])


@pytest.mark.slow
def test_the_simulation_end_to_end(first_run_only, tmp_path, monkeypatch):
    monkeypatch.setattr(anatomies, "load", lambda names, grid: [ball(grid)])
    cases = ["grid=24", "train_cases=[3, 3, 2, 2]", "test_cases=[2, 2, 2, 2]"]
    runs, rows = run(CONFIGS / "segmentation.toml", cases, tmp_path)
    assert {data.sizes["method"] for data in runs.values()} == {2, 8}
    assert runs["Nesterov"]["case"].values.tolist()[-2:] == ["low field", "low field"]
    assert {"iqr_core_sgd", "fewer_poor_cases_in_one_centre", "importance_sampling_iqr_beta_1000"} <= set(rows)
    assert configs.load(CONFIGS / "segmentation.toml").sweep.first_seed >= 1000  # settings were chosen on seeds below


@pytest.mark.slow
def test_brats_end_to_end(first_run_only, tmp_path):
    pytest.importorskip("nibabel")
    make_cases(tmp_path)
    overrides = [f"folder={json.dumps(str(tmp_path))}", "grid=16", "test_share=0.34"]
    runs, rows = run(CONFIGS / "brats.toml", overrides, tmp_path)
    assert runs["Nesterov"]["case"].values.tolist() == ["CBICA", "TCIA"]
    assert {"iqr_enhancing_nesterov", "fewer_poor_cases_in_one_centre"} <= set(rows)


def test_a_split_without_a_test_case_of_the_centre_is_told_before_a_volume_is_read(tmp_path, monkeypatch):
    for name in ("TCIA01_1", "CBICA_A", "CBICA_B"):
        folder = tmp_path / f"BraTS19_{name}_1"
        folder.mkdir()
        (folder / f"{folder.name}_t1.nii.gz").write_bytes(b"")
    monkeypatch.setattr(segmentation.brats, "load", lambda *_: pytest.fail("read"))
    config = Segmentation(source="brats", folder=str(tmp_path), centre="TCIA", test_share=0.4)
    told = r"'TCIA' needs a test case .* 0.4 leaves none of its 1 cases to test; set test_share above 0.5$"
    with pytest.raises(ValueError, match=told):
        segmentation.segmentation(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": (0.0,)}, "betas, importance_sampling and uniform_centres need one entry a method"),
        ({"uniform_centres": (True,)}, "betas, importance_sampling and uniform_centres need one entry a method"),
        ({"patch": 26}, "patch must be at most grid = 32 and a multiple of 4, got 26"),
        ({"patch": 36}, "patch must be at most grid = 32"),
        ({"train_cases": (1, 2)}, "train_cases and test_cases need one number for each of"),
        ({"centre": "TCIA"}, "centre must be one of"),
        ({"source": "brats"}, 'source "brats" needs folder'),
        ({"source": "brats", "folder": "/nowhere"}, "/nowhere is not a folder"),
        ({"source": "brats", "folder": "x", "test_share": 1.0}, "test_share must be between 0 and 1, got 1.0"),
        (
            {"test_cases": (2, 1, 1, 0)},
            "'low field' needs a test case for the figure: test_cases = .* leaves",
        ),
        ({}, "'low field' is compared with the others, but .* leaves none of their 3 cases to test"),
        ({"test_cases": (1, 0, 0, 1), "batch_size": 5}, "batch_size must be at most 4, the training cases, got 5"),
    ],
)
def test_errors_name_what_is_wrong(change, message, monkeypatch):
    monkeypatch.setattr(anatomies, "load", lambda names, grid: [ball(grid)])
    few = {"train_cases": (1, 1, 1, 1), "test_cases": (0, 0, 0, 1)}
    # Before a volume is read or made.
    monkeypatch.setattr(segmentation, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        segmentation.segmentation(Segmentation(**{**few, **change}))

"""Tests the language model on a live mix: what moves, what it weighs, and that a killed run goes on bit by bit."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray

from experiments.live_mix.text import Text, Trainer, text, train
from experiments.live_mix.text_results import claims
from mixjax import data
from mixjax.live import read_ledger
from mixjax.sweeps import HostRun

TINY = Text(
    domains=("c", "reference"),
    length=8,
    batch_size=4,
    num_steps=12,
    layers=1,
    width=8,
    heads=2,
    probe_every=3,
    probe_size=3,
    eval_size=2,
    lag=2,
    save_every=4,
)


class Killed(Exception):
    pass


def run_in(folder, config, killed_at=None):
    def report(part):
        if killed_at is not None and part >= killed_at:
            raise Killed

    for name in ("scratch", "files"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return train(HostRun(3, {}, None, folder / "scratch", folder / "files", report), config)


def test_a_killed_run_ends_like_one_that_was_not(tmp_path):
    whole = run_in(tmp_path / "whole", TINY)
    with pytest.raises(Killed):
        run_in(tmp_path / "killed", TINY, killed_at=0.75)
    # Steps 8 to 12, from the checkpoint of step 8; other workers must not matter.
    again = run_in(tmp_path / "killed", dataclasses.replace(TINY, workers=1))
    sizes = [len(data.load_text(name).train) // TINY.length for name in TINY.domains]
    assert whole["epochs"] @ sizes == pytest.approx(TINY.num_steps * TINY.batch_size, rel=0.01)
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, name)
    ledgers = [read_ledger(tmp_path / name / "files" / "ledger.jsonl") for name in ("whole", "killed")]
    assert ledgers[0].step.values.tolist() == list(range(12))
    xarray.testing.assert_equal(*ledgers)
    assert ledgers[1].attrs["events"][0]["event"] == "ledger cut"


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    config = dataclasses.replace(TINY, num_steps=6, save_every=6)
    with pytest.raises(Killed):
        run_in(tmp_path, config, killed_at=0.5)
    run_in(tmp_path, config)
    assert read_ledger(tmp_path / "files" / "ledger.jsonl").step.values.tolist() == list(range(6))


@pytest.mark.parametrize(("method", "moving"), [("erma", "loss_weight"), ("va", "sampling_weight")])
def test_only_the_weights_of_the_method_move(tmp_path, method, moving):
    found = run_in(tmp_path, dataclasses.replace(TINY, method=method, gamma2=1.0, num_steps=3, probe_every=1))
    texts = [data.load_text(name) for name in TINY.domains]
    prior = np.array([len(text.train) // TINY.length for text in texts]) ** TINY.temperature
    for name in ("loss_weight", "sampling_weight"):
        distance = np.abs(found[name] - prior / prior.sum()).max()
        assert (distance > 1e-4) == (name == moving), (name, distance)


def test_parts_of_a_batch_add_up_to_its_gradient():
    rng = np.random.default_rng(0)
    batch = {"value": rng.integers(0, 256, (4, 9), np.uint8), "row_weights": np.array([0.1, 0.2, 0.3, 0.4], np.float32)}
    states = []
    for microbatches in (1, 4):
        trainer = Trainer(dataclasses.replace(TINY, microbatches=microbatches, warmup=0.0))
        state, losses = trainer.step(trainer.init(jax.random.key(0), np.array([0.5, 0.5])), batch)
        assert losses.shape == (4,)
        states.append(jax.tree.leaves(state.params))
    for one, four in zip(*states, strict=True):
        np.testing.assert_allclose(one, four, atol=1e-5)


def test_claims_compare_each_method_with_the_static_mix():
    loss = np.array([[[2.0, 1.0]], [[1.9, 0.9]]]) + np.array([0.0, 0.01, 0.02])[:, None, None, None]
    results = xarray.Dataset(
        {"loss": (("seed", "method", "step", "domain"), loss)},
        {"method": ["static", "erma_va"], "seed": [1, 2, 3], "step": [1], "domain": ["a", "b"]},
    )
    found = {claim.name: claim for claim in claims({"run": results})}
    assert set(found) == {"erma_va_mean", "erma_va_worst"}
    assert found["erma_va_mean"].holds and found["erma_va_mean"].value == pytest.approx(-0.1)


def test_the_experiment_names_its_dimensions():
    found = text(TINY)
    assert found.coords["step"] == [3, 6, 9, 12] and found.coords["domain"] == ["c", "reference"]

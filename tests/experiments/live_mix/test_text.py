"""Tests the language model on a live mix: what moves, what it weighs, and that a killed run goes on bit by bit."""

import dataclasses
import itertools
import re
import types

import jax
import numpy as np
import pytest
import xarray

from experiments.live_mix import text as text_loop
from experiments.live_mix.text import Text, text, train
from experiments.live_mix.text_results import by_source, claims, worst
from experiments.live_mix.text_trainer import Trainer
from mixjax import data, live
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
    eval_every=3,
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
    found = run_in(
        tmp_path, dataclasses.replace(TINY, method=method, gamma2=1.0, num_steps=3, probe_every=1, eval_every=1)
    )
    texts = [data.load_text(name) for name in TINY.domains]
    prior = np.array([len(text.train) // TINY.length for text in texts]) ** TINY.temperature
    for name in ("loss_weight", "sampling_weight"):
        distance = np.abs(found[name] - prior / prior.sum()).max()
        assert (distance > 1e-4) == (name == moving), (name, distance)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["group_dro", "odm", "doge", "aioli"])
def test_other_methods_move_what_their_rules_move(tmp_path, method):
    config = dataclasses.replace(
        TINY, method=method, step_size=1.0, num_steps=9, probe_every=1, eval_every=1, window=1, hold=1, save_every=5
    )
    found = run_in(tmp_path / "whole", config)
    moved = {name: np.ptp(found[name], axis=0).max() > 1e-4 for name in ("loss_weight", "sampling_weight")}
    # Bandits and laws draw as they weigh; group DRO and DoGE draw by the prior.
    assert moved == {"loss_weight": True, "sampling_weight": method in ("odm", "aioli")}
    if moved["sampling_weight"]:
        np.testing.assert_array_equal(found["loss_weight"], found["sampling_weight"])
    with pytest.raises(Killed):
        run_in(tmp_path / "killed", config, killed_at=0.8)
    for name, values in run_in(tmp_path / "killed", config).items():
        np.testing.assert_array_equal(found[name], values, name)


def test_parts_of_a_batch_add_up_to_its_gradient():
    rng = np.random.default_rng(0)
    batch = {
        "value": rng.integers(0, 256, (4, 9), np.uint8),
        "row_weights": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "domain_ids": np.array([0, 0, 1, 1]),
    }
    states = []
    for microbatches in (1, 4):
        trainer = Trainer(dataclasses.replace(TINY, microbatches=microbatches, warmup=0.0), 2)
        state, losses = trainer.step(trainer.init(jax.random.key(0), np.array([0.5, 0.5])), batch)
        assert losses.shape == (4,)
        states.append(jax.tree.leaves(state.params))
    for one, four in zip(*states, strict=True):
        np.testing.assert_allclose(one, four, atol=1e-5)


@pytest.fixture(name="token_files")
def _token_files(monkeypatch):
    """Four domains of small token files, three of them cells of one; documents have 1 to 12 tokens and an end."""
    rng = np.random.default_rng(0)
    names = ("kernel/mm", "kernel/net", "kernel/usb", "prose")

    def part(num_documents):
        documents = [np.append(rng.integers(1, 20, rng.integers(1, 13)), 0) for _ in range(num_documents)]
        return np.concatenate(documents).astype(np.uint16)

    words = types.SimpleNamespace(size=20)
    files = {name: data.Tokens(part(200), part(30), part(30), "made up", words) for name in names}
    monkeypatch.setattr(data, "load_tokens", lambda name, folder: files[name])
    monkeypatch.setattr(data, "token_domains", lambda folder: names)
    return files


def test_packed_rows_train_on_whole_documents_and_count_tokens(tmp_path, token_files):
    config = dataclasses.replace(TINY, tokens="bpe", domains=("kernel/mm", "prose"), rows="packed", method="static")
    whole = run_in(tmp_path / "whole", config)
    ledger = read_ledger(tmp_path / "whole" / "files" / "ledger.jsonl")
    shares = ledger.tokens.sum("step") / ledger.tokens.sum()
    prior = whole["sampling_weight"][-1]
    # The plan owes a domain less than two rows of 9 tokens.
    np.testing.assert_allclose(shares, prior, atol=18 / int(ledger.tokens.sum()))
    with pytest.raises(Killed):
        run_in(tmp_path / "killed", config, killed_at=0.75)
    # The packing was stored, and is not made again.
    stored = tmp_path / "killed" / "scratch" / "packings" / "kernel" / "mm.npz"
    assert stored.exists()
    token_files["kernel/mm"] = token_files["kernel/mm"]._replace(train=token_files["kernel/mm"].train.copy())
    before = stored.stat().st_mtime_ns
    again = run_in(tmp_path / "killed", config)
    assert stored.stat().st_mtime_ns == before
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, name)


def test_the_loss_of_a_packed_row_is_the_mean_over_its_documents_targets():
    trainer = Trainer(TINY, 2, vocabulary=20)
    params = trainer.init(jax.random.key(0), np.array([0.5, 0.5])).params
    documents = [np.array([3, 5, 7, 0]), np.array([9, 0]), np.array([11, 0])]
    packing = live.pack([len(each) for each in documents], TINY.length + 1)
    rows = live.PackedRows(np.concatenate(documents), packing).read_rows(np.arange(packing.num_rows))
    row_losses = jax.jit(trainer.row_losses)
    losses = row_losses(params, rows)
    alone = [row_losses(params, document[None]) for document in documents]
    expected = (3 * alone[0] + alone[1] + alone[2]) / 5
    assert packing.num_rows == 1
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # One token is a document without a target, and the rest of the row is padding.
    single = live.PackedRows(np.array([3]), live.pack([1], TINY.length + 1)).read_rows(np.array([0]))
    assert float(row_losses(params, single)[0]) == 0.0


def test_cells_are_domains_and_take_turns_in_probes(tmp_path, token_files):
    config = dataclasses.replace(
        TINY, tokens="bpe", domains=("kernel",), cells=True, probe_domains=2, probe_every=1, eval_every=1, num_steps=3
    )
    assert text(config).coords["domain"] == ["kernel/mm", "kernel/net", "kernel/usb"]
    weights = run_in(tmp_path, config)["loss_weight"]
    assert weights.shape == (3, 3) and np.allclose(weights.sum(axis=1), 1.0)
    windows = {name: live.windows(each.validation, 8, overlap=1) for name, each in token_files.items()}
    del windows["prose"]
    probed = [text_loop._probe_of(windows, config, 3, step)[0].tolist() for step in range(30)]
    for start in range(0, 30, 3):
        assert sorted(itertools.chain(*probed[start : start + 3])) == [0, 0, 1, 1, 2, 2]
    assert len({tuple(each) for each in probed}) > 3


def test_cells_are_joined_by_their_domain():
    names, values = ["a/x", "b", "a/y"], np.array([1.0, 2.0, 4.0])
    found = by_source(
        xarray.Dataset(
            {name: ("domain", values) for name in ("loss", "loss_weight", "sampling_weight")}, {"domain": names}
        )
    )
    assert found.domain.values.tolist() == ["a", "b"]
    assert found.loss.values.tolist() == [2.5, 2.0] and found.loss_weight.values.tolist() == [5.0, 2.0]


def test_of_many_domains_the_worst_tenth_counts():
    losses = xarray.DataArray(np.arange(30.0)[None], dims=("seed", "domain"))
    assert worst(losses).item() == 28.0 and worst(losses[:, :10]).item() == 9.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "packed"}, "cells and rows = 'packed' need tokens = 'bpe': files of bytes do not mark documents."),
        ({"cells": True}, "cells and rows = 'packed' need tokens = 'bpe': files of bytes do not mark documents."),
        ({"method": "best"}, "method must be one of static, uniform, "),
        ({"method": "doremi"}, "method 'doremi' reads a model that is trained before, and a live run has none."),
        ({"eval_every": 13}, "eval_every must be from 1 to num_steps = 12, got 13."),
        ({"probe_every": 0}, "probe_every must be from 1 to num_steps = 12, got 0."),
        ({"microbatches": 3}, "microbatches must divide batch_size = 4, got microbatches = 3."),
        ({"microbatches": 0}, "microbatches must be an integer of at least 1, got 0."),
        ({"lag": 0}, "lag must be an integer of at least 1, got 0."),
        ({"probe_size": 1}, "probe_size must be an integer of at least 2, got 1."),
        ({"probe_domains": 99}, " domains, got 99."),
        ({"domains": ()}, "domains must be one or more different names, got none."),
        ({"domains": ("c", "c")}, "domains must be one or more different names, got c, c."),
        ({"heads": 3}, "width must be a multiple of heads = 3, got "),
        ({"method": "aioli", "window": 12}, " for Aioli to estimate its law once, got 12."),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(Text) if type(field.default) in (int, float)]
)
def test_no_number_may_be_negative(name):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        dataclasses.replace(TINY, **{name: type(getattr(TINY, name))(-1)})


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

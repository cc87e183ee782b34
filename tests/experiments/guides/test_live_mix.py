"""Runs the script of the guide to the live mix as a reader would copy it."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from array_record.python.array_record_module import ArrayRecordWriter

from mixjax import live
from mixjax.live import read_ledger

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "live_mix.md"


def run(mark, names):
    """Runs the block of code under a mark of the page, in a namespace."""
    block = re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    exec(compile(block, str(PAGE), "exec"), names)


def test_the_script_runs_as_it_stands_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    run("script", names)
    ledger = read_ledger("ledger.jsonl")
    assert ledger.step.values[-1] == 299
    # The rule raises the hard domain up to what the floor leaves, and the mean follows it.
    share = ledger.counts.values[-100:, 1].mean() / 16
    assert 0.8 < share < 0.95
    assert 1.5 < float(names["params"]) < 3.0
    assert np.isfinite(ledger.losses.values[[0, 100, 200]]).all()

    run("saving", names | {"folder": tmp_path / "checkpoints", "step_number": 299})
    plan = live.Plan(names["plan"].sizes, batch_size=16, weights=[0.5, 0.5], lag=4)
    fresh = {name: jax.tree.map(jnp.zeros_like, names[name]) for name in ("params", "opt_state", "rule_state")}
    restored = {"fresh": fresh, "plan": plan, "folder": tmp_path / "checkpoints", "step_number": 299}
    run("restoring", {"ocp": ocp} | restored)
    assert plan.step == 300
    # The old plan had read nothing ahead, so its next batch is the one that comes after the checkpoint.
    want, got = next(names["plan"]), next(plan)
    np.testing.assert_array_equal(got.rows, want.rows)
    np.testing.assert_array_equal(got.weights, want.weights)


def test_files_of_every_kind_are_mixed_and_go_to_the_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    writer = ArrayRecordWriter("notes.array_record", "group_size:1")
    for _ in range(40):
        writer.write(rng.integers(0, 100, 33).astype(np.uint16).tobytes())
    writer.close()
    rng.integers(100, 200, 32 * 50).astype(np.uint16).tofile("web.bin")
    np.save("small.npy", rng.integers(200, 300, (9, 33)).astype(np.uint16))
    names = {"__name__": "__main__"}
    run("files", names)
    batch = names["batch"]
    tokens = batch["value"]["tokens"]
    assert isinstance(tokens, jax.Array) and tokens.shape == (16, 33)
    np.testing.assert_array_equal(np.asarray(tokens) // 100, np.repeat(batch["domain_ids"], 33).reshape(16, 33))
    with live.Ledger("ledger.jsonl", names["plan"]) as ledger:  # the entries that the page lists
        told = {name: batch[name] for name in ("counts", "weights", "asked", "events")}
        ledger.write(told | {"step": names["plan"].step})


def test_the_lines_for_several_hosts_run_on_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    run("script", names)
    names |= {"params": jnp.float32(0.0), "opt_state": names["optimizer"].init(0.0), "last_step": 20}
    run("hosts", names)
    assert names["plan"].step == 21 and len(names["arrays"]["value"].sharding.device_set) == jax.device_count()
    assert float(names["state"][0]) > 0.1


def test_the_lines_that_accumulate_move_the_weights_once_an_update(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    run("script", names)
    sent, send = [], live.Feedback.send
    monkeypatch.setattr(
        live.Feedback, "send", lambda self, step, weights: (sent.append(np.asarray(weights)), send(self, step, weights))
    )
    run("accumulation", names)
    moved = [not np.array_equal(before, after) for before, after in itertools.pairwise(sent)]
    assert len(sent) == 400 and all(moved[2:12:4]) and not any(np.delete(moved, np.arange(2, 399, 4)))
    # The mean follows the rule, which raises the hard domain up to what the floor leaves.
    assert sent[-1][1] > 0.8 and float(names["params"]) > 0.5


def test_the_lines_that_count_tokens_draw_half_of_them_from_each_domain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets = {"easy": np.zeros(4000, np.float32), "hard": np.ones(400, np.float32)}
    names = {"np": np, "live": live, "datasets": datasets}
    run("tokens", names)
    assert names["plan"].ending["reason"] == "budget reached"
    ledger = read_ledger("tokens.jsonl")
    tokens = ledger.tokens.sum("step").values
    # Half of the tokens each, up to a longest row.
    assert 100_000 - 16 * 400 < tokens.sum() <= 100_000 and abs(tokens[0] - tokens[1]) < 2 * 400
    assert ledger.attrs["events"][-1] == names["plan"].ending

"""Runs the script of the guide to PyTorch's loader with a stand-in for PyTorch, which the tests do not install."""

import pickle
import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

from mixjax.samplers import HostBatchSampler, HostSampler

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "pytorch_loader.md"


class DataLoader:
    """Does what ``torch.utils.data.DataLoader`` does without workers, for the arguments that the page uses."""

    def __init__(self, dataset, *, batch_sampler, collate_fn, num_workers, multiprocessing_context):
        assert num_workers == 0 and multiprocessing_context is None
        self.dataset, self.batch_sampler, self.collate_fn = dataset, batch_sampler, collate_fn

    def __iter__(self):
        for indices in self.batch_sampler:
            yield self.collate_fn([self.dataset[index] for index in indices])


def test_the_script_draws_hard_examples_and_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = types.ModuleType("torch.utils.data")
    data.DataLoader, data.Dataset = DataLoader, object
    for name in ("torch", "torch.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)
    # Pickle looks the script's classes up by the name of their module.
    script = types.ModuleType("pytorch_loader_script")
    monkeypatch.setitem(sys.modules, script.__name__, script)
    source = re.search(r"<!-- script -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    definitions, main = source.split('if __name__ == "__main__":\n')
    exec(compile(definitions, str(PAGE), "exec"), script.__dict__)
    exec(compile(f"if True:\n{main}", str(PAGE), "exec"), script.__dict__)

    dataset, sampler = script.dataset, script.sampler
    hard = dataset.x[:, 0] > 2
    probs = np.exp(sampler.log_probs())
    assert probs[hard].mean() > 2 * probs[~hard].mean()

    with open("state.pkl", "rb") as file:
        assert pickle.load(file)[2]["step"] == 100
    undisturbed = script.mixjax.samplers.HostSampler(len(dataset), 2.0, beta=1.0, replacement=False)
    batches = script.mixjax.samplers.HostBatchSampler(undisturbed, batch_size=16)
    params = script.jnp.zeros(3)
    params, _ = script.train(dataset, params, script.optimizer.init(params), batches, 200)
    np.testing.assert_array_equal(params, script.params)
    np.testing.assert_array_equal(undisturbed.log_probs(), sampler.log_probs())


def test_the_lines_for_several_processes_give_every_rank_the_losses_of_all():
    block = re.search(r"<!-- ranks -->\n  ```python\n(.*?)  ```", PAGE.read_text(), re.DOTALL).group(1)
    lines = compile(textwrap.dedent(block), str(PAGE), "exec")
    ranks = [HostBatchSampler(HostSampler(50, 1.0, beta=1.0), 4, rank=r, num_replicas=2) for r in range(2)]
    drawn = [next(iter(rank)) and rank.batch() for rank in ranks]
    losses = [batch.indices.astype(np.float32) for batch in drawn]

    def all_gather(gathered, mine):
        for place, own in zip(gathered, losses, strict=True):
            place[:] = own

    def stack(arrays):
        return types.SimpleNamespace(cpu=lambda: np.stack(arrays))

    distributed = types.SimpleNamespace(all_gather=all_gather)
    torch = types.SimpleNamespace(empty_like=np.empty_like, stack=stack, distributed=distributed)
    for rank, batch, own in zip(ranks, drawn, losses, strict=True):
        exec(lines, {"torch": torch, "batches": rank, "batch": batch, "losses": own})
        assert next(iter(rank))  # the next draw, which stores them
        both = np.unique(np.concatenate([batch.indices for batch in drawn]))
        np.testing.assert_array_equal(rank.sampler.values[both], both)


def test_the_loop_in_pytorch_draws_hard_examples_and_goes_on_to_the_bit(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    source = re.search(r"<!-- torch -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)

    def run(folder, num_epochs):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        names = {"num_epochs": num_epochs}
        exec(compile(source, str(PAGE), "exec"), names)
        return names

    whole = run("whole", 3)
    probs, hard = np.exp(whole["sampler"].log_probs()), (whole["x"][:, 0] > 2).numpy()
    assert probs[hard].mean() > 2 * probs[~hard].mean()
    run("cut", 1)
    again = run("cut", 3)
    for name in ("network", "optimizer"):
        torch.testing.assert_close(again[name].state_dict(), whole[name].state_dict(), rtol=0, atol=0)
    np.testing.assert_array_equal(again["sampler"].values, whole["sampler"].values)
    assert next(iter(again["batches"])) == next(iter(whole["batches"]))


@pytest.mark.parametrize("lag", [2, 3, 4])
def test_a_lag_that_is_too_small_fails_where_the_page_says(lag):
    """The loader of the page's example asks for batches 0 to 3 before the first loss."""
    batches = HostBatchSampler(HostSampler(50, 1.0, beta=1.0), 4, num_batches=9, lag=lag)
    asked = iter(batches)
    for _ in range(min(lag + 1, 4)):
        next(asked)
    if lag == 2:
        with pytest.raises(RuntimeError, match="batch 3 needs the losses of batch 0, as lag is 2"):
            next(asked)
    # Of a loader that has 4 batches in flight, and asks for another one when it hands one out.
    one_short = HostBatchSampler(HostSampler(50, 1.0, beta=1.0), 4, num_batches=lag + 1, lag=lag)
    assert len(list(one_short)) == lag + 1

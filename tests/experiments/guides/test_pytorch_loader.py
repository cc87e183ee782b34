"""Runs the script of the guide to PyTorch's loader with a stand-in for PyTorch, which the tests do not install."""

import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np

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

    resumed, dataset = script.state, script.dataset
    sampler = resumed["sampler"]
    hard = dataset.x[:, 0] > 2
    probs = np.exp(sampler.log_probs())
    assert probs[hard].mean() > 2 * probs[~hard].mean()

    with open("state.pkl", "rb") as file:
        half = pickle.load(file)
    assert half["step"] == 100
    undisturbed = script.mixjax.samplers.HostSampler(len(dataset), 2.0, beta=1.0, replacement=False)
    params = script.jnp.zeros(3)
    state = {"sampler": undisturbed, "params": params, "opt_state": script.optimizer.init(params), "step": 0}
    state = script.train(dataset, state, 200)
    np.testing.assert_array_equal(state["params"], resumed["params"])
    np.testing.assert_array_equal(state["sampler"].log_probs(), sampler.log_probs())

"""Jobs of several hosts, as real processes that submitit's local executor starts."""

import os
import sys

import numpy as np
import pytest
import submitit

from mixjax.runner import configs, experiment, results
from mixjax.runner.configs import ConfigError
from mixjax.runner.launch import launch

MODULE = """
import dataclasses, os, pathlib, signal
import jax, jax.numpy as jnp, matplotlib.figure
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Launched:
    scale: float = 1.0
    interrupted: str = ""    # a file that is there once the job has been interrupted

def train(key, hparams, data):
    return {"error": data * hparams["scale"] * jnp.abs(jax.random.normal(key, (3,)))}

def launched(config: Launched) -> Experiment:
    def figure(results):  # of the first host, when all chunks are done
        if config.interrupted and not pathlib.Path(config.interrupted).exists():
            pathlib.Path(config.interrupted).write_text(str(jax.process_count()))
            os.kill(os.getpid(), signal.SIGUSR2)
        return matplotlib.figure.Figure()
    return Experiment(train, jnp.float32(2.0), {"error": ("step",)}, {}, {}, figure, lambda results: [])
"""


@pytest.fixture(name="config")
def _config(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "launched_toy.py").write_text(MODULE)
    path = tmp_path / "launched.toml"
    path.write_text('experiment = "launched_toy:launched"\n[sweep]\nseeds = 3\nchunk = 1\nscale = [1.0, 2.0]\n')
    yield path
    sys.modules.pop("launched_toy", None)


@pytest.mark.slow
def test_two_hosts_interrupted_at_the_end_give_the_result_of_one(config, tmp_path):
    overrides = [f"interrupted={tmp_path / 'interrupted'}"]
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    job = launch(config, overrides, out=tmp_path / "several", hosts=2, executor=executor, timeout_min=2)
    plain = experiment.run(configs.load(config), out=tmp_path / "one")
    assert list(map(str, job.results())) == [str(tmp_path / "several")] * 2, job.stderr()
    assert (tmp_path / "interrupted").read_text() == "2"
    one, several = results.read(plain)["run"], results.read(tmp_path / "several")["run"]
    np.testing.assert_array_equal(several.error.values, one.error.values)
    progress = (tmp_path / "several" / "progress.jsonl").read_text()
    assert progress.count('"done"') == 3  # the first host's share, and none of it computed again
    assert not (tmp_path / "several.chunks").exists()


def test_slurm_gets_a_node_for_each_host(config, tmp_path, monkeypatch):
    submitted = {}

    class Executor:
        cluster = "slurm"

        def update_parameters(self, **parameters):
            submitted.update(parameters)

        def submit(self, function, *arguments):
            submitted["delayed"] = function.checkpoint(*arguments)
            return "job"

    monkeypatch.chdir(tmp_path)
    executor = Executor()
    assert launch("launched.toml", out="r", hosts=4, executor=executor, slurm_partition="gpu") == "job"
    delayed = submitted.pop("delayed")
    assert submitted == {"nodes": 4, "tasks_per_node": 1, "slurm_partition": "gpu"}
    assert delayed.args == (str(tmp_path / "launched.toml"), (), str(tmp_path / "r"))


def test_slurm_hosts_meet_at_the_first_node_and_keep_their_devices(config, tmp_path, monkeypatch):
    settings = {"JOB_ID": "5000", "NTASKS": "2", "JOB_NUM_NODES": "2", "PROCID": "1", "JOB_NODELIST": "a[07-08]"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *arguments, **more: calls.append((arguments, more)))
    from mixjax.runner.launch import _Host

    _Host()(str(config), (), str(tmp_path / "r"))
    assert calls == [(("a07:62344", 2, 1), {"cluster_detection_method": "deactivate"})]


def test_errors_come_before_the_queue(config, tmp_path):
    with pytest.raises(ValueError, match="hosts must be at least 1, got 0"):
        launch(config, out=tmp_path / "r", hosts=0)
    with pytest.raises(ConfigError, match="unknown key 'scael'"):
        launch(config, ["scael=2"], out=tmp_path / "r")
    assert not os.path.exists(tmp_path / "r.jobs")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "mixjax.runner.launch")
    with pytest.raises(ImportError, match="pip install submitit"):
        import mixjax.runner.launch  # noqa: F401

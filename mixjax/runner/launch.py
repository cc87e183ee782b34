"""Runs a config on several hosts of a SLURM cluster, through submitit.

On a login node, from a folder that all nodes see::

    job = mixjax.runner.launch.launch(
        "configs/quickstart.toml", ["sweep.seeds=10000"], out="results/quickstart",
        hosts=4, gpus_per_node=8, timeout_min=600, slurm_partition="gpu", slurm_signal_delay_s=300,
    )
    job.results()  # waits; or come back later: SLURM and the folder need nobody who waits

Each host computes its share of the chunks on all its devices, and the first host writes ``results/quickstart``.

A job that SLURM preempts, or that reaches its time limit, is put into the queue again and goes on from the chunks on
disk. A host notices the signal between two calls of the compiled program. Therefore ``slurm_signal_delay_s`` (default
90) should exceed the time of one call, which ``mixjax run CONFIG --dry-run`` estimates.

submitit gives up after three timeouts, or as many as ``submitit.AutoExecutor(folder, slurm_max_num_timeout=...)`` says.
SLURM tells a job that it is preempted only where ``preempt_send_user_signal`` is set. In any case the same call goes on
with the chunks that are there.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mixjax.checks import requires
from mixjax.files import local_path
from mixjax.runner import configs, experiment
from mixjax.sweeps.devices import use_all_cores

with requires("slurm", "mixjax.runner.launch"):
    import submitit

__all__ = ["launch"]

_FIRST_PORT = 61440  # Linux hands out ports below this one to other connections


def launch(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike,
    hosts: int = 1,
    executor: "submitit.AutoExecutor | None" = None,
    **parameters: Any,
) -> "submitit.Job":
    """Submits :func:`mixjax.runner.experiment.run` of a config as one job of several hosts.

    Args:
        path: the config, as :func:`mixjax.runner.configs.load` takes it. It is read at once, so that its mistakes are
            found before the job waits in a queue, and again on each host.
        overrides: "key=value" strings, as :func:`mixjax.runner.configs.load` takes them.
        out: the folder to write. All hosts must see it, and the chunks in ``<out>.chunks`` beside it.
        hosts: number of nodes, at least 1. Each node runs one process, which has all devices of its node.
        executor: where to submit. The default is ``submitit.AutoExecutor("<out>.jobs")``: SLURM where there is
            ``srun``, else this machine. To try a job before it waits in a queue, give
            ``submitit.AutoExecutor(folder, cluster="local")``: then the hosts are processes of this machine.
        **parameters: arguments of ``executor.update_parameters``: ``timeout_min`` (minutes; submitit's default is
            short), ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ``name``, and SLURM's own: ``slurm_partition``,
            ``slurm_account``, ``slurm_signal_delay_s``.

    Returns:
        The job. Its ``results()`` waits for the job, and returns a list with ``out`` for each host, or raises what went
        wrong.
        Its ``paths`` lead to the logs.

    Raises:
        ValueError: ``hosts`` below 1, or ``out`` is a URL.
        ConfigError: a mistake in the config, as in :func:`mixjax.runner.configs.load`.
        FileNotFoundError: no such config.
        ImportError: submitit is missing (extra ``slurm``); raised by the import of this module.
    """
    if hosts < 1:
        raise ValueError(f"hosts must be at least 1, got {hosts}.")
    # A mistake in the config is to raise its error here.
    config = configs.load(path, overrides)
    out = local_path("out", out).absolute()
    if executor is None:
        executor = submitit.AutoExecutor(out.with_name(f"{out.name}.jobs"))
    # submitit's local executor has a single node, and all hosts are tasks of that node.
    nodes = 1 if executor.cluster == "local" else hosts
    executor.update_parameters(nodes=nodes, tasks_per_node=hosts // nodes, **parameters)
    return executor.submit(_Host(), str(config.path.absolute()), tuple(overrides), str(out))


class _Host(submitit.helpers.Checkpointable):
    """Runs a host's share of a config.

    After a timeout or a preemption, submitit calls this object again with the same arguments, and the sweep goes on
    from the chunks on disk.
    """

    def __call__(self, path: str, overrides: Sequence[str], out: str) -> Path:
        job = submitit.JobEnvironment()
        use_all_cores()
        if job.num_tasks > 1:
            first = job.hostnames[0] if job.num_nodes > 1 else "localhost"
            # Jobs that share a node get different ports, of the 4096 from the first one to 65535.
            port = _FIRST_PORT + int(job.raw_job_id) % 4096
            # With the address, the number of processes and the rank given, JAX gives this process every device of its
            # node. JAX's own detection of a cluster would give the process one device.
            jax.distributed.initialize(
                f"{first}:{port}", job.num_tasks, job.global_rank, cluster_detection_method="deactivate"
            )
        return experiment.run(configs.load(path, overrides), out=out)

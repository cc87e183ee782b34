"""A config on several hosts of a SLURM cluster, through submitit.

On a login node, from a folder that all nodes see:

```python
job = mixjax.runner.launch.launch(
    "configs/quickstart.toml", ["sweep.seeds=10000"], out="results/quickstart",
    hosts=4, gpus_per_node=8, timeout_min=600, slurm_partition="gpu", slurm_signal_delay_s=300,
)
job.results()          # waits; or come back later: SLURM and the folder need nobody who waits
```

Each host computes its share of the chunks on all its devices, and the first one writes ``results/quickstart``. A job
that SLURM preempts, or that reaches its time, is put into the queue again and goes on from the chunks on disk. A host
notices the signal between two calls of the compiled program, so ``slurm_signal_delay_s`` (default 90) should exceed the
time of one: `mixjax run CONFIG --dry-run` estimates it. submitit gives up after three timeouts, or as many as
``submitit.AutoExecutor(folder, slurm_max_num_timeout=...)`` says, and SLURM tells a job that it is preempted only where
``preempt_send_user_signal`` is set; in any case the same call goes on with what is there.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mixjax.runner import configs, experiment
from mixjax.sweeps.devices import use_all_cores

try:
    import submitit
except ImportError as error:
    raise ImportError("mixjax.runner.launch needs submitit: pip install 'mixjax[slurm]'") from error

__all__ = ["launch"]


def launch(
    path: str | os.PathLike,
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike,
    hosts: int = 1,
    executor: "submitit.AutoExecutor | None" = None,
    **parameters: Any,
) -> "submitit.Job":
    """Submits `mixjax.runner.experiment.run` of a config as one job of several hosts.

    Args:
        path: the config, read here to find its mistakes now, and again on each host.
        overrides: "key=value" strings, as `mixjax.runner.configs.load` takes them.
        out: the folder to write; all hosts must see it, and the chunks in ``<out>.chunks`` beside it.
        hosts: number of nodes, at least 1, with one process each, which has all devices of its node.
        executor: where to submit; the default is ``submitit.AutoExecutor("<out>.jobs")``: SLURM where there is
            ``srun``, else this machine. With ``submitit.AutoExecutor(folder, cluster="local")`` the hosts are processes
            of this machine, to try a job before it waits in a queue.
        **parameters: of ``executor.update_parameters``: ``timeout_min`` (minutes; submitit's default is few),
            ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ``name``, and those of SLURM: ``slurm_partition``,
            ``slurm_account``, ``slurm_signal_delay_s``.

    Returns:
        The job. Its ``results()`` waits for it and returns ``out`` once a host, or raises what went wrong; its
        ``paths`` lead to the logs.

    Raises:
        ValueError: ``hosts`` below 1.
        ConfigError, FileNotFoundError: as `mixjax.runner.configs.load`.
        ImportError: submitit is missing (extra ``slurm``); raised by the import of this module.
    """
    if hosts < 1:
        raise ValueError(f"hosts must be at least 1, got {hosts}.")
    configs.load(path, overrides)
    out = Path(out).absolute()
    executor = executor or submitit.AutoExecutor(out.with_name(f"{out.name}.jobs"))
    nodes = 1 if executor.cluster == "local" else hosts
    executor.update_parameters(nodes=nodes, tasks_per_node=hosts // nodes, **parameters)
    return executor.submit(_Host(), str(Path(path).absolute()), tuple(overrides), str(out))


class _Host(submitit.helpers.Checkpointable):
    """What each host does; after a timeout or a preemption the same again, from the chunks on disk."""

    def __call__(self, path, overrides, out):
        job = submitit.JobEnvironment()
        use_all_cores()
        if job.num_tasks > 1:
            first = job.hostnames[0] if job.num_nodes > 1 else "localhost"
            port = 61440 + int(job.raw_job_id) % 4096  # above those that Linux hands out
            jax.distributed.initialize(  # told all, JAX gives a process each device of its node, not one
                f"{first}:{port}", job.num_tasks, job.global_rank, cluster_detection_method="deactivate"
            )
        return experiment.run(configs.load(path, overrides), out=out)

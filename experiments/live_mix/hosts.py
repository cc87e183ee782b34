"""Trains on several hosts, here processes of one machine, and goes on with another number of them.

``python -m experiments.live_mix.hosts 2 4 1`` trains 10 steps on two processes, then 10 on four, then 10 on one, each
from the checkpoint before, and prints the SHA-256 of all global batches. ``... hosts 1 1 1`` prints the same one.

All hosts draw the same plan, and each reads its rows of the batch only. A checkpoint holds the plan once, beside the
parameters. The weights are a sum over all rows of a batch, which another number of hosts rounds otherwise in the last
digit. Counts are whole rows, so the batches do not change with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mixjax
from mixjax import live

__all__ = ["global_batches", "global_hash", "main", "start", "train"]

ROOT = Path(__file__).resolve().parents[2]
# 1, 2, 3, 4 and 6 hosts can share it out evenly.
BATCH_SIZE = 12
MEANS = np.array([0.0, 1.0, 2.0, 4.0])
STEPS = 10


def domains() -> dict[str, Any]:
    """Makes four domains of different means and sizes, of which one is a ``grain.MapDataset``."""
    arrays = [
        np.random.default_rng(domain).normal(mean, 0.5, (200 - 40 * domain, 3)).astype(np.float32)
        for domain, mean in enumerate(MEANS)
    ]
    named: dict[str, Any] = {f"mean {mean:g}": array for mean, array in zip(MEANS, arrays, strict=True)}
    return named | {"mean 4": grain.MapDataset.source(arrays[-1])}


def train(folder: Path, stop: int) -> None:
    """Trains from the last checkpoint in a folder to a step, on all processes, and saves there.

    Args:
        folder: takes checkpoints, the ledger, and a file for each process with the rows that it read.
        stop: number of steps after which training ends.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    rule = mixjax.rules.floor(mixjax.rules.group_dro(0.1, decay=0.9), 0.2)

    def step(params, rule_state, batch):
        def objective(params):
            losses = jnp.mean(jnp.square(batch["value"] - params), axis=1)
            return jnp.sum(batch["row_weights"] * losses), losses

        (_, losses), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        seen = mixjax.signals.moments(losses, batch["domain_ids"], num_domains=len(MEANS)).signals()
        return params - 0.1 * gradient, rule.update(rule_state, **seen), seen["losses"]

    step = jax.jit(step, out_shardings=everywhere)
    host = (jax.process_index(), jax.process_count())
    datasets = domains()
    plan = live.Plan(live.sizes_of(datasets), BATCH_SIZE, [1.0] * len(MEANS), lag=4, host=host)
    feedback = live.Feedback(plan)
    # Every process starts with the same numbers, on all devices.
    state = jax.jit(lambda: (jnp.zeros(3), rule.init(plan.first_weights)), out_shardings=everywhere)()

    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        if manager.latest_step() is not None:
            wanted = {"state": ocp.args.StandardRestore(state), "plan": ocp.args.JsonRestore()}
            found = manager.restore(manager.latest_step(), args=ocp.args.Composite(**wanted))
            state = found["state"]
            plan.set_state(found["plan"])
        with (
            live.Ledger(folder / "ledger.jsonl", plan) as ledger,
            open(folder / f"rows_{plan.step}_{host[0]}_of_{host[1]}.jsonl", "w") as rows,
        ):
            for element in live.mix(datasets, plan):
                batch = {
                    name: jax.make_array_from_process_local_data(split, element[name])
                    for name in ("value", "row_weights", "domain_ids")
                }
                *state, losses = step(*state, batch)
                feedback.send(element["step"], state[1].weights)
                ledger.write(element, losses=jax.device_get(losses))
                _note(rows, element)
                if element["step"] == stop - 1:
                    break
        saved = {"state": ocp.args.StandardSave(tuple(state)), "plan": ocp.args.JsonSave(feedback.get_state())}
        manager.save(stop, args=ocp.args.Composite(**saved))


def _note(file, element):
    """Writes down what this process read in a step."""
    fields = {name: element[name].tolist() for name in ("domain_ids", "rows")}
    value = np.ascontiguousarray(element["value"])
    hashes = [hashlib.sha256(row.tobytes()).hexdigest() for row in value]
    file.write(json.dumps({"step": element["step"], **fields, "value": hashes}) + "\n")


def global_batches(folder: Path) -> dict[int, dict[str, list]]:
    """Puts the batches of all hosts together from what each wrote down.

    Args:
        folder: the one given to :func:`train`.

    Returns:
        By step the domain, the row and the hash of the values of each example, in the order of the global batch.
    """
    batches: dict[int, dict[str, list]] = {}
    for path in folder.glob("rows_*.jsonl"):
        host, num_hosts = (int(path.stem.split("_")[place]) for place in (2, 4))
        for line in path.read_text().splitlines():
            part = json.loads(line)
            whole = batches.setdefault(
                part["step"], {name: [None] * BATCH_SIZE for name in ("domain_ids", "rows", "value")}
            )
            for name, values in whole.items():
                values[host::num_hosts] = part[name]
    return dict(sorted(batches.items()))


def global_hash(folder: Path) -> str:
    """Returns the SHA-256 of all global batches, in order."""
    return hashlib.sha256(json.dumps(list(global_batches(folder).items())).encode()).hexdigest()


def start(folder: Path, num_hosts: int, stop: int) -> list[subprocess.Popen]:
    """Starts a process for each host, which trains to a step."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-m", "experiments.live_mix.hosts", "--folder", str(folder), "--stop", str(stop)]
    return [
        subprocess.Popen(
            [*command, "--port", str(port), "--host", str(host), str(num_hosts)],
            env={**os.environ, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(num_hosts)
    ]


def finish(processes: list[subprocess.Popen]) -> None:
    """Waits for processes.

    Raises:
        RuntimeError: one of them failed.
    """
    errors = [process.communicate(timeout=300)[1] for process in processes]
    for process, error in zip(processes, errors, strict=True):
        if process.returncode:
            raise RuntimeError(f"a process failed:\n{error}")


def main(arguments: list[str] | None = None) -> None:
    """Trains on the numbers of processes that are given, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.live_mix.hosts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hosts", type=int, nargs="+", metavar="N", help=f"numbers of processes, {STEPS} steps each")
    # The processes that this one starts are given these.
    for name in ("--folder", "--stop", "--port", "--host"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.host is not None:
        jax.config.update("jax_num_cpu_devices", 1)
        jax.distributed.initialize(f"localhost:{given.port}", given.hosts[0], int(given.host))
        train(Path(given.folder), int(given.stop))
        return
    with tempfile.TemporaryDirectory() as folder:
        for part, num_hosts in enumerate(given.hosts, start=1):
            finish(start(Path(folder), num_hosts, stop=STEPS * part))
            print(f"{num_hosts} hosts, to step {STEPS * part}: {global_hash(Path(folder))}")


if __name__ == "__main__":
    main()

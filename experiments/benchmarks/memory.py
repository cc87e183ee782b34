"""Compares the memory that the dry run predicts for a sweep with the memory that the sweep takes."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from mixjax import sweeps
from mixjax.sweeps.saving import pauses

__all__ = ["SHAPES", "resident", "run"]

WITHIN = 0.2
_DEVICES = 2


def _floats(megabytes: float) -> int:
    return int(megabytes * 1e6 / 4)


def carried(megabytes: float) -> sweeps.Segments:
    """Makes a run that carries an array from segment to segment."""

    def init(key, hparams, data):
        return jax.random.normal(key, (_floats(megabytes),))

    def advance(carry, hparams, data):
        carry = jnp.sin(carry) * hparams["a"]
        return carry, {"m": carry[:1][None]}

    return sweeps.Segments(init, advance, num=3)


def computed(megabytes: float, returned: float) -> Callable:
    """Makes a run that computes with a large array, and returns a part of it."""

    def train(key, hparams, data):
        x = jnp.cumsum(jnp.sin(jax.random.normal(key, (_floats(megabytes),)))) * hparams["a"]
        return {"m": x[: _floats(returned) + 1]}

    return train


def _reads(key, hparams, data):
    return {"m": (data * hparams["a"]).sum(0)[:5] + jax.random.normal(key)}


# Name -> arguments of a sweep, by the size of all of it.
SHAPES: dict[str, Callable[[float], dict[str, Any]]] = {
    "carries, one by one": lambda size: {"train": carried(24 * size), "seeds": 16},
    "carries, as a batch": lambda size: {"train": carried(24 * size), "seeds": 16, "vectorize": "vmap", "chunk": 16},
    "large runs, one by one": lambda size: {"train": computed(80 * size, 0), "seeds": 16},
    "large runs, as a batch": lambda size: {
        "train": computed(40 * size, size),
        "seeds": 16,
        "vectorize": "vmap",
        "chunk": 16,
    },
    "large metrics": lambda size: {"train": computed(10 * size, 8 * size), "seeds": 48},
    "large data": lambda size: {"train": _reads, "seeds": 16, "data": np.ones((_floats(4 * size), 50), np.float32)},
}


def measured(name: str, what: str, size: float) -> float:
    """Returns the bytes that a sweep is predicted to take, or takes, in this process."""
    jax.config.update("jax_num_cpu_devices", _DEVICES)
    arguments = {"axes": {"a": [1.0]}, **SHAPES[name](size)}
    # What JAX takes for itself when it first computes is no part of the sweep.
    sweeps.sweep(computed(0.1, 0.0), seeds=4, axes={"a": [1.0]})
    if what == "predicted":
        found = sweeps.dry_run(sweeps.Sweep(**arguments))
        return found.bytes_per_device * found.num_devices
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    with tempfile.TemporaryDirectory() as folder, pauses(longest=0.0):
        sweeps.sweep(checkpoint=folder, **arguments)
    return resident("VmHWM") - before


def resident(entry: str) -> int:
    """Returns an entry of the process's status, in bytes: VmRSS is the memory in use, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:"))


def _in_a_process(name: str, what: str, size: float) -> float:
    """Measures in a process of its own, whose memory holds nothing of another sweep."""
    command = [sys.executable, "-m", "experiments.benchmarks.memory", name, what, str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout))


def run(quick: bool = False) -> timing.Report:
    """Measures every shape: what is predicted, and the peak of a sweep that saves after each chunk and segment."""
    shapes, size = (list(SHAPES)[:1], 0.5) if quick else (list(SHAPES), 1.0)
    found = {name: {what: _in_a_process(name, what, size) for what in ("predicted", "measured")} for name in shapes}
    off = {name: one["predicted"] / one["measured"] - 1 for name, one in found.items()}
    rows = [
        (name, f"{one['predicted'] / 1e6:.0f} MB", f"{one['measured'] / 1e6:.0f} MB", f"{100 * off[name]:+.0f} %")
        for name, one in found.items()
    ]
    worst = max(off.values(), key=abs)
    target = timing.Target(
        f"the prediction is within {100 * WITHIN:.0f} % of the peak on six shapes",
        f"{100 * worst:+.0f} % at worst, of {len(rows)}",
        abs(worst) <= WITHIN if len(rows) == len(SHAPES) else None,
    )
    text = "\n\n".join(
        [
            f"Each number is of a process of its own, on {_DEVICES} simulated CPU devices. The peak is that of the "
            "memory in use beyond what the process had when the sweep began. The sweep writes a checkpoint after each "
            "chunk and each segment.",
            timing.table(["shape", "predicted", "peak", "off by"], rows),
        ]
    )
    return timing.Report("The memory of a sweep, predicted and measured", text, {"bytes": found}, [target])


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], sys.argv[2], float(sys.argv[3]))))

"""Runs the command ``mixjax run`` in a process of its own, and reads the files that it left."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# With "map" two results can be compared to the bit: what "auto" chooses may differ from one process to the next.
COMMAND = ["run", str(ROOT / "configs/quickstart.toml")]
for setting in ("sweep.chunk=4", "sweep.vectorize=map", "num_steps=2000"):
    COMMAND += ["--set", setting]
CHILD = """
from mixjax import cli
cli.main()
"""


@dataclasses.dataclass
class Row:
    """Holds a line of the table.

    Attributes:
        fault: the fault's name.
        times: how often it was done.
        happened: a sentence that says what the sweep did.
        lost: "nothing", or what was lost.
    """

    fault: str
    times: int
    happened: str
    lost: str


def start(out: Path) -> subprocess.Popen:
    """Starts the command, which writes to ``out``."""
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-c", CHILD, *COMMAND, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Waits for the end of a process; returns its exit code and the last line that it wrote to stderr."""
    _, err = process.communicate(timeout=300)
    lines = [line for line in err.splitlines() if line.strip()]
    return process.returncode, lines[-1] if lines else ""


def arrays(out: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a finished result."""
    with np.load(out / "metrics.npz") as file:
        return {name: file[name] for name in file}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Returns True if two results have equal names, types and bits."""
    return set(a) == set(b) and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def chunks(out: Path) -> dict[str, int]:
    """Returns the checkpoints of an unfinished run: name -> time of writing, in nanoseconds."""
    found = out.with_name(f"{out.name}.chunks").glob("*/chunk_*")
    return {path.stem: path.stat().st_mtime_ns for path in found if path.suffix == ".npz"}

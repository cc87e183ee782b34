"""Does faults to a sweep: kills, Ctrl-C, two at once, bad disks, damaged files, lost hosts, NaN, no memory.

``python -m experiments.faults`` runs the quickstart's sweep under each fault, by the command ``mixjax run`` in a
process of its own, and writes the table ``RESULTS.md`` beside this file. A sweep survives a fault if two things hold
when the same command is given again. Its arrays equal those of an undisturbed run bit by bit, and no chunk that was on
disk is computed again. Disks are small or read-only file systems in memory, which only root may mount.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

import jax

from experiments.faults.command import Row
from experiments.faults.inside import nan_runs, no_memory
from experiments.faults.outside import Judge

TABLE = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Does every fault and writes the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, metavar="N", help="how often SIGKILL stops the command [40]")
    arguments = parser.parse_args()
    rows = [nan_runs(), no_memory()]
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        trials = [
            lambda: judge.killed(arguments.kills, signal.SIGKILL, seed=0),
            lambda: judge.killed(10, signal.SIGINT, seed=1),
            judge.damaged,
            lambda: judge.host_dies(3),
            lambda: judge.given_twice(3),
        ]
        if os.geteuid() == 0:
            trials += [judge.full_disk, judge.read_only]
        else:
            rows += [
                Row(name, 0, "not run: mounting needs root", "unknown") for name in ("full disk", "read-only folder")
            ]
        for trial in trials:
            rows.append(trial())
            print(rows[-1], flush=True)
    write(rows)
    if any(row.lost != "nothing" for row in rows):
        sys.exit("something was lost: see the table")


def write(rows: list[Row]) -> None:
    """Writes the table as Markdown, below this module's docstring."""
    head = (__doc__ or "").partition("\n\n")
    lines = ["# Faults", "", f"{head[0].splitlines()[0]}", "", *head[2].rstrip().splitlines(), ""]
    lines += ["| fault | times | what happened | lost |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.fault} | {row.times} | {row.happened.replace('|', '/')} | {row.lost} |" for row in rows]
    versions = f"Python {platform.python_version()}, JAX {jax.__version__}"
    lines += ["", f"{versions}, {os.cpu_count()} cores; chunks of 4 runs."]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

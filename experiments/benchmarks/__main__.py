"""Runs benchmarks by name, and writes the report, the numbers and the figures of each into a folder of its own."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks import (
    calls,
    device,
    figure_1,
    floor,
    hypergradient_peers,
    hypergradients,
    live_mix,
    live_scale,
    loader_samplers,
    loops,
    memory,
    mixing_methods,
    module_norms,
    norm_peers,
    norms,
    overhead,
    replay_trees,
    samplers,
    seeds,
    small_steps,
    swarm,
    throughput,
    timing,
    tuning,
    watching,
)

__all__ = ["BENCHMARKS", "RESULTS", "VERDICTS", "Session", "main", "write"]

BENCHMARKS = {
    "figure_1": figure_1.run,
    "seeds": seeds.run,
    "overhead": overhead.run,
    "floor": floor.run,
    "samplers": samplers.run,
    "loader_samplers": loader_samplers.run,
    "replay_trees": replay_trees.run,
    "calls": calls.run,
    "loops": loops.run,
    "norms": norms.run,
    "module_norms": module_norms.run,
    "norm_peers": norm_peers.run,
    "hypergradients": hypergradients.run,
    "hypergradient_peers": hypergradient_peers.run,
    "live_mix": live_mix.run,
    "mixing_methods": mixing_methods.run,
    "throughput": throughput.run,
    "small_steps": small_steps.run,
    "tuning": tuning.run,
    "device": device.run,
    "swarm": swarm.run,
    "live_scale": live_scale.run,
    "memory": memory.run,
    "watching": watching.run,
}
RESULTS = Path(__file__).parent / "results"
VERDICTS = {True: "met", False: "**missed**", None: "undecided"}


class Session(NamedTuple):
    """Describes one call of the command, which may run several benchmarks.

    Attributes:
        names: the benchmarks, in the order in which they ran.
        machine: what the numbers depend on.
        seconds: how long all of them took.
        quick: whether the sizes were tiny.
    """

    names: Sequence[str]
    machine: Mapping[str, str]
    seconds: float
    quick: bool


def markdown(session: Session, report: timing.Report) -> str:
    """Returns the text of a benchmark's ``RESULTS.md``."""
    options = ["--quick"] if session.quick else []
    command = " ".join(["python -m experiments.benchmarks", *options, *session.names])
    if session.quick:
        verdicts = "**`--quick`: tiny sizes. This shows that the benchmarks run; its numbers mean nothing.**"
    else:
        rows = [(target.statement, target.measured, VERDICTS[target.holds]) for target in report.targets]
        verdicts = timing.table(["target", "measured", ""], rows, text_columns=3)
    parts = [
        f"# {report.title}",
        f"Written by `{command}` in {session.seconds / 60:.1f} minutes. Numbers are medians, with least and most in "
        "brackets unless they say otherwise. The sides of a comparison were measured in turns, and "
        "ratios are taken within a turn, since the machine may have been doing other work: see its load.",
        verdicts,
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in session.machine.items()),
        "## Measurements",
        report.text,
    ]
    return "\n\n".join(parts) + "\n"


def document(name: str, session: Session, report: timing.Report) -> dict[str, Any]:
    """Returns the content of a benchmark's ``results.json``."""
    return {
        "benchmark": name,
        "machine": dict(session.machine),
        "quick": session.quick,
        "targets": [target._asdict() for target in report.targets],
        "data": report.data,
    }


def write(folder: Path, name: str, session: Session, report: timing.Report) -> None:
    """Writes a benchmark's two files and its figures into ``folder/NAME``."""
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(markdown(session, report))
    (folder / "results.json").write_text(json.dumps(document(name, session, report), indent=1) + "\n")
    for figure_name, figure in report.figures.items():
        figure.savefig(folder / f"{figure_name}.png", dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="NAME", help=f"which ones, of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="take tiny sizes, to see that everything runs")
    parser.add_argument(
        "--out",
        type=Path,
        help="the folder that gets one folder for each benchmark; by default experiments/benchmarks/results, "
        "and results/benchmarks with --quick",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.benchmarks if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    names = [name for name in BENCHMARKS if name in options.benchmarks or not options.benchmarks]
    # numbers of tiny sizes must not replace those that are kept
    folder = options.out or (Path("results") / "benchmarks" if options.quick else RESULTS)

    machine, start, reports = timing.machine(), time.perf_counter(), {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        reports[name] = BENCHMARKS[name](options.quick)
    # versions come last: only now is every rival imported that has one
    session = Session(names, machine | timing.versions(), time.perf_counter() - start, options.quick)
    for name, report in reports.items():
        write(folder, name, session, report)
        print(markdown(session, report))
        print(f"written: {folder / name}", file=sys.stderr)


if __name__ == "__main__":
    main()

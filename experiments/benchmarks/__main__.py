"""Runs the benchmarks and writes ``RESULTS.md`` and ``results.json``, one pair for each of the five sets."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import figure_1, floor, mixing, norms, overhead, samplers, seeds, throughput, timing

BENCHMARKS = {
    "a": figure_1.run,
    "b": seeds.run,
    "c": overhead.run,
    "d": floor.run,
    "e": samplers.run,
    "f": norms.run,
    "g": mixing.run,
    "h": throughput.run,
}
HERE = Path(__file__).parent
SETS = {
    "abcd": HERE,
    "e": HERE.parent / "hardness_sampling" / "benchmarks",
    "f": HERE.parent / "resampling_reweighting" / "benchmarks",
    "g": HERE.parent / "fewer_weight_updates" / "benchmarks",
    "h": HERE / "throughput_results",
}
"""The letters that are kept together, and where."""
VERDICTS = {True: "met", False: "**missed**", None: "undecided"}


def markdown(machine: Mapping[str, str], reports: Mapping[str, timing.Report], seconds: float, quick: bool) -> str:
    """The text of ``RESULTS.md``."""
    targets = [target for report in reports.values() for target in report.targets]
    rows = [(f"({t.benchmark})", t.statement, t.measured, VERDICTS[t.holds]) for t in targets]
    verdicts = timing.table(["", "target", "measured", ""], rows, text_columns=4)
    tiny = "**`--quick`: tiny sizes. This shows that the benchmarks run; its numbers mean nothing.**"
    command = " ".join(["python -m experiments.benchmarks", *(["--quick"] if quick else []), *reports])
    parts = [
        "# Benchmarks",
        f"Written by `{command}` in {seconds / 60:.1f} minutes. Numbers are medians, with least and most in brackets "
        "unless they say otherwise. The sides of a comparison were measured in turns in one process, and ratios are "
        "taken within a turn, since the machine may have been doing other work: see its load.",
        tiny if quick else verdicts,
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
    ]
    for letter, report in reports.items():
        parts += [f"## ({letter}) {report.title}", report.text]
    return "\n\n".join(parts) + "\n"


def document(machine: Mapping[str, str], reports: Mapping[str, timing.Report], quick: bool) -> dict[str, Any]:
    """The content of ``results.json``."""
    return {
        "machine": dict(machine),
        "quick": quick,
        "targets": [target._asdict() for report in reports.values() for target in report.targets],
        **{letter: report.data for letter, report in reports.items()},
    }


def write(folder: Path, machine: Mapping[str, str], reports: Mapping[str, timing.Report], seconds: float, quick: bool):
    """Writes both files and the figures into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(markdown(machine, reports, seconds, quick))
    (folder / "results.json").write_text(json.dumps(document(machine, reports, quick), indent=1) + "\n")
    for report in reports.values():
        for name, figure in report.figures.items():
            figure.savefig(folder / f"{name}.png", dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="a b c d e f g h", help="which ones; all by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for the files; by default the sets abcd, e, f, g and h have their own, others results/benchmarks",
    )
    options = parser.parse_args(arguments)
    letters = sorted(set(options.benchmarks)) or list(BENCHMARKS)
    unknown = [letter for letter in letters if letter not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    kept = {} if options.quick else SETS
    folder = options.out or kept.get("".join(letters), Path("results") / "benchmarks")

    machine, start, reports = timing.machine(), time.perf_counter(), {}
    for letter in letters:
        print(f"({letter}) {BENCHMARKS[letter].__module__.rpartition('.')[2]} ...", file=sys.stderr, flush=True)
        reports[letter] = BENCHMARKS[letter](options.quick)
    machine |= timing.versions()
    seconds = time.perf_counter() - start
    write(folder, machine, reports, seconds, options.quick)
    print(markdown(machine, reports, seconds, options.quick))
    print(f"written: {folder / 'RESULTS.md'}, {folder / 'results.json'}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Does faults to a sweep, to training on a live mix, to a language model on one, and to runs that are cut in time.

``python -m experiments.faults sweep`` runs the quickstart's sweep under each fault, by the command ``mixjax run`` in a
process of its own: kills, Ctrl-C, two at once, bad disks, damaged files, lost hosts, NaN, no memory. A sweep survives a
fault if two things hold when the same command is given again. Its arrays equal those of an undisturbed run bit by bit,
and no chunk that was on disk is computed again. Disks are small or read-only file systems in memory, which only root
may mount.

``python -m experiments.faults live`` trains on a live mix, and kills main processes and workers, also between and in
the middle of writing a checkpoint and a line of the ledger. Each time training goes on from the last checkpoint, on 1,
2 or 4 processes, with other numbers of workers and of batches read ahead, and with threads that read further ahead than
the weights are known. It survives if every batch that was ever handed out equals that of an undisturbed run (SHA-256
over domains, rows and values, put together from all processes), and the ledger has every step once, with the rows that
were drawn.

``python -m experiments.faults text`` trains a language model on a live mix by ``mixjax run
configs/live_mix/text_quick.toml`` with one seed and 60 steps, and kills the command at random moments. Given again, it
goes on from the last checkpoint of the run that it was in. It survives if metrics and ledgers equal those of an
undisturbed command bit by bit.

``python -m experiments.faults cut`` kills commands whose runs are cut in time at random moments: the experiment on
noisy images, and the segmentation of brain tumours on tiny volumes. They save after every segment, and go on from the
last one. They survive if the metrics equal those of an undisturbed command bit by bit.

``python -m experiments.faults limits`` does to a sweep what schedulers, limits and networks do: SIGTERM and SIGUSR1,
too little memory in a control group, a full or closed standard output, two threads on one folder, and hosts in network
namespaces of their own, one of which is cut off. Namespaces and groups are made by root only, and removed at the end.

Each writes its part of the page ``RESULTS.md`` beside this file.
"""

import argparse
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.faults.command import Row

TABLE = Path(__file__).with_name("RESULTS.md")
# Processes that start and wait most of the time leave a core to others.
_JUDGES = 3
PARTS = {
    "sweep": "A sweep",
    "live": "A live mix",
    "text": "A language model on a live mix",
    "cut": "Runs that are cut in time",
    "limits": "Schedulers, limits and networks",
}


def main() -> None:
    """Does the faults of one part, and writes its table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS, help="what faults are done to")
    parser.add_argument(
        "--kills", type=int, metavar="N", help="how many kills [sweep: 40, live: 100, text: 30, cut: 30, limits: 10]"
    )
    given = parser.parse_args()
    faults, kills = {
        "sweep": (sweep_faults, 40),
        "live": (live_faults, 100),
        "text": (text_faults, 30),
        "cut": (cut_faults, 30),
        "limits": (limit_faults, 10),
    }[given.part]
    rows = faults(given.kills or kills)
    write(given.part, rows)
    if any(row.lost != "nothing" for row in rows):
        sys.exit("something was lost: see the table")


def sweep_faults(kills: int) -> list[Row]:
    """Does every fault to a sweep."""
    # Workers of the other part import this file, and are spared what only this one needs.
    from experiments.faults.inside import nan_runs, no_memory
    from experiments.faults.outside import Judge

    rows = [nan_runs(), no_memory()]
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        trials = [
            lambda: judge.killed(kills, signal.SIGKILL, seed=0),
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
    return rows


def live_faults(kills: int) -> list[Row]:
    """Does every fault to training on a live mix."""
    from experiments.faults.live import LiveJudge, rows_of

    def judge(seed):
        one = LiveJudge(Path(folder) / str(seed), seed=seed)
        one.kill(kills // _JUDGES + (seed < kills % _JUDGES))
        return one

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_JUDGES) as pool:
        judges = list(pool.map(judge, range(_JUDGES)))
        return [*rows_of(judges), judges[0].cut_after_1000()]


def text_faults(kills: int) -> list[Row]:
    """Kills the command that trains a language model on a live mix."""
    from experiments.faults.text import TextJudge

    with tempfile.TemporaryDirectory() as folder:
        # Two short training runs, one by each method, so that most of the time goes into what is killed.
        return [TextJudge(Path(folder), ["sweep.seeds=1", "num_steps=60", "save_every=10"]).kill(kills)]


def cut_faults(kills: int) -> list[Row]:
    """Kills two commands whose runs are cut in time, each so many times."""
    from experiments.faults.cut import MnistJudge, SegmentationJudge

    with tempfile.TemporaryDirectory() as folder:
        return [judge(Path(folder) / judge.__name__).row(kills) for judge in (MnistJudge, SegmentationJudge)]


def limit_faults(kills: int) -> list[Row]:
    """Does to a sweep what schedulers, limits and networks do."""
    from experiments.faults import limits, network
    from experiments.faults.outside import Judge

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = Judge(folder / "signals")
        trials = [
            lambda: judge.killed(kills, signal.SIGTERM, seed=2),
            lambda: judge.killed(kills // 2, signal.SIGUSR1, seed=3),
            lambda: limits.killed_for_memory(folder / "memory"),
            lambda: limits.two_threads(folder / "threads"),
            limits.full_stream,
            lambda: network.cut_off(folder, 2, seconds=3.0),
            lambda: network.cut_off(folder, 2, seconds=30.0),
            lambda: network.cut_off(folder, 4, seconds=30.0),
        ]
        for trial in trials:
            rows.append(trial())
            print(rows[-1], flush=True)
    return rows


def write(part: str, rows: list[Row]) -> None:
    """Writes the table of a part as Markdown, and leaves the other part of the page as it is."""
    summary, *paragraphs = (__doc__ or "").rstrip().split("\n\n")
    intros = dict(zip(PARTS, paragraphs, strict=False))
    lines = [intros[part], "", "| fault | times | what happened | lost |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.fault} | {row.times} | {row.happened.replace('|', '/')} | {row.lost} |" for row in rows]
    versions = f"Python {platform.python_version()}, JAX {importlib.metadata.version('jax')}"
    chunks = "; chunks of 4 runs" if part == "sweep" else ""
    lines += ["", f"{versions}, {os.cpu_count()} cores{chunks}."]
    sections = sections_of(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    sections[PARTS[part]] = "\n".join(lines)
    page = ["# Faults", summary, *(f"## {title}\n\n{sections[title]}" for title in PARTS.values() if title in sections)]
    TABLE.write_text("\n\n".join(page) + "\n", encoding="utf-8")


def sections_of(page: str) -> dict[str, str]:
    """Returns the text below each heading of the second level."""
    return {title: text.strip() for title, _, text in (part.partition("\n") for part in page.split("\n## ")[1:])}


if __name__ == "__main__":
    main()

"""Reads how far a run is, from outside: the files that ``mixjax run`` and a live mix write while they work.

Only the ends of these files are read, and nothing of JAX is loaded, so that watching costs a run next to nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mixjax.files import local_path
from mixjax.live.ledger_tail import Tail, read_tail

__all__ = ["RUNS", "Progress", "View", "view", "write_runs"]

RUNS = "runs.json"
"""The file in the folder of chunks that names the parts of what is run, in order."""

_BYTES = 2**18
# Rates are those of the last records, so that a run that slows down shows it.
_RECENT = 8
# The numbers of a record, and what stands for one that is left out; NaN for those that no record is without.
_NUMBERS = {"done": math.nan, "total": math.nan, "seconds": math.nan, "segment": 0, "segments": 1, "diverged": 0}
# A run that has written nothing for so many seconds, and so many times as long as between its records, may have ended.
_SILENT_SECONDS, _SILENT_TIMES = 60.0, 10.0


class Progress(NamedTuple):
    """Holds how far one part of a config is: one ``[[run]]``, or one label of it.

    Attributes:
        name: as the config names it; "" for a sweep of your own.
        done: runs that are done, fractions of runs at work among them; NaN where no record tells.
        total: runs in all; 0 where no record tells.
        is_begun: whether it is at work, or done. A part at work may have no record yet.
        segment: segments of the chunk at work that are done.
        segments: segments of a run.
        diverged: runs with values that are not finite.
        rate: runs a second, lately; 0 where it is not known.
        seconds: time since the part began.
        pause: seconds between two of the last records, at most; infinite where there is none.
        metrics: metric -> mean of its last value.
        by_domain: metric -> domain -> mean.
    """

    name: str
    done: float
    total: int
    is_begun: bool = True
    segment: int = 0
    segments: int = 1
    diverged: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    pause: float = math.inf
    metrics: Mapping[str, float | None] = MappingProxyType({})
    by_domain: Mapping[str, Mapping[str, float | None]] = MappingProxyType({})


class View(NamedTuple):
    """Holds all that is known of a run.

    Attributes:
        folder: what is watched.
        state: "waiting", "running" or "finished".
        parts: how far each part is, in order; those without a record have not begun.
        age: seconds since something was last written; infinite where nothing was.
        eta: seconds that are left of the part at work, or None where it cannot be told. Other parts may be slower or
            quicker: their methods or shapes differ.
        ledger: where the live mix is that was written to last, or None.
        ledger_name: what tells it from other ledgers, such as "method=erma,seed=7".
        stamp: changes whenever a file that was read does.
    """

    folder: Path
    state: str
    parts: list[Progress]
    age: float
    eta: float | None
    ledger: Tail | None
    ledger_name: str
    stamp: tuple

    @property
    def is_last_part(self) -> bool:
        """Tells whether no part is left beside the one at work."""
        return sum(not part.total or part.done < part.total for part in self.parts) <= 1

    @property
    def is_silent(self) -> bool:
        """Tells whether nothing was written for so long that the run has perhaps ended: by itself, or killed."""
        begun = [part for part in self.parts if part.is_begun]
        # A loop that writes nothing but a ledger has no records that would tell how often it writes.
        pause = begun[-1].pause if begun else 0.0 if self.ledger is not None else math.inf
        silence = max(_SILENT_SECONDS, _SILENT_TIMES * pause)
        return self.state == "running" and math.isfinite(self.age) and self.age > silence


def write_runs(chunks: Path, names: list[str]) -> None:
    """Writes the names of all parts of what is run, for who watches.

    Args:
        chunks: the folder of chunks; made if it does not exist.
        names: in order.
    """
    # A run is worth more than who watches it: what is wrong with the folder, the sweep itself says better.
    with contextlib.suppress(OSError):
        chunks.mkdir(parents=True, exist_ok=True)
        (chunks / RUNS).write_text(json.dumps({"runs": names}) + "\n", encoding="utf-8")


def view(path: str | os.PathLike, before: View | None = None) -> View:
    """Reads how far a run is.

    Args:
        path: the folder that ``mixjax run`` will write or has written, such as ``results/quickstart``; its folder of
            chunks; a folder, or a file, of a ledger or of records of a sweep.
        before: an earlier view of the same path. Where no file has changed since, nothing is read.

    Returns:
        What is known. Files that are not there yet, or are being written, are no error.

    Raises:
        ValueError: ``path`` is no path of the local file system.

    Example:
        >>> import tempfile
        >>> view(tempfile.mkdtemp() + "/not_there_yet").state
        'waiting'
    """
    folder = local_path("path", path)
    chunks = folder.with_name(f"{folder.name}.chunks")
    is_written = (folder / "metrics.json").is_file() and not chunks.is_dir()
    place = chunks if chunks.is_dir() else folder
    # A file of records may be named itself.
    records = place if place.suffix == ".jsonl" else place / "progress.jsonl"
    ledgers = _ledgers(place)
    stamp = (is_written, *map(_stamp, (records, place / RUNS, *_begun(place)[-1:], *ledgers[:1])))
    age = max(time.time() - max((each[2] for each in stamp[1:] if each), default=-float("inf")), 0.0)
    if before is not None and before.stamp == stamp:
        return before._replace(age=age)
    parts = _parts(place, records)
    ledger, ledger_path = next(((tail, path) for path in ledgers[:3] if (tail := _tail(path))), (None, None))
    is_over = is_written or (ledger is not None and bool(ledger.ended) and not parts)
    # The folder of chunks is there before the first record.
    is_begun = bool(parts) or ledger is not None or (chunks.is_dir() and place == chunks)
    return View(
        folder=folder,
        state="finished" if is_over else "running" if is_begun else "waiting",
        parts=parts,
        age=age,
        eta=None if is_over else _eta(parts),
        ledger=ledger,
        ledger_name="" if ledger_path is None else _ledger_name(ledger_path, place),
        stamp=stamp,
    )


def _stamp(path: Path) -> tuple[str, int, float] | None:
    """Returns what tells two states of a file apart, its time of change last; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime


def _parts(place: Path, records: Path) -> list[Progress]:
    """Returns the parts of a config in order, those that have not begun among them."""
    known: dict[str, list[dict[str, Any]]] = {name: [] for name in _names(place)}
    for record in _records(records):
        name = str(record.get("run", ""))
        known.setdefault(name, []).append(record)
    parts = [_progress(name, found) for name, found in known.items()]
    num_begun = len(_begun(place))
    parts = [part._replace(is_begun=part.total > 0 or i < num_begun) for i, part in enumerate(parts)]
    at_work = max((i for i, part in enumerate(parts) if part.is_begun), default=0)
    # Parts run one after the other. Those before the one at work are done, though their records may be far back.
    total = max((part.total for part in parts), default=0)
    return [_done(part, total) if i < at_work else part for i, part in enumerate(parts)]


def _begun(place: Path) -> list[Path]:
    """Returns the folders of the parts that have begun, in order."""
    return sorted(place.glob("run_[0-9]*"))


def _done(part: Progress, total: int) -> Progress:
    total = part.total or total
    return part._replace(done=float(total) if total else math.nan, total=total, is_begun=True)


def _names(place: Path) -> list[str]:
    try:
        written = json.loads((place / RUNS).read_text(encoding="utf-8"))
        return [str(name) for name in written["runs"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the whole records at the end of a file; one that is being written has no end yet."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _BYTES, 0))
            pieces = file.read(_BYTES).split(b"\n")[:-1]
    except OSError:
        return
    for piece in pieces[1:] if size > _BYTES else pieces:
        try:
            record = json.loads(piece)
            # What is no finite number cannot be counted with.
            if all(math.isfinite(record.get(name, default)) for name, default in _NUMBERS.items()):
                yield record
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            continue


def _progress(name: str, records: list[dict[str, Any]]) -> Progress:
    if not records:
        return Progress(name, float("nan"), 0)
    last = records[-1]
    # A sweep that went on in another process counts its seconds anew: only records of the last one are compared.
    starts = [i for i in range(1, len(records)) if records[i]["seconds"] < records[i - 1]["seconds"]]
    same = records[max(starts, default=0) :]
    times = [0.0, *(record["seconds"] for record in same)][-_RECENT:]
    with_metrics = [record for record in records if record.get("metrics")]
    told = with_metrics[-1] if with_metrics else last
    return Progress(
        name,
        done=float(last["done"]),
        total=int(last["total"]),
        segment=int(last.get("segment", 0)),
        segments=int(last.get("segments", 1)),
        diverged=int(last.get("diverged", 0)),
        rate=_rate(same),
        seconds=float(last["seconds"]),
        # A single record tells how long the first one took, compilation and all.
        pause=max(later - before for before, later in itertools.pairwise(times)),
        metrics=told.get("metrics", {}),
        by_domain=told.get("by_domain", {}),
    )


def _rate(records: list[dict[str, Any]]) -> float:
    """Returns the runs a second of the records of one process; 0 where they do not tell."""
    # A run that reports itself says nothing about its compilation, its evaluation and what it saves at its end. So only
    # whole runs are counted, of which the records have segments.
    # The first run has the compilation of the others, so that one alone does not tell.
    ends = [record for record in records if record.get("segment", 1)]
    reports_itself = len(ends) < len(records)
    compared = ends[-_RECENT:]
    if len(compared) < 1 + reports_itself:
        return 0.0
    first = compared[0] if len(compared) > 1 else {"done": 0.0, "seconds": 0.0}
    last = compared[-1]
    seconds = last["seconds"] - first["seconds"]
    return max((last["done"] - first["done"]) / seconds, 0.0) if seconds > 0 else 0.0


def _eta(parts: list[Progress]) -> float | None:
    """Returns the seconds that are left of the part at work, if it goes on as it did lately."""
    begun = [part for part in parts if part.is_begun]
    if not begun or not begun[-1].rate:
        return None
    left = (begun[-1].total - begun[-1].done) / begun[-1].rate
    return left if math.isfinite(left) else None


def _ledgers(place: Path) -> list[Path]:
    """Returns the files below a folder that may be ledgers, the one written to last first."""
    if place.is_file():
        return [place]
    found: list[Path] = []
    # Where a run keeps its files: beside it, in a result, and in a folder of chunks.
    for pattern in ("*.jsonl", "files/*/*.jsonl", "files/*/*/*.jsonl", "run_*/files/*/*.jsonl"):
        found += [path for path in place.glob(pattern) if path.name != "progress.jsonl"]
    stamps = {path: stamp[2] for path in found if (stamp := _stamp(path))}
    return sorted(stamps, key=lambda path: -stamps[path])


def _ledger_name(path: Path, place: Path) -> str:
    """Returns the name of the folder that a run has for its files, or else the file's own."""
    return path.name if path.parent == place or path == place else path.parent.name


def _tail(path: Path) -> Tail | None:
    try:
        return read_tail(path)
    except OSError:
        return None

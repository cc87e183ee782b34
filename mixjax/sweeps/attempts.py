"""Keeps a note of the attempt that is under way, so that the next one knows whether the kernel killed it for memory."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mixjax.files import write_whole
from mixjax.sweeps.devices import memory_kills

__all__ = ["Attempts"]


class Attempts:
    """Tells whether the last attempt at a sweep was killed for memory, and notes the attempt under way.

    A process that is killed for memory can say nothing itself. It leaves its note, which an attempt that ends in any
    other way removes: by its result, an error, or Ctrl-C. Of a note that was left, two things tell that memory was the
    reason:

    - the kernel counts processes that it killed for memory, and its counter has risen since the note;
    - where no counter of the note can be read, as after a restart of the machine: two attempts in a row have ended
      without a result, an error, or anything saved.

    Something was saved where a chunk or a carry was, or a file in the scratch folder of a run of a
    :class:`mixjax.sweeps.HostLoop`.

    Args:
        folder: the sweep's checkpoint folder.
        root: the folder that holds ``proc`` and ``sys``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Attempts(folder).noted(16):
        ...     found = Attempts(folder).died_at
        >>> found is None, Attempts(folder).died_at is None
        (True, True)
    """

    def __init__(self, folder: Path, *, root: Path = Path("/")):
        """Reads the note of the last attempt."""
        # Each host has memory of its own.
        self._path, self._kills = folder / f"attempt_{jax.process_index()}.json", memory_kills(root)
        self._folder, self._saved = folder, _what_is_saved(folder)
        self._last = _read(self._path)

    @property
    def died_at(self) -> int | None:
        """Returns the number of runs in a chunk of the last attempt if that was killed for memory, else None."""
        if self._last is None:
            return None
        before = self._last["kills"]
        # The first counter is that of the process's own group, which other processes of the machine do not move.
        for counter, count in self._kills.items():
            if counter in before:
                return self._last["slots"] if count > before[counter] else None
        return self._last["slots"] if self._num_deaths() >= 2 else None

    @property
    def died_in(self) -> str | None:
        """Returns what the last attempt was at work on, where it has noted that: the name of a run, mostly."""
        return None if self._last is None else self._last["run"]

    @contextlib.contextmanager
    def noted(self, slots: int, run: str | None = None) -> Iterator[None]:
        """Notes the attempt for a ``with`` block.

        Args:
            slots: number of runs in a chunk.
            run: name of the run at work where runs have names, or of what else is done.

        Yields:
            Nothing.
        """
        # Earlier runs of this attempt may have been saved meanwhile: then a death at this one is its first.
        saved = _what_is_saved(self._folder)
        deaths = 0 if self.died_at or saved != self._saved else self._num_deaths()
        note = {"slots": slots, "kills": self._kills, "deaths": deaths, "saved": saved, "run": run}
        write_whole(self._path, json.dumps(note))
        try:
            yield
        finally:
            # A folder that cannot be written any more has an error of its own.
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _num_deaths(self):
        """Counts the attempts in a row that have left their note, and saved nothing."""
        if self._last is None or self._last["saved"] != self._saved:
            return 0
        return self._last["deaths"] + 1


def _what_is_saved(folder: Path) -> int:
    """Returns a number that changes when a chunk or a carry is saved, or a run's own loop saves something."""
    names = [path.name for pattern in ("chunk_*", "carry_*") for path in folder.glob(pattern)]
    # A loop may save under the same name again and again.
    scratch = [path for path in (folder / "scratch").rglob("*") if path.is_file()]
    names += [f"{path.relative_to(folder)} {path.stat().st_mtime_ns}" for path in scratch]
    return zlib.crc32("\n".join(sorted(names)).encode(errors="surrogateescape"))


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a note; None where there is none, or a damaged one."""
    try:
        note = json.loads(path.read_text())
        kills = {str(counter): int(count) for counter, count in note["kills"].items()}
        numbers = {name: int(note[name]) for name in ("slots", "deaths", "saved")}
        # Notes had no run once.
        return {"kills": kills, "run": note.get("run")} | numbers
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

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
        self._saved = _names_of_saved(folder)
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

    @contextlib.contextmanager
    def noted(self, slots: int) -> Iterator[None]:
        """Notes the attempt for a ``with`` block.

        Args:
            slots: number of runs in a chunk.

        Yields:
            Nothing.
        """
        deaths = 0 if self.died_at else self._num_deaths()
        note = {"slots": slots, "kills": self._kills, "deaths": deaths, "saved": self._saved}
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


def _names_of_saved(folder: Path) -> int:
    """Returns a number that changes when a chunk or a carry is saved."""
    names = sorted(path.name for pattern in ("chunk_*", "carry_*") for path in folder.glob(pattern))
    return zlib.crc32("\n".join(names).encode())


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a note; None where there is none, or a damaged one."""
    try:
        note = json.loads(path.read_text())
        kills = {str(counter): int(count) for counter, count in note["kills"].items()}
        return {"kills": kills} | {name: int(note[name]) for name in ("slots", "deaths", "saved")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

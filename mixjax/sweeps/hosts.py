"""Shares a sweep out among several hosts, and makes the hosts wait for each other."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from mixjax.files import is_locked
from mixjax.stopping import Preempted

__all__ = ["Hosts"]

_LOG = logging.getLogger(__name__)
_Item = TypeVar("_Item")

_LOOK_SECONDS = 0.2
"""Between two looks for hosts that have ended."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Knows which host this is, shares work out, and keeps the hosts in step.

    All hosts must call the methods in the same order. A single host never waits, and sends nothing.

    Args:
        index: the number of this host, from 0.
        count: the number of hosts.

    Example:
        >>> hosts = Hosts.here()
        >>> hosts.several, Hosts(index=1, count=3).share([10, 11, 12, 13, 14])
        (False, [11, 14])
    """

    index: int
    count: int

    @classmethod
    def here(cls) -> Hosts:
        """Returns this host's number and the number of hosts, as ``jax.distributed`` knows them."""
        return cls(index=jax.process_index(), count=jax.process_count())

    @property
    def several(self) -> bool:
        """Tells whether there is more than one host."""
        return self.count > 1

    @property
    def is_first(self) -> bool:
        """Tells whether this is the host that decides for all."""
        return self.index == 0

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """Returns the items that fall to this host: every ``count``-th one, from ``index`` on."""
        return list(items[self.index :: self.count])

    def from_first(self, array: np.ndarray) -> np.ndarray:
        """Returns the first host's array on every host.

        Args:
            array: numbers that fit int32, or booleans; of the same shape on every host.

        Returns:
            The first host's numbers, in the dtype of ``array``.
        """
        if not self.several:
            return array
        from jax.experimental import multihost_utils

        # Sent as int32: without jax_enable_x64 a 64-bit array would be cut to 32 bits, and booleans are not broadcast.
        return np.asarray(multihost_utils.broadcast_one_to_all(array.astype(np.int32))).astype(array.dtype)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Runs a block on every host, and goes on only when all have come to its end.

        An error on one host does not stop the others in the middle of their work: they finish the block first. Then
        every host raises.

        Raises:
            RuntimeError: another host failed. The host that failed raises its own error.
        """
        if not self.several:
            yield
            return
        from jax.experimental import multihost_utils

        # The error is held back until all hosts are here: raised at once, it would leave the others waiting for ever.
        failure = None
        try:
            yield
        except (Exception, Preempted) as error:
            _LOG.error("host %d ended; it waits for the others to finish their chunks", self.index, exc_info=error)
            failure = error
        failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(failure is not None)))
        if failure is not None:
            raise failure
        if failed.size:
            raise RuntimeError(f"host {failed[0]} failed, see its log; the same call goes on from the chunks on disk.")

    @contextlib.contextmanager
    def watched(self, folder: Path | None) -> Iterator[None]:
        """Says in the log which host's process has ended, as soon as that is seen, for a ``with`` block.

        JAX ends the other hosts too, up to 100 s later and in words of its own. A host is seen to end by its lock in
        the folder; on a file system without locks nothing is said.

        Args:
            folder: the checkpoint folder, which all hosts see.
        """
        if not self.several or folder is None:
            yield
            return
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(folder, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, folder, over):
        alive = set()
        while not over.wait(_LOOK_SECONDS):
            for host in set(range(self.count)) - {self.index}:
                locked = is_locked(folder / f"lock_{host}")
                if locked:
                    alive.add(host)
                # A host that was never seen may not have opened the folder yet.
                elif locked is not None and host in alive:
                    alive.discard(host)
                    _LOG.error(
                        "host %d has ended, and the others will; the same command on all hosts goes on from the chunks "
                        "in %s",
                        host,
                        folder,
                    )

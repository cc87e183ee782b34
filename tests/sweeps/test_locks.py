"""Locks on files."""

import os

import pytest

from mixjax.sweeps.locks import lock


def test_one_lock_a_path_and_process(tmp_path):
    """Closing any descriptor of a file would give up the process's lock on it."""
    first, second = lock(tmp_path / "lock"), lock(tmp_path / "lock")
    assert first is second
    file = first.file
    del first
    os.fstat(file)
    del second
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_two_paths_have_two_locks(tmp_path):
    assert lock(tmp_path / "a") is not lock(tmp_path / "b")

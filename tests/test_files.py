"""Files that are written whole or not at all, and locks on files."""

import os

import pytest

from mixjax.files import lock, write_whole


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "x.json"
    for text in ("long ago", "ü", ""):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_written_as_they_are(tmp_path):
    write_whole(tmp_path / "x.gz", b"\x1f\x8b\n")
    assert (tmp_path / "x.gz").read_bytes() == b"\x1f\x8b\n"


def test_what_fails_on_the_way_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_whole(path, "old")

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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

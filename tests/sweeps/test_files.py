"""Files that are written whole or not at all."""

import os

import pytest

from mixjax.sweeps.files import write_whole


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "x.json"
    for text in ("long ago", "ü", ""):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_on_the_way_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_whole(path, "old")

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"

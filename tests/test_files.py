"""Files that are written whole or not at all, and locks on files."""

import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

import mixjax
from mixjax.files import local_path, lock, make_folder, remove_partial, write_whole


@pytest.mark.parametrize("value", ["a/b", "/a/b", "C:/a", "a:b", "C:\\a", ".", "file", "x y"])
def test_local_paths_are_taken_as_they_are(value):
    assert local_path("out", value) == local_path("out", Path(value)) == Path(value)


def test_the_home_folder_is_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("out", "~/runs") == local_path("out", Path("~/runs")) == Path("/home/somebody/runs")
    with pytest.raises(ValueError, match="out: no user has the home folder '~no-such-user/runs'"):
        local_path("out", "~no-such-user/runs")


@pytest.mark.parametrize("value", ["gs://bucket/runs", "s3://bucket", "https://a.b/c", "file:///tmp/x", "az+x://y"])
def test_urls_are_refused_by_name(value):
    # pathlib has made one slash of two before anybody sees the URL.
    for given in (value, Path(value)):
        with pytest.raises(ValueError, match=r"^checkpoint: takes a path of the local file system.*, got '") as error:
            local_path("checkpoint", given)
        assert "\n" not in str(error.value)


def test_what_is_no_path_is_refused_by_name():
    for value in (None, 3, b"x"):
        with pytest.raises(TypeError, match="root: takes a path, got"):
            local_path("root", value)
    for value in ("", "a\0b"):
        with pytest.raises(ValueError, match="root: takes a path, got"):
            local_path("root", value)


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


def test_a_function_writes_to_the_open_file(tmp_path):
    write_whole(tmp_path / "x", lambda file: file.writelines([b"a", b"b"]))
    assert (tmp_path / "x").read_bytes() == b"ab"


def test_what_killed_processes_left_is_removed(tmp_path):
    for name in (".x.0a.partial", "x", "x.partial", "below"):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["below", "x", "x.partial"]


def test_one_lock_a_path_and_process(tmp_path):
    first, second = lock(tmp_path / "lock"), lock(tmp_path / "lock")
    assert first is second and first.is_locked
    del first
    assert second.is_locked


def test_two_paths_have_two_locks(tmp_path):
    assert lock(tmp_path / "a") is not lock(tmp_path / "b")


HOLDS = """
import sys
from pathlib import Path
from mixjax.files import lock
held = lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_named_and_leaves_no_lock_behind(tmp_path):
    # Its modules are found where this process finds them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"^{tmp_path} is in use by another process"):
            lock(tmp_path / "lock")
        process.kill()
    held = lock(tmp_path / "lock")
    assert held.is_locked
    del held  # gives the lock up
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], **pipes) as process:
        assert process.stdout.readline() == b"held\n"


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch, error):
    def acquire(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(filelock.BaseFileLock, "acquire", acquire)
    lock(tmp_path / "lock")


@pytest.mark.parametrize("below", ["", "runs", "runs/first"])
def test_make_folder_names_the_file_in_its_place(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(OSError, match=rf"^checkpoint: takes a folder, but {file} is a file$"):
        make_folder("checkpoint", file / below)
    assert make_folder("checkpoint", tmp_path / "new" / "runs").is_dir()


def test_make_folder_says_why_a_folder_cannot_be_made():
    with pytest.raises(OSError, match=r"^checkpoint: /proc/none cannot be made: .+$"):
        make_folder("checkpoint", Path("/proc/none"))


@pytest.mark.parametrize("place", ["checkpoint", "ledger"])
def test_every_writer_names_a_file_in_the_place_of_its_folder(tmp_path, place):
    file = tmp_path / "file"
    file.write_text("not a folder")
    writers = {
        "checkpoint": lambda: mixjax.sweep(lambda key, hparams, data: {"x": 1.0}, seeds=1, checkpoint=file),
        "ledger": lambda: mixjax.live.Ledger(file / "ledger.jsonl", mixjax.live.Plan([4, 4], 2, [0.5, 0.5])),
    }
    with pytest.raises(OSError, match=rf"takes a folder, but {file} is a file$"):
        writers[place]()


def test_a_ledger_is_no_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"^path: takes a file, but .+ is a folder$"):
        mixjax.live.Ledger(tmp_path, mixjax.live.Plan([4, 4], 2, [0.5, 0.5]))

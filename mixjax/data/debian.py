"""Downloads Debian packages with apt-get and reads the files inside them; nothing is installed or run."""

from __future__ import annotations

import io
import lzma
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote

from mixjax.data import packages

__all__ = ["Deb", "download", "in_folder", "members", "read"]


class Deb(NamedTuple):
    """Holds a Debian package (.deb).

    Attributes:
        name: the package's name.
        version: the package's version.
        data: the bytes of the file.
    """

    name: str
    version: str
    data: bytes


def download(name: str, version: str | None = None) -> Deb:
    """Downloads a package from the Debian mirror that this machine's apt-get uses; needs no root.

    Args:
        name: the package's name.
        version: the version to ask for. A mirror forgets a version when the next one comes, so when it no longer has
            this one, its own version is downloaded: the caller compares what is inside.

    Returns:
        The package, in the version that the mirror gave.

    Raises:
        FileNotFoundError: if there is no apt-get.
        RuntimeError: if apt-get fails.
    """
    if shutil.which("apt-get") is None:
        wanted = name if version is None else f"{name} {version}"
        raise FileNotFoundError(
            f"apt-get is not on PATH: the Debian package {wanted} needs Debian or a relative of it; elsewhere, "
            "download the package by other means and name its folder with --from"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            _apt_get(name if version is None else f"{name}={version}", folder)
        except RuntimeError:
            if version is None:
                raise
            _apt_get(name, folder)
        return read(packages.the_file(Path(folder), "*.deb", f"apt-get download {name}"))


def in_folder(folder: Path, name: str) -> Deb:
    """Returns the package that lies in a folder under its usual name, NAME_VERSION_ARCHITECTURE.deb.

    Raises:
        FileNotFoundError: if the folder does not hold the package.
        ValueError: if the folder holds several versions.
    """
    return read(packages.file_in(folder, f"{name}_*.deb"))


def members(package: Deb) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the regular files of a package in its own order: the path, such as "usr/share/doc/x", and the open file.

    Each file must be read before the next one is asked for. Nothing is written to the disk, so that no path or link in
    the package can reach it.

    Args:
        package: the package.

    Raises:
        ValueError: if the package is damaged, or compressed in a way that this Python cannot read.
    """
    try:
        # A stream is never read twice, so that a large package is unpacked only once.
        with tarfile.open(fileobj=_files_of(package), mode="r|*") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name.removeprefix("./"), file
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"the Debian package {package.name} {package.version} is damaged: {error}") from error


def _apt_get(package: str, folder: str) -> None:
    """Downloads a package, "name" or "name=version", into a folder."""
    try:
        packages.run(["apt-get", "download", "--quiet", package], folder, f"apt-get download {package}")
    except RuntimeError as error:
        if "Unable to locate package" in str(error):
            raise RuntimeError(f"{error} (`apt-get update` renews the list of packages)") from None
        raise


def read(path: Path) -> Deb:
    """Reads a package whose file has its usual name, in which a colon of the version is written %3a."""
    name, version, _ = path.name.split("_", 2)
    return Deb(name, unquote(version), path.read_bytes())


def _files_of(package: Deb) -> io.BytesIO:
    """Returns the archive of the package's files, a part of the package.

    A package is an ``ar`` archive, in which each part has a header of 60 bytes. The header holds the part's name in 16
    bytes and, from byte 48, its size in ten decimal digits.
    """
    data, at = package.data, 8
    if not data.startswith(b"!<arch>\n"):
        raise ValueError(f"{package.name} {package.version} is no Debian package")
    while at + 60 <= len(data):
        part, size = data[at : at + 16].strip().rstrip(b"/").decode(), int(data[at + 48 : at + 58])
        if part.startswith("data.tar"):
            if part.endswith(".zst") and sys.version_info < (3, 14):
                raise ValueError(f"{package.name} {package.version} is compressed with zstd, which needs Python 3.14")
            if at + 60 + size > len(data):
                break
            return io.BytesIO(data[at + 60 : at + 60 + size])
        # Parts begin at even offsets.
        at += 60 + size + size % 2
    raise ValueError(f"the Debian package {package.name} {package.version} is damaged: its end is missing")

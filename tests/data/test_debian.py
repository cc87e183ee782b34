"""Debian packages: what is read out of them, and what their errors say."""

import io
import tarfile

import pytest

from mixjax.data import debian
from tests.data.small_packages import deb, fake_registries, tar

FILES = {"usr/share/a.txt": b"first", "usr/share/b/c.txt": b"second, of odd length.."}


def opened(content):
    return {path: file.read() for path, file in debian.members(debian.Deb("x", "1.2", content))}


@pytest.mark.parametrize(("mode", "ending"), [("w:xz", "xz"), ("w:gz", "gz"), ("w:bz2", "bz2"), ("w", "")])
def test_the_files_of_a_package_are_read_whatever_its_compression(mode, ending):
    assert opened(deb(FILES, mode, ending)) == FILES


def test_links_are_not_followed():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("./usr/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("./usr/empty"))
    package = deb({}, "w", "")
    assert opened(package[: -len(tar({}, "w"))] + buffer.getvalue()) == {"usr/empty": b""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404</html>", r"x 1.2 is no Debian package"),
        (deb(FILES)[:-40], r"the Debian package x 1.2 is damaged: its end is missing"),
        (deb(FILES).replace(b"7zXZ", b"7zXY"), r"the Debian package x 1.2 is damaged: "),
        (deb(FILES)[:100], r"the Debian package x 1.2 is damaged: its end is missing"),
        (
            deb(FILES).replace(b"data.tar.xz ", b"data.tar.zst"),
            r"x 1.2 is compressed with zstd, which needs Python 3.14",
        ),
    ],
)
def test_what_is_no_whole_package_is_named(content, message, monkeypatch):
    monkeypatch.setattr(debian.sys, "version_info", (3, 11))
    with pytest.raises(ValueError, match=message):
        opened(content)


def test_the_wanted_version_comes_first_then_whatever_the_mirror_has(monkeypatch):
    asked = fake_registries(monkeypatch, {"perl-doc": ("4:5.36-7", deb(FILES))})
    assert debian.download("perl-doc", "4:5.36-7") == ("perl-doc", "4:5.36-7", deb(FILES))
    assert asked == ["perl-doc=4:5.36-7"]
    assert debian.download("perl-doc", "4:5.35").version == "4:5.36-7"
    assert asked[1:] == ["perl-doc=4:5.35", "perl-doc"]


@pytest.mark.parametrize("version", [None, "1"])
def test_why_apt_get_failed_is_one_line(monkeypatch, version):
    fake_registries(monkeypatch, {}, error="E: Failed to fetch x\nE: Temporary failure resolving the mirror\n")
    with pytest.raises(
        RuntimeError, match=r"^apt-get download x.* exited with 100: E: Failed to fetch x; E: Temp"
    ) as got:
        debian.download("x", version)
    assert "\n" not in str(got.value)
    fake_registries(monkeypatch, {}, error="E: Unable to locate package x\n")
    with pytest.raises(RuntimeError, match=r"locate package x \(`apt-get update` renews the list of packages\)"):
        debian.download("x", version)


def test_without_apt_get_the_error_names_the_package_and_the_way_out(monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    with pytest.raises(FileNotFoundError, match=r"apt-get is not on PATH: .* package x 1.2 needs Debian .*--from"):
        debian.download("x", "1.2")


def test_a_folder_holds_one_version(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no file x_\*.deb"):
        debian.in_folder(tmp_path, "x")
    (tmp_path / "x_4%3a1.2_all.deb").write_bytes(b"content")
    (tmp_path / "x-doc_1_all.deb").write_bytes(b"other")
    assert debian.in_folder(tmp_path, "x") == ("x", "4:1.2", b"content")
    (tmp_path / "x_2_all.deb").write_bytes(b"content")
    with pytest.raises(ValueError, match=r"holds 2 files x_\*.deb, expected 1"):
        debian.in_folder(tmp_path, "x")

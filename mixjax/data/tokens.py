"""Makes files of tokens: fetches domains of text, splits them, trains a vocabulary, and encodes them once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from mixjax.data import catalogue, files, text_documents, token_pages, vocabulary
from mixjax.data.splitting import PARTS, Block, Parts, by_cell, joined, split, without_overlap
from mixjax.data.token_files import INDEX, SIZE, VOCABULARY, folder_of, load_tokens, read_index
from mixjax.files import write_whole

__all__ = ["make_tokens"]

VOCABULARY_CHECKSUM = "6d929b99d96e96b374137a8f0ffd08ebf5020b56464dbb681783d340fe430e7c"
"""The SHA-256 of the vocabulary of 8,192 tokens that the training parts of all fetched domains give."""

# The letters of each domain's training part that the vocabulary is trained on.
_SAMPLE = 2_000_000


def make_tokens(
    domains: Iterable[str] | None = None,
    *,
    cells: bool = False,
    min_tokens: int = 1,
    vocabulary_size: int = SIZE,
    folder: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes token files of domains of text. The command ``mixjax data tokens`` calls this function.

    Domains that are not in the cache are fetched: see :func:`mixjax.data.fetch`. No run of 100 bytes of text is in two
    parts, of the same or of different domains: see :func:`mixjax.data.splitting.without_overlap`.

    The vocabulary is trained on the first 2 million letters of the training part of each chosen domain that is
    fetched; those that are installed differ between machines, and count where no other is chosen. With all fetched
    domains and the default size it must be the pinned one.

    The folder gets ``vocabulary.json``, ``index.json``, a page ``text_data.md`` that lists the domains, and for each
    domain the files ``train.npy``, ``validation.npy`` and ``test.npy``. A folder that holds what is asked for is
    left as it is. An interrupted call leaves no ``index.json``, without which :func:`load_tokens` reads nothing.

    Args:
        domains: names of :data:`mixjax.data.TEXT_DOMAINS`; all of them when None.
        cells: whether each natural cell of a domain, such as a language of "help", becomes a domain of its own, called
            "help/de". Domains without cells stay whole.
        min_tokens: the fewest tokens that each part of a cell has, at least 1; smaller cells are left out.
        vocabulary_size: the number of tokens, from 257 to 65,536.
        folder: the folder to fill; when None, ``tokens`` in the cache, or ``token-cells`` with ``cells``, followed by
            the vocabulary's size where it is not 8,192, as in ``tokens-1024``.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.
        report: takes a line on each step.

    Returns:
        The folder.

    Raises:
        ValueError: if a name is unknown or repeated, a number is out of its range, a cached file is not the pinned one,
            or the vocabulary is not.
        RuntimeError: if a domain cannot be fetched; says why.
        ImportError: if there is no tokenizers; names the extra.
        OSError: if the folder cannot be written.
    """
    names = text_documents.TEXT_DOMAINS if domains is None else tuple(domains)
    folder = folder_of(folder, cells, root, vocabulary_size)
    _check(names, min_tokens, vocabulary_size)
    request = _request(names, cells, min_tokens, vocabulary_size)
    if _is_made(folder, request):
        return folder
    sources, parts = _read(names, root, report)
    report("leaving out what two parts share")
    kept = without_overlap(parts)
    report("training the vocabulary")
    words = _vocabulary({name: kept[name]["train"] for name in names}, vocabulary_size)
    folder.mkdir(parents=True, exist_ok=True)
    _remove(folder)
    write_whole(folder / VOCABULARY, words.data)
    entries = {}
    for name in names:
        report(f"encoding {name}")
        divided = by_cell(kept[name], sources[name].cells) if cells and sources[name].cells else {"": kept[name]}
        for cell, of_cell in sorted(divided.items()):
            encoded = {part: words.encode([_text(block) for block in of_cell[part]]) for part in PARTS}
            if cell and min(map(len, encoded.values())) < min_tokens:
                continue
            title = f"{name}/{cell}" if cell else name
            number = 1 if cell else len(set(sources[name].cells.values()))
            about = {"source": sources[name].sentence, "cells": number}
            entries[title] = about | _written(folder / title, of_cell, encoded)
    index = {"request": request, "vocabulary": words.checksum, "domains": entries}
    write_whole(folder / token_pages.PAGE, token_pages.page(entries, words.size, vocabulary_size))
    write_whole(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=False))
    return folder


def _check(names: tuple[str, ...], min_tokens: int, size: int) -> None:
    """Refuses arguments of :func:`make_tokens` before anything is fetched."""
    for name in names:
        files.check_name(name, text_documents.TEXT_DOMAINS)
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated or not names:
        raise ValueError(f"domains must be different names, at least one, got {', '.join(names) or 'none'}")
    if min_tokens < 1:
        raise ValueError(f"min_tokens must be at least 1, got {min_tokens}")
    vocabulary.check_size(size)
    # Checked here, since fetching and splitting takes minutes.
    vocabulary.check_installed()


def _request(names: Iterable[str], cells: bool, min_tokens: int, size: int) -> dict:
    """Returns all that decides on the contents of the token files, as JSON has it."""
    versions = {"python": platform.python_version(), "reference": platform.python_version(), "c": np.__version__}
    pins = {pinned.name: dict(pinned.checksums) for pinned in text_documents.FILES}
    made_of = {name: versions.get(name) or pins[str(text_documents.fetched_by(name))] for name in names}
    return {"domains": made_of, "cells": cells, "min_tokens": min_tokens, "vocabulary_size": size}


def _is_made(folder: Path, request: Mapping) -> bool:
    """Returns True if a folder holds what is asked for, undamaged."""
    try:
        index = read_index(folder)
        if index["request"] != request:
            return False
        for name in index["domains"]:
            load_tokens(name, folder=folder)
    except (OSError, ValueError):
        return False
    return True


def _remove(folder: Path) -> None:
    """Removes the token files that a folder's index lists, and first the index."""
    try:
        listed = read_index(folder)["domains"]
    except (OSError, ValueError):
        listed = {}
    (folder / INDEX).unlink(missing_ok=True)
    for name in listed:
        for part in PARTS:
            (folder / name / f"{part}.npy").unlink(missing_ok=True)


def _read(
    names: Iterable[str], root: str | os.PathLike | None, report: Callable[[str], None]
) -> tuple[dict[str, text_documents.Source], dict[str, Parts]]:
    """Fetches and splits domains. Returns where each comes from (without its texts, to save memory), and its parts."""
    sources, parts = {}, {}
    for name in names:
        fetched = text_documents.fetched_by(name)
        if fetched is not None:
            report(f"fetching {fetched}")
            catalogue.fetch(cast(catalogue.FetchedName, fetched), root=root)
        report(f"reading {name}")
        source = text_documents.read(name, root)
        parts[name] = split(source.texts)
        sources[name] = source._replace(texts={})
    return sources, parts


def _vocabulary(training: Mapping[str, list[Block]], size: int) -> vocabulary.Vocabulary:
    """Trains the vocabulary, and compares it with the pinned one where that is asked for."""
    fetched = [name for name in training if text_documents.fetched_by(name) is not None]
    # Sorted by name, so that the order of the arguments does not count.
    words = vocabulary.train(_sample(training[name] for name in sorted(fetched or training)), size)
    everything = [name for name in text_documents.TEXT_DOMAINS if text_documents.fetched_by(name) is not None]
    if size == SIZE and sorted(fetched) == sorted(everything) and words.checksum != VOCABULARY_CHECKSUM:
        raise ValueError(
            f"the vocabulary has SHA-256 {words.checksum}, but the pinned one has {VOCABULARY_CHECKSUM}: this version "
            "of tokenizers trains in another way than versions 0.20 to 0.23"
        )
    return words


def _sample(domains: Iterable[list[Block]]) -> Iterator[str]:
    """Yields the first documents of each domain, up to about 2 million letters."""
    for blocks in domains:
        left = _SAMPLE
        for block in blocks:
            if left <= 0:
                break
            text = _text(block)[:left]
            left -= len(text)
            yield text


def _text(block: Block) -> str:
    """Returns a block's text; the few bytes that are not UTF-8 are replaced."""
    return b"\n\n".join(block.paragraphs).decode("utf-8", "replace")


def _written(folder: Path, parts: Parts, encoded: Mapping[str, np.ndarray]) -> dict:
    """Writes the token files of a domain. Returns the domain's entry in the index."""
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for part, tokens in encoded.items():
        buffer = io.BytesIO()
        np.save(buffer, tokens)
        checksums[part] = hashlib.sha256(buffer.getbuffer()).hexdigest()
        write_whole(folder / f"{part}.npy", buffer.getvalue())
    return {
        "documents": len({block.document for blocks in parts.values() for block in blocks}),
        "bytes": {part: int(len(joined(parts[part]))) for part in PARTS},
        "tokens": {part: len(tokens) for part, tokens in encoded.items()},
        "sha256": checksums,
    }

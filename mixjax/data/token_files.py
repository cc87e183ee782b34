"""Loads files of tokens: one array of 16-bit integers for each part of each domain, mapped into memory.

The files are made by :func:`mixjax.data.make_tokens` (the command ``mixjax data tokens``). Only what is read of
a file takes memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixjax.checks import nearest
from mixjax.data import files
from mixjax.data.splitting import PARTS
from mixjax.data.vocabulary import Vocabulary
from mixjax.files import local_path

__all__ = ["INDEX", "SIZE", "VOCABULARY", "Tokens", "folder_of", "load_tokens", "read_index", "token_domains"]

INDEX = "index.json"
"""The name of the index in the folder."""
VOCABULARY = "vocabulary.json"
"""The name of the vocabulary in the folder."""
SIZE = 8192
"""The number of tokens of a vocabulary whose size is not given."""

# The names of the usual folders in the cache; the size of the vocabulary follows where it is not the usual one.
_WHOLE, _CELLS = "tokens", "token-cells"


class Tokens(NamedTuple):
    """Holds one domain's tokens in three parts.

    Each part is a read-only memory map, uint16 [number of tokens], in which the token
    :data:`mixjax.data.vocabulary.END`, 0, follows each document. The lengths of the documents are therefore
    ``np.diff(np.flatnonzero(part == 0), prepend=-1)``.

    Attributes:
        train: about 80 % of the text.
        validation: at most about 10 % of the text.
        test: at most about 10 % of the text.
        source: a sentence that says where the text comes from, with its version.
        vocabulary: the vocabulary, whose ``size`` is the number of different tokens.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str
    vocabulary: Vocabulary


def load_tokens(name: str, *, folder: str | os.PathLike | None = None, vocabulary_size: int = SIZE) -> Tokens:
    """Loads the tokens of one domain as memory maps. Never downloads; each file's SHA-256 is verified.

    Args:
        name: a domain that :func:`make_tokens` wrote, such as "perl", or "help/de" where it wrote cells.
        folder: the folder that :func:`make_tokens` returned; when None, the usual one in the cache for a vocabulary of
            ``vocabulary_size``, and for cells where ``name`` is that of a cell.
        vocabulary_size: the number of tokens that the files were made for; with a ``folder`` it is not read.

    Returns:
        The domain's three parts: see :class:`Tokens`.

    Raises:
        ValueError: if the folder does not hold ``name``, or a file is damaged.
        FileNotFoundError: if the folder holds no token files; names the command that makes them.
    """
    folder = folder_of(folder, "/" in name, None, vocabulary_size)
    index = read_index(folder)
    if name not in index["domains"]:
        raise ValueError(f"name: {folder} has no tokens of {name!r}; {nearest(name, index['domains'])}")
    entry = index["domains"][name]
    _verify(folder / VOCABULARY, index["vocabulary"], _again(folder))
    for part in PARTS:
        _verify(folder / name / f"{part}.npy", entry["sha256"][part], _again(folder))
    words = Vocabulary((folder / VOCABULARY).read_bytes())
    train, validation, test = (np.load(folder / name / f"{part}.npy", mmap_mode="r") for part in PARTS)
    return Tokens(train, validation, test, source=entry["source"], vocabulary=words)


def token_domains(
    folder: str | os.PathLike | None = None, *, cells: bool = False, vocabulary_size: int = SIZE
) -> tuple[str, ...]:
    """Lists the domains of a folder of token files.

    Args:
        folder: the folder that :func:`make_tokens` returned; when None, the usual one in the cache.
        cells: whether the usual folder is that of cells; with a ``folder`` it is not read.
        vocabulary_size: the number of tokens that the usual folder was made for; likewise.

    Returns:
        The names that :func:`load_tokens` takes.

    Raises:
        ValueError: if the folder's index is damaged.
        FileNotFoundError: if the folder holds no token files; names the command that makes them.
    """
    return tuple(read_index(folder_of(folder, cells, None, vocabulary_size))["domains"])


def folder_of(
    folder: str | os.PathLike | None, cells: bool, root: str | os.PathLike | None, vocabulary_size: int = SIZE
) -> Path:
    """Returns the folder of token files: the user's, or the usual one in the cache for a size of the vocabulary."""
    if folder is not None:
        return local_path("folder", folder)
    suffix = "" if vocabulary_size == SIZE else f"-{vocabulary_size}"
    return files.folder_of(f"{_CELLS if cells else _WHOLE}{suffix}", root)


def read_index(folder: Path) -> dict:
    """Reads the index of a folder of token files."""
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds no token files; {_again(folder)}")
    try:
        index = json.loads((folder / INDEX).read_bytes())
        return {key: index[key] for key in ("request", "vocabulary", "domains")}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged: {_again(folder)}") from error


def _verify(path: Path, checksum: str, again: str) -> None:
    """Raises an error that says how to make a file ``again`` unless it has the checksum."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {again}")
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != checksum:
        raise ValueError(f"{path} is damaged: expected SHA-256 {checksum}, got {actual}; {again}")


def _again(folder: Path) -> str:
    """Returns the advice to make the files of a folder, with the options that its name tells."""
    name, _, size = folder.name.rpartition("-") if folder.name.rpartition("-")[2].isdigit() else (folder.name, "", "")
    options = " --cells" if name == _CELLS else ""
    options += f" --vocabulary {size}" if size and name in (_CELLS, _WHOLE) else ""
    return f"make the files with the command `mixjax data tokens{options}`"

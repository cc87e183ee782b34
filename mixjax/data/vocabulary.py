"""Trains a small vocabulary of byte pairs (BPE) on text, and encodes text with it; needs the extra ``text``.

A text becomes UTF-8 bytes, the bytes become letters, and the vocabulary's merges join frequent neighbours within words.
Every text can thus be encoded, and decoding gives it back. Training is deterministic: equal texts give equal bytes of
:attr:`Vocabulary.data`, whatever the number of threads.

References:
    Sennrich et al., "Neural machine translation of rare words with subword units", 2016.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mixjax.checks import requires

__all__ = ["END", "Vocabulary", "check_installed", "check_size", "train"]

END = 0
"""The token that ends every document."""

_END_NAME = "<|end|>"


class Vocabulary(NamedTuple):
    """Holds a vocabulary.

    Attributes:
        data: the file of the vocabulary: JSON with the list of the tokens, and that of the merges.
    """

    data: bytes

    @property
    def size(self) -> int:
        """Returns the number of tokens."""
        return len(json.loads(self.data)["tokens"])

    @property
    def checksum(self) -> str:
        """Returns the SHA-256 of :attr:`data`, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    def tokenizer(self):
        """Returns the ``tokenizers.Tokenizer``, which encodes and decodes.

        Raises:
            ImportError: if there is no tokenizers; names the extra.
        """
        return _tokenizer(self.data)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes documents, one after the other; :data:`END` follows each.

        Args:
            texts: the documents.

        Returns:
            uint16 [number of tokens].

        Raises:
            ImportError: if there is no tokenizers; names the extra.
        """
        pieces = []
        for chunk in _chunks(texts):
            for found in self.tokenizer().encode_batch_fast(chunk, add_special_tokens=False):
                pieces.append(np.array([*found.ids, END], np.uint16))
        return np.concatenate([np.zeros(0, np.uint16), *pieces])


def train(texts: Iterable[str], size: int = 8192) -> Vocabulary:
    """Trains a vocabulary.

    Args:
        texts: the texts.
        size: the number of tokens, from 257 (the bytes and the end of a document) to 65,536, so that a token fits in 16
            bits. Fewer come out where the texts have no more pairs.

    Returns:
        The vocabulary.

    Raises:
        ValueError: if ``size`` is out of its range.
        ImportError: if there is no tokenizers; names the extra.
    """
    check_size(size)
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_END_NAME],
        # The alphabet comes as a set, without an order.
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # Older versions of tokenizers write a merge as "a b".
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    content = {"tokens": sorted(model["vocab"], key=model["vocab"].get), "merges": merges}
    return Vocabulary(json.dumps(content, ensure_ascii=False).encode())


def check_size(size: int) -> None:
    """Raises a ValueError unless ``size`` is a number of tokens that :func:`train` takes."""
    if not 257 <= size <= 65_536:
        raise ValueError(f"vocabulary_size must be from 257 to 65536, got {size}")


def check_installed() -> None:
    """Raises an ImportError that names the extra unless there is tokenizers."""
    _tokenizers()


def _chunks(texts: Sequence[str], length: int = 4_000_000) -> Iterator[list[str]]:
    """Yields texts in lists of about so many letters: an encoding takes many times its text's memory."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= length:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@functools.lru_cache(maxsize=2)
def _tokenizer(data: bytes):
    """Returns the tokenizer of a vocabulary's file."""
    tokenizers = _tokenizers()
    content = json.loads(data)
    merges = [tuple(merge) for merge in content["merges"]]
    tokens = {token: number for number, token in enumerate(content["tokens"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=tokens, merges=merges))
    # The end is not told to the tokenizer as a special token, so that a text that spells it does not end there.
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _tokenizers():
    """Imports the package tokenizers."""
    with requires("text", "mixjax.data.make_tokens"):
        return importlib.import_module("tokenizers")

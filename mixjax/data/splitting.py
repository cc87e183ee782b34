"""Cuts documents into a training, a validation and a test part that have no paragraph and no long run in common."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixjax.data import overlap

__all__ = ["PARTS", "Block", "Parts", "by_cell", "joined", "split", "without_overlap"]

PARTS = ("train", "validation", "test")
"""The names of the three parts, in the order in which they stand in a document."""

_SHARES = (0.8, 0.9, 1.0)


class Block(NamedTuple):
    """Holds the paragraphs of one document that are in one part.

    Attributes:
        document: the document's name.
        paragraphs: the paragraphs' texts, without the blank lines between them; at least one.
    """

    document: str
    paragraphs: list[bytes]


Parts = dict[str, list[Block]]
"""The blocks of each of :data:`PARTS`."""


def split(documents: Mapping[str, bytes]) -> Parts:
    """Cuts each document into three blocks of about 80, 10 and 10 % of its bytes.

    The documents follow one another in the order of the SHA-256 of their names. A paragraph is the text between two
    blank lines, and belongs to the block in which its middle lies. One that came before is left out, so none occurs in
    two parts, or twice in one.

    Args:
        documents: the documents' text by name.

    Returns:
        The blocks of each part; a document without a paragraph of its own there has no block.
    """
    parts: Parts = {part: [] for part in PARTS}
    seen: set[bytes] = set()
    for name in sorted(documents, key=lambda name: hashlib.sha256(name.encode()).digest()):
        paragraphs = [paragraph for paragraph in _paragraphs(documents[name]) if paragraph not in seen]
        seen.update(paragraphs)
        sizes = np.array([len(paragraph) for paragraph in paragraphs])
        middles = (np.cumsum(sizes) - sizes / 2) / max(sizes.sum(), 1)
        # A middle at the very end of a block belongs to it.
        numbers = np.searchsorted(_SHARES, middles)
        for number, part in enumerate(PARTS):
            block = list(itertools.compress(paragraphs, numbers == number))
            if block:
                parts[part].append(Block(name, block))
    return parts


def without_overlap(domains: Mapping[str, Parts]) -> dict[str, Parts]:
    """Leaves out the held-out paragraphs that share a run of 100 bytes with another part of any domain.

    Training keeps all of its paragraphs, validation those that share no run with any domain's training, and test those
    that share no run with any domain's training or validation. Some paragraphs that share 81 to 99 bytes go too. What
    goes is mostly boilerplate: licences, lists of arguments, copied functions.

    Args:
        domains: the parts of each domain.

    Returns:
        The parts that are left of each domain.
    """
    kept: dict[str, Parts] = {name: {"train": parts["train"]} for name, parts in domains.items()}
    runs = [overlap.Runs(joined(parts["train"]) for parts in domains.values())]
    for part in PARTS[1:]:
        for name, parts in domains.items():
            kept[name][part] = _left(parts[part], runs)
        runs.append(overlap.Runs(joined(parts[part]) for parts in kept.values()))
    return kept


def by_cell(parts: Parts, cells: Mapping[str, str]) -> dict[str, Parts]:
    """Divides the parts of a domain into those of its cells.

    Args:
        parts: the blocks of each part.
        cells: the cell of each document by name.

    Returns:
        The parts of each cell.
    """
    divided: dict[str, Parts] = {}
    for part, blocks in parts.items():
        for block in blocks:
            divided.setdefault(cells[block.document], {part: [] for part in PARTS})[part].append(block)
    return divided


def joined(blocks: Iterable[Block]) -> np.ndarray:
    """Returns the text of blocks, one after the other, as uint8 [n]: a blank line follows each paragraph."""
    return np.frombuffer(b"".join(p + b"\n\n" for block in blocks for p in block.paragraphs), np.uint8)


def _left(blocks: Sequence[Block], runs: Sequence[overlap.Runs]) -> list[Block]:
    """Returns the blocks without the paragraphs that lie in a shared window, or touch one."""
    while True:
        # Leaving paragraphs out brings others together, and a run may go from one to the next.
        at = overlap.shared_windows(joined(blocks), *runs)
        if not len(at):
            return list(blocks)
        ends = np.cumsum([len(paragraph) + 2 for block in blocks for paragraph in block.paragraphs])
        # Windows touch the paragraphs from `first` to before `last`; the sum counts the windows that touch each.
        first = np.searchsorted(ends, at, side="right")
        last = np.searchsorted(ends, at + overlap.WINDOW - 1, side="right") + 1
        changes = np.bincount(first, minlength=len(ends) + 1) - np.bincount(last, minlength=len(ends) + 1)
        is_kept = np.cumsum(changes[:-1]) == 0
        left, start = [], 0
        for block in blocks:
            stop = start + len(block.paragraphs)
            paragraphs = list(itertools.compress(block.paragraphs, is_kept[start:stop]))
            if paragraphs:
                left.append(Block(block.document, paragraphs))
            start = stop
        blocks = left


def _paragraphs(document: bytes) -> list[bytes]:
    """Returns a document's different paragraphs, in the order in which each comes first."""
    lines = b"\n".join(line.rstrip() for line in document.splitlines())
    paragraphs = re.split(rb"\n{2,}", lines.strip(b"\n"))
    # The keys of a dictionary are unique and keep their order. An empty document has one empty paragraph.
    return [paragraph for paragraph in dict.fromkeys(paragraphs) if paragraph]

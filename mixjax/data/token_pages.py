"""Writes the page that lists the domains of a folder of token files."""

from __future__ import annotations

from collections.abc import Mapping

from mixjax.data import text_documents

__all__ = ["PAGE", "page"]

PAGE = "text_data.md"
"""The name of the page in the folder."""


def page(entries: Mapping[str, Mapping], size: int) -> str:
    """Returns the page, in Markdown.

    Args:
        entries: the entries of the domains in the folder's index, by name.
        size: the number of tokens of the vocabulary.

    Returns:
        The page. Domains that are cells of one domain share a row.
    """
    rows: dict[str, list[Mapping]] = {}
    for name, entry in entries.items():
        rows.setdefault(name.partition("/")[0], []).append(entry)
    lines = [_row(name, its) for name, its in rows.items()]
    every = list(entries.values())
    return f"""# Text for a mix of domains

The command `mixjax data tokens` fetches these domains, verifies them by SHA-256, cuts each document into blocks of
80, 10 and 10 % for training, validation and test, and encodes them with a vocabulary of {size:,} tokens. No run of
100 bytes is in two parts, of the same or of different domains: what held-out text shared with other parts is left
out. Bytes, documents and tokens are those of all three parts. `mixjax data tokens --cells` makes a domain of each
cell, such as a language or a subsystem. The domains `python`, `reference` and `c` are what is installed.

| domain | text | package and version | MB | documents | tokens | held out | cells | licence |
|---|---|---|---:|---:|---:|---:|---:|---|
{"".join(lines)}
{len(every)} domains: {_total(every, "bytes") / 1e6:,.1f} MB, {_total(every, "tokens"):,} tokens.
"""


def _row(name: str, entries: list[Mapping]) -> str:
    """Returns the row of a domain, or of its cells together."""
    title, package, licence = text_documents.about(name)
    size, tokens = _total(entries, "bytes"), _total(entries, "tokens")
    held_out = 1 - sum(entry["tokens"]["train"] for entry in entries) / max(tokens, 1)
    documents = sum(entry["documents"] for entry in entries)
    cells = sum(entry["cells"] for entry in entries)
    cells = f"{cells}" if cells else ""
    return (
        f"| `{name}` | {title} | {package} | {size / 1e6:.1f} | {documents:,} | {tokens:,} | {held_out:.1%} | {cells} "
        f"| {licence} |\n"
    )


def _total(entries: list[Mapping], what: str) -> int:
    """Returns the sum of a number over parts and domains."""
    return sum(sum(entry[what].values()) for entry in entries)

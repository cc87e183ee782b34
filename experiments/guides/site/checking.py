"""Judges a built site without a browser: what it would fetch from elsewhere, and which public names it lacks."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Iterator
from pathlib import Path

from experiments.guides.site.names import MODULES, public

__all__ = ["foreign", "undocumented"]

# What browsers load by themselves, unlike the links that users follow.
_LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
_LINKS = {"dns-prefetch", "icon", "manifest", "modulepreload", "preconnect", "prefetch", "preload", "stylesheet"}
_FOREIGN = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


def foreign(site: Path) -> list[str]:
    """Lists what the pages and styles of a site make a browser fetch from another host.

    Args:
        site: the folder that was built.

    Returns:
        One line for each, with its file.
    """
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            text = path.read_text(encoding="utf-8")
            addresses = [*_STYLE.findall(text), *(_fetched(text) if path.suffix != ".css" else ())]
            found += [f"{path.relative_to(site).as_posix()} fetches {address}" for address in addresses]
            # The theme's script fetches the library of these diagrams from a server of packages.
            if 'class="mermaid"' in text:
                found.append(f"{path.relative_to(site).as_posix()} has a diagram, whose library is fetched")
    return found


def _fetched(text: str) -> Iterator[str]:
    parser = _Elements()
    parser.feed(text)
    for element, attributes in parser.elements:
        names: tuple[str, ...] = _LOADED.get(element, ())
        if element == "link" and _LINKS & set((attributes.get("rel") or "").lower().split()):
            names = ("href",)
        for name in names:
            for address in re.split(r",?\s+", attributes.get(name) or ""):
                if _FOREIGN.match(address):
                    yield address


class _Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def undocumented(site: Path) -> list[str]:
    """Lists the public names whose heading, or the text below it, the reference of a site lacks.

    Args:
        site: the folder that was built.

    Returns:
        Names, such as "mixjax.rules.RULES".
    """
    missing = []
    pages = {name: site / "reference" / name / "index.html" for name in MODULES}
    texts = {name: path.read_text(encoding="utf-8") if path.is_file() else "" for name, path in pages.items()}
    for path, one in public().items():
        text = texts[path.rpartition(".")[0]]
        _, heading, below = text.partition(f'id="{one}"')
        # From the heading to the next one: the words of the docstring stand in paragraphs.
        below = re.split(r'<h[1-6] id="', below, maxsplit=1)[0]
        if not heading or not re.search(r"<p>\s*\S", below):
            missing.append(path)
    return missing

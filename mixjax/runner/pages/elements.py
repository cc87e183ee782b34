"""Writes HTML: elements whose texts are escaped, and pages that are one file and load nothing."""

from __future__ import annotations

import html
import importlib.resources
from typing import Any

__all__ = ["Html", "document", "element", "joined"]

# The page asks for nothing over the network, even where a text slipped through as HTML.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Html(str):
    """Marks a text as HTML that is written as it stands. Any other text is escaped."""

    __slots__ = ()


def joined(*parts: Any) -> Html:
    """Joins texts and elements; texts are escaped.

    Args:
        *parts: elements, or anything else, which is written as text. None is left out.

    Returns:
        HTML.

    Example:
        >>> joined("a < b", element("br"), None)
        'a &lt; b<br>'
    """
    written = (part if isinstance(part, Html) else html.escape(str(part)) for part in parts if part is not None)
    return Html("".join(written))


def element(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Makes an element.

    Args:
        name: such as "p".
        *children: as :func:`joined` takes them.
        **attributes: None leaves an attribute out, and True writes its name alone. An underscore becomes a dash, and
            one at the end, for names that Python keeps for itself, is dropped.

    Returns:
        HTML.

    Example:
        >>> element("td", "<script>", class_="name", data_value=3)
        '<td class="name" data-value="3">&lt;script&gt;</td>'
    """
    texts = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            texts.append(f" {key}")
        elif value is not None and value is not False:
            texts.append(f' {key}="{html.escape(str(value))}"')
    inner = joined(*children)
    # Elements that HTML closes by itself. In SVG every other one may be written with an end.
    end = "" if name in ("br", "img", "meta", "hr") else f"{inner}</{name}>"
    return Html(f"<{name}{''.join(texts)}>{end}")


def document(title: str, *body: Any, refresh: int | None = None) -> str:
    """Puts a page together: one file, with its style and its script inside.

    Args:
        title: of the browser's window.
        *body: as :func:`joined` takes them.
        refresh: seconds after which a browser reads the file again; None for a page that stays as it is.

    Returns:
        The text of the file.

    Example:
        >>> document("loss < 1", element("h1", "hello")).splitlines()[:2]
        ['<!DOCTYPE html>', '<html lang="en">']
    """
    files = importlib.resources.files("mixjax.runner.pages")
    style, script = ((files / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    head = [
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        None if refresh is None else Html(f'<meta http-equiv="refresh" content="{refresh}">'),
        element("title", title),
        element("style", Html(f"\n{style}")),
    ]
    body = (element("main", *body), element("script", Html(f"\n{script}")))
    return f'<!DOCTYPE html>\n<html lang="en">\n{joined(*head)}\n{joined(*body)}\n</html>\n'

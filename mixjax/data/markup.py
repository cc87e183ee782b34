"""Reads the plain text of a page of HTML."""

from __future__ import annotations

import html
import re

__all__ = ["plain"]

# Elements whose content a reader of the page does not see as text.
_HIDDEN = re.compile(r"<!--.*?-->|<(script|style|head|noscript)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
# Elements that begin and end a paragraph.
_BLOCKS = re.compile(
    r"</?(?:address|article|aside|blockquote|body|caption|dd|div|dl|dt|figcaption|figure|footer|h[1-6]|header|hr|li|main"
    r"|nav|note|important|ol|p|pre|section|table|tbody|td|th|thead|tr|ul)\b[^>]*>",
    re.IGNORECASE,
)
_PRE = re.compile(r"(<pre\b.*?</pre\s*>)", re.DOTALL | re.IGNORECASE)
_BREAK = re.compile(r"<br\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")


def plain(page: str) -> str:
    """Returns the text of a page of HTML, with a blank line between its paragraphs.

    A paragraph is what stands in a block, such as a heading, an item of a list or a cell of a table. White space
    within it becomes single spaces, except in ``<pre>``. Scripts, styles, comments and the page's head are left out.

    Args:
        page: the page, or a piece of one.

    Returns:
        The text.

    Example:
        >>> plain("<h1>Files &amp; folders</h1><ul><li>To <b>open</b>\\n one: <li>click.</ul><pre>a\\n  b</pre>")
        'Files & folders\\n\\nTo open one:\\n\\nclick.\\n\\na\\n  b'
    """
    paragraphs = []
    for piece in _PRE.split(_HIDDEN.sub("", page)):
        if _PRE.match(piece):
            lines = html.unescape(_TAG.sub("", _BREAK.sub("\n", piece))).splitlines()
            # A blank line would end the paragraph.
            paragraphs.append("\n".join(line.rstrip() for line in lines if line.strip()))
        else:
            blocks = (html.unescape(_TAG.sub("", _BREAK.sub(" ", block))) for block in _BLOCKS.split(piece))
            paragraphs += [" ".join(block.split()) for block in blocks]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)

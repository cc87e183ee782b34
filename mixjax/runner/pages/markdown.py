"""Turns the Markdown of an experiment's summary into HTML."""

from __future__ import annotations

from mixjax.checks import requires
from mixjax.runner.pages.elements import Html

with requires("experiments", "mixjax.runner.pages.markdown"):
    from markdown_it import MarkdownIt

__all__ = ["markdown"]


def markdown(text: str) -> Html:
    """Renders Markdown with tables. HTML in it is shown as text, and images are left out: a page loads nothing.

    Args:
        text: Markdown.

    Returns:
        HTML.

    Example:
        >>> markdown("**all** of <b>it</b>")
        '<p><strong>all</strong> of &lt;b&gt;it&lt;/b&gt;</p>\\n'
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    # A wide table scrolls by itself.
    rendered = reader.render(text).replace("<table>", '<div class="wide" tabindex="0"><table>')
    return Html(rendered.replace("</table>", "</table></div>"))

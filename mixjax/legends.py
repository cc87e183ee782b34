"""Makes legends whose entries are names that users have chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["named_legend"]


def named_legend(owner: Any, handles: Sequence[Any], names: Sequence[str], **settings: Any) -> Any:
    """Draws a legend that shows every name as it is written.

    Args:
        owner: a matplotlib Axes or Figure.
        handles: what was drawn, one artist for each name.
        names: any text. matplotlib by itself takes what stands between two "$" for a formula, and leaves out names that
            begin with "_".
        **settings: of ``owner.legend``, such as ``fontsize``.

    Returns:
        The Legend.

    Raises:
        ValueError: there are not as many names as handles.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axis = Figure().subplots()
        >>> lines = [axis.plot([0, 1])[0] for _ in range(2)]
        >>> [text.get_text() for text in named_legend(axis, lines, ["_web", "a$b$"]).get_texts()]
        ['_web', 'a$b$']
    """
    if len(handles) != len(names):
        raise ValueError(f"names must be as many as handles, {len(handles)}, got {len(names)}")
    # Put in afterwards: which names matplotlib leaves out is decided when the legend is made.
    legend = owner.legend(handles, [str(place) for place in range(len(names))], **settings)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return legend

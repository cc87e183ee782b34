"""Gives pictures the colours of light and of dark pages, and writes them as small files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["PAGES", "colours_of", "save"]

PAGES = {"light": ("#ffffff", "#1f2328"), "dark": ("#0d1117", "#e6edf3")}
"""The background and the ink of light and of dark pages."""


@contextmanager
def colours_of(page: str) -> Iterator[None]:
    """Gives figures the background and the ink of a page, and axes at the left and below only.

    Args:
        page: "light" or "dark".
    """
    background, ink = PAGES[page]
    inked = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), ink)
    filled = {"axes.facecolor": background, "figure.facecolor": background}
    plain = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9.5}
    with plt.rc_context(inked | filled | plain):
        yield


def save(figure: Figure, path: Path, num_colours: int = 64) -> None:
    """Writes a figure as a small PNG, at twice the width at which GitHub shows it, and closes it.

    Args:
        figure: 8 inches wide, or less.
        path: the file.
        num_colours: of its palette.
    """
    figure.savefig(path, dpi=200)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(num_colours).save(path, optimize=True)

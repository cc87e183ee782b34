"""Writes pages for a browser: one file each, with its figure, style and script inside, that loads nothing.

Curves and intervals are drawn here as SVG, and a script of a hundred lines shows values below the pointer and sorts
tables. A library of charts would add a megabyte to each page, would leave a page empty where scripts do not run, and
would bring neither the table of claims nor colours for a dark window.
"""

from __future__ import annotations

# Nothing is imported here: a page of a run that goes on needs none of what the page of a result does.
__all__: list[str] = []

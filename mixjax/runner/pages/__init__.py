"""Writes pages for a browser: one file each, with its figure, style and script inside, that loads nothing.

Curves and intervals are drawn here as SVG, and a script of a hundred lines shows values below the pointer and sorts
tables. A library of charts would add a megabyte to each page, would leave a page empty where scripts do not run, and
would bring neither the table of claims nor colours for a dark window.
"""

from __future__ import annotations

from mixjax.runner.pages.elements import Html, document, element
from mixjax.runner.pages.result import ResultPage

__all__ = ["Html", "ResultPage", "document", "element"]

"""Loads real data sets: images, tables with groups, and text. :func:`fetch` fills their cache."""

from mixjax.data.catalogue import fetch
from mixjax.data.files import cache_dir
from mixjax.data.images import Images, load
from mixjax.data.tables import Table, load_table
from mixjax.data.text import TEXT_DOMAINS, Text, load_text, windows

__all__ = [
    "TEXT_DOMAINS",
    "Images",
    "Table",
    "Text",
    "cache_dir",
    "fetch",
    "load",
    "load_table",
    "load_text",
    "windows",
]

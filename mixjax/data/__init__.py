"""Loads real data sets: images, tables with groups, and text. :func:`fetch` fills their cache."""

from mixjax.data.catalogue import fetch
from mixjax.data.files import cache_dir
from mixjax.data.images import Images, load
from mixjax.data.tables import Table, load_table
from mixjax.data.text import TEXT_DOMAINS, Text, load_cells, load_text, windows
from mixjax.data.token_files import Tokens, load_tokens, token_domains
from mixjax.data.tokens import make_tokens

__all__ = [
    "TEXT_DOMAINS",
    "Images",
    "Table",
    "Text",
    "Tokens",
    "cache_dir",
    "fetch",
    "load",
    "load_cells",
    "load_table",
    "load_text",
    "load_tokens",
    "make_tokens",
    "token_domains",
    "windows",
]

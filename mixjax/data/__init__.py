"""Real data sets: images (`load`), tables with groups (`load_table`), and what fills their cache, `fetch`."""

from mixjax.data.catalogue import fetch
from mixjax.data.files import cache_dir
from mixjax.data.images import Images, load
from mixjax.data.tables import Table, load_table

__all__ = ["Images", "Table", "cache_dir", "fetch", "load", "load_table"]

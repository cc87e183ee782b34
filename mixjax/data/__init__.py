"""Data sets: real images through one loader, `load`, and the function that fills its cache, `fetch`."""

from mixjax.data.catalogue import fetch
from mixjax.data.files import cache_dir
from mixjax.data.images import Images, load

__all__ = ["Images", "cache_dir", "fetch", "load"]

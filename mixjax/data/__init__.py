"""Data sets: real images through one loader, `load`, and the function that fills its cache, `fetch`."""

from mixjax.data.images import Images, cache_dir, fetch, load

__all__ = ["Images", "cache_dir", "fetch", "load"]

"""Draws examples that each have a weight of their own, with draws and updates in O(log n).

The public names are exported by :mod:`mixjax.samplers`.
"""

__all__: list[str] = []

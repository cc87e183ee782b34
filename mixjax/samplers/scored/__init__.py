"""Samplers for examples that each have a weight of their own: draws and updates in O(log n).

The public names are exported by :mod:`mixjax.samplers`.
"""

__all__: list[str] = []

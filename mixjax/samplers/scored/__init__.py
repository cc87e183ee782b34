"""Samplers for examples that each have a weight of their own: draws and updates in O(log n)."""

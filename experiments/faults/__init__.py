"""Faults done to a sweep on purpose, and a table of what became of it."""

"""Faults done to a sweep on purpose."""

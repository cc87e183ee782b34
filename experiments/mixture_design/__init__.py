"""Mixture design: what its intervals and regions promise, and whether they keep it."""

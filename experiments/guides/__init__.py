"""Holds the guides, and the programs that make parts of them."""

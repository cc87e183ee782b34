"""Papers 001 and 002: data mixing, and how often to move the weights."""

"""One module per result: its problem, its methods, its claims, its figure."""

"""Every pair of a loss rule and a sampling rule on every training problem of paper 000, and on groups in a table."""

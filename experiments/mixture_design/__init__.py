"""Experiments on mixture design: whether its intervals and regions keep what they promise."""

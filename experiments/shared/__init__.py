"""Figures, sentences and statistics that the experiments of several papers share."""

"""Paper 003: resampling-reweighting."""

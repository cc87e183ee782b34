"""Paper 000: sampling and loss weights in multi-domain training."""

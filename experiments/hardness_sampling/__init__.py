"""Paper 004, hardness weighted sampling: Fidon, Ourselin, Vercauteren, "Distributionally Robust Deep Learning"."""

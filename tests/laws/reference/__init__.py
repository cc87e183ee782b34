"""The papers' formulas in float64 NumPy, transcribed literally and independently of mixjax."""

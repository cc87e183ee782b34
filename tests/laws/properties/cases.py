"""How a property is tested here, and how its cases are counted."""

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

FLOAT = np.finfo(np.float32)


def cases(num: int, /, **strategies) -> Callable:
    """Tests a property in ``num`` examples (for each parameter, where it is parametrised), the same ones every time.

    ``test.cases`` is ``num``, for the count of them all in ``test_property_counts.py``.
    """

    def decorate(test):
        test = settings(derandomize=True, deadline=None, database=None, max_examples=num)(given(**strategies)(test))
        test.cases = num
        return test

    return decorate


def rows(size: int, *values: float, low: float = 0.0, high: float = 1.0) -> st.SearchStrategy:
    """float32 ``[size]`` of the given values and of others between ``low`` and ``high``."""
    entry = st.sampled_from(values) | st.floats(low, high, width=32, allow_subnormal=False)
    return st.lists(entry, min_size=size, max_size=size).map(np.float32)

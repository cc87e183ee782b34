"""Keeps the names of :mod:`mixjax.statistics` where they were before, for a while."""

from __future__ import annotations

from mixjax.statistics import critical_value as critical_value
from mixjax.statistics import mean_stderr as mean_stderr
from mixjax.statistics import rounding_of as rounding_of
from mixjax.statistics import same_up_to_rounding as same_up_to_rounding

__all__: list[str] = []

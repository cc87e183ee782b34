"""Lists the laws of a loss as a function of the mixture, one a file."""

from __future__ import annotations

from types import MappingProxyType

from mixjax.design.laws.law import Law
from mixjax.design.laws.log_linear import log_linear
from mixjax.design.laws.power import power
from mixjax.design.laws.quadratic import quadratic

__all__ = ["LAWS", "Law", "log_linear", "power", "quadratic"]

#: Every law by its name, as ``law=`` of :func:`mixjax.design.fit` takes it. The first has the fewest parameters.
LAWS = MappingProxyType({law.name: law for law in (log_linear(), power(), quadratic())})

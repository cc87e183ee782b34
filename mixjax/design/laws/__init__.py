"""Lists the laws of a loss as a function of the mixture, one a file.

- :data:`LAWS` are formulas of the mixture, which ``law="auto"`` compares: their fits and resamples take seconds.
- :data:`TOKEN_LAWS` are formulas of tokens and mixture, for runs of several budgets.
- :data:`SMOOTHERS` are regressions without a formula. They need more runs and minutes of time, and are fitted where
  they are named.
"""

from __future__ import annotations

from types import MappingProxyType

from mixjax.design.laws.boosted_trees import boosted_trees
from mixjax.design.laws.gaussian_process import gaussian_process
from mixjax.design.laws.law import Law
from mixjax.design.laws.log_linear import log_linear
from mixjax.design.laws.power import power
from mixjax.design.laws.quadratic import quadratic
from mixjax.design.laws.surface import Estimate, Smoother, Surface
from mixjax.design.laws.tokens import TokenLaw, log_linear_in_tokens, power_in_tokens

__all__ = [
    "LAWS",
    "SMOOTHERS",
    "TOKEN_LAWS",
    "Estimate",
    "Law",
    "Smoother",
    "Surface",
    "TokenLaw",
    "boosted_trees",
    "gaussian_process",
    "log_linear",
    "log_linear_in_tokens",
    "power",
    "power_in_tokens",
    "quadratic",
]

LAWS = MappingProxyType({law.name: law for law in (log_linear(), power(), quadratic())})
"""Every law by its name, as ``law=`` of :func:`mixjax.design.fit` takes it. The first has the fewest parameters."""
TOKEN_LAWS = MappingProxyType({law.name: law for law in (log_linear_in_tokens(), power_in_tokens())})
"""The laws that runs of several budgets are fitted with, by the name of the law that each is at one budget."""
SMOOTHERS = MappingProxyType({law.name: law for law in (gaussian_process(), boosted_trees())})
"""The regressions without a formula by their names, as ``law=`` takes them too."""

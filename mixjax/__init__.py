"""Loss weights and sampling weights for training on several domains, as pure JAX state transitions.

``mixjax.types`` explains the one concept, a weight rule, in 30 lines.
"""

from mixjax import rules
from mixjax.types import WeightRule

__version__ = "0.1.0"

__all__ = ["WeightRule", "rules"]

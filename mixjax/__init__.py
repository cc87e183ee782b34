"""Loss weights and sampling weights for training on several domains, as pure JAX state transitions.

``mixjax.types`` explains the one concept, a weight rule, in 30 lines.
"""

from mixjax import estimation, grad_norms, hypergrad, mixing, resampling, rules, samplers, signals, training
from mixjax.accumulation import accumulate
from mixjax.objectives import weighted_loss
from mixjax.sweeps import sweep
from mixjax.transforms import aggregate, get_weights, track
from mixjax.types import WeightRule

__version__ = "0.1.0"

__all__ = [
    "WeightRule",
    "accumulate",
    "aggregate",
    "estimation",
    "get_weights",
    "grad_norms",
    "hypergrad",
    "mixing",
    "resampling",
    "rules",
    "samplers",
    "signals",
    "sweep",
    "track",
    "training",
    "weighted_loss",
]

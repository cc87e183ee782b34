"""Mixes domains by weights that move while a model trains.

- :class:`Plan` says which rows the next batches hold. Every host computes the same plan from a small NumPy state, which
  can be saved as JSON beside the parameters.
- A weight rule moves the weights: ``plan.publish(step, weights)`` after each step, or ``plan.keep(step)``.

The package loads neither JAX nor grain before they are needed.
"""

from mixjax.live.plan import Batch, Plan

__all__ = ["Batch", "Plan"]

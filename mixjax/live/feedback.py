"""Publishes weights that are still being computed on a device, a few steps later, so that no step waits for them."""

from __future__ import annotations

import collections
import sys
from typing import Any

import numpy as np

from mixjax.live.plan import Plan

__all__ = ["Feedback"]


class Feedback:
    """Hands weights from a training step to a plan without stalling the step.

    Reading an array off the device waits for the step that computes it. So the weights of step ``s`` are only read when
    those of step ``s + delay`` are sent, by which time they have arrived. They are in force from step ``s + lag`` all
    the same, and batches do not depend on how fast the device is.

    With several processes (``jax.distributed``) all take the weights of the first, so that rounding cannot make their
    plans differ. Every process has to send in the same steps.

    Args:
        plan: the plan to publish to.
        delay: steps for which weights may be on their way, from 0 to the plan's lag - 1; half of the lag if left out.
            A loader may then read ``lag - delay`` steps ahead.

    Raises:
        ValueError: ``delay`` is out of range.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> plan = mixjax.live.Plan([100, 100], batch_size=4, weights=[0.5, 0.5], lag=2)
        >>> feedback = mixjax.live.Feedback(plan)
        >>> for batch in plan:
        ...     feedback.send(batch.step, jnp.array([0.75, 0.25]))        # the weights of a rule's state
        ...     if batch.step == 5:
        ...         break
        >>> batch.counts.tolist()
        [3, 1]
    """

    def __init__(self, plan: Plan, delay: int | None = None):
        """Starts with nothing on its way."""
        delay = plan.lag // 2 if delay is None else delay
        if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay < plan.lag:
            raise ValueError(f"delay must be an integer from 0 to lag - 1 = {plan.lag - 1}, got {delay!r}.")
        self._plan, self._delay, self._restored = plan, delay, plan.num_restored
        self._waiting: collections.deque[tuple[int, Any, Any]] = collections.deque()

    def send(self, step: int, weights: Any, loss_weights: Any = None) -> None:
        """Takes the weights after a step, and publishes those of ``delay`` steps before.

        Args:
            step: the step that was trained last; every step once and in order.
            weights: sampling weights ``[D]``, a JAX array, possibly still being computed, or a NumPy array; None leaves
                the weights as they are.
            loss_weights: loss weights ``[D]``; None means the sampling weights.

        Raises:
            ValueError: as :meth:`mixjax.live.Plan.publish`, for weights sent ``delay`` steps before.
        """
        for array in (weights, loss_weights):
            if hasattr(array, "copy_to_host_async"):
                array.copy_to_host_async()
        # Weights of steps that the plan was set back from are of no use.
        if self._restored != self._plan.num_restored:
            self._waiting.clear()
            self._restored = self._plan.num_restored
        self._waiting.append((step, weights, loss_weights))
        while len(self._waiting) > self._delay:
            self._publish_first()

    def flush(self) -> None:
        """Waits for all weights that are on their way, and publishes them."""
        while self._waiting:
            self._publish_first()

    def get_state(self) -> dict[str, Any]:
        """Returns the plan's state before the next step, after a :meth:`flush`: what belongs beside the parameters."""
        self.flush()
        return self._plan.get_state()

    def _publish_first(self):
        step, weights, loss_weights = self._waiting.popleft()
        if weights is None:
            self._plan.keep(step)
        else:
            weights, loss_weights = _of_first_process((weights, loss_weights))
            self._plan.publish(step, weights, loss_weights)


def _of_first_process(arrays: tuple[Any, Any]) -> tuple[Any, Any]:
    """Reads arrays off the device; with several processes all get those of the first."""
    weights, loss_weights = arrays
    read = np.asarray(weights), None if loss_weights is None else np.asarray(loss_weights)
    # A process that has not loaded JAX is the only one.
    if "jax" not in sys.modules:
        return read
    import jax

    if jax.process_count() == 1:
        return read
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(read)

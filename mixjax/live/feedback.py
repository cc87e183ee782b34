"""Publishes weights that are still being computed on a device, a few steps later, so that no step waits for them."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from mixjax.live.arguments import as_step, check_plan
from mixjax.live.in_flight import Arrays, in_flight
from mixjax.live.plan import Plan

__all__ = ["Feedback"]


class Feedback:
    """Hands weights from a training step to a plan without stalling the step.

    Reading an array off the device waits for the step that computes it. So the weights of step ``s`` are only read when
    those of step ``s + delay`` are sent, by which time they have arrived. They are in force from step ``s + lag`` all
    the same, and batches do not depend on how fast the device is. Weights are copied when they are sent: the next step
    may take their buffer (``donate_argnums``), or write into a NumPy array.

    With several processes (``jax.distributed``) all take the weights of the first, so that rounding cannot make their
    plans differ. The devices send them on behind the step that computes them. Every process has to send in the same
    steps, and all of them weights, or none of them: if not, all of them raise when the step is read. Only :meth:`send`
    has to be called on all processes; one of them may call :meth:`get_state` alone.

    The weights may be those of a rule's own state, or come out of an optimizer's (:func:`mixjax.track`,
    :func:`mixjax.get_weights`). With :func:`mixjax.accumulate` a step of the plan is a microbatch: send the weights
    after each, though they move once an update.

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
        check_plan(plan)
        delay = plan.lag // 2 if delay is None else delay
        if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay < plan.lag:
            raise ValueError(f"delay must be an integer from 0 to lag - 1 = {plan.lag - 1}, got {delay!r}.")
        self._plan, self._delay, self._restored = plan, delay, plan.num_restored
        self._waiting: collections.deque[tuple[int, Callable[[], Arrays]]] = collections.deque()

    def send(self, step: int, weights: Any, loss_weights: Any = None) -> None:
        """Takes the weights after a step, and publishes those of ``delay`` steps before.

        Args:
            step: the step that was trained last; every step once and in order.
            weights: sampling weights ``[D]``, a JAX array, possibly still being computed, or a NumPy array; None leaves
                the weights as they are.
            loss_weights: loss weights ``[D]``; None means the sampling weights.

        Raises:
            ValueError: another step than the next one, or arrays that are not ``[D]``. Weights sent ``delay`` steps
                before turn out to be negative, not finite or all zero; the error names their step, which
                ``plan.keep(step)`` skips. The processes sent different things.
            TypeError: ``step`` is no integer, arrays are being traced, or loss weights come without weights.
        """
        step = as_step(step)
        # Weights of steps that the plan was set back from are of no use.
        if self._restored != self._plan.num_restored:
            self._waiting.clear()
            self._restored = self._plan.num_restored
        expected = self._plan.next_to_publish + len(self._waiting)
        if step != expected:
            raise ValueError(f"steps are sent once and in order: the next is step {expected}, got step {step}.")
        self._waiting.append((step, in_flight(step, weights, loss_weights, len(self._plan.sizes))))
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
        step, read = self._waiting.popleft()
        weights, loss_weights = read()
        if weights is None:
            self._plan.keep(step)
            return
        try:
            self._plan.publish(step, weights, loss_weights)
        except ValueError as error:
            raise ValueError(
                f"the weights sent after step {step} cannot be published: {error} Look at the signals that the rule "
                f"got in step {step}; plan.keep({step}) goes on without them."
            ) from None

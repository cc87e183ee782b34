"""Drives plans as a training loop does, for their tests."""

import numpy as np

__all__ = ["drive", "moving"]


def moving(step, num_domains=3):
    """Returns the weights that are published after a step."""
    return np.random.default_rng(step).dirichlet(np.ones(num_domains))


def drive(plan, num_steps, loss_weights=None):
    """Takes steps as a training loop does, publishing new weights after each.

    Args:
        plan: a plan of three domains.
        num_steps: number of steps.
        loss_weights: takes a step, and returns the loss weights that are published after it; None publishes none.

    Returns:
        The batches.
    """
    batches = []
    for _ in range(num_steps):
        batch = next(plan)
        batches.append(batch)
        plan.publish(batch.step, moving(batch.step), None if loss_weights is None else loss_weights(batch.step))
    return batches

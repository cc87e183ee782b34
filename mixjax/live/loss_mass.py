"""Gives rows the loss weight that their domain has gathered since it last had rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["share_mass"]


def share_mass(
    waiting: NDArray[np.float64], loss_weights: NDArray[np.floating], amounts: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Adds a step's loss weights to those that wait, and shares them among the rows of the step.

    A domain without rows keeps waiting: ``m_d <- m_d + c_d``. Otherwise its rows get ``m_d + c_d`` together, and
    nothing waits. So over any number of steps the rows of a domain have got the sum of ``c_d``, but for what waits,
    whatever the weights were and however the rows were drawn. An estimate by ``c_d / q_d`` with the ``q_d`` in force,
    as for independent draws, is wrong for counts that carry over: where ``q_d`` is .48 and .02 by turns and a batch has
    two rows, the domain is drawn when ``q_d`` is .48, and ``c_d`` = 0.3 counts as 0.156.

    Args:
        waiting: ``m``, ``[D]``, what waits from earlier steps.
        loss_weights: ``c``, ``[D]``.
        amounts: ``[D]``, what shares a domain's loss weight: its rows, or the tokens of its rows.

    Returns:
        ``(factors, waiting)``: ``[D]``, the loss weight of a row, or of a token; and ``[D]``, what waits afterwards.

    Example:
        >>> import numpy as np
        >>> from mixjax.live.loss_mass import share_mass
        >>> factors, waiting = share_mass(np.array([0.0, 0.5]), np.array([0.75, 0.25]), np.array([4, 0]))
        >>> factors.tolist(), waiting.tolist()
        ([0.1875, 0.75], [0.0, 0.75])
    """
    mass = waiting + loss_weights
    return mass / np.maximum(amounts, 1), np.where(amounts > 0, 0.0, mass)

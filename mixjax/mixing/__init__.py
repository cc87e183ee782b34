r"""Data mixing: move the loss weights every T training steps, by the hypergradient of a validation loss.

One *round* is T optimizer steps on :math:`\sum_d c_d f_d` from where the last round ended, then one update of the
weights. T = 1, what most methods do, sees a domain's effect one step ahead, which favours what acts fast over what acts
in the end; it can end in weights worse than those it started from. A long T sees further, and leaves fewer updates in a
budget of N steps: :func:`horizon` chooses.

:func:`fit` takes any rule, so that methods are compared by swapping it and what it looks at:

====================================== ===================== ========================================================
rule                                   ``mode``              ``signals`` of one's own
====================================== ===================== ========================================================
``mirror_descent, projected_gradient`` any but None          none
``doge``                               ``"alignment"``       ``grad_norms``, of the domains' mean gradients
``fixed``, ``group_dro``               None                  none
``doremi``                             None                  ``losses`` and ``reference_losses``, on the same examples
``exp3``                               None                  ``counts``, which domain was drawn:
                                                             ``jax.nn.one_hot(jax.random.categorical(key,
                                                             jnp.log(state.rule_state.weights)), D)``
====================================== ===================== ========================================================

Every step sees every domain, with equally many examples, and weights their losses: a weight is a share of the loss, not
of the batch. In expectation that is what drawing examples in proportion to the weights gives.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510), of which we have the abstract: the loop is our reconstruction.
"""

from mixjax.mixing.horizons import contraction, horizon
from mixjax.mixing.rounds import MixingState, fit, init_state

__all__ = ["MixingState", "contraction", "fit", "horizon", "init_state"]

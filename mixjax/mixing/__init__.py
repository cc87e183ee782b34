r"""Trains on a mix of domains whose loss weights move every T steps, down the hypergradient of a validation loss.

A *round* is T optimizer steps on :math:`\sum_d c_d f_d`, which start where the last round ended. An *update* of the
weights follows. Most methods have T = 1. They see a domain's effect one step ahead only. So they favour domains that
act fast over domains that help in the end, and can end in worse weights than those they started from. A long T sees
further, but leaves fewer updates in a budget of N steps. :func:`horizon` chooses T.

:func:`fit` takes any rule. To compare methods, change the rule and the signals that it gets:

====================================== ===================== ========================================================
rule                                   ``mode``              ``signals`` that you have to give
====================================== ===================== ========================================================
``mirror_descent, projected_gradient`` any but None          none
``doge``                               ``"alignment"``       ``grad_norms``, the norms of the domains' mean gradients
``fixed``, ``group_dro``               None                  none
``doremi``                             None                  ``losses`` and ``reference_losses``, on the same examples
``exp3``                               None                  ``counts``, a one-hot vector of the domain that was drawn:
                                                             ``jax.nn.one_hot(jax.random.categorical(key,
                                                             jnp.log(state.rule_state.weights)), D)``
====================================== ===================== ========================================================

Every step sees equally many examples of every domain and weights their losses. So a weight is a share of the loss and
not of the batch. The expected gradient is the same as if the examples were drawn in proportion to the weights.

References:
    Papers 001 and 002: Das, Patel, Razaviyayn and Mirrokni, "Less is more: convergence benefits of fewer data weight
    updates over longer horizon" (arXiv:2602.19510). We have its abstract only. The loop is our reconstruction.
"""

from mixjax.mixing.horizons import contraction, horizon
from mixjax.mixing.rounds import fit
from mixjax.mixing.state import MixingState, init_state

__all__ = ["MixingState", "contraction", "fit", "horizon", "init_state"]

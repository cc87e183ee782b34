"""Lists the mixtures that a validation trains: the proposal, and those that need no design."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixjax.checks import check_range
from mixjax.design.comparing import best_of_swarm
from mixjax.design.proposing import Proposal
from mixjax.design.runs import as_mixtures
from mixjax.design.simplex import Bounds, project
from mixjax.design.swarms import tempered

__all__ = ["candidates"]


def candidates(
    proposal: Proposal, others: Mapping[str, Any] | None = None, *, temperature: float = 0.5
) -> dict[str, np.ndarray]:
    r"""Lists the mixtures to train on fresh seeds before a proposal is believed.

    ================ ============================== ==================================================
    name             shares                         listed
    ================ ============================== ==================================================
    ``proposal``     ``proposal.weights``           always
    ``swarm_best``   the swarm's best mixture       always; the mean over its runs counts
    ``uniform``      :math:`1 / D`                  always
    ``proportional`` :math:`\pi`                    if the proposal has a prior
    ``temperature``  :math:`\propto \pi^{\tau}`     if the proposal has a prior
    ``unimax``       :math:`\min(u, \lambda / D)`   if the proposal's largest shares u cut uniform shares
    ================ ============================== ==================================================

    UniMax is uniform below the shares that a number of epochs allows. Its u is the ``max_share`` that
    :func:`mixjax.design.propose` was given.

    Args:
        proposal: from :func:`mixjax.design.propose`.
        others: name -> mixture ``[D]``, such as one that you would have used.
        temperature: :math:`\tau`, in [0, 1].

    Returns:
        Name -> mixture ``[D]``. As ``points={"mixture": list(found.values())}`` they are the points of a sweep, whose
        losses :func:`mixjax.design.validate` judges.

    Raises:
        ValueError: a name that is taken, a mixture that is none, or a temperature out of range.

    Example:
        >>> import mixjax, numpy as np
        >>> mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 40)
        >>> fitted = mixjax.design.fit(mixtures, np.exp(-3 * mixtures), law="log_linear", resamples=20)
        >>> found = candidates(mixjax.design.propose(fitted, prior=[90, 9, 1], max_share=[1, 0.2, 0.1]))
        >>> list(found)
        ['proposal', 'swarm_best', 'uniform', 'proportional', 'temperature', 'unimax']
        >>> found["temperature"].round(3).tolist(), found["unimax"].round(3).tolist()
        ([0.703, 0.222, 0.074], [0.7, 0.2, 0.1])

    References:
        Arivazhagan et al., "Massively multilingual neural machine translation in the wild", 2019, for temperatures;
        Chung et al., "UniMax: fairer and more effective language sampling for large-scale multilingual pretraining",
        2023, algorithm 1.
    """
    check_range("temperature", temperature, 0.0, 1.0)
    swarm = proposal.fitted.swarm
    size = len(swarm.domains)
    uniform = np.full(size, 1.0 / size)
    found = {
        "proposal": proposal.weights,
        "swarm_best": best_of_swarm(swarm, proposal.objective),
        "uniform": uniform,
    }
    if proposal.prior is not None:
        found["proportional"] = proposal.prior
        found["temperature"] = tempered(proposal.prior, temperature)
    high = proposal.bounds.high
    if (high < uniform).any():
        # All shares below their limits are equal, and so the nearest mixture to the uniform one is UniMax's.
        found["unimax"] = project(uniform[None], Bounds(np.zeros(size), high))[0]
    for name, mixture in (others or {}).items():
        if name in found:
            raise ValueError(f"others must have names besides {', '.join(found)}, got {name!r}.")
        found[name] = as_mixtures(f"others[{name!r}]", mixture, swarm.domains)[0]
    return found

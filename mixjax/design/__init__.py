"""Chooses a mixture before the big run, from the losses of many small runs.

1. :func:`swarm` chooses the mixtures of the small runs, which a sweep can train; :func:`proxy_sizes` and
   :func:`subset` cut the data so that they repeat it as the big run will.
2. :func:`read_tables` reads the mixtures and losses of runs made elsewhere; arrays and data frames work as well.
3. :func:`fit` fits a law from mixture to losses. Its predictions have intervals, from a bootstrap over the runs.
   :func:`cross_validate` tells how well each of the :data:`mixjax.design.laws.LAWS` predicts runs that it has not seen.
4. :func:`propose` finds the mixture of the least predicted loss, within bounds of the shares, with the region of
   mixtures that may be the best as well, and says whether it is better than mixtures that need no design.
5. :func:`next_round` chooses the mixtures of further runs, or says that no more are needed.
6. :func:`candidates` lists the mixtures to train on fresh seeds, and :func:`validate` judges the proposal by their
   losses.

Files need pandas and matplotlib (extra ``experiments``).
"""

from __future__ import annotations

from mixjax.design import laws
from mixjax.design.candidates import candidates
from mixjax.design.choosing import Scores, cross_validate
from mixjax.design.comparing import Comparison
from mixjax.design.epochs import proxy_sizes, subset
from mixjax.design.fitted import Fitted
from mixjax.design.fitting import fit
from mixjax.design.measured import Losses, read_losses
from mixjax.design.proposing import Proposal, propose
from mixjax.design.rounds import Round, next_round
from mixjax.design.runs import Swarm, as_swarm
from mixjax.design.swarms import swarm
from mixjax.design.tables import read_tables
from mixjax.design.validating import Validation, Verdict, validate
from mixjax.design.writing import write_mixtures, write_tables

__all__ = [
    "Comparison",
    "Fitted",
    "Losses",
    "Proposal",
    "Round",
    "Scores",
    "Swarm",
    "Validation",
    "Verdict",
    "as_swarm",
    "candidates",
    "cross_validate",
    "fit",
    "laws",
    "next_round",
    "propose",
    "proxy_sizes",
    "read_losses",
    "read_tables",
    "subset",
    "swarm",
    "validate",
    "write_mixtures",
    "write_tables",
]

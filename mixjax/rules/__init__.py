"""Holds the weight rules: one factory per rule, each returning a :class:`mixjax.WeightRule`.

Every hyperparameter may be a traced value, so a factory may be called inside ``vmap`` over a grid. Wrappers take a rule
and return a rule. :func:`robust_loss` and :func:`robust_weights` are what :func:`dro` is made of, as functions of all
losses. The states of all rules are defined in :mod:`mixjax.rules.states`; :mod:`mixjax.rules.base` helps to
write a rule of your own.
"""

from mixjax.rules import states
from mixjax.rules.ado import ado, scaling_law
from mixjax.rules.aioli import aioli
from mixjax.rules.cap import cap
from mixjax.rules.concentration import effective_domains
from mixjax.rules.doge import doge
from mixjax.rules.doremi import doremi
from mixjax.rules.dro import dro
from mixjax.rules.erma import erma
from mixjax.rules.exp3 import exp3
from mixjax.rules.fixed import fixed
from mixjax.rules.gradient_norm import gradient_norm
from mixjax.rules.group_dro import group_dro
from mixjax.rules.least_squares import fgls, gls, one_shot_fgls
from mixjax.rules.mirror_descent import mirror_descent, projected_gradient
from mixjax.rules.news import unseen_updates
from mixjax.rules.resizing import extend, remove
from mixjax.rules.robust import robust_loss, robust_weights
from mixjax.rules.select import select
from mixjax.rules.variance_aware import variance_aware
from mixjax.rules.wrappers import every, floor, freeze_after, kl_to_prior, smooth

RULES = {
    "fixed": fixed,
    "gls": gls,
    "fgls": fgls,
    "one_shot_fgls": one_shot_fgls,
    "erma": erma,
    "variance_aware": variance_aware,
    "gradient_norm": gradient_norm,
    "dro": dro,
    "group_dro": group_dro,
    "mirror_descent": mirror_descent,
    "projected_gradient": projected_gradient,
    "doremi": doremi,
    "doge": doge,
    "exp3": exp3,
    "ado": ado,
    "aioli": aioli,
}
"""Every base rule's factory by name."""

__all__ = [
    "RULES",
    "ado",
    "aioli",
    "cap",
    "doge",
    "doremi",
    "dro",
    "effective_domains",
    "erma",
    "every",
    "exp3",
    "extend",
    "fgls",
    "fixed",
    "floor",
    "freeze_after",
    "gls",
    "gradient_norm",
    "group_dro",
    "kl_to_prior",
    "mirror_descent",
    "one_shot_fgls",
    "projected_gradient",
    "remove",
    "robust_loss",
    "robust_weights",
    "scaling_law",
    "select",
    "smooth",
    "states",
    "unseen_updates",
    "variance_aware",
]

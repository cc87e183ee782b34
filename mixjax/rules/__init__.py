"""How weights move: one factory per rule, each returning a :class:`mixjax.WeightRule`.

Every hyperparameter may be a traced value, so a factory may be called inside ``vmap`` over a grid.
"""

from mixjax.rules.dro import DROState, dro, robust_loss, robust_weights
from mixjax.rules.erma import ERMAState, erma
from mixjax.rules.fixed import fixed
from mixjax.rules.group_dro import GroupDROState, group_dro
from mixjax.rules.least_squares import FGLSState, OneShotFGLSState, fgls, gls, one_shot_fgls
from mixjax.rules.resampling import GradientNormState, gradient_norm
from mixjax.rules.variance_aware import VarianceAwareState, variance_aware
from mixjax.rules.wrappers import (
    CountingState,
    SelectState,
    WrapperState,
    every,
    floor,
    freeze_after,
    select,
    smooth,
)

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
}
"""Every base rule's factory by name."""

__all__ = [
    "RULES",
    "CountingState",
    "DROState",
    "ERMAState",
    "FGLSState",
    "GradientNormState",
    "GroupDROState",
    "OneShotFGLSState",
    "SelectState",
    "VarianceAwareState",
    "WrapperState",
    "dro",
    "erma",
    "every",
    "fgls",
    "fixed",
    "floor",
    "freeze_after",
    "gls",
    "gradient_norm",
    "group_dro",
    "one_shot_fgls",
    "robust_loss",
    "robust_weights",
    "select",
    "smooth",
    "variance_aware",
]

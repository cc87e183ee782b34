"""How weights move: one factory per rule, each returning a :class:`mixjax.WeightRule`.

Every hyperparameter may be a traced value, so a factory may be called inside ``vmap`` over a grid.
"""

from mixjax.rules.doge import DoGEState, doge
from mixjax.rules.doremi import DoReMiState, doremi
from mixjax.rules.dro import DROState, dro, robust_loss, robust_weights
from mixjax.rules.erma import ERMAState, erma
from mixjax.rules.exp3 import Exp3State, exp3
from mixjax.rules.fixed import fixed
from mixjax.rules.gradient_norm import GradientNormState, gradient_norm
from mixjax.rules.group_dro import GroupDROState, group_dro
from mixjax.rules.least_squares import FGLSState, OneShotFGLSState, fgls, gls, one_shot_fgls
from mixjax.rules.mirror_descent import (
    MirrorDescentState,
    ProjectedGradientState,
    kl_to_prior,
    mirror_descent,
    projected_gradient,
)
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
    "mirror_descent": mirror_descent,
    "projected_gradient": projected_gradient,
    "doremi": doremi,
    "doge": doge,
    "exp3": exp3,
}
"""Every base rule's factory by name."""

__all__ = [
    "RULES",
    "CountingState",
    "DROState",
    "DoGEState",
    "DoReMiState",
    "ERMAState",
    "Exp3State",
    "FGLSState",
    "GradientNormState",
    "GroupDROState",
    "MirrorDescentState",
    "OneShotFGLSState",
    "ProjectedGradientState",
    "SelectState",
    "VarianceAwareState",
    "WrapperState",
    "doge",
    "doremi",
    "dro",
    "erma",
    "every",
    "exp3",
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
    "robust_loss",
    "robust_weights",
    "select",
    "smooth",
    "variance_aware",
]

"""Computes the robust weights of paper 004 in float64, by the name of the divergence."""

from tests.laws.reference import paper004

DIVERGENCES = ("kl", "chi2", "cvar")


def reference(divergence, losses, prior, beta, scale=1.0):
    if divergence == "kl":
        return paper004.eq12(losses, prior, beta / scale)
    if divergence == "chi2":
        return paper004.eq34(losses, prior, beta, scale)
    return paper004.cvar(losses, prior, 1.0 / (1.0 + beta))

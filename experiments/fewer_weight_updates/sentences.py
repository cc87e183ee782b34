"""Quotes the sentences of the abstract of papers 001 and 002 that state a result, one for each claim.

Source: Das, Patel, Razaviyayn and Mirrokni, "Less is More: Convergence Benefits of Fewer Data Weight Updates over
Longer Horizon" (arXiv:2602.19510). We have the abstract only; paper 002's file holds it whole. The key names the row of
``claims.json`` that judges the sentence. The problems, the step sizes and the measured quantities are ours.
"""

from experiments.shared.sentences import quoter

SENTENCES = {
    # two_domains
    "one_step_fails": (
        "abstract",
        'the "greedy" practical approach of using T = 1 can fail even in a simple quadratic example',
    ),
    # full_gradients
    "log_n_full_gradients": (
        "abstract",
        "Under a fixed parameter update budget N and assuming the per-domain losses are strongly convex ... the "
        "optimal T scales as Θ(log N) ... for the data mixing problem with access to full ... gradients",
    ),
    # stochastic_gradients
    "sqrt_n_log_n_stochastic_gradients": (
        "abstract",
        "Under a fixed parameter update budget N and assuming the per-domain losses are strongly convex ... the "
        "optimal T scales as ... Θ((N log N)^(1/2)) for the data mixing problem with access to ... stochastic "
        "gradients",
    ),
}

quote = quoter("001", SENTENCES)

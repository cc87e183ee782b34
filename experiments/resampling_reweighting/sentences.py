"""Paper 003's sentences that state a comparison or a limit, one row a claim.

Source: An, Ying, "Combining resampling and reweighting for faithful stochastic optimization". The key names the row of
``claims.json`` that judges the sentence; keys with a common stem judge one sentence in several settings. Sentences that
speak of finding a minimum are judged by what a run shows: whether it leaves a basin within the steps it is given.
"""

from experiments.sentences import quoter

SENTENCES = {
    # Section 2, figure 1, and appendix C.1, figure 5: piecewise
    "sgd_jumps": (
        "2.1, figure 1",
        "the vanilla SGD jumps to the non-global local minimum theta = -1 after several iterations",
    ),
    "rr_stays": ("2.1, figure 1", "the RR method stays around the global minimum theta = 1/K all the time"),
    "rr_wider_range": (
        "2.1, figure 1",
        "the RR scheme is stable for a wider range of eta",
    ),
    "rr_oscillates_less": (
        "C.1, figure 5",
        "Even when SGD and RR both stay around the sharp global minimum, the oscillation in RR is smaller",
    ),
    # Section 2, lemma 2.1: equilibrium
    "sgd_equilibrium": (
        "2.1, lemma 2.1",
        "When eta is sufficiently small, the equilibrium distribution of the vanilla SGD is given by p(theta)",
    ),
    "sgd_prefers_flat": (
        "2.1",
        "the SGD trajectory spends most of the time near the non-global local minimum theta = -1",
    ),
    # Section 4.1, figure 2: classification, and figure 3: regression
    "classification_sgd_escapes": (
        "4.1.1, figure 2",
        "the vanilla SGD trajectory escapes to the nearby flat local minimum",
    ),
    "classification_rr_stays": (
        "4.1.1, figure 2",
        "the RR scheme trajectory stays inside the sharp valley to reach the global minimum",
    ),
    "regression_better": (
        "4.1.2, figure 3",
        "for a wide range of learning rate choices, the RR scheme selects a better minimum in a faster speed compared "
        "to SGD",
    ),
    # Section 4.2, figure 4: mueller_brown, large_system
    "mueller_brown": (
        "4.2, figure 4",
        "The RR scheme outperforms SGD in terms of the likelihood of identifying the global minimum [Mueller-Brown]",
    ),
    "large_system": (
        "4.2, figure 4",
        "The RR scheme outperforms SGD in terms of the likelihood of identifying the global minimum [large system]",
    ),
}

quote = quoter("003", SENTENCES)

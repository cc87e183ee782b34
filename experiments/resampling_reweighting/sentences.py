"""Quotes the sentences of paper 003 that state a comparison or a limit; the experiments judge one claim for each.

Source: An, Ying, "Combining resampling and reweighting for faithful stochastic optimization". A key is the name of the
row in ``claims.json`` that judges the sentence. Several keys with a common stem judge one sentence in several settings.
Some sentences speak of finding a minimum. A run of finite length cannot show that, so their claims ask whether the run
leaves a basin within the steps it is given.
"""

from experiments.shared.sentences import quoter

__all__ = ["SENTENCES", "quote"]

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
    # Section 2, remark 2.2: feature_norms
    "feature_norms_0_1": (
        "2.1, remark 2.2",
        "an optimization problem of the form (2.3) can be thought of a more complex model of our motivating example "
        "[features of norm K: 10 %]",
    ),
    "feature_norms_0_2": (
        "2.1, remark 2.2",
        "an optimization problem of the form (2.3) can be thought of a more complex model of our motivating example "
        "[features of norm K: 20 %]",
    ),
    "feature_norms_0_6": (
        "2.1, remark 2.2",
        "an optimization problem of the form (2.3) can be thought of a more complex model of our motivating example "
        "[features of norm K: 60 %]",
    ),
    # Section 3: theory
    "unbiased": (
        "3.1.1",
        "the mean for this approach matches with the one for SGD (3.3)",
    ),
    "stability_sgd": (
        "3.2, lemma 3.2",
        "the condition for the SGD to be stochastically stable around theta* is (3.10)",
    ),
    "stability_rr_1": (
        "3.2, lemma 3.2",
        "the condition for the RR scheme to be stochastically stable around theta* is (3.11) [d = 1]",
    ),
    "stability_rr_5": (
        "3.2, lemma 3.2",
        "the condition for the RR scheme to be stochastically stable around theta* is (3.11) [d = 5]",
    ),
    "wider_steps_1": (
        "3.2",
        "the RR scheme allows a wider range of step-sizes to keep stochastic linear stability compared to SGD [d = 1]",
    ),
    "wider_steps_5": (
        "3.2",
        "the RR scheme allows a wider range of step-sizes to keep stochastic linear stability compared to SGD [d = 5]",
    ),
    "stays_sgd": (
        "3.3, theorem 3.4",
        "P(E_infinity = {theta_k in U for all k >= 1} | theta_1 in U_1) >= 1 - delta [SGD]",
    ),
    "stays_rr": (
        "3.3, theorem 3.4",
        "P(E_infinity = {theta_k in U for all k >= 1} | theta_1 in U_1) >= 1 - delta [RR]",
    ),
    "rate_sgd": (
        "3.3, theorem 3.4",
        "we have the local convergence rate for SGD (3.21)",
    ),
    "rate_rr": ("3.3, theorem 3.4", "And for the RR scheme, we have (3.23)"),
    "faster_rate": (
        "3.3, remark 3.5",
        "for loss functions with drastically different subfunction slopes, the RR scheme performs as averaging to "
        "speed up the convergence rate",
    ),
    "faster_in_time": (
        "3.4, remark 3.6",
        "the trajectory driven by (3.6) converges faster to theta* compared to the trajectory driven by (3.4) in the "
        "L2(0, t; L2(R^d))-sense",
    ),
    "smaller_trace": (
        "3.4",
        "the covariance matrix from (3.6) has a smaller trace at every small neighborhood of points coinciding with "
        "the trajectory from (3.4)",
    ),
    "nearer_to_flow": (
        "3.4, lemma 3.8",
        "(3.6) is closer to phi_t with a higher probability",
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

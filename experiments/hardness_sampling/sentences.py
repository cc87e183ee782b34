"""Quotes the sentences of paper 004 that state a comparison or a limit; the experiments judge one claim for each.

Source: Fidon, Ourselin, Vercauteren, "Distributionally Robust Deep Learning using Hardness Weighted Sampling". A key is
the name of the row in ``claims.json`` that judges the sentence. Several keys with a common stem judge one sentence in
several settings. What section 4.2 says of memory and time is measured by ``experiments.benchmarks``.
"""

from experiments.shared.sentences import quoter

__all__ = ["SENTENCES", "quote"]

SENTENCES = {
    # Section 3.1 and 3.3: wide_relu
    "gradient_law": (
        "3.1, lemma 3.2",
        "the gradient of the distributionally robust loss can be rewritten as the expectation, with respect to the "
        "weighted empirical distribution, of the gradient of the per-example loss",
    ),
    "own_loss_raises_probability": ("3.3, theorem 3.2", "p_i is an increasing function of L_i"),
    "other_losses_lower_probability": (
        "3.3, theorem 3.2",
        "p_i is a non-increasing function of any L_j for j different from i",
    ),
    "exact_losses_converge": (
        "12.2, theorem 12.1",
        "SGD with hardness weighted sampling and exact per-example loss vector guarantees a gradient norm of R of at "
        "most epsilon",
    ),
    "stale_losses_converge": (
        "3.3, theorem 3.1",
        "Algorithm 1 (without importance sampling) guarantees a gradient norm of R of at most epsilon after a finite "
        "number of iterations",
    ),
    "stable_step_falls_with_beta_exact": ("12.2", "when beta increases, [the largest stable step] decreases [exact]"),
    "stable_step_falls_with_beta_stale": ("12.2", "when beta increases, [the largest stable step] decreases [stale]"),
    "stale_step_falls_faster": ("12.2", "eta_stale decreases faster than eta_exact when beta increases"),
    "beta_zero_is_erm": ("12.2", "when beta tends to zero we recover [the theorem for ERM]"),
    # Section 3.2 and appendix 9: mnist
    "importance_sampling_compensates": (
        "3.2",
        "Importance sampling can be used to compensate for the difference between the initial and the updated stale "
        "losses within this batch",
    ),
    # Section 4.1 and appendix 8.1: mnist
    "mnist_rare_class": (
        "4.1",
        "DRO for beta = 10 outperforms ERM by more than 15% of accuracy on the underrepresented class",
    ),
    "mnist_different_optima": ("4.1", "DRO and ERM lead to different optima"),
    "mnist_converges_faster": (
        "4.1",
        "DRO with our SGD with hardness weighted sampling can converge faster than ERM with SGD",
    ),
    "mnist_small_beta_is_erm": (
        "4.1",
        "As beta decreases to 0, the learning curve of DRO with our Algorithm 1 converges to the learning curve of ERM "
        "with SGD",
    ),
    "mnist_test_curves_unstable": (
        "8.1.2",
        "For large values of beta (here beta >= 10), instabilities appear in the testing learning curves",
    ),
    "mnist_training_curves_stable": ("8.1.2", "the training loss curves for beta >= 10 were stable there"),
    "mnist_dips_follow_spread": (
        "8.1.2",
        "during iterations where instabilities appear on the testing set, the standard deviation of the per-example "
        "loss on the training set is relatively high",
    ),
    # Section 4.2 and appendix 8.2: segmentation
    "iqr_enhancing_sgd": ("4.2, table 1", "DRO outperforms ERM in terms of IQR for enhanced tumor [plain SGD]"),
    "iqr_enhancing_nesterov": ("4.2, table 1", "DRO outperforms ERM in terms of IQR for enhanced tumor [Nesterov]"),
    "iqr_core_sgd": ("4.2, table 1", "DRO outperforms ERM in terms of IQR for tumor core [plain SGD]"),
    "iqr_core_nesterov": ("4.2, table 1", "DRO outperforms ERM in terms of IQR for tumor core [Nesterov]"),
    "mean_enhancing_sgd": (
        "4.2, table 1",
        "DRO outperforms ERM in terms of mean Dice score for the enhanced tumor [plain SGD]",
    ),
    "mean_enhancing_nesterov": (
        "4.2, table 1",
        "DRO outperforms ERM in terms of mean Dice score for the enhanced tumor [Nesterov]",
    ),
    "same_under_either_update": (
        "4.2",
        "The same improvements are observed independently of the optimization update rule used",
    ),
    "fewer_poor_cases_in_one_centre": (
        "4.2, figure 3",
        "the lower IQR of DRO for the enhancing tumor comes specifically from a lower number of poor segmentations on "
        "cases coming from [one centre]",
    ),
    "beta_10_iqr": (
        "4.2, table 2",
        "The tendency [lower IQR] still holds true for beta = 10 without importance sampling",
    ),
    "beta_10_is_iqr": (
        "4.2, table 2",
        "The tendency [lower IQR] still holds true for beta = 10 with importance sampling",
    ),
    "beta_100_iqr": (
        "4.2, table 2",
        "The tendency [lower IQR] still holds true for beta = 100 without importance sampling",
    ),
    "beta_1000_lowers_mean": (
        "4.2, table 2",
        "when beta becomes too large (1000) a decrease of the mean Dice score for all regions is observed",
    ),
    "beta_1000_lowers_median": (
        "4.2, table 2",
        "when beta becomes too large (1000) a decrease of the median Dice score for all regions is observed",
    ),
    "importance_sampling_iqr_beta_10": (
        "4.2, table 2",
        "the use of importance sampling improves the interquartile range of the Dice score [beta = 10]",
    ),
    "importance_sampling_iqr_beta_100": (
        "4.2, table 2",
        "the use of importance sampling improves the interquartile range of the Dice score [beta = 100]",
    ),
    "importance_sampling_iqr_beta_1000": (
        "4.2, table 2",
        "the use of importance sampling improves the interquartile range of the Dice score [beta = 1000]",
    ),
}

quote = quoter("004", SENTENCES)

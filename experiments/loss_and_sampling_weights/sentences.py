"""Quotes paper 000's sentences that state a comparison or a limit, sections 3 to 6 and appendices C and D.

Source: Salmani, Worah, Razaviyayn, Mirrokni, "Sampling and Loss Weights in Multi-Domain Training". The key names the
row of ``claims.json`` that judges the sentence; keys with a common stem judge one sentence in several settings.
"""

from experiments.shared.sentences import quoter

__all__ = ["SENTENCES", "quote"]

SENTENCES = {
    # Section 3.1
    "gls_beats_ols": (
        "3.1",
        "This estimator [OLS], however, can be improved by assigning domain-specific weights",
    ),
    "gls_is_best": (
        "3.1, theorem 3.1 and corollary 3.2",
        "is the best linear unbiased estimator, achieving the minimum variance among linear unbiased estimators",
    ),
    "noisier_domains_reduced": (
        "3.1",
        "Domains that are relatively noisier and generalize less should receive reduced weight",
    ),
    "fgls_ill_defined": (
        "3.1",
        "in an over-parameterized setting where d > |S|, the residuals vanish, and the weight estimates become "
        "ill-defined",
    ),
    "training_residuals_deviate": (
        "3.1.1",
        "the distribution of training residuals can deviate significantly from the true distribution, for example the "
        "distribution of validation residuals",
    ),
    "one_shot_fgls_ratio": (
        "3.1.1, theorem 3.3",
        "the ratio of their mean squared errors converges to 1",
    ),
    # Section 3.2
    "bound_holds": (
        "3.2, theorem 3.4",
        "For a sufficiently large validation set, the following inequality holds with high probability",
    ),
    "signals_are_cheap": (
        "3.2",
        "estimating the mean and variance of domain losses is not computationally demanding",
    ),
    "gap_positive": ("3.2", "G(t) can take both positive and negative values [positive]"),
    "gap_negative": ("3.2", "G(t) can take both positive and negative values [negative]"),
    # Section 4
    "variance_sets_rate": (
        "4, table 1",
        "the variance of the gradient estimator directly affects the convergence rate",
    ),
    "redundancy_lowers_variance": (
        "4",
        "domains with greater data redundancy tend to exhibit lower gradient variance",
    ),
    "va_minimises_variance": (
        "4, eq. 13-16",
        "Applying the method of Lagrange multipliers yields the optimal allocation",
    ),
    # Section 5.1
    "scale_raises_variance": ("5.1", "increasing C_i increases the gradient variance for domain i"),
    "early_estimates_poor": ("5.1", "early updates tend to produce poor and noisy estimations"),
    "va_effective_100_1": ("5.1", "both VA and One-shot FGLS prove effective [VA, (100, 1)]"),
    "va_effective_1_100": ("5.1", "both VA and One-shot FGLS prove effective [VA, (1, 100)]"),
    "fgls_effective_100_1": ("5.1", "both VA and One-shot FGLS prove effective [FGLS, (100, 1)]"),
    "fgls_effective_1_100": ("5.1", "both VA and One-shot FGLS prove effective [FGLS, (1, 100)]"),
    "combination_over_fgls_1_100": (
        "5.1",
        "we even observe additional improvements when combining them in the case (1, 100) [over FGLS]",
    ),
    "combination_over_va_1_100": (
        "5.1",
        "we even observe additional improvements when combining them in the case (1, 100) [over VA]",
    ),
    "va_prefers_one_100_1": (
        "5.1",
        "[in (100, 1)] both VA and OneShot FGLS assign higher sampling probabilities ... to domain one",
    ),
    "fgls_prefers_one_100_1": ("5.1", "[in (100, 1)] both ... assign ... larger loss weights to domain one"),
    "fgls_converges_to_aitken": (
        "5.1",
        "in this setting [(100, 1)], One-shot FGLS converges to the optimal weights given by Theorem 3.1",
    ),
    "va_prefers_two_1_100": ("5.1", "[in (1, 100)] VA tends to sample more from domain two"),
    "fgls_prefers_one_1_100": ("5.1", "[in (1, 100)] One-shot FGLS upweights samples from domain one"),
    "aitken_suboptimal_1_100": (
        "5.1",
        "A notable observation here [(1, 100)] is the suboptimal performance of the Aitken weights",
    ),
    "aitken_far_from_convergence": (
        "5.1",
        "We attribute this to the choice of learning rate, as training appears far from convergence under this setting",
    ),
    # Section 5.2
    "va_improves_100_100": ("5.2", "both VA and ERMA improve classifier performance in both setups [VA, (100, 100)]"),
    "va_improves_10_100": ("5.2", "both VA and ERMA improve classifier performance in both setups [VA, (10, 100)]"),
    "erma_improves_100_100": (
        "5.2",
        "both VA and ERMA improve classifier performance in both setups [ERMA, (100, 100)]",
    ),
    "erma_improves_10_100": ("5.2", "both VA and ERMA improve classifier performance in both setups [ERMA, (10, 100)]"),
    "erma_prefers_clean_100_100": ("5.2", "[in (100, 100)] ERMA places more emphasis on the less noisy domain"),
    "va_prefers_two_100_100": ("5.2", "VA samples more from domain two when uniform weights are used"),
    "va_flips_with_erma_100_100": (
        "5.2",
        "whereas it shifts to sampling more from domain one when combined with ERMA",
    ),
    "erma_large_margin_10_100": ("5.2", "In the second setup, ERMA outperforms uniform weighting by a large margin"),
    "erma_even_more_weight_normalised": (
        "5.2",
        "Here [(10, 100)], ERMA assigns even more weight to the less noisy domain compared to the previous case "
        "[w rescaled to mean 1]",
    ),
    "erma_even_more_weight_unnormalised": (
        "5.2",
        "Here [(10, 100)], ERMA assigns even more weight to the less noisy domain compared to the previous case "
        "[eq. 12 without rescaling]",
    ),
    # Section 5.3
    "mnist_erma_improves": ("5.3", "ERMA achieves the best results, improving upon uniform loss weighting"),
    "mnist_erma_best": ("5.3", "ERMA achieves the best results [not worse than VA + ERMA]"),
    "mnist_va_ineffective": ("5.3", "VA appears to be ineffective"),
    "mnist_gradient_spread_similar": (
        "5.3",
        "the high similarity of data inputs ... makes the difference in gradient variance insignificant",
    ),
    "mnist_va_share": (
        "5.3",
        "without ERMA, VA assigns sampling weights of approximately 0.4 and 0.6 to the clean and noisy domains",
    ),
    # Section 6, the two ideas
    "redundancy_lowers_va_share": (
        "6",
        "VA naturally assigns lower sampling weights to such [repetitive or duplicative] domains during training",
    ),
    "gap_sign_over_training": (
        "3.2",
        "G(t) can shed light on the role of low-loss, medium-loss, and high-loss data points in the training process",
    ),
    # Appendix C
    "appendix_va_equal_noise": ("C", "both VA and One-shot FGLS improve upon vanilla [(i) (100, 1), noise (1, 1): VA]"),
    "appendix_fgls_equal_noise": (
        "C",
        "both VA and One-shot FGLS improve upon vanilla [(i) (100, 1), noise (1, 1): FGLS]",
    ),
    "appendix_va_equal_scale": ("C", "both VA and One-shot FGLS improve upon vanilla [(ii) (1, 1), noise (1, 20): VA]"),
    "appendix_fgls_equal_scale": (
        "C",
        "both VA and One-shot FGLS improve upon vanilla [(ii) (1, 1), noise (1, 20): FGLS]",
    ),
    "accuracy_va_100_100": ("C", "both ERMA and VA improve the accuracy metric [VA, (100, 100)]"),
    "accuracy_va_10_100": ("C", "both ERMA and VA improve the accuracy metric [VA, (10, 100)]"),
    "accuracy_erma_100_100": ("C", "both ERMA and VA improve the accuracy metric [ERMA, (100, 100)]"),
    "accuracy_erma_10_100": ("C", "both ERMA and VA improve the accuracy metric [ERMA, (10, 100)]"),
    # Appendix D
    "single_mean_suboptimal_100_100": (
        "D",
        "this combined approach yields suboptimal results [batch averaged domain by domain, (100, 100)]",
    ),
    "single_mean_suboptimal_10_100": (
        "D",
        "this combined approach yields suboptimal results [batch averaged domain by domain, (10, 100)]",
    ),
    "single_pooled_suboptimal_100_100": (
        "D",
        "this combined approach yields suboptimal results [batch averaged as a whole, (100, 100)]",
    ),
    "single_pooled_suboptimal_10_100": (
        "D",
        "this combined approach yields suboptimal results [batch averaged as a whole, (10, 100)]",
    ),
}

quote = quoter("000", SENTENCES)

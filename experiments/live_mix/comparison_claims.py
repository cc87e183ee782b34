"""Judges the comparison of mixing methods: each method against static mixes, and what the methods' papers state."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray

from experiments.live_mix.comparison_tables import (
    BEST_STATIC,
    COSTS,
    MEASURES,
    NAMES,
    REFERENCE,
    STATIC,
    at_equal,
    best_of,
    by_domain,
    compared,
    final,
    is_comparison,
    moving,
    speed_up,
    static_twin,
)
from experiments.shared.sentences import text
from mixjax.runner.claims import MIN_SEEDS, Claim, paired, versus

__all__ = ["SENTENCES", "claims", "overheads", "sentences"]

AIOLI = "Chen et al. 2024, Aioli (arXiv:2411.05735)"
ADO = "Jiang et al. 2024, ADO (arXiv:2410.11820)"
DOREMI = "Xie et al. 2023, DoReMi (arXiv:2305.10429)"
DOGE = "Fan et al. 2024, DoGE (arXiv:2310.15393)"
ODM = "Albalak et al. 2023, ODM (arXiv:2312.02406)"
UNIMAX = "Chung et al. 2023, UniMax (arXiv:2304.09151)"
GROUP_DRO = "Sagawa et al. 2020, group DRO (arXiv:1911.08731)"
PAPER = "Salmani et al., Sampling and loss weights in multi-domain training"

SENTENCES = {
    "aioli_none_beats_stratified": (
        "no existing method consistently outperforms a simple stratified sampling baseline in terms of average test "
        "perplexity",
        f"{AIOLI}, abstract",
    ),
    "aioli_beats_stratified": (
        "Aioli outperforms stratified sampling on 6 out of 6 datasets by an average of 0.27 test perplexity points",
        f"{AIOLI}, abstract",
    ),
    "ado_comparable_or_better": (
        "ADO can achieve comparable or better performance than prior methods while maintaining computational "
        "efficiency across different computation scales",
        f"{ADO}, abstract",
    ),
    "doremi_all_domains": (
        "DoReMi improves perplexity across all domains, even when it downweights a domain",
        f"{DOREMI}, abstract",
    ),
    "doremi_speed_up": (
        "reaches the baseline accuracy with 2.6x fewer training steps [here: the baseline's mean test loss]",
        f"{DOREMI}, abstract",
    ),
    "doge_beats_baselines": (
        "our base model gets better perplexity and few-shot reasoning accuracies across 6 tasks compared to baseline "
        "methods [here: perplexity]",
        f"{DOGE}, abstract",
    ),
    "odm_speed_up": (
        "reaches the final perplexity of the next best method with 19% fewer training iterations [here: of the best "
        "static mix]",
        f"{ODM}, abstract",
    ),
    "unimax_beats_temperature": (
        "UniMax outperforms standard temperature-based sampling",
        f"{UNIMAX}, abstract",
    ),
    "group_dro_worst": (
        "learn models that instead minimize the worst-case training loss over a set of pre-defined groups [here: a "
        "lower worst-domain test loss than the mix that it samples]",
        f"{GROUP_DRO}, abstract",
    ),
    "erma_generalises": (
        "they can improve generalization performance by reducing the generalization gap [loss weights, here ERMA's]",
        f"{PAPER}, abstract",
    ),
    "va_converges_faster": (
        "they can reduce the variance of gradient estimates in iterative methods such as stochastic gradient descent "
        "[sampling weights, here VA's: a lower loss after as many steps]",
        f"{PAPER}, abstract",
    ),
    "erma_va_over_erma": (
        "their combination yields complementary improvements [over ERMA alone]",
        f"{PAPER}, section 7",
    ),
    "erma_va_over_va": ("their combination yields complementary improvements [over VA alone]", f"{PAPER}, section 7"),
}
"""Claim -> the sentence as printed, with what is tested in its place in brackets, and where it stands."""

# What ADO's "comparable" allows, chosen before the runs: one percent of perplexity, in nats per token.
COMPARABLE = 0.01
# Methods that came before Aioli's and ADO's papers.
EARLIER = ("group_dro", "doremi", "doge", "odm")


def claims(results: Mapping[str, xarray.Dataset]) -> list[Claim]:
    """Judges the papers' sentences, then each method against the uniform and the best static mix; no sweep."""
    if not is_comparison(results):
        return []
    found = [*sentences(results), *(_spread(name, results[name]) for name in moving(results))]
    for baseline in (REFERENCE, BEST_STATIC):
        found += [_judged(row, baseline) for row in compared(results, baseline).itertuples() if not row.reused]
    return found


def sentences(results: Mapping[str, xarray.Dataset]) -> list[Claim]:
    """Judges the papers' sentences whose methods were run."""
    steps = at_equal(results, "steps")
    return [*_of_papers(results, steps), *_of_paper_000(results, steps)]


def overheads(ratios: Mapping[str, Any]) -> list[Claim]:
    """Judges what methods add to the processor time of a static mix.

    Args:
        ratios: method -> ratios to the uniform mix, one for each turn of the benchmark.
    """
    found = []
    limits = {
        "ado": (0.4, "[in our words] ADO adds less than 0.4 % of wall-clock time", f"{ADO}, on a model of 1.3 billion"),
        "odm": (2.0, "adding negligible wall-clock time during pretraining [here: at most 2 %]", f"{ODM}, abstract"),
    }
    for name, (limit, statement, source) in limits.items():
        if name in ratios:
            percent = 100.0 * (np.asarray(ratios[name], np.float64) - 1.0)
            note = "percent of the uniform mix's processor time, of a small model; one value for each turn"
            found.append(versus(f"{name}_cost", percent, "<=", limit, statement=statement, source=source, note=note))
    return found


def _quote(name: str) -> dict[str, str]:
    statement, source = SENTENCES[name]
    return {"statement": statement, "source": source}


def _of_papers(results, steps) -> list[Claim]:
    """Judges what the papers of Aioli, ADO, DoReMi, DoGE, ODM, UniMax and group DRO state."""
    found = []
    mean = {name: final(data, "mean") for name, data in steps.items()}
    perplexity = {name: np.exp(data["loss"].isel(step=-1)).mean("domain", skipna=False) for name, data in steps.items()}
    earlier = {name: perplexity[name] for name in EARLIER if name in perplexity}
    if earlier:
        best = best_of(earlier)
        note = (
            f"perplexity averaged over domains, the best earlier method ({NAMES[best.name]}, chosen by the other "
            "seeds) minus stratified sampling, which is the uniform mix. One corpus cannot show consistency: this row "
            f"says whether the sentence stands on it. All: {_each(earlier, perplexity[REFERENCE])}"
        )
        name = "aioli_none_beats_stratified"
        found.append(paired(name, best.losses, ">", perplexity[REFERENCE], **_quote(name), note=note))
    if "aioli" in perplexity:
        name = "aioli_beats_stratified"
        note = "difference of the perplexity averaged over domains, on one corpus"
        found.append(paired(name, perplexity["aioli"], "<", perplexity[REFERENCE], **_quote(name), note=note))
    if "ado" in mean:
        time = {name: final(data, "mean") for name, data in at_equal(results, "time").items()}
        best = best_of({name: each for name, each in time.items() if name not in ("ado", "aioli")})
        name = "ado_comparable_or_better"
        note = (
            f"mean test loss in nats at equal processor time, minus that of the best other method ({NAMES[best.name]}, "
            f"chosen by the other seeds). Comparable means within {COMPARABLE:g} nats, which was set before the runs"
        )
        found.append(versus(name, time["ado"] - best.losses, "<=", COMPARABLE, **_quote(name), note=note))
    if "doremi" in steps:
        found += _of_doremi(results, steps)
    if "doge" in mean:
        others = {name: mean[name] for name in (REFERENCE, "proportional", "doremi") if name in mean}
        best = best_of(others)
        name = "doge_beats_baselines"
        note = (
            "mean test loss in nats at equal steps, DoGE's proxy not counted, minus the best of its paper's baselines "
            f"that were run ({NAMES[best.name]}, chosen by the other seeds). All: {_each(others, mean['doge'], -1.0)}"
        )
        found.append(paired(name, mean["doge"], "<", best.losses, **_quote(name), note=note))
    if "odm" in steps:
        best = best_of({name: mean[name] for name in STATIC if name in mean})
        name = "odm_speed_up"
        ratio = speed_up(steps["odm"], steps[best.name])
        note = f"{_SPEED_UP}; 19 % fewer steps are a factor of 1.23. The best static mix is {NAMES[best.name]}"
        found.append(versus(name, ratio, ">=", 1.0 / 0.81, **_quote(name), note=note))
    if {"unimax", "temperature"} <= mean.keys():
        name = "unimax_beats_temperature"
        note = "mean test loss in nats per token at equal steps"
        found.append(paired(name, mean["unimax"], "<", mean["temperature"], **_quote(name), note=note))
    if "group_dro" in steps:
        twin, name = static_twin(results, "group_dro", "sampling_weight"), "group_dro_worst"
        worst = {each: final(steps[each], "worst") for each in ("group_dro", twin)}
        note = f"worst-domain test loss in nats per token, against the mix it samples ({NAMES[twin]})"
        found.append(paired(name, worst["group_dro"], "<", worst[twin], **_quote(name), note=note))
    return found


_SPEED_UP = (
    "ratio of steps, from the evaluations during training with linear interpolation; below 1 it is the share of the "
    "steps in which the baseline came to the method's final loss. The learning rate falls to the end, which brings "
    "ratios closer to 1 than a constant rate would"
)


def _of_doremi(results, steps) -> list[Claim]:
    """Judges DoReMi against the mixes that may stand for the default weights of its paper."""
    found = []
    for baseline in (REFERENCE, "proportional"):
        if baseline not in steps:
            continue
        # The tests of the domains are one family: the sentence is about all of them.
        table = by_domain({each: results[each] for each in (baseline, "doremi")}, baseline=baseline)
        worst = table.loc[table.difference.idxmax()] if table.difference.notna().any() else table.iloc[0]
        decided = table.num_seeds.min() >= MIN_SEEDS
        holds = None
        if decided and (table.high < 0).all():
            holds = True
        elif decided and (table.verdict == "worse").any():
            holds = False
        statement, source = SENTENCES["doremi_all_domains"]
        found.append(
            Claim(
                name=f"doremi_all_domains_{baseline}",
                statement=f"{statement} [baseline: {NAMES[baseline]}]",
                source=source,
                value=float(worst.difference),
                stderr=float(worst.stderr),
                threshold=0.0,
                num_seeds=int(worst.num_seeds),
                holds=holds,
                note=f"change of the test loss in the domain that gained least, {worst.domain}; "
                f"{int((table.difference < 0).sum())} of {len(table)} domains are lower on average. It holds where "
                "each domain's 95 % interval is below 0, and fails where a domain is worse after Holm's correction",
            )
        )
        statement, source = SENTENCES["doremi_speed_up"]
        found.append(
            versus(
                f"doremi_speed_up_{baseline}",
                speed_up(steps["doremi"], steps[baseline]),
                ">=",
                2.6,
                statement=f"{statement} [baseline: {NAMES[baseline]}]",
                source=source,
                note=f"{_SPEED_UP}. The steps of the reference and the proxy are not counted, as in the paper",
            )
        )
    return found


def _of_paper_000(results, steps) -> list[Claim]:
    """Judges what paper 000 promises of ERMA, of VA and of both."""
    mean = {name: final(data, "mean") for name, data in steps.items()}
    found = []
    if "erma" in mean:
        twin = static_twin(results, "erma", "sampling_weight")
        note = (
            f"mean test loss in nats at equal steps, against the mix it samples ({NAMES[twin]}). The paper proves it "
            "for independent examples, and names language models, whose tokens depend on each other, as future work"
        )
        found.append(paired("erma_generalises", mean["erma"], "<", mean[twin], **_quote("erma_generalises"), note=note))
    if "va" in mean:
        twin = static_twin(results, "va", "loss_weight")
        ratio = speed_up(steps["va"], steps[twin])
        note = (
            f"mean test loss in nats at equal steps, against the mix with its loss weights ({NAMES[twin]}); speed-up "
            f"{text(ratio)}"
        )
        name = "va_converges_faster"
        found.append(paired(name, mean["va"], "<", mean[twin], **_quote(name), note=note))
    for alone in ("erma", "va"):
        if {alone, "erma_va"} <= mean.keys():
            name = f"erma_va_over_{alone}"
            note = "mean test loss in nats per token at equal steps"
            found.append(paired(name, mean["erma_va"], "<", mean[alone], **_quote(name), note=note))
    return found


def _spread(name, data) -> Claim:
    return versus(
        f"{name}_mixes",
        data["least_effective_domains"],
        ">=",
        2.0,
        statement=f"ours: the effective number of domains of {NAMES.get(name, name)} stays above two",
        source="mixjax.rules.effective_domains",
        note="least effective number of domains during the run",
    )


def _judged(row, baseline) -> Claim:
    """Makes the claim of a row of a table of comparisons, whose verdict counts all tests of the table."""
    method = NAMES.get(row.method, row.method)
    at = f"{MEASURES[row.measure]}, equal {COSTS[row.cost]}"
    return Claim(
        name=f"{row.method}_{row.measure}_{row.cost}_{baseline.replace(' ', '_')}",
        statement=f"ours: {method} has a lower test loss than the {baseline} mix ({at})",
        source="difference of the final test loss in nats per token",
        value=float(row.difference),
        stderr=float(row.stderr),
        threshold=0.0,
        num_seeds=int(row.num_seeds),
        holds={"better": True, "worse": False, "undecided": None}[row.verdict],
        note=f"{row.value:.4f} against {row.baseline:.4f}; lower in {row.wins} of {row.num_seeds} seeds; p after Holm "
        f"over all rows against {baseline}: {row.p_holm:.2g}",
    )


def _each(losses, others, sign=1.0) -> str:
    """Writes the mean difference of each method."""
    return "; ".join(f"{NAMES[name]} {text(sign * (each - others))}" for name, each in losses.items())

"""Tests the verdicts on the comparison of mixing methods: each sentence can hold, fail and be undecided."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.live_mix import comparison_claims
from experiments.live_mix.comparison_figure import figure
from experiments.live_mix.comparison_tables import compared, moving
from mixjax.runner.claims import rows
from tests.experiments.live_mix.fake_comparison import EFFECTS, results


def judged(found):
    return {claim.name: claim for claim in comparison_claims.claims(found)}


def with_effects(**changes):
    effects = dict(EFFECTS)
    for name, change in changes.items():
        effects[name] = change if isinstance(change, tuple) else ((change,) * 4, change)
    return results(noise=2e-3, effects=effects)


# what a claim is about -> methods' effects in nats with which it holds, and with which it fails
CASES = {
    "aioli_none_beats_stratified": (dict(group_dro=0.1, doremi=0.1, doge=0.1, odm=0.1), dict(odm=-0.1)),
    "aioli_beats_stratified": (dict(aioli=-0.1), dict(aioli=0.1)),
    "ado_comparable_or_better": (dict(ado=-0.4), dict(ado=-0.3)),
    "doremi_all_domains_uniform": (dict(doremi=-0.1), dict(doremi=((-0.1, -0.1, 0.1, -0.1), 0.0))),
    "doremi_all_domains_proportional": (dict(doremi=-0.4), dict(doremi=0.0)),
    "doremi_speed_up_uniform": (dict(doremi=-0.7), dict(doremi=-0.5)),
    "doge_beats_baselines": (dict(doge=-0.2), dict(doge=0.1)),
    "odm_speed_up": (dict(odm=-0.3), dict(odm=-0.1)),
    "unimax_beats_temperature": (dict(unimax=0.0), dict(unimax=0.2)),
    "group_dro_worst": (dict(group_dro=-0.1), dict(group_dro=0.1)),
    "erma_generalises": (dict(erma=-0.1), dict(erma=0.1)),
    "va_converges_faster": (dict(va=-0.1), dict(va=0.1)),
    "erma_va_over_erma": (dict(erma_va=-0.2), dict(erma_va=0.0)),
    "erma_va_over_va": (dict(erma_va=-0.2), dict(erma_va=0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_sentence_holds_or_fails_by_the_numbers(name):
    holds, fails = CASES[name]
    for effects, want in ((holds, True), (fails, False)):
        (claim,) = [each for each in comparison_claims.sentences(with_effects(**effects)) if each.name == name]
        assert claim.holds is want


def test_with_two_seeds_nothing_is_decided_and_with_equal_methods_nearly_nothing():
    assert {claim.holds for claim in judged(results(seeds=2)).values()} == {None}
    same = results(noise=0.05, effects={name: EFFECTS["uniform"] for name in EFFECTS}, timed=())
    own = [
        claim for claim in judged(same).values() if claim.statement.startswith("ours: ") and "_mixes" not in claim.name
    ]
    assert len(own) == 3 * (12 + 9) and all(claim.holds is None for claim in own)


def test_every_sentence_is_judged_and_every_row_is_one_of_the_file():
    found = judged(results())
    for name in comparison_claims.SENTENCES:
        assert any(each.startswith(name) for each in found), name
    table = rows(list(found.values()))
    assert all(set(row) >= {"statement", "source", "value", "stderr", "threshold", "holds"} for row in table)
    assert all(row["source"] for row in table)


def test_rows_against_uniform_and_the_best_static_mix_are_those_of_the_tables():
    found = results()
    claims = judged(found)
    for baseline in ("uniform", "best static"):
        table = compared(found, baseline)
        for row in table[~table.reused].itertuples():
            claim = claims[f"{row.method}_{row.measure}_{row.cost}_{baseline.replace(' ', '_')}"]
            assert claim.holds == {"better": True, "worse": False, "undecided": None}[row.verdict]
            assert claim.value == row.difference


def test_weights_that_came_near_one_domain_are_named():
    claims = judged(results())
    assert claims["group_dro_mixes"].holds is False
    assert all(claims[f"{name}_mixes"].holds for name in moving(results()) if name != "group_dro")


def test_methods_that_were_not_run_have_no_row():
    claims = judged(results(names=["uniform", "erma"]))
    assert "erma_generalises" in claims and not any("doremi" in name or "ado" in name for name in claims)


def test_costs_are_judged_by_turns():
    ratios = {"ado": 1.001 + 1e-4 * np.arange(8), "odm": 1.1 + 1e-4 * np.arange(8), "doremi": [3.0] * 8}
    cheap, dear = comparison_claims.overheads(ratios)
    assert (cheap.name, cheap.holds) == ("ado_cost", True) and (dear.name, dear.holds) == ("odm_cost", False)
    assert cheap.value == pytest.approx(0.135) and not comparison_claims.overheads({})


@pytest.mark.parametrize("kind", ["alone", "without the uniform mix", "with settings"])
def test_a_sweep_over_settings_is_not_judged(kind):
    found = results(seeds=2, names=["uniform", "erma"], timed=())
    if kind == "with settings":
        found["erma"] = found["erma"].expand_dims(gamma1=[0.1, 0.2])
    else:
        del found["erma" if kind == "alone" else "uniform"]
    assert comparison_claims.claims(found) == []
    drawn = figure(found)
    assert "mean ± standard error over seeds" in drawn.get_suptitle()
    plt.close(drawn)

"""Tests the tables of the comparison of mixing methods on losses that are known."""

import numpy as np
import pytest
import xarray

from experiments.live_mix import comparison_tables as tables
from tests.experiments.live_mix.fake_comparison import DOMAINS, EFFECTS, STEPS, results


def row(table, cost, measure, method):
    (found,) = table[(table.cost == cost) & (table.measure == measure) & (table.method == method)].to_dict("records")
    return found


def test_differences_to_the_uniform_mix_are_the_effects():
    table = tables.compared(results(noise=1e-3), "uniform")
    assert len(table) == 2 * 3 * 12
    for method, (effects, target) in EFFECTS.items():
        if method != "uniform":
            assert row(table, "steps", "mean", method)["difference"] == pytest.approx(np.mean(effects), abs=2e-3)
            assert row(table, "steps", "target", method)["difference"] == pytest.approx(target, abs=2e-3)
    # Without the effects the worst domain is rust, at 4 nats; proportional makes it 4.3, group DRO's is linux at 3.9.
    assert row(table, "steps", "worst", "proportional")["difference"] == pytest.approx(0.3, abs=2e-3)
    assert row(table, "steps", "worst", "group_dro")["difference"] == pytest.approx(-0.1, abs=2e-3)


def test_a_method_without_a_run_at_equal_time_has_its_row_again_and_is_tested_once():
    found = results()
    table = tables.compared(found, "uniform")
    again = table[table.reused]
    assert set(again.method) == set(EFFECTS) - {"uniform", "doremi", "doge", "erma"}
    assert row(table, "time", "mean", "ado")["p_holm"] == row(table, "steps", "mean", "ado")["p_holm"]
    assert row(table, "time", "mean", "erma")["difference"] == pytest.approx(0.2, abs=0.02)
    # Holm's smallest p-value is multiplied by the number of tests, which are 12 methods and 3 more at equal time.
    own = table[~table.reused]
    smallest = own.loc[own.p_value.idxmin()]
    assert smallest.p_holm == pytest.approx(45 * smallest.p_value)


def test_verdicts_follow_the_corrected_p_values_and_need_three_seeds():
    table = tables.compared(results(noise=0.02), "uniform")
    for each in table.itertuples():
        side = "better" if each.difference < 0 else "worse"
        assert each.verdict == (side if each.p_holm <= tables.LEVEL else "undecided")
    assert set(table.verdict) == set(tables.VERDICTS)
    assert set(tables.compared(results(seeds=2, noise=1e-4), "uniform").verdict) == {"undecided"}


def test_the_best_static_mix_is_chosen_without_the_seed_that_it_is_judged_on():
    a, b = xarray.DataArray([1.0, 1.0, 9.0], dims="seed"), xarray.DataArray([2.0, 2.0, 2.0], dims="seed")
    best = tables.best_of({"a": a, "b": b})
    # Without the third seed a is better, and pays for it there.
    assert best.losses.values.tolist() == [2.0, 2.0, 9.0] and best.name == "b"
    with pytest.raises(ValueError, match="candidates must have a method"):
        tables.best_of({})


def test_a_static_mix_that_diverged_is_not_the_best_one():
    a, b = xarray.DataArray([np.nan, 0.0, 0.0], dims="seed"), xarray.DataArray([2.0, 2.0, 2.0], dims="seed")
    np.testing.assert_array_equal(tables.best_of({"a": a, "b": b}).losses, [np.nan, 2.0, 2.0])
    assert tables.best_of({"a": a, "b": b}).name == "b"


def test_choosing_among_equal_mixes_gains_nothing():
    """Four mixes that do not differ: the cross-fitted best one has the mean loss of each, within its error."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(300):
        losses = rng.normal(size=(4, 8))
        mixes = {str(i): xarray.DataArray(each, dims="seed") for i, each in enumerate(losses)}
        gains.append(float(tables.best_of(mixes).losses.mean()))
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(300)
    assert np.mean([losses.mean(axis=1).min() for losses in rng.normal(size=(300, 4, 8))]) < -0.3


def test_against_the_best_static_mix_only_moving_methods_are_compared():
    found = results(noise=1e-3)
    table = tables.compared(found, "best static")
    assert set(table.method) == set(tables.moving(found)) and not set(table.method) & set(tables.STATIC)
    # By the mean it is the uniform mix, and by the worst domain too.
    assert row(table, "steps", "mean", "odm")["difference"] == pytest.approx(-0.4, abs=2e-3)


def test_by_domain_has_a_row_for_each_cell():
    table = tables.by_domain(results(noise=1e-3))
    assert len(table) == 4 * 12 and set(table.domain) == set(DOMAINS)
    (cell,) = table[(table.domain == "linux") & (table.method == "group_dro")].to_dict("records")
    assert cell["difference"] == pytest.approx(0.4, abs=3e-3) and cell["verdict"] == "worse"
    against = tables.by_domain(results(noise=1e-3), baseline="proportional")
    (cell,) = against[(against.domain == "linux") & (against.method == "uniform")].to_dict("records")
    assert cell["difference"] == pytest.approx(0.2, abs=3e-3)


@pytest.mark.parametrize(("effect", "want"), [(-0.25, 1000 / 750), (0.0, 1.0), (0.25, 0.75), (-0.05, 1000 / 950)])
def test_speed_ups_of_curves_that_fall_evenly(effect, want):
    effects = {"uniform": EFFECTS["uniform"], "ado": ((effect,) * 4, 0.0)}
    found = results(noise=0.0, effects=effects)
    np.testing.assert_allclose(tables.speed_up(found["ado"], found["uniform"]), want, rtol=1e-9)
    # The reverse comparison has the inverse, since one of both never reaches the other.
    back = tables.speed_up(found["uniform"], found["ado"])
    np.testing.assert_allclose(back * want, 1.0, rtol=1e-9)


def test_a_seed_that_diverged_has_no_speed_up_and_no_final_loss():
    found = results(noise=0.0)
    bad = found["ado"].copy(deep=True)
    bad["loss"][3, -1, 2] = np.nan
    assert np.isnan(tables.speed_up(bad, found["uniform"])[3])
    for measure in ("mean", "worst"):
        assert np.isnan(tables.final(bad, measure)).values.tolist() == [False] * 3 + [True] + [False] * 4


def test_a_loss_that_is_reached_before_the_first_evaluation_counts_from_it():
    found = results(noise=0.0, effects={"uniform": EFFECTS["uniform"], "ado": ((-2.0,) * 4, 0.0)})
    np.testing.assert_allclose(tables.speed_up(found["ado"], found["uniform"]), STEPS[-1] / STEPS[0])


def test_the_static_mix_with_the_weights_that_a_method_holds():
    found = results()
    assert tables.static_twin(found, "va", "loss_weight") == "uniform"
    prior = found["erma"].assign(sampling_weight=found["temperature"].sampling_weight + 1e-3)
    assert tables.static_twin(found | {"erma": prior}, "erma", "sampling_weight") == "temperature"
    with pytest.raises(ValueError, match="static_twin needs one of the runs uniform"):
        tables.static_twin({"erma": found["erma"]}, "erma", "sampling_weight")


def test_costs_are_named():
    with pytest.raises(ValueError, match="cost must be one of steps, time, got 'money'"):
        tables.at_equal(results(), "money")

"""Claims about MNIST's domains, in both directions."""

from experiments.fewer_weight_updates import mnist_claims
from tests.experiments.fewer_weight_updates.made_up_mnist import long_horizons_lose, long_horizons_win, made_up


def test_claims_are_decided_in_both_directions():
    good = made_up(long_horizons_win, lambda n: 2.0 - long_horizons_win(n) / 100, 1.3)
    bad = made_up(long_horizons_lose, lambda n: 2.0 - long_horizons_lose(n) / 100, 1.3)
    for data, holds in ((good, True), (bad, False)):
        rows = {claim.name: claim for claim in mnist_claims.claims({"A run": data})}
        assert len(rows) == 18 and all(claim.statement.startswith("ours: ") for claim in rows.values())
        wrong = {name for name, claim in rows.items() if claim.holds is not holds}
        assert wrong == (set() if holds else {"a_run_mean_near_last"})  # weights stand still in both
    rows = {claim.name: claim for claim in mnist_claims.claims({"A run": good})}
    assert abs(rows["a_run_T16_above_T1"].value - 20.0) < 0.01
    assert "T = 256: 0" in rows["a_run_T16_above_T1"].note.replace("-0", "0")
    assert abs(rows["a_run_best_T_near_grid"].value + 0.1) < 0.01  # 1.2 for the best T, 1.3 for the second point
    assert "0.40/0.60/0.00" in rows["a_run_best_T_near_grid"].note
    moved = good.assign(mean_weights=good["mean_weights"] * 0 + 1 / 3)
    assert [c.holds for c in mnist_claims.claims({"r": moved}) if c.name == "r_mean_near_last"] == [False]


def test_without_the_grid_there_are_no_rows_about_it():
    data = made_up(long_horizons_win, lambda n: 1.0, 1.3).drop_dims("point")
    assert not any("grid" in claim.name or "retrained" in claim.name for claim in mnist_claims.claims({"r": data}))

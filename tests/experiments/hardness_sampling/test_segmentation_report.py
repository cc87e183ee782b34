"""Claims of the segmentation experiment, on made-up Dice scores."""

import warnings

import numpy as np
import xarray

from experiments.hardness_sampling import segmentation_report, sentences

METHODS = [(0.0, False), *((beta, importance) for beta in (10.0, 100.0, 1000.0) for importance in (False, True))]


def made_up(spread, seeds=3):
    """Results of both runs: `spread(method, region, hard centre)` scales how far Dice lies below 60."""
    rng = np.random.default_rng(0)
    names = [segmentation_report.name(*method) for method in METHODS]
    centres, regions = np.repeat(["easy", "hard"], 40), ["whole", "core", "enhancing"]
    noise = rng.normal(0, 1, (seeds, 1, 80, 3)) + rng.normal(0, 0.02, (seeds, 7, 80, 3))
    scale = np.array([[[spread(n, r, c == "hard") for r in regions] for c in centres] for n in names])
    share = np.where(np.array(names) == "ERM", 0.1, 0.3)
    data = xarray.Dataset(
        {
            "dice": (("seed", "method", "case", "region"), 60 - np.abs(noise) * scale),
            "centre_share": (("seed", "method", "epoch"), np.tile(share[:, None], (seeds, 1, 2))),
        },
        {"method": names, "case": centres, "region": regions, "seed": np.arange(seeds)},
    )
    return {"plain SGD": data, "Nesterov": data}


def judged(spread):
    rows = segmentation_report.claims(made_up(spread), "hard")
    return {row.name: row for row in rows}


def as_the_paper_says(method, region, hard):
    """DRO is tighter, most of all at the hard centre; importance sampling more so; the largest beta is much wider."""
    if "1000" in method:
        return 50.0 if "IS" in method else 80.0
    base = {"ERM": 20.0}.get(method, 10.0)
    return base * (0.8 if "IS" in method else 1.0) * (2.0 if hard and region == "enhancing" else 1.0)


def test_every_sentence_is_judged_and_holds_where_results_are_the_paper_s():
    rows = judged(as_the_paper_says)
    stems = (
        "mnist_",
        "stale",
        "exact",
        "stable",
        "own_",
        "other_",
        "gradient_",
        "beta_zero",
        "importance_sampling_comp",
    )
    assigned = {name for name in sentences.SENTENCES if not name.startswith(stems)}
    assert assigned == {name for name, row in rows.items() if not row.statement.startswith("ours")}
    assert all(row.holds for row in rows.values()), {name: row for name, row in rows.items() if not row.holds}
    for name in assigned:
        assert {"statement": rows[name].statement, "source": rows[name].source} == sentences.quote(name)


def test_no_sentence_holds_where_results_are_the_opposite():
    opposite = judged(lambda *where: 1 / as_the_paper_says(*where) * 300)
    assert not any(row.holds for name, row in opposite.items() if name != "segmentation_draws_the_hard_centre")


def test_a_sentence_about_several_comparisons_fails_with_one_of_them():
    def core_is_wide(method, region, hard):
        return 40.0 if region == "core" and method == "DRO β = 10" else as_the_paper_says(method, region, hard)

    row = judged(core_is_wide)["beta_10_iqr"]
    assert row.holds is False and row.value < 0 and "enhancing" in row.note and "core" in row.note
    assert judged(core_is_wide)["beta_100_iqr"].holds


def test_with_one_seed_nothing_is_decided_and_no_note_has_a_nan_or_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = segmentation_report.claims(made_up(as_the_paper_says, seeds=1), "hard")
    assert len(rows) > 15 and all(row.holds is None for row in rows)
    assert not [row.note for row in rows if "nan" in row.note]
    assert any("(one seed)" in row.note for row in rows)

"""Tests the scores by site against numbers worked out by hand, and the interval by how often it holds the true mean."""

import csv
import itertools
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from mixjax.runner.site_page import site_figure, site_markdown
from mixjax.runner.sites import ALL_SITES, MIN_CASES, decimals_of, paired_bootstrap, read_scores, site_report

VOLUME = {"A": [60.0, 70.0, 80.0, 90.0, 100.0], "B": [10.0, 30.0], "C": [50.0], "D": [np.nan, np.nan]}
# A gains 2 in each case but the last, B gains 20 and 0, C has no score under it, D has one.
HARD = {"A": [62.0, 72.0, 82.0, 92.0, 100.0], "B": [30.0, 30.0], "C": [np.nan], "D": [np.nan, 40.0]}


def frame(**changes):
    rows = [
        {"site": site, "case": f"{site}{number}", "method": method, "score": score}
        for method, scores in (("volume", VOLUME), ("hard", HARD))
        for site, values in scores.items()
        for number, score in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**changes)


def row(table, **where):
    found = table
    for name, value in where.items():
        found = found[found[name] == value]
    assert len(found) == 1, where
    return found.iloc[0]


def test_levels_are_those_worked_out_by_hand():
    levels = site_report(frame()).levels
    assert len(levels) == 2 * 5
    a = row(levels, site="A", method="volume")
    assert (a["cases"], a["without_score"], a["mean"], a["median"]) == (5, 0, 80.0, 80.0)
    assert (a["low_quartile"], a["high_quartile"], a["iqr"]) == (70.0, 90.0, 20.0)
    assert a["worst"] == "A0 (60.0); A1 (70.0)"
    b = row(levels, site="B", method="volume")
    assert (b["mean"], b["low_quartile"], b["iqr"], b["worst"]) == (20.0, 15.0, 10.0, "B0 (10.0)")
    # One case has no spread, and no case has nothing.
    c = row(levels, site="C", method="volume")
    assert (c["cases"], c["mean"], c["worst"]) == (1, 50.0, "C0 (50.0)") and np.isnan(c["iqr"])
    d = row(levels, site="D", method="volume")
    assert (d["cases"], d["without_score"], d["worst"]) == (0, 2, "") and np.isnan(d["mean"])
    whole = row(levels, site=ALL_SITES, method="volume")
    assert (whole["cases"], whole["without_score"], whole["mean"]) == (8, 2, 490 / 8)
    assert whole["worst"] == "B0 of B (10.0); B1 of B (30.0); C0 of C (50.0)"


def test_differences_are_of_cases_that_have_both_scores():
    differences = site_report(frame(), ["volume"]).differences
    a = row(differences, site="A")
    assert (a["cases"], a["difference"], a["verdict"]) == (5, pytest.approx(1.6), "better") and 0 < a["low"] < 1.6
    assert a["high"] == pytest.approx(2.0)
    b = row(differences, site="B")
    assert (b["cases"], b["difference"], b["verdict"]) == (2, 10.0, "too few cases") and np.isnan(
        [b["low"], b["high"]]
    ).all()
    for site in "CD":
        nothing = row(differences, site=site)
        assert (nothing["cases"], nothing["verdict"]) == (0, "no case has both scores")
        assert np.isnan(nothing["difference"])
    whole = row(differences, site=ALL_SITES)
    assert whole["cases"] == 7 and whole["difference"] == pytest.approx(28 / 7)
    # Where lower scores are good, the same difference is for the worse.
    assert row(site_report(frame(), ["volume"], better="lower").differences, site="A")["verdict"] == "worse"
    assert row(site_report(frame(), better="lower").levels, site="A", method="hard")["worst"].startswith("A4 (100.0)")


def test_every_pair_with_a_baseline_stands_once():
    three = pd.concat([frame(), frame().query("method == 'hard'").assign(method="uniform")])
    differences = site_report(three, ["volume", "uniform"]).differences
    pairs = differences[differences["site"] == "A"][["method", "baseline"]].to_numpy().tolist()
    assert pairs == [["hard", "volume"], ["uniform", "volume"], ["hard", "uniform"]]
    assert row(differences, site="A", method="hard", baseline="uniform")["verdict"] == "no difference seen"
    assert site_report(three).differences.empty


def test_seeds_are_averaged_within_a_case_and_labels_stand_apart():
    first, second = frame(seed=0, label="core"), frame(seed=1, label="core")
    second["score"] += np.where(second["method"] == "hard", 10.0, 0.0)
    # A case that only the baseline has in the second seed is compared in the first one.
    second = second[~((second["case"] == "A0") & (second["method"] == "hard"))]
    report = site_report(pd.concat([first, second, frame(seed=0, label="whole")]), ["volume"])
    a = row(report.differences, site="A", label="core")
    assert a["cases"] == 5 and a["difference"] == pytest.approx((2.0 + 7.0 * 3 + 5.0) / 5)
    assert row(report.levels, site="A", label="core", method="hard")["mean"] == pytest.approx(
        (62 + 77 + 87 + 97 + 105) / 5
    )
    pd.testing.assert_frame_equal(
        report.differences.query("label == 'whole'").drop(columns="label").reset_index(drop=True),
        site_report(frame(), ["volume"]).differences.drop(columns="label"),
    )


def test_rows_in_another_order_are_the_same_report_in_that_order():
    report, other = (site_report(rows, ["volume"]) for rows in (frame(), frame()[::-1]))
    assert list(dict.fromkeys(other.levels["site"])) == ["D", "C", "B", "A", ALL_SITES]
    keys = ["site", "method"]
    same = other.levels.drop(columns="worst").set_index(keys).loc[report.levels.set_index(keys).index]
    pd.testing.assert_frame_equal(same, report.levels.drop(columns="worst").set_index(keys))


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_holds_the_true_mean_nearly_as_often_as_it_says(n):
    rng, held = np.random.default_rng(n), 0
    for number in range(300):
        _, low, high = paired_bootstrap(rng.normal(size=n), seed=number)
        held += low <= 0 <= high
    # Three standard errors of 300 trials are 4 %. Plain percentiles hold the mean of 5 in 84 % of the samples.
    assert 0.885 < held / 300 < 0.985


def test_the_interval_of_equal_differences_is_that_number():
    assert paired_bootstrap([0.1] * 7) == (pytest.approx(0.1),) * 3
    assert paired_bootstrap([])[0] is not None and np.isnan(paired_bootstrap([])).all()
    mean, low, high = paired_bootstrap([1.0] * (MIN_CASES - 1))
    assert mean == 1.0 and np.isnan(low) and np.isnan(high)
    # Large samples come in several chunks.
    many = np.random.default_rng(0).normal(size=3000)
    mean, low, high = paired_bootstrap(many)
    np.testing.assert_allclose([high - mean, mean - low], 1.96 * many.std() / 3000**0.5, rtol=0.05)
    for wrong in ([1.0, np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="differences must be a vector of finite numbers"):
            paired_bootstrap(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.drop(columns=["case", "score"]),
            "the columns .*; case and score are missing, got site",
        ),
        (lambda rows: rows.drop(columns="case"), "; case is missing, got site, method, score[.]$"),
        (lambda rows: rows[:0], "must have a row at least"),
        (lambda rows: pd.concat([rows, rows[2:3]]), "stand once, got two of site A, case A2, method volume"),
        (lambda rows: rows.assign(site=ALL_SITES), "a site is called 'all sites'"),
        (lambda rows: rows.assign(site=[""] + ["A"] * 19), "site must be named in every row, got none in row 1"),
        (lambda rows: rows.assign(case=[1.0, np.nan] * 10), "case must be named in every row, got none in row 2"),
    ],
)
def test_tables_that_cannot_be_read_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        site_report(change(frame()))


def test_no_row_is_lost_whatever_names_are_made_of():
    report = site_report(frame(), ["volume"])
    numbers = dict(zip("ABCD", range(4), strict=True))
    ways = {
        "numbers": frame(site=lambda rows: rows["site"].map(numbers)),
        "categories": frame(site=lambda rows: pd.Categorical(rows["site"])),
        "texts of scores": frame(score=lambda rows: rows["score"].astype(str)),
        "no label": frame(label=np.nan),
        "some labels": frame(label=lambda rows: np.where(rows["site"] == "A", "A", None)),
        "no seed": frame(seed=None),
    }
    for way, table in ways.items():
        other = site_report(table, "volume")
        assert other.scores["score"].tolist() == pytest.approx(report.scores["score"].tolist(), nan_ok=True), way
        sites = other.differences["site"].replace({str(number): site for site, number in numbers.items()})
        found = dict(zip(sites, other.differences["difference"], strict=True))
        assert all(
            row(report.differences, site=s)["difference"] == pytest.approx(found[s], nan_ok=True) for s in "ABCD"
        )
    assert len(site_report(frame(), ["volume", "volume"]).differences) == len(report.differences)


def test_settings_that_cannot_be_meant_are_errors():
    with pytest.raises(ValueError, match=r"baseline must be one of the methods \['volume', 'hard'\], got 'uniform'"):
        site_report(frame(), ["uniform"])
    with pytest.raises(ValueError, match="better must be one of"):
        site_report(frame(), better="bigger")
    with pytest.raises(ValueError, match="num_worst must be an integer of at least 1, got 0"):
        site_report(frame(), num_worst=0)


def test_names_in_a_file_stay_texts_and_empty_scores_are_missing(tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text("site,case,method,score\nNA,007,erm,0.5\nNA,7,erm,\n None,1,erm,nan\n")
    read = read_scores(file)
    assert read["site"].tolist() == ["NA", "NA", "None"] and read["case"].tolist() == ["007", "7", "1"]
    np.testing.assert_array_equal(read["score"], [0.5, np.nan, np.nan])
    assert site_report(read).levels["cases"].tolist() == [1, 0, 1]
    file.write_text("site,case,method,score\nA,1,erm,0.5\nA,2,erm,failed\n")
    with pytest.raises(ValueError, match="score must be a number, got 'failed' in line 3"):
        read_scores(file)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", "."), (";", ","), ("\t", ",")])
def test_a_spreadsheet_of_any_country_is_the_same_table(tmp_path, separator, point, mark):
    table = frame(site=lambda rows: "Universität " + rows["site"])
    rows = [[*row[:3], "" if np.isnan(row[3]) else str(row[3]).replace(".", point)] for row in table.to_numpy()]
    # Spaces around names are nobody's name.
    lines = [separator.join([f"{site} " if number % 2 else site, *rest]) for number, (site, *rest) in enumerate(rows)]
    file = tmp_path / "scores.csv"
    file.write_text(mark + "\r\n".join([separator.join(f" {name}" for name in table), *lines]), encoding="utf-8")
    pd.testing.assert_frame_equal(read_scores(file), table, check_dtype=False)


@pytest.mark.parametrize("content", [b"", b"site\xc4,case\n", b"site,case\n1,2,3\n4,5,6,7\n", b'site,case\n"1,2\n'])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    path = tmp_path / "scores.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"scores\.csv: scores must be a CSV file in UTF-8: "):
        read_scores(path)


def test_what_spreadsheets_add_changes_nothing(tmp_path):
    path = tmp_path / "scores.csv"
    rows = [["site", "case", "method", "score", "note"], ["A", "1", "m", "0.5", "x"], ["B", "2", "m", "", "y"]]
    expected = pd.DataFrame({"site": ["A", "B"], "case": ["1", "2"], "method": ["m"] * 2, "score": [0.5, np.nan]})
    ways = {
        "a field with the separator": lambda rows, sep: [rows[0], ["A" + sep + " Ulm", *rows[1][1:]], rows[2]],
        "a column with separators in its name": lambda rows, sep: [[*rows[0][:4], ",;\t,;\t,;\t"], *rows[1:]],
        "a field of two lines": lambda rows, sep: [rows[0], [*rows[1][:4], "two lines"], rows[2]],
        "empty lines": lambda rows, sep: [[], rows[0], [""] * 5, *rows[1:], [], [""] * 9],
        "a column without a name at the end": lambda rows, sep: [[*row, "", ""] for row in rows],
        "empty cells to the right of some rows": lambda rows, sep: [rows[0], [*rows[1], ""], rows[2]],
        "a first line for Excel": lambda rows, sep: [["sep=" + sep], *rows],
    }
    for (way, change), sep, quoting, end in itertools.product(
        ways.items(), ",;\t", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ("\n", "\r\n", "\r")
    ):
        changed = [[field.replace("two lines", f"two{end}lines") for field in row] for row in change(rows, sep)]
        with open(path, "w", newline="") as file:
            if way == "a first line for Excel":
                file.write(changed.pop(0)[0] + end)
            csv.writer(file, delimiter=sep, quoting=quoting, lineterminator=end).writerows(changed)
        read = read_scores(path)
        assert len(read.columns) == 5, (way, sep)
        assert read["site"][0] == ("A" + sep + " Ulm" if way == "a field with the separator" else "A")
        pd.testing.assert_frame_equal(read[["case", "method", "score"]], expected[["case", "method", "score"]])


@pytest.mark.parametrize("separator", ",;\t")
def test_what_cannot_be_told_is_an_error_that_names_the_line(tmp_path, separator):
    path = tmp_path / "scores.csv"

    def told(*lines, header=("site", "case", "method", "score")):
        path.write_text("\n".join(separator.join(line) for line in (header, *lines)))
        with pytest.raises(ValueError, match=r"^[^\n]*scores\.csv: [^\n]*$") as error:
            read_scores(path)
        return str(error.value)

    # Taken for the name of a row, its first field would have moved all others by one column.
    assert "has 4 fields, and line 2 has 5" in told(["A", "1", "m", "0", "84"], ["A", "2", "m", "0", "9"])
    assert "has 4 fields, and line 3 has 3" in told(["A", "1", "m", "1"], ["A", "2", "m"])
    assert "'score' twice" in told(["A", "1", "m", "1", "2"], header=("site", "case", "method", "score", "score "))
    assert "'x' in line 5" in told([], [], ["A", "1", "m", "1"], ["A", "2", "m", "x"])
    assert "score must be a number, got 'n.a., in part' in line 3" in told(
        ["A", "1", "m", "1"], ["A", "2", "m", '"n.a., in part"']
    ).replace(" (decimal commas need semicolons or tabs between the columns)", "")
    for mixed in (["1,234", "0.5"], ["1.234", "0,5"], ["1.234,5", "1"], ["1,234.5", "1"]):
        error = told(*(["A", str(number), "m", f'"{score}"'] for number, score in enumerate(mixed)))
        if separator == ",":
            assert "decimal commas need semicolons or tabs" in error
        else:
            assert "one decimal mark and no thousands separator, got" in error and f"{mixed[0]!r} in line 2" in error


@pytest.mark.parametrize("line", ["site|case|method|score", "site case method score", "site"])
def test_columns_that_nothing_separates_are_told(tmp_path, line):
    (tmp_path / "scores.csv").write_text(f"{line}\n")
    with pytest.raises(
        ValueError, match=f"separated by commas, semicolons or tabs, got the first line {line!r}".replace("|", "[|]")
    ):
        read_scores(tmp_path / "scores.csv")


def test_names_in_the_figure_are_no_formulas():
    name = r"$\frac{$"
    rows = [(name, str(case), name + method, case / 8, name) for case in range(4) for method in "ab"]
    table = pd.DataFrame(rows, columns=["site", "case", "method", "score", "label"])
    # The error would come when the figure is drawn.
    site_figure(site_report(table, [name + "a"])).draw_without_rendering()


def drawn(table, *baselines):
    """Draws the figure of a table, and returns its dots above, its names at the left and its title."""
    figure = site_figure(site_report(table, baselines))
    with warnings.catch_warnings():
        # matplotlib warns where names leave no room for the axes.
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    places = np.concatenate([np.stack(line.get_data(), 1) for line in dots])
    return figure, places, [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_each_case_has_a_dot_that_nothing_hides_also_where_sites_are_numbers():
    table = pd.DataFrame({"site": [3, 3, 4], "case": [1, 2, 1], "method": "a", "score": [0.5, 0.6, 0.7]})
    figure, dots, names = drawn(table)
    assert np.isfinite(dots).all() and len(dots) == 3 and names == ["3 (2)", "4 (1)", f"{ALL_SITES} (3)"]
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    medians = np.concatenate([np.stack(line.get_data(), 1) for line in lines])
    assert np.isfinite(medians).sum(axis=0).tolist() == [2, 3]


def test_a_figure_of_many_sites_and_long_names_stays_readable():
    rows = [
        (f"{site:03d} of the hospitals of a country", case, method, 80.0 - site % 150 + case, f"structure {label}")
        for site in range(200)
        for case in range(2)
        for method in ("a method with a long name", "another one of them with a longer name")
        for label in range(8)
    ]
    table = pd.DataFrame(rows, columns=["site", "case", "method", "score", "label"])
    figure, dots, names = drawn(table, "a method with a long name")
    assert len(names) == 41 and all(len(name) < 40 for name in names) and len(dots) == 2 * 40 * 2
    # The lowest scores: sites 110 to 149.
    assert names[0].startswith("110 of the hospi") and names[39].startswith("149")
    title = figure.get_suptitle()
    assert "40 of 200 sites: the worst under a method with a long name\n6 of 8 labels" in title
    assert max(figure.get_size_inches()) * 150 < 2**15


def test_scores_have_three_digits_whatever_their_unit():
    assert [decimals_of(np.array([0.5, 0.84, 0.9]) * unit) for unit in (1, 10, 100, 1e5)] == [3, 2, 1, 0]


def test_the_page_tells_a_site_its_numbers_in_words():
    report = site_report(frame(label="core"), ["volume"])
    page = "\n".join(site_markdown(report, "Centres"))
    assert page.startswith("# Centres\n") and "\n## core\n" in page
    assert "| A | volume | 5 | 80.0 | 80.0 (70.0 to 90.0) | 20.0 | A0 (60.0); A1 (70.0) |" in page
    assert "| C | volume | 1 | 50.0 | 50.0 | - | C0 (50.0) |" in page
    assert "| D | volume | 0, 2 without a score | - | - | - | - |" in page
    low = row(report.differences, site="A")["low"]
    assert f"| A | hard | volume | 5 | +1.6 (+{low:.1f} to +2.0) | better |" in page
    assert "| B | hard | volume | 2 | +10.0 | too few cases |" in page
    assert "| C | hard | volume | 0 | - | no case has both scores |" in page
    # Two sites have an interval: A and all of them together.
    assert "This page\n  has 2 with a verdict" in page and "baseline" not in page


def test_the_figure_shows_every_site_and_has_an_interval_only_where_there_is_one():
    report = site_report(pd.concat([frame(label="core"), frame(label="whole")]), ["volume"])
    figure = site_figure(report)
    above, below = figure.axes[0], figure.axes[2]
    assert [text.get_text() for text in above.get_yticklabels()] == [
        "A (5)",
        "B (2)",
        "C (1)",
        "D (1)",
        "all sites (8)",
    ]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["core", "whole"]
    filled, hollow = (line for line in below.lines if line.get_marker() == "o")
    assert filled.get_xdata().tolist() == pytest.approx([1.6, 4.0])
    assert hollow.get_xdata()[0] == 10.0


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("unit", [1.0, 0.01, 100.0])
def test_an_interval_as_written_lies_on_the_side_of_zero_that_its_verdict_says(unit, better):
    """The texts alone give the verdict again, however near to 0 an end or the mean lies."""
    rng, rows, verdicts = np.random.default_rng(0), [], set()
    for site in range(60):
        shift = rng.choice([0.0, 0.02, 0.05, -0.03]) + 0.04 * rng.normal(size=6) * rng.choice([0.0, 0.3, 1.0])
        for case, gain in enumerate(shift):
            rows += [(site, case, method, unit * (80 + added)) for method, added in (("volume", 0), ("hard", gain))]
    report = site_report(pd.DataFrame(rows, columns=["site", "case", "method", "score"]), ["volume"], better=better)
    near = False
    lines = [line for line in site_markdown(report) if "| hard | volume |" in line]
    for line, (_, found) in zip(lines, report.differences.iterrows(), strict=True):
        mean, low, high = (float(text) for text in re.findall(r"[+-][0-9][0-9.e-]*", line))
        assert low <= mean <= high or min(abs(low), abs(mean), abs(high)) < 0.1 * unit
        verdict = "no difference seen"
        if low > 0 or high < 0:
            verdict = "better" if (mean > 0) == (better == "higher") else "worse"
        assert line.endswith(f"| {verdict} |") and found["verdict"] == verdict, line
        verdicts.add(verdict)
        near = near or 0 < abs(low) < 0.05 * unit
    assert verdicts == {"better", "worse", "no difference seen"} and near


def test_a_page_without_a_baseline_says_how_to_name_one():
    assert "One of these methods can be it: volume, hard." in "\n".join(site_markdown(site_report(frame())))
    alone = site_report(frame().query("method == 'hard'"))
    assert "baseline" not in "\n".join(site_markdown(alone))


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        (["centre", "case", "method", "Dice"], "; rename 'centre' to site; rename 'Dice' to score[.]$"),
        (
            ["Site", "patient", "model", "score"],
            "'Site' to site; rename 'patient' to case; rename 'model' to method",
        ),
        (
            ["site", "case", "volume", "hard"],
            r"by pandas[.]melt\(table, id_vars=\['site', 'case'\], var_name",
        ),
        (["centre", "case", "volume", "hard"], r"; rename 'centre' to site; a column for each method .*melt"),
        (["a", "case", "method", "score"], "; site is missing, got a, case, method, score[.]$"),
    ],
)
def test_tables_of_other_shapes_are_told_the_way_out(columns, hint):
    with pytest.raises(ValueError, match=hint) as told:
        site_report(pd.DataFrame([["A", "1", "hard", 3.0]], columns=columns))
    assert "\n" not in str(told.value)

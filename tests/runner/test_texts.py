"""Texts for readers: numbers, verdicts and tables."""

import math

import pytest

from mixjax.runner.texts import ClaimText, aligned, claim_texts, counted, markdown_table, mean_text, verdict


@pytest.mark.parametrize(
    ("mean", "stderr", "text"),
    [
        (94.487, 0.0699, "94.487 ± 0.070"),
        (-0.0994, 0.143, "-0.10 ± 0.14"),
        (1234.5, 67.8, "1234 ± 68"),
        (3e9, 2e7, "3e+09 ± 2e+07"),
        (1e-9, 3e-10, "1e-09 ± 3e-10"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.5, math.nan, "0.5"),
        (math.nan, math.nan, "-"),
    ],
)
def test_mean_text(mean, stderr, text):
    assert mean_text(mean, stderr) == text


def test_counts_have_the_word_they_need():
    assert [counted(number, "run") for number in (0, 1, 2, 12000)] == ["0 runs", "1 run", "2 runs", "12,000 runs"]
    assert [counted(number, "is", "are") for number in (0, 1, 2)] == ["0 are", "1 is", "2 are"]


def test_claims_as_texts():
    row = {"name": "fgls", "holds": False, "value": 1234.56, "stderr": 7.89, "threshold": 0.1}
    open_ = {"name": "erma", "holds": None, "value": None, "stderr": None, "threshold": None}
    assert claim_texts([row, open_]) == [
        ClaimText("fgls", "no", "1235 ± 7.9", "0.1"),
        ClaimText("erma", "undecided", "", ""),
    ]
    assert claim_texts([row | {"stderr": None}])[0].value == "1235"
    assert [verdict(holds) for holds in (True, False, None)] == ["yes", "no", "undecided"]


def test_cells_of_a_markdown_table_stay_in_their_cell():
    assert markdown_table(["a", "b"], [["x | y", "two\nlines"], [1, None]])[2:] == [
        "| x \\| y | two lines |",
        "| 1 | None |",
    ]


def test_columns_are_aligned():
    assert aligned([["a", "long", "c"], ["wide", "b", ""]]) == ["a     long  c", "wide  b"]
    assert aligned([]) == []

"""``mixjax compare``: the table, the notes and the figure."""

import math
import re
from pathlib import Path

import pytest

from tests.cli.written import LOWER, METHODS, SEEDS, dataset, loss


def test_methods_within_a_result(compared, write):
    write("toy", dataset(loss=loss().isel(gamma=0, drop=True)))
    title, where, rows, notes = compared("toy", "--better", "lower")  # the only metric, the only text labels
    assert title == "loss [nats]: method compared with sgd, lower is better"
    assert where == "toy; step = 20 (last)"
    assert rows == [
        ["method", "mean", "baseline", "difference", "better in", "p (Holm)", "verdict", "left out"],
        ["erma", "-98.50", "-98.25", "-0.25 ± 0.48", "2 of 4, 1 tie", "0.64", "undecided", "0"],
        ["va", "-96.25", "-98.25", "2.00 ± 0.41", "0 of 4", "0.033", "worse", "0"],
    ]
    assert "Holm-corrected for the number of tests in the table, 2" in notes
    assert compared("toy", "--better", "higher")[2][2][4] == "4 of 4"


def test_runs_are_rows_or_are_compared(compared, write):
    wide = {"sgd": METHODS["erma"], "va": METHODS["erma"]}
    runs = {"MLP": dataset(loss=loss(gammas=[1])), "CNN, wide": dataset(loss=loss(wide, [1], (10, 40)))}
    write("toy", runs | {"no loss": dataset(error=loss())})
    _, where, rows, notes = compared("toy", *LOWER)
    assert where == "toy; step = 20, 40 (last); gamma = 1" and "\nwithout loss: no loss\n" in notes
    assert [row[:2] for row in rows[1:]] == [["MLP", "erma"], ["MLP", "va"], ["CNN, wide", "va"]]
    assert rows[3][4:7] == ["0 ± 0", "0 of 4, 4 ties", "1"]
    _, _, rows, _ = compared("toy", *LOWER, "--along", "run")
    assert [row[:2] for row in rows[1:]] == [["sgd", "CNN, wide"], ["va", "CNN, wide"]]
    assert rows[1][4] == "-0.25 ± 0.48"
    _, where, rows, _ = compared("toy", *LOWER, "--select", "run=CNN, wide")
    assert where == "toy; step = 40 (last); run = CNN, wide; gamma = 1" and [row[0] for row in rows[1:]] == ["va"]


def test_results_are_paired_by_seed(compared, write):
    methods = {"sgd": METHODS["sgd"]}
    write("one/before", dataset(loss=loss(methods, [1])))
    after = loss({"sgd": SEEDS[[1, 2, 3, 0]] - SEEDS - 1.0}, [1], first_seed=1)  # seeds 1 to 4, each lower by 1
    write("two/after", dataset(loss=after), ["steps=7", "run.1.width=3"])
    title, where, rows, notes = compared("one/before", "two/after", *LOWER)
    assert title.startswith("loss [nats]: result compared with before, lower")
    assert where.startswith("before, after; step = 20 (last)")
    assert rows == [
        ["result", "mean", "baseline", "difference", "better in", "p (Holm)", "verdict", "left out", "unpaired"],
        ["after", "-98.67", "-97.67", "-1 ± 0", "3 of 3", "-", "better", "0", "2"],
    ]
    assert "after differs from before in steps = 7 (5), run.CNN, wide.width = 3 (9)" in notes
    assert "unpaired: seeds that only the label has, or only the baseline" in notes
    write("two/before", dataset(loss=after))
    _, where, rows, notes = compared("one/before", "two/before", *LOWER)
    assert rows[1][0] == "two/before" and "two/before differs from one/before in nothing of its config" in notes


def test_runs_that_diverged_are_left_out(compared, write):
    values = loss(gammas=[1])
    values[0, :2, 1, 1] = math.nan  # erma, two seeds, the last step
    values[0, :3, 2, 1] = math.inf
    values[0, 0, 0, 0] = math.nan  # sgd, before the last step
    write("toy", dataset(loss=values))
    _, _, rows, notes = compared("toy", *LOWER)
    assert rows[1] == ["erma", "-96.50", "-97.00", "0.50 ± 0.50", "0 of 2, 1 tie", "0.5", "undecided", "2"]
    assert rows[2] == ["va", "-95", "-98", "3", "0 of 1", "-", "undecided", "3"]
    assert "need two paired seeds" in notes and "in the table, 1" in notes
    assert compared("toy", *LOWER, "--mean", "step")[2][1][-1] == "2"  # a mean over what is not finite is not finite


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure(compared, write, tmp_path, suffix):
    values = loss()
    values[0, :, 1, 1] = math.nan  # a row without a number
    write("toy", dataset(loss=values))
    notes = compared("toy", *LOWER, "--out", f"deep/figure{suffix}")[-1]
    assert notes.endswith(f"\ndeep/figure{suffix}\n")
    start = (tmp_path / "deep" / f"figure{suffix}").read_bytes()[:5]
    assert start == {".png": b"\x89PNG\r", ".pdf": b"%PDF-", ".svg": b"<?xml"}[suffix]


def test_the_figures_words(compared, write, monkeypatch):
    import matplotlib.figure

    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, out, dpi: figures.append(self))
    write("toy", {"MLP": dataset(loss=loss()), "CNN": dataset(loss=loss())})
    compared("toy", *LOWER, "--out", "x.png")
    (axis,) = figures[0].axes
    assert axis.get_xlabel() == "loss minus that of sgd [nats], lower is better"
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[:3] == ["MLP, gamma 0.1, erma", "MLP, gamma 0.1, va", "MLP, gamma inf, erma"] and len(labels) == 8
    assert figures[0].get_suptitle().replace("\n", " ") == (
        "toy; step = 20 (last); 4 paired seeds, 95 % interval of each"
    )
    assert axis.get_ylim()[0] > axis.get_ylim()[1] and axis.get_legend() is None  # the first row on top


def test_a_page_draws_each_difference_with_its_interval(command, write):
    hostile = "<script>alert(1)</script>"
    table = {hostile if name == "erma" else name: values for name, values in METHODS.items()}
    write("toy", dataset(loss=loss(table, gammas=(0.1,))))
    code, text, _ = command("compare", "toy", *LOWER, "--html")
    assert code == 0 and text.splitlines()[-1] == "comparison.html"
    page = Path("comparison.html").read_text()
    assert "&lt;script&gt;alert" in page and hostile not in page and page.count('class="bar"') == 2
    # All numbers of the table, in its order.
    rows = re.findall(r"<tr>(.*?)</tr>", page)[1:]
    cells = [re.sub("<title>.*?</title>|<[^>]*>", "|", row) for row in rows]
    for row, line in zip(cells, text.split("\n\n")[1].splitlines()[1:], strict=True):
        assert all(cell in row for cell in re.split("  +", line)[1:])
    assert command("compare", "toy", *LOWER, "--out", "deep/d.html")[0] == 0
    assert Path("deep/d.html").read_text() == page

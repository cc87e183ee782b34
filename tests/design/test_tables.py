"""Tests tables: those of Olmix and RegMix are read and written, and bad ones are named by line or column."""

import sys

import numpy as np
import pandas as pd
import pytest

from mixjax import design
from tests.design.synthetic import swarm

RATIOS = "run,name,index,web,code\na,first,0,0.7,0.3\nb,second,1,0.2,0.8\nc,third,2,0.5,0.5\n"
METRICS = "run,name,index,loss/web,loss/code\nc,third,2,3.1,2.1\na,first,0,3.0,2.2\nb,second,1,3.3,2.0\n"


@pytest.fixture
def read(tmp_path):
    """Writes two files and reads them."""

    def call(ratios=RATIOS, metrics=METRICS):
        (tmp_path / "ratios.csv").write_text(ratios)
        (tmp_path / "metrics.csv").write_text(metrics)
        return design.read_tables(tmp_path / "ratios.csv", tmp_path / "metrics.csv")

    return call


def test_rows_are_matched_by_run(read):
    found = read()
    assert found.domains == ("web", "code") and found.metrics == ("loss/web", "loss/code")
    np.testing.assert_allclose(found.mixtures, [[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    np.testing.assert_allclose(found.losses, [[3.0, 2.2], [3.3, 2.0], [3.1, 2.1]])


@pytest.mark.parametrize(
    ("ratios", "metrics"),
    [
        # As pandas writes a frame of Olmix, with its index in front.
        (",run,name,index,web,code\n0,x,n,0,0.7,0.3\n1,y,m,1,0.2,0.8\n", ",run,name,index,l\n0,y,m,1,2\n1,x,n,0,1\n"),
        ("run_id,web,code\nx,0.7,0.3\ny,0.2,0.8\n", "run_id,name,l\ny,-,2\nx,-,1\n"),
        # RegMix: shares of three digits that do not quite sum to one.
        ("index,web,code\n1,0.7,0.304\n2,0.198,0.8\n", "index,l\n2,2\n1,1\n"),
        # No key: by their order, and by the one column that both have.
        ("web,code\n0.7,0.3\n0.2,0.8\n", "l\n1\n2\n"),
        ("run,name,web,code\n7,x,0.7,0.3\n8,y,0.2,0.8\n", "name,l\ny,2\nx,1\n"),
        # A key in one file alone; names with spaces around them.
        ("run,web,code\nx,0.7,0.3\ny,0.2,0.8\n", "l\n1\n2\n"),
        ("run,web,code\n x,0.7,0.3\ny ,0.2,0.8\n", "run,l\ny,2\nx,1\n"),
        # The index of a pandas frame that was sorted by its losses.
        (",web,code\n3,0.7,0.3\n5,0.2,0.8\n", ",l\n5,2\n3,1\n"),
        ("index,web,code\n3,0.7,0.3\n5,0.2,0.8\n", ",l\n5,2\n3,1\n"),
    ],
)
def test_reads_what_others_write(read, ratios, metrics):
    found = read(ratios, metrics)
    assert found.domains == ("web", "code") and found.metrics == ("l",)
    np.testing.assert_allclose(found.mixtures, [[0.7, 0.3], [0.2, 0.8]], atol=0.004)
    np.testing.assert_allclose(found.mixtures.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found.losses, [[1.0], [2.0]])


@pytest.mark.parametrize("layout", ["olmix", "regmix"])
def test_what_is_written_is_read_back(tmp_path, layout):
    _, mixtures, losses = swarm(3, 2, 10, 0.01, seed=0)
    before = design.as_swarm(mixtures, losses, domains=["a", "b,c", 'd"e'], metrics=["x", "y"])
    design.write_tables(before, tmp_path / "r.csv", tmp_path / "m.csv", layout=layout)
    after = design.read_tables(tmp_path / "r.csv", tmp_path / "m.csv")
    assert after.domains == before.domains and after.metrics == before.metrics
    np.testing.assert_allclose(after.mixtures, before.mixtures, rtol=1e-12)
    np.testing.assert_allclose(after.losses, before.losses, rtol=1e-12)
    head = (tmp_path / "r.csv").read_text().splitlines()[0]
    assert head.startswith("run,name,index,a" if layout == "olmix" else "index,a")


@pytest.mark.parametrize(
    ("ratios", "metrics", "message"),
    [
        (
            RATIOS.replace("0.7,0.3", "0.7,0.4"),
            METRICS,
            r"line 2 \(run a\): the shares must sum to 1, got 1.1",
        ),
        (RATIOS.replace("0.2,0.8", "-0.2,1.2"), METRICS, "line 3 .*the share of 'web' is -0.2, which is no share"),
        (RATIOS.replace("0.2,0.8", "0.2,"), METRICS, "line 3 .*the share of 'code' is missing"),
        (RATIOS.replace("0.2,0.8", "0.2,much"), METRICS, "line 3 .*'code' must be a number, got 'much'"),
        (RATIOS, METRICS.replace("3.1,", ","), r"metrics.csv, line 2 \(run c\): the loss 'loss/web' is missing"),
        (RATIOS, METRICS.replace("3.1,", "nan,"), "line 2 .*the loss 'loss/web' is missing"),
        (RATIOS, METRICS.replace("3.1,", "inf,"), "line 2 .*the loss 'loss/web' is infinite"),
        (RATIOS, METRICS.replace("3.1,", "3;1,"), "line 2 .*'loss/web' must be a number, got '3;1'"),
        (
            RATIOS,
            METRICS.replace("b,second,1,3.3,2.0\n", ""),
            "line 3: .*metrics.csv has no row of the run 'b'",
        ),
        (
            RATIOS.replace("b,second,1,0.2,0.8\n", ""),
            METRICS,
            "line 4: .*ratios.csv has no row of the run 'b'",
        ),
        (RATIOS.replace("\nb", "\na"), METRICS, "ratios.csv, line 3: the run 'a' stands on line 2 too"),
        (RATIOS, METRICS.replace("\nb", "\na"), "metrics.csv, line 4: the run 'a' stands on line 3 too"),
        (RATIOS.replace("web,code", "web,web"), METRICS, "ratios.csv: the column 'web' stands twice"),
        (RATIOS.replace("0.8", "0.8,1"), METRICS, "ratios.csv, line 3: must have 5 cells like the header, got 6"),
        ("run,web,code\na,0.5,0.5\n", "run,l\na,1\n", "needs several runs of different mixtures, got 1"),
        ("run,web,code\na,0.5,0.5\nb,0.5,0.5\n", "run,l\na,1\nb,2\n", "the domain 'web' is 0.5 in every run"),
        ("run,web,code\n", METRICS, "ratios.csv: must have a header and a row for each run, got 1 lines"),
        ("", METRICS, "got 0 lines"),
        ("run,name\na,b\nc,d\n", METRICS, "ratios.csv: has no column besides run, name"),
        ("web,code\n0.7,0.3\n0.2,0.8\n", METRICS, "share no column .* have 2 and 3 rows; they cannot be matched"),
        # By their order, these would be read as losses of other runs.
        (RATIOS.replace("run,name,index", "run,x,y"), "name,l\nc,3\na,1\nb,2\n", "its runs by 'run' and .* by 'name'"),
        (",web,code\n0,0.7,0.3\n1,0.2,0.8\n", ",l\n2,1\n0,2\n", "ratios.csv, line 3: .* no row of the index '1'"),
        (RATIOS.replace(",", ";"), METRICS, "ratios.csv: must have a header with commas .* got ';' in 'run;name;index"),
        (RATIOS, METRICS.replace(",", "\t"), r"metrics.csv: must have a header with commas .* got '\\t' in"),
    ],
)
def test_a_bad_table_is_named_by_line_or_column(read, ratios, metrics, message):
    with pytest.raises(ValueError, match=message) as error:
        read(ratios, metrics)
    assert "\n" not in str(error.value)


def test_what_is_no_text_and_no_file_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="binary: is no table of comma-separated values"):
        design.read_tables(tmp_path / "binary", tmp_path / "binary")
    (tmp_path / "r.csv").write_text(RATIOS)
    with pytest.raises(ValueError, match=r"metrics must be the file of the losses, got .*, the file of the mix"):
        design.read_tables(tmp_path / "r.csv", tmp_path / ".." / tmp_path.name / "r.csv")
    with pytest.raises(FileNotFoundError, match="none"):
        design.read_tables(tmp_path / "none", tmp_path / "none")
    good = design.as_swarm([[0.5, 0.5], [0.2, 0.8]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="layout must be one of 'olmix', 'regmix', got 'csv'"):
        design.write_tables(good, tmp_path / "r", tmp_path / "m", layout="csv")
    with pytest.raises(ValueError, match="runs must have a name for each of 2 runs, got 1"):
        design.write_tables(good, tmp_path / "r", tmp_path / "m", runs=["a"])


@pytest.mark.parametrize("layout", ["olmix", "regmix"])
def test_parquet_is_written_and_read_back_to_the_bit(tmp_path, layout):
    _, mixtures, losses = swarm(3, 2, 10, 0.01, seed=0)
    before = design.as_swarm(mixtures, losses, domains=["a", "b,c", 'd"e'], metrics=["x", "y"])
    files = tmp_path / "r.parquet", tmp_path / "m.PQ"
    design.write_tables(before, *files, layout=layout)
    after = design.read_tables(*files)
    assert after.domains == before.domains and after.metrics == before.metrics
    np.testing.assert_allclose(after.mixtures, before.mixtures, rtol=1e-15)
    np.testing.assert_array_equal(after.losses, before.losses)
    # One of each: the kind goes by the name of each file.
    design.write_tables(before, files[0], tmp_path / "m.csv", layout=layout)
    np.testing.assert_allclose(design.read_tables(files[0], tmp_path / "m.csv").losses, before.losses, rtol=1e-12)


def test_parquet_of_data_frames_is_read_and_bad_rows_are_named(tmp_path):
    shares = pd.DataFrame({"web": [0.5, 0.2, 0.7], "code": [0.5, 0.8, 0.3]}, index=pd.Index([1, 2, 3], name="index"))
    losses = pd.DataFrame({"index": [3, 1, 2], "loss": [3.0, 1.0, 2.0]})
    shares.to_parquet(tmp_path / "r.parquet")
    losses.to_parquet(tmp_path / "m.parquet")
    np.testing.assert_array_equal(
        design.read_tables(tmp_path / "r.parquet", tmp_path / "m.parquet").losses, [[1.0], [2.0], [3.0]]
    )
    losses.assign(loss=[3.0, None, 2.0]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m.parquet, row 1 \(run 1\): the loss 'loss' is missing"):
        design.read_tables(tmp_path / "r.parquet", tmp_path / "m.parquet")
    losses.assign(index=[3, 1, 1]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match=r"m.parquet, row 2: the index '1' stands on row 1 too"):
        design.read_tables(tmp_path / "r.parquet", tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"m.parquet: is no Parquet table") as error:
        design.read_tables(tmp_path / "r.parquet", tmp_path / "m.parquet")
    assert "\n" not in str(error.value)


def test_parquet_without_its_package_is_named_with_the_extra(tmp_path, monkeypatch):
    good = design.as_swarm([[0.5, 0.5], [0.2, 0.8]], [[1.0], [2.0]])
    design.write_tables(good, tmp_path / "r.parquet", tmp_path / "m.parquet")
    # None in the place of a module makes its import fail.
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r"Parquet needs pyarrow: pip install pyarrow"
    with pytest.raises(ImportError, match=message):
        design.write_tables(good, tmp_path / "r.parquet", tmp_path / "m.parquet")
    with pytest.raises(ImportError, match=message):
        design.read_tables(tmp_path / "r.parquet", tmp_path / "m.parquet")


def test_what_says_nothing_is_left_out_where_that_is_asked_for(tmp_path):
    """Olmix joins both tables by run, and one of its published swarms has domains of share 0 throughout."""
    (tmp_path / "r.csv").write_text(
        ",run,name,index,a:x,a:y,b\n0,r,n,0,0.0,0.5,0.5\n1,s,n,1,0,0.2,0.8\n2,t,n,2,0,0.3,0.7\n"
    )
    (tmp_path / "m.csv").write_text(",run,name,index,l\n0,s,n,0,2\n1,r,n,1,1\n2,t,n,2,\n3,u,n,3,9\n")
    with pytest.raises(ValueError, match=r"m.csv, line 5: .*r.csv has no row of the run 'u'"):
        design.read_tables(tmp_path / "r.csv", tmp_path / "m.csv")
    with pytest.warns(UserWarning) as told:
        found = design.read_tables(tmp_path / "r.csv", tmp_path / "m.csv", drop=True)
    assert found.domains == ("a:y", "b") and found.losses.tolist() == [[1.0], [2.0]]
    texts = [str(warning.message) for warning in told]
    assert "r.csv: runs without a mixture or a loss are left out: 1." in texts[0]
    assert (
        "m.csv: runs without a mixture or a loss are left out: 2." in texts[1]
        and "domains of share 0 in every run are left out: a:x." in texts[2]
    )
    (tmp_path / "m.csv").write_text("run,l\nv,1\nw,2\n")
    with pytest.raises(ValueError, match="have no run in common"):
        design.read_tables(tmp_path / "r.csv", tmp_path / "m.csv", drop=True)


@pytest.fixture
def budgets():
    """Returns a swarm whose runs differ in budget."""
    _, mixtures, losses = swarm(3, 2, 6, 0.01, seed=0)
    return design.as_swarm(
        np.repeat(mixtures, 2, axis=0), np.repeat(losses, 2, axis=0) + [[0.0], [0.1]] * 6, budgets=[1e6, 4e6] * 6
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_budgets_are_written_and_read_back(tmp_path, budgets, suffix):
    files = tmp_path / f"r{suffix}", tmp_path / f"m{suffix}"
    design.write_tables(budgets, *files)
    found = design.read_tables(*files)
    np.testing.assert_array_equal(found.budgets, budgets.budgets)
    np.testing.assert_array_equal(found.losses, budgets.losses)
    assert found.metrics == budgets.metrics


def test_budgets_stand_in_either_file_under_any_name_and_follow_their_runs(tmp_path):
    ratios, metrics = tmp_path / "r.csv", tmp_path / "m.csv"
    ratios.write_text("run,tokens,web,code\na,10,0.7,0.3\nb,20,0.2,0.8\nc,30,0.5,0.5\n")
    metrics.write_text("run,l\nc,3\na,1\nb,\n")
    with pytest.warns(UserWarning, match="left out: 1"):
        found = design.read_tables(ratios, metrics, budget="tokens", drop=True)
    assert found.budgets.tolist() == [10.0, 30.0] and found.domains == ("web", "code")
    ratios.write_text("run,web,code\na,0.7,0.3\nb,0.2,0.8\n")
    metrics.write_text("run,tokens,l\nb,20,2\na,10,1\n")
    found = design.read_tables(ratios, metrics, budget="tokens")
    assert found.budgets.tolist() == [10.0, 20.0] and found.metrics == ("l",)
    # Where all runs have the same, the law needs none.
    metrics.write_text("run,budget,l\nb,20,2\na,20,1\n")
    assert design.read_tables(ratios, metrics).budgets is None


@pytest.mark.parametrize(
    ("ratios", "metrics", "budget", "message"),
    [
        ("run,web,code\na,0.7,0.3\nb,0.2,0.8\n", "run,l\na,1\nb,2\n", "tokens", "neither has the column 'tokens'"),
        (
            "run,budget,web,code\na,1,0.7,0.3\nb,2,0.2,0.8\n",
            "run,budget,l\na,1,1\nb,2,2\n",
            "budget",
            "both have the column 'budget'; one of them must",
        ),
        ("run,web,code\na,0.7,0.3\nb,0.2,0.8\n", "run,budget\na,1\nb,2\n", "budget", "no column besides 'budget'"),
        (
            "run,web,code\na,0.7,0.3\nb,0.2,0.8\n",
            "run,budget,l\na,1,1\nb,x,2\n",
            "budget",
            "line 3 .*'budget' must be",
        ),
        ("run,web,code\na,0.7,0.3\nb,0.2,0.8\n", "run,budget,l\na,1,1\nb,-1,2\n", "budget", "m.csv, line 3 .*got -1"),
    ],
)
def test_bad_budgets_are_named(tmp_path, ratios, metrics, budget, message):
    (tmp_path / "r.csv").write_text(ratios)
    (tmp_path / "m.csv").write_text(metrics)
    with pytest.raises(ValueError, match=message):
        design.read_tables(tmp_path / "r.csv", tmp_path / "m.csv", budget=budget)

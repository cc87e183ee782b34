"""``mixjax show`` as its help shows it, and on a folder that is no result."""

import xarray as xr

from tests.cli.written import CLAIM, dataset, loss


def test_help_teaches(command):
    assert "mixjax show results/quickstart" in command("show", "--help")[1]


def test_show_needs_a_result(command, tmp_path):
    code, out, err = command("show", tmp_path)
    assert (code, out) == (2, "") and "holds no result of `mixjax run`" in err and err.count("\n") == 1


def test_a_home_folder_is_written_out_and_a_bucket_refused(command, write, monkeypatch, tmp_path):
    write("toy", dataset(loss=xr.DataArray([1.0, 2.0], {"seed": [0, 1]}, ("seed",))), claims=[])
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("experiment = 3")
    monkeypatch.chdir("/")
    assert command("show", "~/toy")[0] == 0
    assert "must be a string" in command("run", "~/config.toml")[2]
    for argv in (("show", "gs://b/toy"), ("compare", "gs://b/toy", "--better", "lower"), ("run", "gs://b/a.toml")):
        code, out, err = command(*argv)
        assert (code, out) == (2, "") and "takes a path of the local file system" in err and err.count("\n") == 1


def test_the_page_of_a_result_is_shown_and_made_where_it_is_missing(command, write):
    path = write("toy", dataset(loss=loss()), claims=[CLAIM])
    written = (path / "report.html").read_text()
    assert command("show", "toy", "--html") == (0, "toy/report.html\n", "")
    assert (path / "report.html").read_text() == written
    (path / "report.html").unlink()
    assert command("show", "toy", "--html") == (0, "toy/report.html\n", "")
    made = (path / "report.html").read_text()
    assert CLAIM["name"] in made and "mixjax run toy/config.toml" in made and 'class="band"' in made
    # What the experiment said in its summary is not known any more; all else is the same.
    assert made.count("<tr>") == written.count("<tr>") and made.count("<svg") == written.count("<svg")
    (path / "metrics.npz").write_bytes(b"damaged")
    code, out, err = command("show", "toy", "--html")
    assert (code, out) == (2, "") and "damaged" in err and err.count("\n") == 1

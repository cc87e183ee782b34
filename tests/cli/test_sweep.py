"""``mixjax sweep``: grids, random points, and mistakes in what is varied."""

import json
import shlex

import numpy as np
import pytest

from mixjax.runner import results
from tests.cli.toy import TOY


def test_sweep_over_a_grid_and_over_random_points(mixjax_command, project):
    code, out, err = mixjax_command("sweep", TOY, "--vary", "shift=linear:0:1:3", "--seeds", "6", "--first-seed", "2")
    assert (code, err) == (0, "") and out.splitlines() == [f"results/toy_sweep/{name}" for name in results.FILES]
    value = results.read("results/toy_sweep")["run"].value
    assert value["shift"].values.tolist() == [0.0, 0.5, 1.0] and value.seed.values.tolist() == list(range(2, 8))
    assert json.loads((project / "results/toy_sweep/claims.json").read_text()) == []
    assert (project / "results/toy_sweep/figure.png").read_bytes()[:4] == b"\x89PNG"

    assert mixjax_command("sweep", TOY, "--vary", "shift=0.5,2", "--chunk", "3", "--out", "listed")[0] == 0
    listed = results.read("listed")["run"]
    assert listed.value["shift"].values.tolist() == [0.5, 2.0]
    assert listed.attrs["chunk"] == 3 and listed.attrs["vectorize"] == "map"
    report = (project / "listed/report.md").read_text()
    command = next(line for line in report.splitlines() if line.startswith("mixjax "))
    assert shlex.split(command)[1:] == [
        "sweep",
        TOY,
        "--set",
        "sweep.shift=[0.5,2]",
        "--set",
        "sweep.chunk=3",
        "--out",
        "listed",
    ]
    for argv in (
        ["listed/config.toml", "--out", "relisted"],
        [*shlex.split(command)[2:], "--set", "sweep.vectorize=vmap"],
    ):
        assert mixjax_command("sweep", *argv)[0] == 0
        again = results.read(argv[argv.index("--out") + 1])["run"]
        np.testing.assert_allclose(again.value, listed.value, rtol=1e-6)
    assert again.attrs["vectorize"] == "vmap"
    assert mixjax_command("sweep", TOY, "--random", "5", "--vary", "shift=log:0.1:10", "--out", "drawn")[0] == 0
    drawn = results.read("drawn")["run"].value
    assert drawn.dims == ("point", "seed") and drawn["shift"].shape == (5,) and drawn["shift"].min() >= 0.1
    assert mixjax_command("run", "drawn/config.toml", "--out", "again")[0] == 0
    assert results.read("again")["run"].value.equals(drawn)


@pytest.mark.parametrize("option", [[], ["--random", "4"]])
def test_what_is_varied_replaces_the_configs_axis(mixjax_command, option):
    values = "shift=5,6" if not option else "shift=linear:5:6"
    argv = ["sweep", TOY, "--set", "sweep.points.shift=[1, 2, 3]", "--vary", values, *option, "--dry-run"]
    code, out, err = mixjax_command(*argv)
    assert (code, err) == (0, "") and f"{(4 if option else 2) * 4} runs in about" in out


def test_labels_and_vectors_are_varied(mixjax_command, project):
    argv = ("--vary", "fail=a,b", "--vary", "size_of=[1.0, 2.0], [3.0, 4.0]", "--seeds", "2")
    module = project / f"mod_{project.name}.py"
    module.write_text(module.read_text().replace("size: int = 1", "size: int = 1\n    size_of: tuple[float, ...] = ()"))
    code, out, err = mixjax_command("sweep", TOY, *argv, "--out", "out")
    assert (code, err) == (0, "")
    value = results.read("out")["run"].value
    assert value.dims == ("fail", "size_of", "seed") and value["fail"].values.tolist() == ["a", "b"]
    assert value["size_of_label"].values.tolist() == ["[1.0, 2.0]", "[3.0, 4.0]"]
    code, out, err = mixjax_command("show", "out")
    assert (code, err) == (0, "") and "2 size_of ([1.0, 2.0]" in out.replace("'", "")
    code, out, err = mixjax_command("compare", "out", "--better", "lower", "--along", "size_of")
    assert (code, err) == (0, "") and "[3.0, 4.0]" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sweep", TOY], "mixjax: nothing varies: give --vary KEY=VALUES"),
        (["sweep", TOY, "--vary", "shift"], "write KEY=0.1,0.2 or KEY=log:1e-4:1:20"),
        (["sweep", TOY, "--vary", "shift=log:1:2"], "write KEY=0.1,0.2"),
        (["sweep", TOY, "--vary", "shift=log:1:2:x"], "invalid literal for int() with base 10: 'x'"),
        (["sweep", TOY, "--vary", "shift=cubic:1:2:3"], "unknown scale 'cubic'; known: linear, log"),
        (["sweep", TOY, "--vary", "shfit=1,2"], "unknown key 'shfit'; did you mean 'shift'?"),
        (["sweep", TOY, "--vary", "shift=1,2", "--seeds", "0"], "greater than or equal to 1"),
        (["sweep", TOY, "--vary", "shift=1,2", "--chunk", "big"], "chunk: Input should be a valid integer, got 'big'"),
        (["sweep", TOY, "--vary", "shfit=log:1:2:3"], "mixjax: --vary shfit=log:1:2:3: [sweep]: unknown key 'shfit'"),
        (["sweep", TOY, "--vary", "sweep.shift=1,2"], "KEY is a field of the experiment; leave out 'sweep.'"),
        (["sweep", TOY, "--vary", "seeds=1,2"], "seeds is the sweep's; write --set sweep.seeds=VALUE"),
        (["sweep", TOY, "--vary", "seeds=1,2", "--random", "3"], "seeds is the sweep's; write --set sweep.seeds="),
        (["sweep", TOY, "--vary", "shift=1", "--vary", "shift=2"], "--vary shift: given twice"),
        (
            ["sweep", TOY, "--vary", "shift=1,2,1.0"],
            "[sweep] shift: the values of an axis differ, 1.0 stands there twice",
        ),
        (["sweep", TOY, "--vary", "shift=1,2", "--vary", "size=1,2"], "[sweep] size: sets a shape, a number of steps"),
        (["sweep", TOY, "--vary", "size=1,2", "--dry-run"], "use [[run]] tables, which are compiled one by one"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(mixjax_command, argv, message):
    code, out, err = mixjax_command(*argv)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1

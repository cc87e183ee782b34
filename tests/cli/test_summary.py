"""``mixjax show``: what it says of a result."""

import math

import numpy as np
import xarray as xr

from tests.cli.written import CLAIM, METHODS, dataset, loss


def test_show(command, write):
    values = loss()
    values[0, 1, 1, 1] = math.nan
    bound = xr.DataArray(np.full((2, 4), 0.25), {"gamma": [0.1, math.inf]}, ("gamma", "seed"))
    runs = {"MLP": dataset(loss=values, bound=bound), "CNN, wide": dataset(loss=loss({"sgd": np.zeros(4)}))}
    lost = CLAIM | {"name": "va_wins", "holds": False}
    write("toy", runs, claims=[CLAIM, lost, CLAIM | {"name": "open", "holds": None, "value": None, "stderr": None}])
    code, out, err = command("show", "toy")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("result toy, mod_") and lines[0].endswith(":toy")
    assert lines[1] == "config steps=5, run.MLP.width=1, run.CNN, wide.width=9"
    for line in (
        "runs 2 [[run]] (MLP, 'CNN, wide') × 2 gamma (0.1, inf) × 4 seeds (0 to 3) = 16",
        "not finite MLP: 1 of 8 runs (loss 1)",
        "claims 3: 1 yes, 1 no, 1 undecided",
        "va_wins no 0.5 ± 0.12 0",
        "open undecided 0",
        "time 16 runs in 6 s after 3 s of compilation",
        'in Python import mixjax; runs = mixjax.runner.results.read("toy")',
        "mean ± standard error over seeds; step = 20 (last)",
        "run gamma method loss [nats]",
        "MLP 0.1 sgd -98.25 ± 0.85",
        "MLP 0.1 erma -98.0 ± 1.5 (3 of 4)",
        "CNN, wide inf sgd -88.25 ± 0.85",
        "run gamma bound",
        "MLP inf 0.25 ± 0",
    ):
        assert line in lines
    assert not any(line.startswith("erma_wins") for line in lines)
    exec(lines[[line.split()[0:2] == ["in", "Python"] for line in lines].index(True)].removeprefix("in Python "), {})


def test_show_tells_what_the_last_call_computed(command, write):
    data = dataset(loss=loss())
    data.attrs |= {"num_runs": 8, "num_computed": 3, "run_seconds": 2.0, "compile_seconds": 1.0}
    write("toy", data, claims=[])
    assert "the last 3 of 8 runs in 2 s after 1 s of compilation" in command("show", "toy")[1]


def test_show_stays_short(command, write):
    many = {f"metric_{i}": loss({f"method_{j}": METHODS["va"] for j in range(30)}, [1]) for i in range(6)}
    write("toy", dataset(**many), claims=[])
    lines = command("show", "toy")[1].splitlines()
    assert len(lines) < 65 and max(map(len, lines)) < 130
    assert lines.count("... 10 more rows") == 2 and "claims      none" in lines

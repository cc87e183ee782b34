import json

import numpy as np
import xarray
from PIL import Image

from experiments.guides import figure
from mixjax.runner import results

METHODS = ["vanilla", "va", "erma", "erma_va"]


def made_up():
    """A quickstart's run of two seeds, in which each method's accuracy ends at its number."""
    dims, shape = ("seed", "method", "step"), (2, 4, 3)
    ends = np.array([94.0, 94.5, 97.0, 97.5])[None, :, None] + np.array([-0.5, 0.5])[:, None, None]
    accuracy = np.broadcast_to(ends, shape) - np.array([3.0, 1.0, 0.0])
    shares = np.full(shape, 0.5)
    return xarray.Dataset(
        {"accuracy": (dims, accuracy), "loss_weight": (dims, shares), "sampling_weight": (dims, shares)},
        coords={"seed": [0, 1], "method": METHODS, "step": [10, 500, 1000]},
    )


def test_both_versions_are_drawn_with_the_numbers_that_the_readme_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "read", lambda folder: {"run": made_up()})
    figure.main(["anywhere", "--out", str(tmp_path)])
    corners = {}
    for page in ("light", "dark"):
        image = Image.open(tmp_path / f"quickstart_{page}.png").convert("L")
        assert image.width == 1600  # twice the width at which GitHub shows it
        corners[page] = image.getpixel((0, 0))
    assert corners["dark"] < 40 < 215 < corners["light"]
    written = json.loads((tmp_path / "quickstart.json").read_text())
    assert [written[method]["mean"] for method in METHODS] == [94.0, 94.5, 97.0, 97.5]
    # Two standard errors of two seeds, half a point to each side of the mean.
    assert all(abs(written[method]["two_standard_errors"] - 1.0) < 0.01 for method in METHODS)


def test_the_committed_figure_is_small_and_has_both_versions():
    for page in ("light", "dark"):
        assert (figure.FOLDER / f"quickstart_{page}.png").stat().st_size < 200_000

"""Claims of two domains, in both directions, and a tiny run to the end."""

import json
from pathlib import Path

import numpy as np
import xarray

from experiments.fewer_weight_updates import two_domains, two_domains_report
from mixjax.runner import configs, experiment
from tests.experiments.fewer_weight_updates.constructed import verdicts

FOLDER = Path(__file__).parents[3] / "configs" / "fewer_weight_updates"


def two_domains_results(config, share):
    """A data set whose last weights are ``share(method, target, T)``."""
    made = two_domains_report.experiment(config)
    shares = [[[share(m, u, n) for n in config.horizons] for m in two_domains.METHODS] for u in config.targets]
    others = made.coords["other"]
    predicted = np.ones((3, 2, len(config.horizons), len(others)))
    variables = {
        "share": (("seed", *made.dims["share"]), np.broadcast_to(shares, (3, *np.shape(shares)))),
        "predicted": (("seed", *made.dims["predicted"]), predicted),
        "actual": (("seed", *made.dims["actual"]), predicted + 0.3 * (others - 0.5) ** 2),
    }
    coords = {k: made.coords[k] for k in ("method", "horizon", "other")}
    return {"run": xarray.Dataset(variables, {"seed": np.arange(3), **coords})}, made


def test_claims_of_two_domains():
    config = two_domains.TwoDomains()
    closed, made = two_domains_results(config, lambda m, u, n: two_domains.last_share(m, u, n, config.epsilon))
    assert all(verdicts(made.claims(closed)).values())
    uniform, _ = two_domains_results(config, lambda m, u, n: 0.4)
    found = verdicts(made.claims(uniform))
    assert not any(holds for name, holds in found.items() if name != "counterfactual_order")
    assert found["one_step_fails"] is False and found["vertex_mirror_descent"] is False


def test_a_tiny_run_of_two_domains_to_the_end(tmp_path):
    tiny = ["horizons=[1]", "num_steps=600", "num_rounds=20", "sweep.seeds=3", "sweep.first_seed=3"]
    out = experiment.run(configs.load(FOLDER / "two_domains.toml", tiny), out=tmp_path / "two_domains")
    found = {row["name"]: row for row in json.loads((out / "claims.json").read_text())}
    assert (out / "figure.png").stat().st_size > 10_000
    for name in ("one_step_fails", *(f"closed_form_{method}" for method in two_domains.METHODS)):
        assert found[name]["holds"], found[name]
    np.testing.assert_allclose(found["one_step_fails"]["value"], 0.3765 / 0.0625, rtol=1e-3)

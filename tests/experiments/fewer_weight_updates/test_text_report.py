"""Claims and figure of the language model, on made-up results."""

from pathlib import Path

import numpy as np
import xarray

from experiments.fewer_weight_updates import text_report
from experiments.fewer_weight_updates.text import DOMAINS
from mixjax.runner import configs

CONFIG = Path(__file__).parents[3] / "configs" / "fewer_weight_updates" / "text.toml"


def made_up_results(gain):
    """Every method gains over uniform mixing, more at a longer T and with ERMA over sequences; or loses so."""
    config, rng, results = configs.load(CONFIG), np.random.default_rng(0), {}
    for run in config.runs:
        values, seeds = run.values, 4
        strength = {"uniform": 0, "hypergradient": values.T**0.5, "erma_sequences": 2}.get(values.method, 1)
        lower = gain * strength * (3 if values.rounds_per_update > 1 and gain < 0 else 1)
        losses = 2.8 - lower + rng.normal(0, 1e-3, (seeds, len(values.steps)))
        share = np.full(6, 1 / 6) + lower * np.array([1, -1, 1, -1, 0, 0])
        blocks = np.array(values.blocks)
        variables = {
            "target_loss": (("seed", "step"), losses),
            "retrained_loss": (("seed",), losses[:, -1]),
            "test_losses": (("seed", "domain"), np.repeat(losses[:, -1:], 6, 1)),
            "train_losses": (("seed", "domain"), np.repeat(losses[:, -1:], 6, 1) - 0.1),
            "weights": (("seed", "step", "domain"), np.tile(share, (seeds, len(values.steps), 1))),
            "mean_weights": (("seed", "domain"), share + rng.normal(0, 1e-4, (seeds, 6))),
            "design_effects": (
                ("seed", "domain", "block"),
                blocks ** np.sign(gain) + rng.normal(0, 1e-3, (seeds, 6, len(blocks))),
            ),
        }
        coords = {"seed": np.arange(seeds), "step": list(values.steps), "domain": list(DOMAINS), "block": blocks}
        results[run.name] = xarray.Dataset(variables, coords)
    return results


def test_claims_can_hold_and_fail():
    better, worse = (
        {claim.name: claim for claim in text_report.claims(made_up_results(gain))} for gain in (0.02, -0.02)
    )
    assert set(better) == set(worse) and len(better) > 20
    assert all(claim.statement.startswith("ours") for claim in better.values())
    for name in better:
        assert better[name].holds, name
        assert worse[name].holds is False or name == "erma_weights_differ", name
    assert "python 0.19" in better["t_1_helps"].note
    same = {claim.name: claim.holds for claim in text_report.claims(made_up_results(0.0))}
    assert same["one_round_in_16_cost"] and same["erma_weights_differ"] is False and same["t_64_helps"] is None


def test_the_figure_shows_every_run():
    figure = text_report.figure(made_up_results(0.02))
    assert len(figure.axes) == 6
    mixing = [label.get_text() for label in figure.axes[2].get_legend().get_texts()]
    erma = [label.get_text() for label in figure.axes[4].get_legend().get_texts()]
    assert set(mixing + erma) == {run.name for run in configs.load(CONFIG).runs}
    assert all(axis.get_ylabel() for axis in figure.axes)

"""The costs of BraTS: an estimate by operations, and a state that is saved whole."""

from experiments.hardness_sampling import brats_costs
from experiments.hardness_sampling.segmentation_training import Segmentation


def test_the_time_of_the_patch_that_is_not_run_follows_from_its_operations(monkeypatch, capsys):
    asked = []

    def step_cost(settings, patch, num_steps):
        asked.append((settings.num_levels, patch, num_steps))
        return brats_costs.Cost(patch, 1e9 * patch**3, 10**9, [9.0, patch / 8, 0.0][:num_steps])

    monkeypatch.setattr(brats_costs, "step_cost", step_cost)
    monkeypatch.setattr(brats_costs, "save_seconds", lambda settings, times: (2_000_000, [0.5] * (times - 1) + [1.0]))
    brats_costs.main(["16", "32"])
    # The network and the last patch are the config's.
    assert asked == [(6, 16, 3), (6, 32, 3), (6, 128, 0)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "| 16³ | 4.1e+03 | 1 | 2 |",
        "| 32³ | 3.28e+04 | 1 | 4 |",
        "| 128³ | 2.1e+06 | 1 | 2.6e+02 (estimate) |",
    ]
    assert lines[-1] == "state: 2 MB; a save takes 0.5 to 1 s"


def test_the_whole_state_is_saved_each_time():
    settings = Segmentation(num_levels=2, width=2, num_heads=1)
    num_bytes, seconds = brats_costs.save_seconds(settings, 2)
    wide, _ = brats_costs.save_seconds(Segmentation(num_levels=2, width=4, num_heads=1), 1)
    # Parameters and their momentum, of four bytes; those of convolutions grow with the square of the width.
    assert len(seconds) == 2 and min(seconds) > 0 and 2000 < num_bytes < 40_000
    assert 2 * num_bytes < wide < 4 * num_bytes

"""Tests the summaries and the verdicts on made-up results of real data."""

import numpy as np
import xarray

from experiments.resampling_reweighting import real_data_report


def records(curves, times, target=1.0):
    """A data set of losses by method, the same steps 0, 100, ... and a little noise over the seeds."""
    loss = np.stack(list(curves.values())) + 1e-3 * np.arange(4)[:, None, None]
    shape = (4, len(curves), 2)
    ratio = np.ones(loss.shape) * np.array([1.0, 0.5, 2.0, np.nan])[: len(curves), None]
    return xarray.Dataset(
        {
            "loss": (("seed", "method", "step"), loss),
            "variance_ratio": (("seed", "method", "step"), ratio),
            "possible_ratio": (("seed", "when", "scheme"), np.full((4, 2, 2), 0.3)),
            "milliseconds": (("seed", "method", "turn"), np.broadcast_to(np.array(times)[:, None], shape)),
            "target": (("seed",), np.full(4, target)),
        },
        {
            "seed": range(4),
            "method": list(curves),
            "step": 100 * np.arange(loss.shape[-1]),
            "when": ["start", "end"],
            "scheme": ["rr", "va"],
        },
    )


def test_steps_to_the_target_are_those_of_the_first_crossing():
    data = records({"sgd": [3.0, 2.0, 0.0, 2.0], "rr": [0.5, 2.0, 0.0, 2.0], "va": [3.0, 2.0, 2.0, 1.5]}, [1, 1, 1])
    steps = real_data_report.steps_to_target(data).isel(seed=0)
    np.testing.assert_allclose(steps, [150.0, 0.0, np.nan])
    late = np.log(300) - np.log(150)  # not arrived counts as the last step
    np.testing.assert_allclose(real_data_report.log_ratios(data, "va")[0], late)


def test_equal_time_is_that_of_all_steps_of_uniform_draws():
    data = records({"sgd": [3.0, 2.0, 1.0], "rr": [4.0, 2.0, 0.0], "va": [4.0, 2.0, 0.0]}, [1.0, 2.0, 0.5])
    assert real_data_report.at_equal_time(data, "rr").isel(seed=0).item() == 2.0  # half of the 200 steps
    assert real_data_report.at_equal_time(data, "va").isel(seed=0).item() == 0.0  # no more than all of them


def test_verdicts():
    curves = {"sgd": [3.0, 2.0, 0.5], "rr": [3.0, 1.5, 0.3], "va": [3.0, 2.5, 1.5], "hardness": [3.0, 0.5, 0.5]}
    found = {c.name: c for c in real_data_report.claims({"Toy": records(curves, [1.0, 2.0, 1.0, 1.0])})}
    assert found["toy_rr_fewer_steps"].holds is True and found["toy_rr_less_time"].holds is False
    assert found["toy_rr_lower_loss"].holds is False  # half the steps
    assert found["toy_rr_less_variance"].holds is True and found["toy_va_less_variance"].holds is False
    assert "toy_hardness_less_variance" not in found and found["toy_hardness_fewer_steps"].holds is True
    assert found["toy_va_fewer_steps"].holds is False and "0 of 4 runs" in found["toy_va_fewer_steps"].note

"""Tests which step counts as the largest stable one."""

import numpy as np
import xarray

from experiments.hardness_sampling import wide_relu_report


def test_the_largest_stable_step():
    steps, size = [1.0, 2.0, 4.0], (1, 3, 2, 1, 10)  # beta, step, seed, method, record
    dims = ("beta", "step_size", "seed", "method", "record")
    grad_norm, robust = np.full(size, 0.01), np.full(size, 0.05)
    robust[..., 0] = 1.0
    grad_norm[0, 2, 0, 0, -2] = 0.2  # seed 0: the largest step comes back above epsilon at the end
    robust[0, 1, 0, 0, -1] = 0.3  # and the second has no gradient, but the loss stays high
    grad_norm[0, :, 1] = 0.2  # seed 1: none
    data = xarray.Dataset({"grad_norm": (dims, grad_norm), "robust": (dims, robust)}, {"step_size": steps})
    found = wide_relu_report.log_largest_step(data, 0.05)
    np.testing.assert_allclose(found.squeeze(), [0.0, -1.0])

"""The closed forms of two domains, and the settings' checks."""

import numpy as np
import pytest

from experiments.fewer_weight_updates import two_domains


@pytest.mark.parametrize(
    ("T", "share", "left"),
    [(1, 0.863636, 3.765e-1), (2, 0.760504, 2.606e-1), (5, 0.5642, 9.872e-2), (20, 0.298542, 2.356e-3)],
)
def test_closed_forms_of_two_domains(T, share, left):
    """By hand: u = (1, -0.5), epsilon 0.1, so that p* = 0.25 and uniform weights leave 0.0625."""
    target = (1.0, -0.5)
    found = two_domains.last_share("mirror_descent", target, T, 0.1)
    np.testing.assert_allclose([found, two_domains.excess(found, target)], [share, left], rtol=1e-3)
    assert two_domains.best_share(target) == 0.25 and two_domains.excess(0.5, target) == 0.0625
    assert two_domains.last_share("implicit", target, T, 0.1) == 0.25
    np.testing.assert_allclose(two_domains.last_share("alignment", target, T, 0.1), 0.863636, rtol=1e-5)


def test_closed_forms_at_a_vertex_and_with_resets():
    shares = [two_domains.last_share("projected_gradient", (1.3, -1.5), T, 0.1) for T in (1, 20, 80)]
    assert shares == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(two_domains.last_share("reset", (1.0, -0.5), 1, 0.1), 0.9406, rtol=1e-4)


def test_horizons_of_two_domains_are_checked():
    with pytest.raises(ValueError, match="horizons must begin with 1"):
        two_domains.TwoDomains(horizons=(2, 4))
    with pytest.raises(ValueError, match="leave 100 rounds in 700 steps"):
        two_domains.TwoDomains(num_steps=700, horizons=(1, 8))

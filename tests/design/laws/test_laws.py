"""Laws that hold for every law: predictions, derivatives, and fits that find the parameters again."""

import numpy as np
import pytest

from mixjax.design.laws import LAWS
from tests.design.synthetic import parameters

RNG = np.random.default_rng(1)
MIXTURES = RNG.dirichlet(np.ones(3), 60)
INFINITE = np.full(2, np.inf)


def params_of(law):
    """Draws parameters that a swarm may have."""
    rng = np.random.default_rng(2)
    if law.name == "log_linear":
        return parameters(3, 2, rng)
    if law.name == "power":
        return np.concatenate([[[1.0, 0.4], [2.0, 1.3]], rng.uniform(0.1, 2.0, (2, 3))], axis=1)
    return rng.uniform(1.0, 2.0, (2, law.num_parameters(3)))


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
class TestEveryLaw:
    def test_has_as_many_parameters_as_it_says(self, law):
        fitted = law.fit(MIXTURES, law.predict(params_of(law), MIXTURES), INFINITE, None)
        assert fitted.shape == (2, law.num_parameters(3)) == params_of(law).shape
        assert LAWS[law.name] is law

    def test_fits_losses_of_its_own_exactly(self, law):
        losses = law.predict(params_of(law), MIXTURES)
        fitted = law.fit(MIXTURES, losses, INFINITE, None)
        fresh = np.random.default_rng(3).dirichlet(np.ones(3), 20)
        expected = law.predict(params_of(law), fresh)
        np.testing.assert_allclose(law.predict(fitted, fresh), expected, atol=2e-3 * np.ptp(expected))

    def test_does_not_depend_on_the_unit_of_the_losses(self, law):
        losses = law.predict(params_of(law), MIXTURES) + 0.01 * RNG.normal(size=(2, 60))
        plain = law.predict(law.fit(MIXTURES, losses, INFINITE, None), MIXTURES)
        changed = law.predict(law.fit(MIXTURES, 100.0 * losses - 7.0, INFINITE, None), MIXTURES)
        np.testing.assert_allclose(changed, 100.0 * plain - 7.0, atol=0.02)

    def test_a_start_gives_the_same_fit(self, law):
        losses = law.predict(params_of(law), MIXTURES) + 0.01 * RNG.normal(size=(2, 60))
        fitted = law.fit(MIXTURES, losses, INFINITE, None)
        again = law.fit(MIXTURES, losses, INFINITE, fitted)
        np.testing.assert_allclose(law.predict(again, MIXTURES), law.predict(fitted, MIXTURES), atol=5e-3)

    def test_slopes_are_derivatives_by_the_shares(self, law):
        params = np.stack([params_of(law), params_of(law) + 0.1])
        mixture, step = MIXTURES[:2], 1e-6
        values, slopes = law.slopes(params, mixture)
        for b in range(2):
            np.testing.assert_allclose(values[b], law.predict(params[b], mixture[b : b + 1])[:, 0], rtol=1e-9)
            # Along the simplex: only there is a law defined.
            for d in range(2):
                moved = mixture[b : b + 1].copy()
                moved[0, d] += step
                moved[0, 2] -= step
                numeric = (law.predict(params[b], moved)[:, 0] - values[b]) / step
                np.testing.assert_allclose(slopes[b, :, d] - slopes[b, :, 2], numeric, rtol=1e-3, atol=1e-4)

    def test_jacobian_is_the_derivative_by_the_parameters(self, law):
        params = params_of(law)
        plain = law.predict(params, MIXTURES)
        jacobian = np.broadcast_to(law.jacobian(params, MIXTURES), (*plain.shape, params.shape[1]))
        for p in range(params.shape[1]):
            moved = params.copy()
            moved[:, p] += 1e-6
            numeric = (law.predict(moved, MIXTURES) - plain) / 1e-6
            np.testing.assert_allclose(jacobian[..., p], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("law", [law for law in LAWS.values() if law.is_convex], ids=lambda law: law.name)
def test_a_law_is_convex_where_it_says_so(law):
    first, second = MIXTURES[:30], MIXTURES[30:]
    params = params_of(law)
    between = 0.5 * (law.predict(params, first) + law.predict(params, second))
    assert (law.predict(params, 0.5 * (first + second)) <= between + 1e-12).all()

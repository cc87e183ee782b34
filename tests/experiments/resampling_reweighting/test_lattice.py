"""Tests the exact random walk of paper 003's example, and lemma 2.1's law beside it."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate

from experiments.resampling_reweighting import lattice, two_slopes


@pytest.mark.parametrize("scheme", two_slopes.METHODS)
def test_every_move_is_unbiased(scheme):
    for theta in (
        Fraction(-2),
        Fraction(-1),
        Fraction(-1, 3),
        Fraction(0),
        Fraction(1, 9),
        Fraction(1, 5),
        Fraction(3),
    ):
        gradients = lattice.slopes(theta, Fraction(1, 10), Fraction(5))
        moves = lattice.moves(scheme, (Fraction(2, 5), Fraction(3, 5)), gradients, Fraction(5))
        mean = sum(p * step for p, step in moves)
        assert mean == -(Fraction(2, 5) * gradients[0] + Fraction(3, 5) * gradients[1])
        assert sum(p for p, _ in moves) == 1


def test_section_2s_numbers():
    moves = lattice.moves("static", (Fraction(2, 5), Fraction(3, 5)), (Fraction(1), Fraction(-5)), Fraction(5))
    (f1, step1), (f2, step2) = moves
    np.testing.assert_allclose([float(f1), float(f2)], [0.117647, 0.882353], rtol=1e-5)
    np.testing.assert_allclose([float(step1), float(step2)], [-3.4, 0.68 * 5], rtol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "expected"),  # at 0.04 within 100, 1000 and 10000 steps, from an independent computation
    [("sgd", (0.315, 0.951, 1.0)), ("static", (0.0, 0.0001, 0.0006)), ("per_term", (0.006, 0.081, 0.578))],
)
def test_exit_probabilities(scheme, expected):
    chain = lattice.walk(scheme, Fraction(1, 25))
    np.testing.assert_allclose(chain.chances.sum(1), 1.0)
    assert (np.diff(chain.positions) > 0).all()
    np.testing.assert_allclose(lattice.exit_probabilities(chain, -0.5, [100, 1000, 10_000]), expected, atol=6e-4)


@pytest.mark.parametrize(
    ("scheme", "rate", "share"), [("sgd", 1, 0.2020), ("sgd", 2, 0.3680), ("static", Fraction(1, 5), 0.0092)]
)
def test_the_stationary_law_stays_as_it_is(scheme, rate, share):
    chain = lattice.walk(scheme, Fraction(rate))
    law = lattice.stationary(chain)
    np.testing.assert_allclose(lattice._forward(chain, law), law, atol=1e-12)
    np.testing.assert_allclose(law[chain.positions > 0].sum(), share, atol=1e-4)
    assert law.min() >= 0


def test_lemma_2_1_is_the_law_of_its_own_equation_and_not_of_the_walk():
    def density(theta, rate):
        first, second = (abs(theta + 1) - 1, -0.1 * theta) if theta <= 0 else (0.1 * theta, abs(5 * theta - 1) - 1)
        noise = 0.4 * 0.6 * rate / 2 * (1 if theta <= 0 else 25)
        return np.exp(-(0.4 * first + 0.6 * second) / noise) / (1 if theta <= 0 else 25)

    for rate in (0.5, 1.0, 4.0):
        left, right = (
            integrate.quad(density, *ends, (rate,), points=[kink], limit=200)[0]
            for ends, kink in (((-30, 0), -1), ((1e-12, 300), 0.2))
        )
        np.testing.assert_allclose(lattice.gibbs_mass_right(rate), right / (left + right), rtol=1e-6)
    # Zero flux at either side and a continuous sigma^2 p at 0, hence stationary: p' sigma^2 / 2 = -V' p.
    step = 1e-6
    for theta, sigma2, slope in ((-0.5, 0.24, 0.4 - 0.06), (0.1, 0.24 * 25, 0.04 - 3.0)):
        change = (density(theta + step, 1.0) - density(theta - step, 1.0)) / (2 * step)
        np.testing.assert_allclose(change * sigma2 / 2, -slope * density(theta, 1.0), rtol=1e-4)
    np.testing.assert_allclose(density(-1e-12, 1.0) * 0.24, density(1e-12, 1.0) * 0.24 * 25, rtol=1e-6)
    exact = lattice.stationary(lattice.walk("sgd", Fraction(1)))
    assert lattice.gibbs_mass_right(1.0) < 0.03 * exact[lattice.walk("sgd", Fraction(1)).positions > 0].sum()

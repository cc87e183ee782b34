"""Computes the piecewise-linear example of paper 003, section 2.1, exactly, as a random walk on a lattice.

With rational settings every step is a multiple of one unit, so that the parameter moves on a lattice. Positions and
steps are fractions and probabilities are float64. No random number is drawn.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Literal

import numpy as np

__all__ = [
    "Scheme",
    "Walk",
    "exit_probabilities",
    "gibbs_mass_right",
    "moves",
    "slopes",
    "stationary",
    "walk",
]

Scheme = Literal["sgd", "static", "per_term"]


@dataclasses.dataclass(frozen=True)
class Walk:
    """Holds a Markov chain whose positions are the places of a lattice that can be reached from its start.

    Attributes:
        positions: the values of the parameter, ascending, float64 ``[m]``.
        start: the index of the first parameter.
        targets: the index of the position to which each of the two terms leads, int ``[m, 2]``.
        chances: the probability with which each of the two terms is drawn, float64 ``[m, 2]``.
    """

    positions: np.ndarray
    start: int
    targets: np.ndarray
    chances: np.ndarray


def slopes(theta: Fraction, epsilon: Fraction, steepness: Fraction) -> tuple[Fraction, Fraction]:
    """Returns the derivatives of both terms. At 0 they are those of the left branch, and at a minimum zero."""
    if theta <= 0:
        return _sign(theta + 1) * Fraction(1), -epsilon
    return epsilon, _sign(steepness * theta - 1) * steepness


def moves(scheme: Scheme, shares, gradients, steepness) -> list[tuple[float, Fraction]]:
    """Returns, for each of the two terms, the probability of drawing it and the step per unit of learning rate."""
    if scheme == "static":
        scores = (Fraction(1), steepness)
    elif scheme == "per_term":
        scores = tuple(map(abs, gradients))
    else:
        scores = (Fraction(1), Fraction(1))
    masses = [a * s for a, s in zip(shares, scores, strict=True)]
    if not sum(masses):
        # All gradients are zero: the step is zero as well, whichever term is drawn.
        masses = list(shares)
    q = [mass / sum(masses) for mass in masses]
    return [(p, -a / p * g if p else Fraction(0)) for p, a, g in zip(q, shares, gradients, strict=True)]


def walk(
    scheme: Scheme,
    learning_rate: Fraction,
    first: Fraction = Fraction(1, 4),
    share: Fraction = Fraction(2, 5),
    epsilon: Fraction = Fraction(1, 10),
    steepness: Fraction = Fraction(5),
) -> Walk:
    """Builds the chain of a scheme, on all positions that can be reached.

    Args:
        scheme: ``"sgd"``, ``"static"`` for section 2's ``f`` and ``w``, or ``"per_term"`` for eq. 3.5.
        learning_rate: a fraction.
        first: the first parameter.
        share: ``a_1``, the share of the first term in the loss.
        epsilon: ``ε``, the slope of either term where the other one acts.
        steepness: ``K``, the slope of the second term.
    """
    shares = (share, 1 - share)
    leads = {}
    waiting = [first]
    while waiting:
        theta = waiting.pop()
        if theta in leads:
            continue
        steps = moves(scheme, shares, slopes(theta, epsilon, steepness), steepness)
        leads[theta] = [(p, theta + learning_rate * step) for p, step in steps]
        # A position that is reached with probability 0 only must not enter the chain.
        waiting += [to for p, to in leads[theta] if p]
    order = sorted(leads)
    rank = {theta: i for i, theta in enumerate(order)}
    targets, chances = np.zeros((len(order), 2), int), np.zeros((len(order), 2))
    for theta, both in leads.items():
        for number, (p, to) in enumerate(both):
            targets[rank[theta], number] = rank.get(to, rank[theta])
            chances[rank[theta], number] = float(p)
    return Walk(np.array([float(theta) for theta in order]), rank[first], targets, chances)


def exit_probabilities(chain: Walk, below: float, steps: list[int]) -> list[float]:
    """Returns the probability of having been below a position by each of some numbers of steps, which ascend."""
    inside = chain.positions >= below
    mass, found = np.zeros(len(inside)), []
    mass[chain.start] = 1.0
    for step in range(1, max(steps) + 1):
        mass = _forward(chain, mass) * inside
        if step in steps:
            found.append(1.0 - mass.sum())
    return found


def stationary(chain: Walk) -> np.ndarray:
    """Returns the stationary law of a chain, ``[m]``.

    It uses the elimination of Grassmann, Taksar and Heyman, which subtracts nothing and so loses no digits.

    Raises:
        ValueError: the chain has more than 4,000 positions, whose matrix would be too large.
    """
    m = len(chain.positions)
    if m > 4000:
        raise ValueError(f"the chain must have at most 4000 positions, got {m}.")
    matrix = np.zeros((m, m))
    for number in range(2):
        np.add.at(matrix, (np.arange(m), chain.targets[:, number]), chain.chances[:, number])
    reach = [max((abs(i - j) for j in np.flatnonzero(matrix[i])), default=0) for i in range(m)]
    # No step is longer than `width`, so that elimination fills in no entry farther from the diagonal than that.
    width = max(reach)
    for i in range(m - 1, 0, -1):
        low = max(0, i - width)
        out = matrix[i, low:i].sum()
        if out > 0:
            matrix[low:i, i] /= out
            matrix[low:i, low:i] += np.outer(matrix[low:i, i], matrix[i, low:i])
    law = np.zeros(m)
    law[0] = 1.0
    for i in range(1, m):
        low = max(0, i - width)
        law[i] = law[low:i] @ matrix[low:i, i]
        # The ratio of two entries can exceed the range of float64 over the whole chain.
        law[: i + 1] /= law[: i + 1].max()
    return law / law.sum()


def gibbs_mass_right(learning_rate: float, share: float = 0.4, epsilon: float = 0.1, steepness: float = 5.0) -> float:
    """Returns the mass that lemma 2.1's density has at positive parameters, integrated in closed form."""
    # On the left the density is exp(-V / noise). On the right the noise is K² times as large, and the density is
    # divided by K².
    noise = share * (1 - share) * learning_rate / 2
    other = 1 - share
    left_down, left_up = share - epsilon * other, share + epsilon * other
    # The loss is 0 at 0, -depth at -1 and -deep at 1 / K.
    depth = share * 1 - epsilon * other
    mass_left = noise / left_down * math.expm1(depth / noise) + noise / left_up * math.exp(depth / noise)
    wide = noise * steepness**2
    right_down, right_up = other * steepness - epsilon * share, other * steepness + epsilon * share
    deep = other - epsilon * share / steepness
    mass_right = wide / right_down * math.expm1(deep / wide) + wide / right_up * math.exp(deep / wide)
    mass_right /= steepness**2
    return mass_right / (mass_left + mass_right)


def _forward(chain, mass):
    new = np.zeros_like(mass)
    for number in range(2):
        np.add.at(new, chain.targets[:, number], mass * chain.chances[:, number])
    return new


def _sign(x):
    return (x > 0) - (x < 0)

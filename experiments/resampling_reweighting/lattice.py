"""The piecewise-linear example of paper 003, section 2.1, as what it is: a random walk on a lattice, exactly.

With rational settings every step is a multiple of one unit, so that the parameter moves on a lattice. Positions and
steps are fractions, probabilities float64; no random number is drawn.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Literal

import numpy as np

Scheme = Literal["sgd", "static", "per_term"]


@dataclasses.dataclass(frozen=True)
class Walk:
    """A Markov chain on ``start + unit * k``.

    Attributes:
        positions: float64 ``[m]``, ascending.
        start: index of the first parameter.
        targets: int ``[m, 2]``, where either term leads.
        chances: float64 ``[m, 2]``, with which probability.
    """

    positions: np.ndarray
    start: int
    targets: np.ndarray
    chances: np.ndarray


def slopes(theta: Fraction, epsilon: Fraction, steepness: Fraction) -> tuple[Fraction, Fraction]:
    """Derivatives of both terms; at a kink, of the left branch at 0 and zero at a minimum."""
    if theta <= 0:
        return _sign(theta + 1) * Fraction(1), -epsilon
    return epsilon, _sign(steepness * theta - 1) * steepness


def moves(scheme: Scheme, shares, gradients, steepness) -> list[tuple[float, Fraction]]:
    """What a step does, per unit of the learning rate: (probability, step) for each term."""
    if scheme == "static":
        scores = (Fraction(1), steepness)
    elif scheme == "per_term":
        scores = tuple(map(abs, gradients))
    else:
        scores = (Fraction(1), Fraction(1))
    masses = [a * s for a, s in zip(shares, scores, strict=True)]
    masses = masses if sum(masses) else list(shares)
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
    """The chain of a scheme.

    Args:
        scheme: ``"sgd"``; ``"static"``, section 2's ``f`` and ``w``; ``"per_term"``, eq. 3.5.
        learning_rate: a fraction.
        first: the first parameter.
        share: ``a_1``.
        epsilon: ``ε``.
        steepness: ``K``.

    Returns:
        The walk, on all positions that can be reached.
    """
    shares, places, found = (share, 1 - share), {}, []
    waiting = [first]
    while waiting:
        theta = waiting.pop()
        if theta in places:
            continue
        places[theta] = len(found)
        steps = moves(scheme, shares, slopes(theta, epsilon, steepness), steepness)
        found.append((theta, [(p, theta + learning_rate * step) for p, step in steps]))
        waiting += [to for p, (_, to) in zip((q for q, _ in steps), found[-1][1], strict=True) if p]
    order = sorted(places)
    rank = {theta: i for i, theta in enumerate(order)}
    targets, chances = np.zeros((len(order), 2), int), np.zeros((len(order), 2))
    for theta, leads in found:
        for number, (p, to) in enumerate(leads):
            targets[rank[theta], number] = rank.get(to, rank[theta])
            chances[rank[theta], number] = float(p)
    return Walk(np.array([float(theta) for theta in order]), rank[first], targets, chances)


def exit_probabilities(chain: Walk, below: float, steps: list[int]) -> list[float]:
    """Probability of having been below a position by each of some steps, ascending."""
    inside = chain.positions >= below
    mass, found = np.zeros(len(inside)), []
    mass[chain.start] = 1.0
    for step in range(1, max(steps) + 1):
        mass = _forward(chain, mass) * inside
        if step in steps:
            found.append(1.0 - mass.sum())
    return found


def stationary(chain: Walk) -> np.ndarray:
    """The stationary law, by Grassmann, Taksar and Heyman's elimination, which subtracts nothing.

    Raises:
        ValueError: more than 4,000 positions, whose matrix would be too large.
    """
    m = len(chain.positions)
    if m > 4000:
        raise ValueError(f"at most 4000 positions, got {m}")
    matrix = np.zeros((m, m))
    for number in range(2):
        np.add.at(matrix, (np.arange(m), chain.targets[:, number]), chain.chances[:, number])
    reach = [max((abs(i - j) for j in np.flatnonzero(matrix[i])), default=0) for i in range(m)]
    width = max(reach)  # steps are bounded, and so is fill-in
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
        law[: i + 1] /= law[: i + 1].max()
    return law / law.sum()


def gibbs_mass_right(learning_rate: float, share: float = 0.4, epsilon: float = 0.1, steepness: float = 5.0) -> float:
    """Lemma 2.1's mass at positive parameters, its density integrated in closed form piece by piece."""
    noise = share * (1 - share) * learning_rate / 2  # the density is exp(-V / noise), or / K^2 on the right
    other = 1 - share
    left_down, left_up = share - epsilon * other, share + epsilon * other
    depth = share * 1 - epsilon * other  # V(-1) = -depth
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

"""Tests counts that carry over, in NumPy: exact sums, the bound, and an adversary who searches for worse."""

import subprocess
import sys

import numpy as np
import pytest

from mixjax.samplers.host_carried import UNIT, carry_counts, fixed_point


def harmonic(num_domains):
    return np.sum(1.0 / np.arange(1, num_domains + 1))


def run(weights, batch_size):
    """Yields the counts and carries of a sequence of weights, after checking what holds for every batch."""
    carry = None
    for q in weights:
        shares = fixed_point(q, batch_size)
        carry = np.zeros(len(q), np.int64) if carry is None else carry
        counts, after = carry_counts(carry, shares, batch_size)
        assert shares.sum() == batch_size * UNIT and (shares >= 0).all()
        assert counts.sum() == batch_size and (counts >= 0).all()
        assert after.sum() == 0 and (after == carry + shares - counts * UNIT).all()
        assert after.min() > -UNIT
        assert after.max() <= (harmonic(len(q)) - 1.0) * UNIT + len(q)
        carry = after
        yield counts, after


def test_fixed_shares_are_followed_by_hand():
    drawn = [counts.tolist() for counts, _ in run([[0.5, 0.375, 0.125]] * 4, 2)]
    assert drawn == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]]


def test_a_tiny_weight_gets_its_row_when_it_is_due():
    q, batch_size = [0.5, 0.499999, 1e-6], 256
    steps = [t for t, (counts, _) in enumerate(run([q] * 4000, batch_size)) if counts[2]]
    # Owed 2.56e-4 rows a batch, the domain has the largest remainder once that is above the other two's.
    assert len(steps) == 1 and 1000 < steps[0] < 4000


def test_a_weight_of_zero_gets_nothing():
    rng = np.random.default_rng(0)
    for counts, carry in run((np.append(rng.dirichlet(np.ones(4)), 0.0) for _ in range(500)), 3):
        assert counts[4] == 0 and carry[4] == 0


@pytest.mark.parametrize(("num_domains", "batch_size"), [(2, 1), (7, 1), (7, 64), (200, 1), (200, 256), (2000, 100)])
@pytest.mark.parametrize("kind", ["fixed", "drifting", "Dirichlet", "sparse"])
def test_the_bound_holds_for_usual_weights(num_domains, batch_size, kind):
    rng = np.random.default_rng(num_domains + batch_size)

    def weights():
        logits = rng.normal(size=num_domains)
        for _ in range(100):
            if kind == "drifting":
                logits += 0.3 * rng.normal(size=num_domains)
            if kind in ("fixed", "drifting"):
                yield np.exp(logits) / np.exp(logits).sum()
            else:
                yield rng.dirichlet(np.full(num_domains, 1.0 if kind == "Dirichlet" else 0.02))

    for _ in run(weights(), batch_size):
        pass


@pytest.mark.parametrize("num_domains", [2, 3, 7, 50, 200])
def test_the_bound_is_reached_by_spreading_over_the_domains_not_yet_served(num_domains):
    unserved = np.ones(num_domains, bool)
    carry = np.zeros(num_domains, np.int64)
    for _ in range(num_domains - 1):
        counts, carry = carry_counts(carry, fixed_point(unserved / unserved.sum(), 1), 1)
        unserved &= counts == 0
    assert carry.max() / UNIT == pytest.approx(harmonic(num_domains) - 1.0, abs=1e-4)


def taken_away(carry):
    """Gives all weight to the half of the domains that is owed most, so that what the others got is of no use."""
    behind = carry >= np.sort(carry)[-max(carry.size // 2, 1)]
    return behind / behind.sum()


def brought_back(carry):
    """Gives all weight to the domains that had most, which are to get the next rows, but are owed nothing."""
    ahead = carry <= np.sort(carry)[max(carry.size // 2, 1) - 1]
    return ahead / ahead.sum()


@pytest.mark.parametrize(("num_domains", "batch_size"), [(2, 1), (7, 3), (200, 1), (200, 256), (2000, 1), (2000, 100)])
@pytest.mark.parametrize("moves", [(taken_away,), (brought_back,), (taken_away, taken_away, brought_back)])
def test_the_bound_holds_against_weights_that_follow_what_is_owed(num_domains, batch_size, moves):
    carry = np.zeros(num_domains, np.int64)

    def weights():
        for step in range(150):
            yield moves[step % len(moves)](carry)

    for _, after in run(weights(), batch_size):
        carry = after


@pytest.mark.parametrize(("num_domains", "batch_size"), [(3, 1), (5, 2), (8, 3)])
def test_no_searched_sequence_of_weights_breaks_the_bound(num_domains, batch_size):
    """An adversary keeps the best of many random next weights, judged by how far behind the worst domain is."""
    rng = np.random.default_rng(1)
    carry, worst = np.zeros(num_domains, np.int64), 0.0
    for _ in range(60):
        candidates = [rng.dirichlet(np.full(num_domains, a)) for a in (0.1, 1.0, 10.0) for _ in range(15)]
        # Also what the proof says is worst: nothing for the domains that were served last.
        behind = carry > np.median(carry)
        candidates.append(behind / behind.sum() if behind.any() else np.full(num_domains, 1.0 / num_domains))
        after = [carry_counts(carry, fixed_point(q, batch_size), batch_size)[1] for q in candidates]
        carry = max(after, key=lambda c: np.sort(c)[-2:].sum())
        worst = max(worst, carry.max() / UNIT)
        assert carry.min() > -UNIT
    assert 0.4 * (harmonic(num_domains) - 1) < worst <= harmonic(num_domains) - 1 + 1e-6


@pytest.mark.parametrize(
    ("weights", "batch_size", "message"),
    [
        ([0.5, 0.6], 4, "sum to 1, got a sum of 1.1"),
        ([0.5, np.nan], 4, "finite and non-negative"),
        ([1.5, -0.5], 4, "finite and non-negative"),
        ([[1.0]], 4, r"weights must be \[D\]"),
        ([], 4, r"weights must be \[D\]"),
        ([1.0], 0, r"batch_size must be in \[1, 2\^24\), got 0"),
        ([1.0], 2**24, "batch_size must be in"),
    ],
)
def test_bad_arguments_are_named(weights, batch_size, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(weights, batch_size)


def test_needs_no_jax():
    code = "import sys, mixjax.samplers.host_carried; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

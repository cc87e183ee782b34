"""Tests counts by tokens: exact sums, the bound against an adversary, and domains that run out of rows."""

from fractions import Fraction

import numpy as np
import pytest

from mixjax.live.tokens_carried import carry_tokens
from mixjax.samplers.host_carried import UNIT, fixed_point


def harmonic(number):
    return np.sum(1.0 / np.arange(1, number + 1))


class Lengths:
    """Gives rows random lengths, and keeps the picks in their order."""

    def __init__(self, rng, longest):
        self.rng, self.longest, self.picks = rng, longest, []

    def __call__(self, domain, number):
        # Many short rows and many of the longest, which is what the bound is about.
        length = int(self.rng.choice([1, self.longest, self.rng.integers(1, self.longest + 1)]))
        self.picks.append((domain, number, length))
        return length


def by_hand(carry, q, picks):
    """Repeats the picks in exact fractions, and checks that each was of a domain that is owed most."""
    shares = [Fraction(int(share), UNIT) for share in fixed_point(q, 1)]
    carry, worst = [Fraction(int(each), UNIT) for each in carry], []
    for domain, _, length in picks:
        most = max(carry)
        may_be = [d for d, owed in enumerate(carry) if owed == most and (most > 0 or shares[d] > 0)]
        assert domain == may_be[0]
        carry = [owed + length * share for owed, share in zip(carry, shares, strict=True)]
        carry[domain] -= length
        worst.append((min(carry), max(carry)))
    return carry, worst


@pytest.mark.parametrize(("num_domains", "batch_size"), [(1, 3), (2, 1), (5, 4), (12, 30)])
def test_rows_go_to_the_domain_that_is_owed_most(num_domains, batch_size):
    rng, longest = np.random.default_rng(num_domains), 4096
    carry = np.zeros(num_domains, np.int64)
    for _ in range(40):
        q = rng.dirichlet(np.full(num_domains, rng.choice([0.05, 1.0, 50.0]))).astype(np.float32)
        length_of = Lengths(rng, longest)
        split = carry_tokens(carry, q, batch_size, length_of)
        want, worst = by_hand(carry, q, length_of.picks)
        assert [Fraction(int(each), UNIT) for each in split.carry] == want
        # The bound holds after every row, not after every batch only.
        assert min(low for low, _ in worst) > -longest
        assert max(high for _, high in worst) <= longest * harmonic(num_domains - 1)
        assert split.counts.sum() == batch_size and split.tokens.sum() == split.lengths.sum()
        rows = sorted((domain, number, length) for domain, number, length in length_of.picks)
        assert [length for _, _, length in rows] == split.lengths.tolist()
        for domain in range(num_domains):
            lengths = [length for d, _, length in rows if d == domain]
            assert (len(lengths), sum(lengths)) == (split.counts[domain], split.tokens[domain])
            assert [number for d, number, _ in rows if d == domain] == list(range(len(lengths)))
        carry = split.carry


@pytest.mark.parametrize("num_domains", [2, 3, 7, 50, 2000])
@pytest.mark.parametrize("kind", ["fixed", "drifting", "Dirichlet", "sparse", "worst behind", "by turns"])
def test_the_bound_holds_for_any_weights(num_domains, kind):
    """Adversaries raise the domains that are behind, or take a domain's weight away just when it is owed most."""
    rng, longest = np.random.default_rng(num_domains), 2**24
    carry, due, drawn = np.zeros(num_domains, np.int64), np.zeros(num_domains), np.zeros(num_domains)
    logits = rng.normal(size=num_domains)
    for step in range(60):
        if kind == "drifting":
            logits += 0.3 * rng.normal(size=num_domains)
        q = np.exp(logits) / np.exp(logits).sum()
        if kind in ("Dirichlet", "sparse"):
            q = rng.dirichlet(np.full(num_domains, 1.0 if kind == "Dirichlet" else 0.02))
        if kind == "worst behind":
            behind = carry >= np.sort(carry)[-max(num_domains // 2, 1)]
            q = behind / behind.sum()
        if kind == "by turns":
            q = (np.arange(num_domains) % 2 == step % 2) * 2.0 / num_domains
            q = q / q.sum()
        length_of = Lengths(rng, longest)
        split = carry_tokens(carry, q, int(rng.integers(1, 6)), length_of)
        carry = split.carry
        due += q.astype(np.float32) * split.tokens.sum()
        drawn += split.tokens
        assert carry.sum() == 0
        assert carry.min() > -longest * UNIT and carry.max() <= longest * harmonic(num_domains - 1) * UNIT
        # Apart from the rounding of the weights to 32 bits, that is how far tokens are from what is due.
        np.testing.assert_allclose(due - drawn, carry / UNIT, atol=2e-7 * drawn.sum())


@pytest.mark.parametrize("num_domains", [2, 3, 7, 50, 400])
def test_the_bound_is_reached(num_domains):
    """Each row is of a domain without weight, so that all of it adds to what those not yet served are owed."""
    longest, carry = 10_000, np.zeros(num_domains, np.int64)
    unserved = np.ones(num_domains, bool)
    for _ in range(num_domains - 1):
        served = carry.argmax()
        unserved[served] = False
        # At first nobody is owed anything, and a domain is only picked if it has weight.
        q = 1e-7 * (np.arange(num_domains) == served) + (1 - 1e-7) * unserved / unserved.sum()
        split = carry_tokens(carry, q, 1, lambda domain, number: longest)
        assert split.counts[served] == 1
        carry = split.carry
    assert carry.max() / UNIT == pytest.approx(longest * harmonic(num_domains - 1), rel=1e-4)


def test_a_search_finds_nothing_beyond_the_bound():
    """Keeps the worst of many random next weights and lengths, judged by the mean of the domains most behind."""
    rng, num_domains, longest = np.random.default_rng(3), 4, 1000
    worst = 0.0
    for most in (1, 2, 3):
        carry = np.zeros(num_domains, np.int64)
        for _ in range(60):
            tries = []
            for _ in range(30):
                q = rng.dirichlet(np.full(num_domains, rng.choice([0.1, 1.0, 10.0])))
                # Nothing for the domains that were served last, which the proof calls worst.
                behind = carry >= np.sort(carry)[-max(int(rng.integers(1, num_domains + 1)), 1)]
                q = np.where(behind, q, 0.0) if rng.random() < 0.7 and (q * behind).sum() > 0.01 else q
                length = int(rng.choice([1, longest // 2, longest]))
                tries.append(carry_tokens(carry, q / q.sum(), 1, lambda domain, number, length=length: length).carry)
            carry = max(tries, key=lambda after: np.sort(after)[-most:].sum())
            worst = max(worst, carry.max() / UNIT)
            assert carry.min() > -longest * UNIT
    limit = longest * harmonic(num_domains - 1)
    assert 0.5 * limit < worst <= limit


def test_a_weight_of_zero_gets_no_row_unless_it_was_owed_some():
    split = carry_tokens(np.zeros(3, np.int64), np.array([0.0, 1.0, 0.0]), 9, lambda domain, number: 7)
    assert split.counts.tolist() == [0, 9, 0]
    owed = carry_tokens(np.zeros(2, np.int64), np.array([0.5, 0.5]), 1, lambda domain, number: 10).carry
    split = carry_tokens(owed, np.array([1.0, 0.0]), 4, lambda domain, number: 10)
    assert split.counts.tolist() == [3, 1] and split.carry.tolist() == [5 * UNIT, -5 * UNIT]


def test_a_tiny_weight_gets_its_row_when_it_is_due():
    carry, drawn = np.zeros(2, np.int64), 0
    for _ in range(50):
        split = carry_tokens(carry, np.array([1 - 1e-3, 1e-3]), 100, lambda domain, number: 100)
        carry, drawn = split.carry, drawn + split.tokens[1]
    assert drawn == pytest.approx(50 * 100 * 100 * 1e-3, abs=100)


@pytest.mark.parametrize("rows_left", [[2, 50], [0, 50], [3, 1]])
def test_a_domain_without_rows_leaves_what_it_is_owed_to_the_others(rows_left):
    rng, left = np.random.default_rng(0), np.array([*rows_left, 40])
    # Domain 0 is owed 900 tokens, and the others have had as many too much.
    carry = np.array([900, -300, -600], np.int64) * UNIT
    q = np.array([0.6, 0.3, 0.1])
    if left[0] == 0:
        q = np.array([0.0, 0.75, 0.25])
    split = carry_tokens(carry, q, 12, Lengths(rng, 100), left)
    assert (split.counts <= left).all() and split.counts.sum() == 12
    assert split.carry.sum() == 0 and (split.written_off >= 0).all()
    spent = split.counts == left
    assert spent[0] and split.written_off[0] > 0 and not split.written_off[~spent].any()
    # Nothing is owed to a domain that cannot give it.
    assert (split.carry[spent] <= 0).all()


def test_all_domains_may_be_spent_by_the_last_row():
    split = carry_tokens(np.zeros(2, np.int64), np.array([0.5, 0.5]), 5, lambda domain, number: 3, np.array([4, 1]))
    assert split.counts.tolist() == [4, 1] and split.carry.sum() == 0


def test_weights_too_small_for_fixed_point_still_take_over():
    """A share below 2^-33 rounds to nothing, and is all there is once the other domain is spent."""
    q = np.array([1.0, 1e-12], np.float32)
    split = carry_tokens(np.zeros(2, np.int64), q, 4, lambda domain, number: 5, np.array([1, 10]))
    assert split.counts.tolist() == [1, 3] and split.carry.sum() == 0


def test_the_arguments_stay_as_they_are():
    carry, q, left = np.array([5, -5]) * UNIT, np.array([0.5, 0.5]), np.array([1, 9])
    copies = carry.copy(), q.copy(), left.copy()
    carry_tokens(carry, q, 3, lambda domain, number: 2, left)
    for now, before in zip((carry, q, left), copies, strict=True):
        np.testing.assert_array_equal(now, before)

"""Tests plans under any order of calls against a slow model that computes every batch from the first step on."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from mixjax.live import Plan
from mixjax.live.permutation import permuted
from mixjax.live.rows import _key_of
from mixjax.samplers.host_carried import UNIT, fixed_point

SIZES = {"web": 50, "books": 9, "code": 3}
LENGTHS = [np.arange(1, 51) * 7, np.arange(9) + 300, np.array([5, 4000, 17])]
BATCH_SIZE, SEED = 6, 11
FIRST = [0.6, 0.3, 0.1]
NUM_EXAMPLES = 15


def weights_of(number):
    """Returns weights of which some are zero, and some are tiny."""
    rng = np.random.default_rng(number)
    weights = rng.dirichlet(np.full(3, 0.5)) * (rng.random(3) < 0.8)
    return weights if weights.any() else np.array([0.0, 1e-6, 1.0])


class Model:
    """Computes batches in plain integers and fractions of a step, row by row, with nothing kept between two calls."""

    def __init__(self, lengths):
        self.lengths = lengths

    def batches(self, asked):
        """Yields (domain ids, rows, row weights, lengths) of the steps that have the weights ``(q, c)``."""
        carry, drawn, mass = [0] * 3, [0] * 3, [0.0] * 3
        for q, c in asked:
            shares = [int(share) for share in fixed_point(q, 1 if self.lengths else BATCH_SIZE)]
            if not self.lengths:
                carry = [owed + share for owed, share in zip(carry, shares, strict=True)]
            rows = []
            for _ in range(BATCH_SIZE):
                domain = carry.index(max(carry))
                if self.lengths and max(carry) == 0:
                    domain = next(d for d in range(3) if shares[d])
                name, size = list(SIZES.items())[domain]
                row = int(permuted(SEED, _key_of(name), np.array([drawn[domain]]), size)[0])
                length = int(self.lengths[domain][row]) if self.lengths else 1
                if self.lengths:
                    carry = [owed + length * share for owed, share in zip(carry, shares, strict=True)]
                carry[domain] -= length * UNIT
                rows.append((domain, drawn[domain], row, length))
                drawn[domain] += 1
            yield self.weighed(sorted(rows), q, c, mass)

    def weighed(self, rows, q, c, mass):
        amounts = [sum(length for domain, _, _, length in rows if domain == d) for d in range(3)]
        if c is None and not any(mass):
            row_weights = [length / sum(amounts) for _, _, _, length in rows]
        else:
            for d in range(3):
                mass[d] += float((q if c is None else c)[d])
            row_weights = [mass[domain] * length / amounts[domain] for domain, _, _, length in rows]
            for d in range(3):
                mass[d] = 0.0 if amounts[d] else mass[d]
        domain_ids, _, examples, lengths = zip(*rows, strict=True)
        return domain_ids, examples, row_weights, lengths


class Undisturbed:
    """Computes batches with a plan of its own that nobody disturbs: for limits, which the model has not."""

    def __init__(self, **limits):
        self.limits = limits

    def batches(self, asked):
        plan = Plan(SIZES, BATCH_SIZE, FIRST, seed=SEED, lag=1, **self.limits)
        for step, pair in enumerate(asked):
            # Not published, which would normalise them a second time.
            plan._schedule._changes = [(step, pair)]
            plan._schedule.next_to_publish = step + 1
            try:
                batch = next(plan)
            except StopIteration:
                return
            yield batch.domain_ids, batch.rows, batch.row_weights, batch.lengths


KINDS = {
    "rows": ({}, Model(None)),
    "tokens": ({"lengths": LENGTHS}, Model(LENGTHS)),
    "limits": (limits := {"max_epochs": [2, 2, 3], "budget": 90}, Undisturbed(**limits)),
    "limits on tokens": (limits := {"max_epochs": 2, "budget": 20_000, "lengths": LENGTHS}, Undisturbed(**limits)),
}


class PlanMachine(RuleBasedStateMachine):
    """Calls a plan in any order; ``published[t]`` is what was published for step t, None where it was kept."""

    kind = "rows"

    @initialize(lag=st.integers(1, 8))
    def start(self, lag):
        self.lag, self.published, self.step = lag, [], 0
        self.drawn, self.saved, self.closed = [], [], False
        self.make((0, 1))

    def make(self, host):
        limits, self.model = KINDS[self.kind]
        self.host = host
        self.plan = Plan(SIZES, BATCH_SIZE, FIRST, seed=SEED, lag=self.lag, host=host, **limits)

    def asked(self):
        """Returns the weights in force of the steps that are known."""
        pair = (np.array(FIRST, np.float32), None)
        for step in range(len(self.published) + self.lag):
            before = step - self.lag
            if before >= 0 and self.published[before] is not None:
                pair = self.published[before]
            yield pair

    @rule()
    def draw(self):
        known = list(self.model.batches(self.asked()))
        if self.closed:
            with pytest.raises(StopIteration):
                next(self.plan)
        elif self.step < len(known):
            assert self.plan.is_known()
            batch = next(self.plan)
            index, num_hosts = self.host
            domain_ids, rows, row_weights, lengths = known[self.step]
            assert batch.step == self.step
            np.testing.assert_array_equal(batch.domain_ids, domain_ids[index::num_hosts])
            np.testing.assert_array_equal(batch.rows, rows[index::num_hosts])
            np.testing.assert_allclose(batch.row_weights, row_weights[index::num_hosts], rtol=1e-6)
            if batch.lengths is not None:
                np.testing.assert_array_equal(batch.lengths, lengths[index::num_hosts])
            np.testing.assert_array_equal(batch.counts, np.bincount(domain_ids, minlength=3))
            self.drawn.append(batch)
            self.step += 1
        elif self.step < len(self.published) + self.lag or self.plan.is_known():
            # The limits leave nothing.
            for _ in range(2):
                with pytest.raises(StopIteration):
                    next(self.plan)
            assert self.plan.ending["step"] == self.step
        else:
            with pytest.raises(
                RuntimeError, match=rf"step {self.step} has no weights yet: call plan.publish\({len(self.published)}, "
            ):
                next(self.plan)

    @precondition(lambda self: len(self.published) < self.step + 3)
    @rule(number=st.integers(0, 99), c=st.none() | st.integers(100, 199), dtype=st.sampled_from(["f2", "f4", "f8"]))
    def publish(self, number, c, dtype):
        q = weights_of(number).astype(dtype)
        loss_weights = None if c is None else weights_of(c)
        self.plan.publish(len(self.published), q * (1 if dtype == "f2" else 1e30), loss_weights)

        def normal(weights):
            weights = weights.astype(float)
            return (weights / weights.max() / (weights / weights.max()).sum()).astype(np.float32)

        self.published.append((normal(q), None if c is None else normal(loss_weights)))

    @precondition(lambda self: len(self.published) < self.step + 3)
    @rule()
    def keep(self):
        self.plan.keep(len(self.published))
        self.published.append(None)

    @rule(
        weights=st.sampled_from([[np.nan, 1, 1], [1, -1, 1], [0, 0, 0], [1, 1], [np.inf, 1, 1]]),
        off=st.sampled_from([-1, 1]),
    )
    def publish_what_is_refused(self, weights, off):
        with pytest.raises(ValueError, match="weights must be"):
            self.plan.publish(len(self.published), weights)
        with pytest.raises(ValueError, match="weights must be"):
            self.plan.publish(len(self.published), FIRST, weights)
        with pytest.raises(ValueError, match="once and in order"):
            self.plan.keep(len(self.published) + off)

    @rule()
    def save(self):
        state = self.plan.get_state()
        assert state["step"] == min(self.step, len(self.published))
        assert sum(state["carry"]) == 0
        self.saved.append((json.dumps(state), self.published[:]))

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), new=st.booleans(), host=st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3), (5, 6)]))
    def restore(self, data, new, host):
        text, self.published = data.draw(st.sampled_from(self.saved))
        self.published = self.published[:]
        if new:
            self.make(host)
        self.plan.set_state(json.loads(text))
        self.step, self.drawn, self.closed = json.loads(text)["step"], [], False
        assert json.dumps(self.plan.get_state()) == text

    @precondition(lambda self: self.drawn)
    @rule(data=st.data())
    def take_back(self, data):
        batch = data.draw(st.sampled_from(self.drawn[-4:]))
        self.plan.take_back(batch)
        # Steps that were published are done.
        if min(self.step, len(self.published)) <= batch.step < self.step:
            self.step = batch.step
        assert self.plan.step == self.step

    @rule()
    def close(self):
        self.plan.close()
        self.closed = True


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_calls_gives_the_batches_of_the_model(kind):
    machine = type(f"Machine of {kind}", (PlanMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

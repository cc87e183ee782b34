"""Tests the iterator of index lists with a loader that reads ahead as PyTorch's does."""

import collections

import numpy as np
import pytest

from mixjax.live import BatchSampler, Plan

SIZES = {"web": 40, "books": 11}


class ReadingAhead:
    """Asks for some batches before it hands out the first, as ``torch.utils.data.DataLoader`` does with workers."""

    def __init__(self, values, batch_sampler, ahead):
        self.values, self.batch_sampler, self.ahead = values, batch_sampler, ahead

    def __iter__(self):
        indices, waiting = iter(self.batch_sampler), collections.deque()
        for _ in range(self.ahead):
            waiting.append(next(indices))
        for _ in range(10**9):
            yield self.values[waiting.popleft()]
            found = next(indices, None)
            if found is None:
                break
            waiting.append(found)
        while waiting:
            yield self.values[waiting.popleft()]


def plan_of(**changes):
    return Plan(**({"sizes": SIZES, "batch_size": 6, "weights": [0.5, 0.5], "lag": 5, "budget": 120} | changes))


def test_values_and_batches_come_in_the_same_order():
    values = np.concatenate([np.arange(40), 1000 + np.arange(11)])
    plan, other = plan_of(), plan_of()
    sampler, steps = BatchSampler(plan), 0
    for got in ReadingAhead(values, sampler, ahead=4):
        batch, want = sampler.batch(), next(other)
        assert batch.step == want.step == steps
        np.testing.assert_array_equal(got, want.domain_ids * 1000 + want.rows)
        for each in (plan, other):
            each.publish(batch.step, np.random.default_rng(steps).dirichlet(np.ones(2)))
        steps += 1
    assert steps == len(sampler) == 20


def test_a_loop_goes_on_from_a_saved_state():
    values = np.arange(51)
    plan = plan_of()
    sampler = BatchSampler(plan)
    for _ in ReadingAhead(values, sampler, ahead=4):
        batch = sampler.batch()
        plan.keep(batch.step)
        if batch.step == 7:
            break
    second = plan_of()
    second.set_state(plan.get_state())
    third = plan_of()
    for step in range(8):
        next(third)
        third.keep(step)
    sampler = BatchSampler(second)
    got = next(iter(ReadingAhead(values, sampler, ahead=2)))
    want = next(third)
    np.testing.assert_array_equal(got, want.domain_ids * 40 + want.rows)
    assert sampler.batch().step == 8


def test_reading_further_ahead_than_the_lag_is_an_error_that_names_the_call():
    with pytest.raises(RuntimeError, match="step 5 has no weights yet"):
        next(iter(ReadingAhead(np.arange(51), BatchSampler(plan_of()), ahead=6)))


def test_calls_that_do_not_fit_are_errors():
    sampler = BatchSampler(plan_of(budget=None))
    with pytest.raises(TypeError, match="the plan has no end"):
        len(sampler)
    with pytest.raises(RuntimeError, match="no batch was drawn"):
        sampler.batch()
    with pytest.raises(TypeError, match="the plan's budget is in tokens"):
        len(BatchSampler(plan_of(lengths=[np.full(40, 3), np.full(11, 5)])))


def test_a_new_loop_goes_on_after_the_last_batch_that_was_taken():
    values, plan, steps = np.arange(51), plan_of(), []
    sampler = BatchSampler(plan)
    for stop in (3, 7, 11):
        for _ in ReadingAhead(values, sampler, ahead=4):
            batch = sampler.batch()
            steps.append(batch.step)
            plan.keep(batch.step)
            if batch.step == stop:
                break
    assert steps == list(range(12))

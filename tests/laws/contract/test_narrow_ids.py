"""Ids and indices of every integer type that can hold them give the same results, up to the last id the type holds."""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mixjax
from mixjax import grad_norms, live, probes, resampling, rules, samplers, signals, training
from mixjax.objectives import example_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Ids(NamedTuple):
    """Holds ids of a narrow type that use the type to its end.

    Attributes:
        dtype: the type.
        num_domains: as many domains as the type can tell apart from below, 0 .. its largest number.
        padding: an id that marks padding; None where every number of the type is a domain.
    """

    dtype: np.dtype
    num_domains: int
    padding: int | None

    def __str__(self):
        return f"{self.dtype} {self.num_domains}"


ENDS = [
    Ids(np.dtype(np.uint8), 256, None),
    Ids(np.dtype(np.int8), 128, -1),
    Ids(np.dtype(np.uint8), 255, 255),
    # Few domains, where sums go by masks, and types that hold more than int32 does.
    Ids(np.dtype(np.uint8), 4, 255),
    Ids(np.dtype(np.uint32), 4, 2**32 - 1),
    Ids(np.dtype(np.int64), 300, 2**32),
]
MANY = Ids(np.dtype(np.uint16), 65_536, None)
SIZE = 24


def batch(case: Ids):
    """Ids with the first and the last domain among them, and the same as int32."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, case.num_domains, SIZE)
    ids[:4] = [0, 0, case.num_domains - 1, case.num_domains - 1]
    # -1 is padding in int32, whatever the number that stands for it in the narrow type.
    wide, padded = ids.astype(np.int32), np.zeros(SIZE, bool)
    if case.padding is not None:
        padded[5::7] = True
    narrow = np.where(padded, 0 if case.padding is None else case.padding, ids).astype(case.dtype)
    return narrow, np.where(padded, -1, wide).astype(np.int32)


LOSSES = np.random.default_rng(1).exponential(size=SIZE).astype(np.float32)


def weighted_loss(ids, num_domains):
    rule = rules.erma(0.3, 0.5)
    state = rule.init(np.ones(num_domains))
    return jax.value_and_grad(lambda losses: mixjax.weighted_loss(rule, state, losses, ids)[0])(jnp.asarray(LOSSES))


def step_of_training(ids, num_domains):
    rule, optimizer = rules.fixed(), optax.sgd(0.1)
    state = training.init_state(jnp.zeros(()), optimizer, np.ones(num_domains), rule, rule)
    step = training.make_step(lambda slope, batch: jnp.square(slope - batch), optimizer)
    state, objective = step(state, jnp.asarray(LOSSES), ids)
    return state.params, objective


def gains(ids, num_domains):
    return resampling.gains(lambda slope, x: jnp.square(slope - x), jnp.zeros(()), LOSSES, ids, num_domains, 2)


PADDED = {
    "weighted_loss": weighted_loss,
    "example_weights": lambda ids, D: example_weights(np.ones(D), ids, np.ones(D)),
    "moments": lambda ids, D: signals.moments(LOSSES, ids, D),
    "domain_sums": lambda ids, D: signals.domain_sums(ids, D).per_example(jnp.arange(1.0, D + 1)),
    "grad_stds": lambda ids, D: signals.grad_stds(lambda slope, x: slope * x, jnp.ones(()), LOSSES, ids, D),
    "by_domain": lambda ids, D: grad_norms.by_domain(LOSSES, ids, D),
    "gains": gains,
    "make_step": step_of_training,
}


def assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@functools.cache
def wanted(name, num_domains, case):
    return PADDED[name](batch(case)[1], num_domains)


# The memory of gains is num_blocks * D gradients.
CASES = [(name, case) for name in PADDED for case in ENDS] + [(name, MANY) for name in PADDED if name != "gains"]


@pytest.mark.parametrize(("name", "case"), CASES, ids=str)
def test_domain_ids(name, case):
    want = jax.tree.leaves(wanted(name, case.num_domains, case))
    # JAX keeps 64-bit ids only where it is told to.
    with jax.enable_x64(case.dtype.itemsize == 8):
        kept = jax.tree.leaves(PADDED[name](jnp.asarray(batch(case)[0]), case.num_domains))
    for got in (kept, jax.tree.leaves(PADDED[name](batch(case)[0], case.num_domains))):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


TYPES = [np.uint8, np.int8, np.uint32]


def inside(dtype):
    """Ids of all the domains that a type can tell apart, at most 256, without padding."""
    num_domains = min(np.iinfo(dtype).max + 1, 256)
    return np.random.default_rng(3).permutation(num_domains), num_domains


def drawn(draw):
    def function(ids, num_domains):
        groups = samplers.partition(np.arange(3 * num_domains) % num_domains)
        return draw(groups, ids, num_domains)

    return function


def without_replacement(groups, ids, num_domains):
    state = samplers.start_epochs(jax.random.key(0), num_domains)
    first, state = samplers.without_replacement(state, groups, ids)
    second, state = samplers.without_replacement(state, groups, ids)
    return first, second, state


def partition(ids, num_domains):
    ids = np.asarray(ids)
    return samplers.partition(np.concatenate([ids, ids])), samplers.partition(ids, num_domains)


def narrow_groups(ids, num_domains):
    """A partition whose own fields are of the type: as many examples as it can count."""
    groups = samplers.partition(np.sort(ids), num_domains)
    groups = samplers.Partition(*(np.asarray(field).astype(ids.dtype) for field in groups))
    state = samplers.start_epochs(jax.random.key(0), num_domains)
    source = probes.fixed_points(groups, 300)(jax.random.key(0))
    drawn = samplers.with_replacement(jax.random.key(1), groups, ids)
    return source, drawn, samplers.without_replacement(state, groups, ids)


def listed_counts(ids, num_domains):
    del num_domains
    return samplers.counts_to_ids(ids // 2, int(np.sum(np.asarray(ids, int) // 2)))


def example_sampler(make):
    def function(ids, num_domains):
        sampler = make(num_domains)
        state = sampler.init(np.linspace(0.1, 2.0, num_domains))
        values = np.linspace(3.0, 0.5, len(ids)).astype(np.float32)
        weights = sampler.importance_weights(state, ids, values)
        tree = sampler.importance_weights(state, ids, values, "tree")
        return weights, tree, sampler.update(state, ids, values), sampler.log_probs(state, ids)

    return function


def host_sampler(ids, num_domains):
    sampler = samplers.HostSampler(num_domains, np.linspace(0.1, 2.0, num_domains), beta=2.0)
    values = np.linspace(3.0, 0.5, len(ids)).astype(np.float32)
    weights = sampler.importance_weights(ids, values)
    sampler.update(ids, values)
    return weights, sampler.values, sampler.log_probs(ids)


INSIDE = {
    "with_replacement": drawn(lambda groups, ids, D: samplers.with_replacement(jax.random.key(0), groups, ids)),
    "without_replacement": drawn(without_replacement),
    "partition": partition,
    "fields of a partition": narrow_groups,
    "counts_to_ids": listed_counts,
    "hardness": example_sampler(lambda n: samplers.hardness(n, 2.0)),
    "with_ages": example_sampler(lambda n: samplers.with_ages(samplers.proportional(n))),
    "HostSampler": host_sampler,
    "embed": lambda ids, D: grad_norms.Tape().embed(ids[:, None], jnp.arange(D * 2.0).reshape(D, 2)),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", INSIDE)
def test_ids_and_indices_that_are_no_padding(name, dtype):
    ids, num_domains = inside(dtype)
    assert_same(INSIDE[name](ids.astype(dtype), num_domains), INSIDE[name](ids.astype(np.int32), num_domains))


@pytest.mark.parametrize("bad", [np.float32, bool])
@pytest.mark.parametrize("name", [*PADDED, *sorted(set(INSIDE) - {"counts_to_ids", "fields of a partition"})])
def test_floats_and_booleans_are_refused(name, bad):
    ids = (np.arange(SIZE) % 2).astype(bad)
    function = {**PADDED, **INSIDE}[name]
    with pytest.raises((TypeError, ValueError), match=r"integer") as refused:
        function(ids, SIZE)
    assert "\n" not in str(refused.value)


def planned(batch_size):
    plan = live.Plan([900, 900], batch_size, [0.7, 0.3], seed=np.uint8(3))
    return next(plan).rows, np.frombuffer(json.dumps(plan.get_state()).encode(), np.uint8)


def drawn_examples(make):
    def function(number):
        sampler = make(300)
        return sampler.sample(sampler.init(1.0), jax.random.key(0), number)

    return function


def examples_of(number):
    sampler, host = samplers.hardness(number, 2.0), samplers.HostSampler(number, 1.0, 2.0)
    indices, _ = host.sample(0, 8)
    return sampler.sample(sampler.init(1.0), jax.random.key(0), 8), indices, host.hardest(number)[0]


WEIGHTS = np.random.default_rng(4).dirichlet(np.ones(100)).astype(np.float32)
FAR = np.array([0, 1, 1, 100, 126, 126, 300], np.int32)
FAR_LOSSES = np.arange(7, dtype=np.float32)

# Functions of a number of domains, examples or draws.
SIZES = {
    "allocate": lambda number: samplers.allocate(WEIGHTS, number),
    "carry": lambda number: samplers.carry(samplers.start_carry(100), WEIGHTS, number),
    "counts_to_ids": lambda number: samplers.counts_to_ids(np.array([100, int(number) - 100]), number),
    "systematic": lambda number: samplers.systematic(jax.random.key(0), WEIGHTS, number),
    "stratified": lambda number: samplers.stratified(jax.random.key(0), WEIGHTS, number),
    "multinomial": lambda number: samplers.multinomial(jax.random.key(0), WEIGHTS, number),
    "hardness": drawn_examples(lambda n: samplers.hardness(n, 2.0)),
    "distinct": drawn_examples(lambda n: samplers.hardness(n, 2.0, replacement=False)),
    "HostSampler": lambda number: samplers.HostSampler(300, 1.0, 2.0).sample(0, number),
    "distinct on the host": lambda number: samplers.HostSampler(300, 1.0, 2.0, replacement=False).sample(0, number),
    "number of examples": examples_of,
    "hardest": lambda number: samplers.hardest(np.arange(300.0), number),
    "Plan": planned,
    "partition": lambda number: samplers.partition(np.arange(300) % int(number), number),
    "start_epochs": lambda number: samplers.start_epochs(jax.random.key(0), number),
    "moments": lambda number: signals.moments(FAR_LOSSES, FAR, number),
    "grad_stds": lambda number: signals.grad_stds(lambda p, x: p * x, jnp.ones(()), FAR_LOSSES, FAR, number),
    "by_domain": lambda number: grad_norms.by_domain(FAR_LOSSES, FAR, number),
    "per_example": lambda number: grad_norms.per_example(
        lambda p, x: p * x, jnp.ones(()), np.ones(300), batch_size=number
    ),
}


@pytest.mark.parametrize("number", [np.uint8(255), np.int8(127), np.uint16(200)], ids=repr)
@pytest.mark.parametrize("name", SIZES)
def test_numbers_of_a_narrow_type(name, number):
    """``ids.max() + 1`` is as narrow as the ids, and one more wraps."""
    assert_same(SIZES[name](number), SIZES[name](int(number)))

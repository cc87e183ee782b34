"""Every rule with any hyperparameters in their range, on any signals: the simplex, unseen rows, symmetry.

One program a rule: it starts from a prior and updates three times, all of it traced, hyperparameters included, for two
variants at once that a law compares.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from mixjax import rules
from mixjax.types import WeightRule
from tests.laws.properties.cases import FLOAT, cases, rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

D, STEPS = 4, 3
HUGE = float(FLOAT.max)
TINY = float(FLOAT.tiny)


def unit(*more):
    return st.sampled_from([0.0, 1.0, TINY, 1e-6, *more]) | st.floats(0, 1, width=32, allow_subnormal=False)


POSITIVE = st.sampled_from([TINY, 1e-30, 1e-12, 1.0, 5.0, 1e6, HUGE]) | st.floats(2.0**-10, 1e3, width=32)
POSITIVE_OR_INF = POSITIVE | st.just(np.inf)
NON_NEGATIVE = POSITIVE | st.just(0.0)
NON_NEGATIVE_OR_INF = NON_NEGATIVE | st.just(np.inf)
INTEGER = st.integers(0, 4)

SIGNALS = {
    "losses": (0.0, 1e-38, 1e-12, 1.0, 1.0 + 2**-23, -1.0, 1e3, 1e30, 2e30, HUGE, np.nan, np.inf, -np.inf, 1e-42),
    "loss_vars": (0.0, TINY, 1e-20, 1.0, 1e6, 1e30, HUGE, np.nan, np.inf, 1e-42),
    "loss_weights": (0.0, TINY, 1e-30, 1e-3, 0.5, 1.0),
    "grad_stds": (0.0, TINY, 1e-20, 1.0, 1e20, HUGE, np.nan, np.inf, 1e-42),
    "grad_norms": (0.0, TINY, 1e-20, 1.0, 1e20, HUGE, np.nan, np.inf, -1.0, 1e-42),
    "hypergrads": (0.0, -TINY, 1e-20, 1.0, -1.0, 1e20, -HUGE, HUGE, np.nan, np.inf, -np.inf, 1e-42),
    "reference_losses": (0.0, 1e-12, 1.0, 1e8, 1e30, HUGE, np.nan, np.inf),
}


class Case(NamedTuple):
    """A rule made of hyperparameters ``make(*scalars)``, or ``make(rows, *scalars)`` where it has one for each domain.

    ``unseen`` is "constant", "multiplicative", "closed", "raw", "bandit" or "law", as in ``tests.laws.contract.cases``;
    ``memory`` is the field of the state that a rule keeps of a row not seen. ``ordered`` says that the rule treats
    domains of equal prior in their order.
    """

    make: Callable[..., WeightRule]
    hyper: tuple[st.SearchStrategy, ...]
    reads: tuple[str, ...]
    unseen: str
    memory: str = ""
    by_row: st.SearchStrategy | None = None
    sampling: bool = False
    ordered: bool = False


CASES = {
    "fixed": Case(lambda t: rules.fixed(temperature=t), (POSITIVE_OR_INF,), (), "constant"),
    "gls": Case(rules.gls, (), (), "constant", by_row=rows(D, TINY, HUGE, 1.0, low=0.125)),
    "fgls": Case(lambda h: rules.fgls(min_loss=h), (POSITIVE,), ("losses",), "closed", "losses"),
    "one_shot_fgls": Case(
        lambda g, h: rules.one_shot_fgls(g, min_loss=h), (unit(), POSITIVE), ("losses",), "raw", "log_w"
    ),
    "erma": Case(
        lambda a, b, m: rules.erma(a, b, max_log_step=m),
        (NON_NEGATIVE, NON_NEGATIVE, POSITIVE_OR_INF),
        ("losses", "loss_vars"),
        "multiplicative",
    ),
    "literal erma": Case(
        lambda a, b, m: rules.erma(a, b, max_log_step=m, normalised=False),
        (NON_NEGATIVE, NON_NEGATIVE, POSITIVE_OR_INF),
        ("losses", "loss_vars"),
        "multiplicative",
    ),
    "variance_aware": Case(
        lambda r: rules.variance_aware(min_ratio=r),
        (unit(),),
        ("loss_weights", "grad_stds"),
        "closed",
        "scores",
        sampling=True,
    ),
    "gradient_norm": Case(
        lambda r: rules.gradient_norm(floor=r),
        (unit(),),
        ("loss_weights", "grad_norms"),
        "closed",
        "scores",
        sampling=True,
    ),
    "dro": Case(lambda b, s: rules.dro(b, scale=s), (NON_NEGATIVE_OR_INF, POSITIVE), ("losses",), "closed", "losses"),
    "dro(chi2)": Case(
        lambda b, s: rules.dro(b, "chi2", scale=s), (NON_NEGATIVE_OR_INF, POSITIVE), ("losses",), "closed", "losses"
    ),
    "dro(cvar)": Case(lambda b: rules.dro(b, "cvar"), (NON_NEGATIVE_OR_INF,), ("losses",), "closed", "losses"),
    "group_dro": Case(
        lambda a, s, g, m: rules.group_dro(s, adjustment=a, decay=g, max_log_step=m),
        (NON_NEGATIVE, unit(), POSITIVE_OR_INF),
        ("losses",),
        "multiplicative",
        by_row=rows(D, 0.0, 1e30, -1e30, 1.0, low=-2.0, high=2.0),
    ),
    "mirror_descent": Case(
        lambda s, m: rules.mirror_descent(s, max_log_step=m),
        (NON_NEGATIVE, POSITIVE_OR_INF),
        ("hypergrads",),
        "multiplicative",
    ),
    "constant mirror_descent": Case(
        lambda s, m: rules.mirror_descent(s, adaptive=False, max_log_step=m),
        (NON_NEGATIVE, POSITIVE_OR_INF),
        ("hypergrads",),
        "multiplicative",
    ),
    "projected_gradient": Case(rules.projected_gradient, (NON_NEGATIVE,), ("hypergrads",), "multiplicative"),
    "constant projected_gradient": Case(
        lambda s: rules.projected_gradient(s, adaptive=False), (NON_NEGATIVE,), ("hypergrads",), "multiplicative"
    ),
    "doremi": Case(
        lambda s, r, m: rules.doremi(s, floor=r, max_log_step=m),
        (NON_NEGATIVE, unit(), POSITIVE_OR_INF),
        ("losses", "reference_losses"),
        "multiplicative",
    ),
    "doge": Case(
        lambda s, h, m: rules.doge(s, max_score=h, max_log_step=m),
        (NON_NEGATIVE, POSITIVE_OR_INF, POSITIVE_OR_INF),
        ("hypergrads", "grad_norms"),
        "multiplicative",
    ),
    "exp3": Case(rules.exp3, (unit(),), ("losses",), "bandit", "rewards"),
    "exp3(perplexity)": Case(lambda g: rules.exp3(g, reward="perplexity"), (unit(),), ("losses",), "bandit", "rewards"),
    "ado": Case(
        lambda g1, g2, s, m, k: rules.ado(g1, g2, s, delta_min=m, warmup=0, skip=k.astype(int)),
        (unit(), unit(), NON_NEGATIVE, unit(), st.sampled_from([0, 1])),
        ("losses",),
        "law",
        "slopes",
    ),
    "aioli": Case(
        lambda s, e, g, m: rules.aioli(s, rounds=1, hold=1, epsilon=e, decay=g, max_log_step=m),
        (NON_NEGATIVE, unit(), unit(), POSITIVE_OR_INF),
        ("losses",),
        "law",
        "losses",
        ordered=True,
    ),
    "kl_to_prior": Case(
        lambda s, k: rules.kl_to_prior(rules.mirror_descent(s), k),
        (NON_NEGATIVE, NON_NEGATIVE),
        ("hypergrads",),
        "multiplicative",
    ),
    "floor": Case(
        lambda a, r: rules.floor(rules.group_dro(a), r), (NON_NEGATIVE, unit()), ("losses",), "multiplicative"
    ),
    "smooth": Case(lambda r: rules.smooth(rules.fgls(), r), (unit(),), ("losses",), "average"),
    "every": Case(
        lambda k, start: rules.every(rules.group_dro(0.5), k.astype(int) + 1, start.astype(int)),
        (INTEGER, INTEGER),
        ("losses",),
        "multiplicative",
    ),
    "freeze_after": Case(
        lambda k: rules.freeze_after(rules.group_dro(0.5), k.astype(int)), (INTEGER,), ("losses",), "multiplicative"
    ),
}

every_rule = pytest.mark.parametrize("name", CASES)


@functools.cache
def program(name):
    """``(priors [2, D], hyperparameters, signals [2, STEPS, D]) -> states [2, STEPS + 1, ...]``."""
    case = CASES[name]

    @jax.jit
    @jax.vmap
    def run(prior, by_row, hyper, signals):
        rule = case.make(*([by_row] if case.by_row is not None else []), *hyper)
        start = rule.init(prior)

        def step(state, row):
            new = rule.update(state, **row)
            return new, new

        later = jax.lax.scan(step, start, signals)[1]
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, later)

    return run


class Inputs(NamedTuple):
    prior: np.ndarray
    by_row: np.ndarray
    hyper: np.ndarray
    signals: dict[str, np.ndarray]  # [STEPS, D]


def compute(name, *variants):
    """The states of two variants, leaves ``[STEPS + 1, ...]``, as NumPy."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *variants)
    states = jax.tree.map(np.asarray, program(name)(*stacked))
    return tuple(jax.tree.map(lambda x, i=i: x[i], states) for i in range(2))


PRIORS = rows(D, 0.0, 0.0, TINY, 1e-6, 1.0, 1.0, 1e30, HUGE).filter(lambda prior: prior.max() > 0)


@st.composite
def inputs(draw, name, moderate):
    """Whatever a rule may get; or what is within a few orders of magnitude, without rows of zero prior."""
    case = CASES[name]
    counts = st.sampled_from([0, 1, 5] if not moderate else [0, 3, 5, 9])
    signals = {"counts": np.int32(draw(st.lists(counts, min_size=STEPS * D, max_size=STEPS * D)))}
    for signal in case.reads:
        low = -4.0 if signal == "hypergrads" else 0.25
        entries = st.floats(low, 4.0, width=16) if moderate else None
        values = (
            np.float32(draw(st.lists(entries, min_size=STEPS * D, max_size=STEPS * D)))
            if moderate
            else draw(rows(STEPS * D, *SIGNALS[signal], low=low, high=4.0))
        )
        signals[signal] = values
    signals = {key: value.reshape(STEPS, D) for key, value in signals.items()}
    if "loss_weights" in signals:
        c = signals["loss_weights"]
        total = c.sum(axis=1, keepdims=True)
        signals["loss_weights"] = np.where(total > 0, c / np.where(total > 0, total, 1), np.float32(1 / D))
    prior = draw(rows(D, 1.0, low=0.125) if moderate else PRIORS)
    by_row = draw(case.by_row) if case.by_row is not None else np.zeros(D, np.float32)
    hyper = np.float32([draw(strategy) for strategy in case.hyper])
    hyper = np.minimum(hyper, np.float32(4.0)) if moderate else hyper  # steps that do not blow up rounding errors
    return Inputs(prior, by_row, hyper, signals)


def assert_simplex(weights, prior):
    weights = np.float64(weights)
    assert np.isfinite(weights).all() and (weights >= 0).all(), weights
    assert np.abs(weights.sum(-1) - 1).max() < 1e-5, weights
    assert (weights[..., prior == 0] == 0).all(), weights


def seen_rows(name, given):
    """bool ``[STEPS, D]``: counted, and every signal that the rule reads finite; ``loss_weights`` always are here."""
    seen = (given.signals["counts"] > 0) & (given.prior > 0)
    for signal in CASES[name].reads:
        seen &= np.isfinite(given.signals[signal])
    if name == "gradient_norm":
        seen &= ~(given.signals["grad_norms"] < 0)
    return seen


@every_rule
@cases(50, data=st.data())
def test_whatever_comes_weights_stay_on_the_simplex(name, data):
    given = data.draw(inputs(name, moderate=False))
    seen = seen_rows(name, given)
    garbage = {
        key: np.where(given.signals["counts"] > 0, value, data.draw(st.sampled_from([np.nan, -3.0, HUGE])))
        if key not in ("counts", "loss_weights")
        else value
        for key, value in given.signals.items()
    }
    garbage = jax.tree.map(np.float32, garbage) | {"counts": given.signals["counts"]}
    states, others = compute(name, given, given._replace(signals=garbage))
    assert_simplex(states.weights, given.prior)
    for leaf, other in zip(jax.tree.leaves(states), jax.tree.leaves(others), strict=True):
        assert np.isfinite(leaf).all(), states
        np.testing.assert_array_equal(leaf, other)  # what stands in a row of count 0 does not matter
    for t in range(STEPS):
        old, new = (jax.tree.map(lambda x, s=s: x[s], states) for s in (t, t + 1))
        if not (given.signals["counts"][t] > 0).any():
            jax.tree.map(np.testing.assert_array_equal, old, new)
        check_unseen(name, given, old, new, seen[: t + 1])
        if CASES[name].sampling and (given.signals["counts"][t] > 0).any():
            needed = (given.signals["loss_weights"][t] >= TINY) & (given.prior > 0)
            assert (new.weights[needed] > 0).all()


def check_unseen(name, given, old, new, seen):
    """What a rule promises of the rows that were not seen in the last of some updates."""
    case, now, ever = CASES[name], seen[-1], seen.any(axis=0)
    if case.unseen == "constant":
        jax.tree.map(np.testing.assert_array_equal, old, new)
    if case.unseen == "multiplicative":
        np.testing.assert_array_equal(new.weights[~now], old.weights[~now])
    if case.memory:
        np.testing.assert_array_equal(getattr(new, case.memory)[~now], getattr(old, case.memory)[~now])
    if case.unseen in ("closed", "raw") and not case.sampling:
        np.testing.assert_allclose(new.weights[~ever], new.prior[~ever], rtol=1e-6)


@every_rule
@cases(30, data=st.data())
def test_domains_have_no_order(name, data):
    given = data.draw(inputs(name, moderate=True))
    if CASES[name].ordered:
        given = given._replace(prior=np.float32(1.0) + np.arange(D, dtype=np.float32))
    order = np.array(data.draw(st.permutations(range(D))))
    signals = {key: value[:, order] for key, value in given.signals.items()}
    permuted = Inputs(given.prior[order], given.by_row[order], given.hyper, signals)
    states, others = compute(name, given, permuted)
    np.testing.assert_allclose(others.weights, states.weights[:, order], rtol=2e-4, atol=1e-6)


@every_rule
@cases(30, data=st.data(), scale=st.sampled_from([1e-20, 3.0, 1e5, 1e30]))
def test_the_scale_of_the_prior_does_not_matter(name, data, scale):
    given = data.draw(inputs(name, moderate=True))
    states, others = compute(name, given, given._replace(prior=given.prior * np.float32(scale)))
    np.testing.assert_allclose(others.weights, states.weights, rtol=2e-4, atol=1e-6)


def test_every_rule_is_here():
    assert set(rules.RULES) <= set(CASES)


# What these properties found, by hand.


@pytest.mark.parametrize("prior", [[HUGE, HUGE, 0.0, 0.0], [HUGE, HUGE, TINY, 0.0]])
def test_a_prior_up_to_the_largest_float(prior):
    state = jax.jit(rules.fixed().init)(np.float32(prior))
    np.testing.assert_allclose(state.weights, [0.5, 0.5, 0.0, 0.0], atol=1e-30)
    assert (state.prior[2] > 0) == (prior[2] > 0)


def test_a_prior_that_float32_flushes_to_zero_is_a_value_error():
    with pytest.raises(ValueError, match="prior must be finite, non-negative and not all zero"):
        rules.fixed().init([1e-42, 1e-42])


@pytest.mark.parametrize("prior", [[1.0, 0.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]])
def test_the_lowest_temperature_leaves_the_largest_of_the_prior(prior):
    np.testing.assert_array_equal(rules.fixed(temperature=TINY).init(prior).weights, [1, 0, 0, 0])


@pytest.mark.parametrize("min_loss", [np.inf, 1e-42, 1e-50])
def test_a_floor_under_the_loss_that_float32_lacks_is_a_value_error(min_loss):
    for make in (rules.fgls, rules.one_shot_fgls):
        with pytest.raises(ValueError, match="min_loss must be in"):
            make(min_loss=min_loss)


SEEN = np.ones(D, np.int32)
UNIFORM = np.ones(D, np.float32)


@pytest.mark.parametrize(
    ("rule", "signals"),
    [
        (rules.erma(HUGE, 0.0), {"losses": [1e30, 0.0, 1.0, 1.0], "loss_vars": np.zeros(D)}),
        (rules.erma(HUGE, HUGE, normalised=False), {"losses": [1e30, 0, 1, 1], "loss_vars": [0.0, HUGE, 0, 1]}),
        (rules.mirror_descent(HUGE), {"hypergrads": np.zeros(D)}),
        (rules.projected_gradient(HUGE), {"hypergrads": np.zeros(D)}),
        (rules.mirror_descent(HUGE, max_log_step=np.inf), {"hypergrads": [0.0, 0.0, 0.0, 1.0]}),
        (rules.doge(0.0, max_score=np.inf), {"hypergrads": [-HUGE, 1.0, 1.0, 1.0], "grad_norms": np.full(D, TINY)}),
        (
            rules.doge(HUGE, max_score=np.inf, max_log_step=np.inf),
            {"hypergrads": [-1.0, 0.0, 0.0, 0.0], "grad_norms": np.zeros(D)},
        ),
    ],
)
def test_infinity_times_zero_does_not_reach_the_weights(rule, signals):
    state = rule.init(UNIFORM)
    for _ in range(3):
        state = jax.jit(rule.update)(state, counts=SEEN, **{key: np.float32(value) for key, value in signals.items()})
        assert_simplex(state.weights, UNIFORM)


def test_raw_weights_may_vanish_with_their_prior():
    rule = rules.erma(0.0, 1.0, normalised=False, max_log_step=200.0)
    state = rule.init([1.0, 1e-32, 0.0, 0.0])
    for counts in ([1, 1, 0, 0], [0, 1, 0, 0]):  # all raw w fall to exp(-80), and pi * w to less than float32 holds
        state = rule.update(state, counts=np.int32(counts), losses=np.zeros(D), loss_vars=np.full(D, HUGE, np.float32))
        assert_simplex(state.weights, np.array([1.0, 1e-32, 0.0, 0.0]))
        assert np.isfinite(state.log_w).all()


def test_deviations_of_zero_wherever_there_is_weight_fall_back_to_the_loss_weights():
    rule, c = rules.variance_aware(min_ratio=0.0), np.float32([0.0, 0.75, 0.25, 0.0])
    state = rule.update(rule.init(UNIFORM), counts=SEEN, loss_weights=c, grad_stds=np.float32([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(state.weights, c, atol=1e-30)

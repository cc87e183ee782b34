"""Every rule, and every wrapper, against every law of DESIGN: one table of cases, one test per law."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mixjax
from mixjax import rules
from mixjax.types import SIGNALS, WeightRule

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = np.arange(3)
PRIOR = np.array([0.5, 0.3, 0.2], np.float32)
VARIANCES = np.array([1.0, 20.0, 4.0])
MEASURED = [signal for signal in SIGNALS if signal not in ("counts", "loss_weights", "sampling_weights")]


class Case(NamedTuple):
    """A rule and what it promises.

    ``make(rows)`` builds it for the domains ``rows`` (a permutation or a part of ``ROWS``); ``by_row`` says that it
    then depends on them. ``reads`` are the signals it looks at; it can do without those that are ``optional``.
    ``unseen`` says what a row without news does: "constant" rules never move, "multiplicative" ones leave ``c_d`` as it
    is, "closed" ones reuse the last signal, "raw" ones keep their raw ``log_w``, "bandit" ones (tested by themselves)
    their rewards. ``cuts`` says that it may give a weight of exactly zero. ``period`` updates make it move once, and
    ``view`` is the part of the state that keeps the law of unseen rows.
    """

    make: Callable[[np.ndarray], WeightRule]
    reads: tuple[str, ...]
    unseen: str
    by_row: bool = False
    sampling: bool = False
    cuts: bool = False
    period: int = 1
    view: Callable[[Any], Any] = lambda state: state
    optional: tuple[str, ...] = ()


BASE = {
    "fixed": Case(lambda rows: rules.fixed(temperature=2.0), (), "constant"),
    "gls": Case(lambda rows: rules.gls(VARIANCES[rows]), (), "constant", by_row=True),
    "fgls": Case(lambda rows: rules.fgls(), ("losses",), "closed"),
    "one_shot_fgls": Case(lambda rows: rules.one_shot_fgls(), ("losses",), "closed"),
    "erma": Case(lambda rows: rules.erma(0.3, 0.5), ("losses", "loss_vars"), "multiplicative"),
    "variance_aware": Case(lambda rows: rules.variance_aware(), ("loss_weights", "grad_stds"), "closed", sampling=True),
    "gradient_norm": Case(
        lambda rows: rules.gradient_norm(),
        ("loss_weights", "grad_norms"),
        "closed",
        sampling=True,
        optional=("loss_weights",),
    ),
    "dro": Case(lambda rows: rules.dro(0.7), ("losses",), "closed"),
    "group_dro": Case(lambda rows: rules.group_dro(0.5), ("losses",), "multiplicative"),
    "mirror_descent": Case(lambda rows: rules.mirror_descent(), ("hypergrads",), "multiplicative"),
    "projected_gradient": Case(
        lambda rows: rules.projected_gradient(0.1, adaptive=False), ("hypergrads",), "multiplicative", cuts=True
    ),
    "doremi": Case(lambda rows: rules.doremi(0.5), ("losses", "reference_losses"), "multiplicative"),
    "doge": Case(lambda rows: rules.doge(0.5), ("hypergrads", "grad_norms"), "multiplicative"),
    "exp3": Case(lambda rows: rules.exp3(0.5), ("losses",), "bandit"),
}


def _wrap(name, wrapper, **changes):
    case = BASE[name]
    return case._replace(make=lambda rows: wrapper(case.make(rows)), **changes)


def _select(name):
    index = list(BASE).index(name)

    def make(rows):
        return rules.select([case.make(rows) for case in BASE.values()], index)

    reads = {signal: None for case in BASE.values() for signal in case.reads}
    changes = {"make": make, "reads": tuple(reads), "by_row": True, "optional": ()}
    return BASE[name]._replace(**changes, view=lambda state: state.states[index])


def _inner(state):
    return state.inner


CASES = BASE | {
    "slow_one_shot_fgls": Case(lambda rows: rules.one_shot_fgls(0.3), ("losses",), "raw"),
    "literal_erma": Case(
        lambda rows: rules.erma(0.3, 0.5, normalised=False), ("losses", "loss_vars"), "multiplicative"
    ),
    "dro(chi2)": Case(lambda rows: rules.dro(0.7, "chi2"), ("losses",), "closed"),
    "dro(chi2), cutting": Case(lambda rows: rules.dro(20.0, "chi2", scale=0.5), ("losses",), "closed", cuts=True),
    "dro(cvar)": Case(lambda rows: rules.dro(0.7, "cvar"), ("losses",), "closed", cuts=True),
    "dro(beta=inf)": Case(lambda rows: rules.dro(np.inf), ("losses",), "closed", cuts=True),
    "gradient_norm with a floor": BASE["gradient_norm"]._replace(make=lambda rows: rules.gradient_norm(floor=0.3)),
    "adjusted group_dro": Case(
        lambda rows: rules.group_dro(0.5, adjustment=1.0 / VARIANCES[rows], decay=0.7),
        ("losses",),
        "multiplicative",
        by_row=True,
    ),
    "constant mirror_descent": BASE["mirror_descent"]._replace(
        make=lambda rows: rules.mirror_descent(0.5, adaptive=False)
    ),
    "adaptive projected_gradient": BASE["projected_gradient"]._replace(
        make=lambda rows: rules.projected_gradient(0.05)
    ),
    "kl_to_prior(mirror_descent)": _wrap("mirror_descent", lambda rule: rules.kl_to_prior(rule, 0.3)),
    "every(fgls)": _wrap("fgls", lambda rule: rules.every(rule, 2), period=2),
    "every(erma)": _wrap("erma", lambda rule: rules.every(rule, 2), period=2),
    "smooth(fgls)": _wrap("fgls", lambda rule: rules.smooth(rule, 0.5), view=_inner),
    "smooth(gradient_norm)": _wrap("gradient_norm", lambda rule: rules.smooth(rule, 0.5), view=_inner),
    "smooth(variance_aware)": _wrap("variance_aware", lambda rule: rules.smooth(rule, 0.5), view=_inner),
    "floor(erma)": _wrap("erma", lambda rule: rules.floor(rule, 0.1)),
    "floor(variance_aware)": _wrap("variance_aware", lambda rule: rules.floor(rule, 0.1)),
    "freeze_after(erma)": _wrap("erma", lambda rule: rules.freeze_after(rule, 50)),
    "freeze_after(fgls)": _wrap("fgls", lambda rule: rules.freeze_after(rule, 50)),
    "select(erma)": _select("erma"),
    "select(variance_aware)": _select("variance_aware"),
    "select(gradient_norm)": _select("gradient_norm"),
}

every_case = pytest.mark.parametrize("name", CASES)
reading_case = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].reads])


TRACES = collections.defaultdict(list)


@functools.cache
def jitted(name, rows=tuple(ROWS)):
    """The case's rule, compiled once for all laws; TRACES has the state's type at each trace of ``update``."""
    rule = CASES[name].make(np.array(rows))

    def update(state, **signals):
        TRACES[name].append(state_type(state))
        return rule.update(state, **signals)

    return WeightRule(jax.jit(rule.init), jax.jit(update))


def draw_signals(seed, size=3):
    """Every signal of the vocabulary, all rows seen."""
    rng = np.random.default_rng(seed)
    signals = {signal: rng.uniform(0.1, 3.0, size).astype(np.float32) for signal in SIGNALS}
    for simplex in ("loss_weights", "sampling_weights"):
        signals[simplex] = rng.dirichlet(np.ones(size)).astype(np.float32)
    signals["hypergrads"] -= 2.0
    return signals | {"counts": rng.integers(2, 9, size).astype(np.int32)}


def change(signals, row, **values):
    """The same signals with some values of one row replaced."""
    signals = {name: np.array(value) for name, value in signals.items()}
    for name, value in values.items():
        signals[name][row] = value
    return signals


def advance(name, state, signals):
    """Updates with the same signals until the rule has moved once."""
    for _ in range(CASES[name].period):
        state = jitted(name).update(state, **signals)
    return state


def moved_state(name, seed=1):
    """A state after one move with all rows seen."""
    return advance(name, jitted(name).init(PRIOR), draw_signals(seed))


def stack(trees):
    return jax.tree.map(lambda *rows: np.stack(rows), *trees)


def state_type(state):
    return jax.tree.structure(state), [
        (x.shape, x.dtype, bool(getattr(x, "weak_type", False))) for x in jax.tree.leaves(state)
    ]


def assert_bitwise(a, b):
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b))


def assert_simplex(weights, prior=PRIOR):
    weights = np.asarray(weights, np.float64)
    assert np.isfinite(weights).all() and (weights >= 0).all(), weights
    assert abs(weights.sum() - 1.0) < 1e-5, weights
    assert (weights[np.asarray(prior) == 0] == 0).all(), weights


def test_table_covers_the_registry():
    assert set(BASE) == set(rules.RULES)


def test_signals_of_the_table_are_the_vocabulary():
    assert {signal for case in CASES.values() for signal in case.reads} <= set(SIGNALS)


@every_case
def test_state_begins_with_weights_and_prior(name):
    state = CASES[name].make(ROWS).init(PRIOR)
    assert state._fields[:2] == ("weights", "prior")
    np.testing.assert_allclose(state.prior, PRIOR, rtol=1e-6)
    assert_simplex(state.weights)


@every_case
def test_prior_is_normalised(name):
    rule = jitted(name)
    chex.assert_trees_all_close(rule.init(PRIOR), rule.init(PRIOR * 1000), rtol=1e-6)


@every_case
def test_state_type_is_a_fixpoint(name):
    state = jitted(name).init(PRIOR)
    kind = state_type(state)
    assert not any(weak for *_, weak in kind[1])
    assert {x.dtype for x in jax.tree.leaves(state)} <= {np.dtype(t) for t in ("float32", "int32", "bool")}
    assert state.weights.dtype == state.prior.dtype == jnp.float32
    for seed in range(3):
        state = jitted(name).update(state, **draw_signals(seed))
        assert state_type(state) == kind


@every_case
@pytest.mark.parametrize("prior", [[0.5, 0.3, 0.2], (1, 2, 3), jnp.full(3, 1 / 3), PRIOR.astype(np.float64)])
def test_state_type_does_not_depend_on_how_the_prior_is_given(name, prior):
    rule = CASES[name].make(ROWS)
    assert state_type(jax.eval_shape(rule.init, np.asarray(prior))) == state_type(jax.eval_shape(rule.init, PRIOR))
    state = rule.init(prior)
    assert state_type(state) == state_type(jax.eval_shape(rule.init, PRIOR))


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_state_is_float32_under_signals_of_any_dtype(name, dtype):
    rule, signals = CASES[name].make(ROWS), draw_signals(0)
    state = rule.init(PRIOR)
    signals = {key: value.astype(dtype) if key != "counts" else value for key, value in signals.items()}
    assert state_type(jax.eval_shape(rule.update, state, **signals)) == state_type(state)


@every_case
def test_state_is_float32_in_64_bit_mode(name):
    with jax.enable_x64(True):
        rule = CASES[name].make(ROWS)
        state = rule.init(PRIOR.astype(np.float64))
        signals = {key: value.astype(np.float64) for key, value in draw_signals(0).items()}
        assert {x.dtype for x in jax.tree.leaves(state)} <= {np.dtype(t) for t in ("float32", "int32", "bool")}
        assert state_type(jax.eval_shape(rule.update, state, **signals)) == state_type(state)


SIXTY_FOUR_BIT = {
    "fixed": lambda h: rules.fixed(temperature=h),
    "gls": lambda h: rules.gls(h),
    "fgls": lambda h: rules.fgls(min_loss=h),
    "one_shot_fgls": lambda h: rules.one_shot_fgls(h, min_loss=h),
    "erma": lambda h: rules.erma(h, h, max_log_step=h),
    "variance_aware": lambda h: rules.variance_aware(min_ratio=h),
    "gradient_norm": lambda h: rules.gradient_norm(floor=h),
    "dro": lambda h: rules.dro(h, scale=h),
    "dro(chi2)": lambda h: rules.dro(h, "chi2", scale=h),
    "dro(cvar)": lambda h: rules.dro(h, "cvar"),
    "group_dro": lambda h: rules.group_dro(h, adjustment=h, decay=h, max_log_step=h),
    "mirror_descent": lambda h: rules.mirror_descent(h, max_log_step=h),
    "projected_gradient": lambda h: rules.projected_gradient(h),
    "constant projected_gradient": lambda h: rules.projected_gradient(h, adaptive=False),
    "doremi": lambda h: rules.doremi(h, floor=h, max_log_step=h),
    "doge": lambda h: rules.doge(h, max_score=h, max_log_step=h),
    "exp3": lambda h: rules.exp3(h),
    "kl_to_prior": lambda h: rules.kl_to_prior(rules.mirror_descent(), h),
    "smooth": lambda h: rules.smooth(rules.fgls(), h),
    "floor": lambda h: rules.floor(rules.fgls(), h),
    "every": lambda h: rules.every(rules.fgls(), jnp.int64(2), jnp.int64(0)),
    "freeze_after": lambda h: rules.freeze_after(rules.fgls(), jnp.int64(2)),
    "select": lambda h: rules.select([rules.fgls(), rules.fixed()], jnp.int64(1)),
}


@pytest.mark.parametrize("name", SIXTY_FOUR_BIT)
def test_state_is_float32_under_64_bit_hyperparameters(name):
    with jax.enable_x64(True):
        rule = SIXTY_FOUR_BIT[name](jnp.float64(0.5))
        state = rule.init(PRIOR)
        assert state_type(jax.eval_shape(rule.update, state, **draw_signals(0))) == state_type(state)


@st.composite
def extreme_signals(draw):
    def row(*values):
        return np.array(draw(st.lists(st.sampled_from(values), min_size=3, max_size=3)), np.float32)

    weights = row(0.0, 1e-30, 1e-3, 0.5, 1.0)
    return draw_signals(0) | {
        "counts": row(0, 1, 5).astype(np.int32),
        "losses": row(0.0, 1e-38, 1e-12, 1e-3, 1.0, 1e3, 1e8, 1e30, np.nan),
        "loss_vars": row(0.0, 1e-20, 1.0, 1e6, 1e30, 3e38),
        "grad_stds": row(0.0, 1e-38, 1e-20, 1e-3, 1.0, 1e20, 3e38, np.inf),
        "grad_norms": row(0.0, 1e-38, 1e-20, 1e-3, 1.0, 1e20, 3e38, np.inf),
        "hypergrads": row(0.0, -1e-38, 1e-20, 1e-3, -1.0, 1e20, -3e38, 3e38, np.nan),
        "reference_losses": row(0.0, 1e-12, 1.0, 1e8, 1e30, np.inf),
        "loss_weights": weights / weights.sum() if weights.sum() > 0 else PRIOR,
    }


PRIORS = st.sampled_from([PRIOR, np.array([0.6, 0.0, 0.4], np.float32), np.array([1e-6, 1.0, 1.0], np.float32)])


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(PRIORS, st.lists(extreme_signals(), min_size=4, max_size=4))
def test_weights_stay_on_the_simplex_at_extremes(prior, steps):
    for name in CASES:
        note(name)
        state = jitted(name).init(prior)
        for signals in steps:
            state = jitted(name).update(state, **signals)
            assert_simplex(state.weights, prior)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@every_case
@pytest.mark.parametrize("losses", [0.0, 1e30])
@pytest.mark.parametrize("spread", [0.0, 3e38])
def test_weights_stay_on_the_simplex_over_many_extreme_updates(name, losses, spread):
    state, size = jitted(name).init(PRIOR), np.float32([1.0, 0.0, 0.5])
    signals = draw_signals(0) | {
        "losses": size * np.float32(losses),
        "loss_vars": np.roll(size, 1) * np.float32(spread),
        "grad_stds": size * np.float32(spread),
        "grad_norms": size * np.float32(spread),
        "hypergrads": np.roll(size, 1) * -np.float32(spread),
        "reference_losses": np.roll(size, 2) * np.float32(losses),
    }
    for _ in range(30):
        state = jitted(name).update(state, **signals)
    assert_simplex(state.weights)


@every_case
def test_one_domain_has_all_the_weight(name):
    rule = CASES[name].make(ROWS[:1])
    state = rule.init([3.0])
    for signals in (draw_signals(1, 1), change(draw_signals(2, 1), 0, losses=np.nan), draw_signals(3, 1)):
        np.testing.assert_allclose(state.weights, [1.0], rtol=1e-6)
        state = rule.update(state, **signals | {"loss_weights": np.float32([1.0])})
    np.testing.assert_allclose(state.weights, [1.0], rtol=1e-6)


@every_case
def test_zero_prior_stays_exactly_zero(name):
    prior = np.float32([0.7, 0.0, 0.3])
    state = jitted(name).init(prior)
    for seed in range(5):
        assert state.weights[1] == 0 and state.prior[1] == 0
        assert_simplex(state.weights, prior)
        signals = change(draw_signals(seed), 1, losses=1e-6, grad_stds=1e6, grad_norms=1e6, hypergrads=-1e6)
        state = jitted(name).update(state, **signals)


@every_case
def test_a_row_of_zero_prior_changes_nothing(name):
    prior = np.float32([0.7, 0.0, 0.3])
    a = b = jitted(name).init(prior)
    other = {"losses": 1e6, "loss_vars": np.nan, "grad_stds": 1e6, "grad_norms": 1e6, "hypergrads": 1e6, "counts": 0}
    for seed in range(3):
        signals = change(draw_signals(seed), 1, loss_weights=0.0)
        a = jitted(name).update(a, **signals)
        b = jitted(name).update(b, **change(signals, 1, **other))
    assert_bitwise(a.weights, b.weights)


@every_case
def test_permutation_equivariance(name):
    order = np.array([2, 0, 1])
    rule = jitted(name)
    permuted = jitted(name, tuple(order)) if CASES[name].by_row else rule
    a, b = rule.init(PRIOR), permuted.init(PRIOR[order])
    for seed in range(4):
        signals = draw_signals(seed) if seed != 2 else change(draw_signals(seed), 1, counts=0)
        a = rule.update(a, **signals)
        b = permuted.update(b, **{key: value[order] for key, value in signals.items()})
        np.testing.assert_allclose(b.weights, a.weights[order], rtol=1e-5, atol=1e-7)


def unseen(signals, row):
    """The same signals without a row: no examples, and NaN for what could not be measured."""
    return change(signals, row, counts=0, **dict.fromkeys(MEASURED, np.nan))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "multiplicative"])
def test_multiplicative_rules_leave_unseen_weights_bitwise(name):
    state = moved_state(name)
    new = advance(name, state, unseen(draw_signals(2), 1))
    assert_bitwise(new.weights[1], state.weights[1])
    assert_simplex(new.weights)
    assert np.abs(new.weights - state.weights)[[0, 2]].min() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "closed"])
def test_closed_form_rules_reuse_the_last_seen_signal(name):
    case, first, second = CASES[name], draw_signals(1), draw_signals(2)
    state = moved_state(name)
    new = advance(name, state, unseen(second, 1))
    last = {signal: first[signal][1] for signal in ("losses", "grad_stds", "grad_norms")}
    again = advance(name, state, change(second, 1, **last))
    chex.assert_trees_all_close(case.view(new), case.view(again), rtol=1e-6)
    assert np.abs(case.view(new).weights - case.view(state).weights).max() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "closed"])
def test_closed_form_rules_keep_the_prior_share_of_a_row_never_seen(name):
    case, state = CASES[name], jitted(name).init(PRIOR)
    for seed in range(2):
        state = advance(name, state, unseen(draw_signals(seed), 1))
        np.testing.assert_allclose(case.view(state).weights[1], PRIOR[1], rtol=1e-6)
        assert_simplex(state.weights)
    assert np.abs(state.weights - PRIOR)[[0, 2]].min() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "raw"])
def test_recursive_rules_keep_the_raw_weight_of_an_unseen_row(name):
    state = moved_state(name)
    new = advance(name, state, unseen(draw_signals(2), 1))
    assert_bitwise(new.log_w[1], state.log_w[1])
    assert np.abs(new.log_w - state.log_w)[[0, 2]].min() > 1e-3
    np.testing.assert_allclose(new.weights, jax.nn.softmax(jnp.log(PRIOR) + new.log_w), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "constant"])
def test_constant_rules_never_move(name):
    state = jitted(name).init(PRIOR)
    assert_bitwise(moved_state(name), state)
    assert_bitwise(advance(name, state, unseen(draw_signals(2), 1)), state)


@every_case
def test_no_news_leaves_the_state_bitwise(name):
    for state in (jitted(name).init(PRIOR), moved_state(name)):
        signals = draw_signals(2) | {"counts": np.zeros(3, np.int32)}
        assert_bitwise(jitted(name).update(state, **signals), state)
        nothing = {key: np.full(3, np.nan, np.float32) for key in SIGNALS if key != "counts"}
        assert_bitwise(jitted(name).update(state, **signals | nothing), state)


@every_case
def test_rows_all_unseen_leave_the_weights(name):
    state = moved_state(name)
    signals = draw_signals(2) | {"loss_weights": draw_signals(1)["loss_weights"]}
    signals |= {key: np.full(3, np.nan, np.float32) for key in MEASURED}
    new, view = advance(name, state, signals), CASES[name].view
    np.testing.assert_allclose(view(new).weights, view(state).weights, rtol=1e-6)


@reading_case
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_signal_makes_the_row_unseen(name, value):
    state, second = moved_state(name), draw_signals(2)
    last = draw_signals(1)["loss_weights"][1]
    for signal in CASES[name].reads:
        kept = {"loss_weights": last} if signal == "loss_weights" else {}
        a = advance(name, state, change(second, 1, **{signal: value}))
        b = advance(name, state, change(second, 1, counts=0, **kept))
        if name.startswith("select") and signal not in BASE[name[7:-1]].reads:
            continue  # read by a rule that is not the selected one
        assert_bitwise(a, b)


@every_case
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_signal_the_rule_does_not_read_changes_nothing(name, value):
    state, second = moved_state(name), draw_signals(2)
    others = {signal: value for signal in SIGNALS if signal not in (*CASES[name].reads, "counts")}
    assert_bitwise(advance(name, state, change(second, 1, **others)), advance(name, state, second))


@every_case
def test_a_missing_signal_is_a_type_error_that_names_it(name):
    rule = CASES[name].make(ROWS)
    state, signals = rule.init(PRIOR), draw_signals(0)
    for missing in {"counts", *CASES[name].reads} - {*CASES[name].optional}:
        rest = {key: value for key, value in signals.items() if key != missing}
        with pytest.raises(TypeError, match=missing):
            rule.update(state, **rest)
        with pytest.raises(TypeError, match=missing):
            jax.jit(rule.update)(state, **rest)


@reading_case
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1)])
def test_a_wrong_shape_is_a_value_error_that_names_the_signal(name, shape):
    rule = CASES[name].make(ROWS)
    state, signals = rule.init(PRIOR), draw_signals(0)
    for signal in ("counts", *CASES[name].reads):
        with pytest.raises(ValueError, match=f"'{signal}'"):
            rule.update(state, **signals | {signal: np.ones(shape, np.float32)})


@every_case
@pytest.mark.parametrize("prior", [[], [[0.5, 0.5]], 1.0, [0.5, -0.1, 0.6], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_a_prior_off_the_cone_is_a_value_error(name, prior):
    with pytest.raises(ValueError, match="prior"):
        CASES[name].make(ROWS).init(prior)


@every_case
def test_eager_on_the_named_signals_equals_jit_on_all(name):
    rule = CASES[name].make(ROWS)
    a, b = rule.init(PRIOR), jitted(name).init(PRIOR)
    for seed, more in enumerate([{}, {"something_new": np.ones(3), "another": "thing"}]):
        signals = draw_signals(seed)
        needed = {key: signals[key] for key in ("counts", *CASES[name].reads)}
        a, b = rule.update(a, **needed, **more), jitted(name).update(b, **signals)
        chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


@every_case
def test_vmap_equals_a_loop(name):
    rule, runs = jitted(name), 3
    states = [rule.init(np.roll(PRIOR, run)) for run in range(runs)]
    batched, update = stack(states), jax.jit(jax.vmap(rule.update))
    for t in range(2):
        signals = [draw_signals(10 * t + run) for run in range(runs)]
        signals[t]["counts"][1] = 0
        states = [rule.update(state, **row) for state, row in zip(states, signals, strict=True)]
        batched = update(batched, **stack(signals))
        chex.assert_trees_all_close(batched, stack(states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*BASE, "every(erma)", "floor(erma)", "select(erma)"])
def test_runs_on_devices_under_shard_map(name):
    mesh = jax.make_mesh((8,), ("runs",), axis_types=(AxisType.Auto,))
    rule = jitted(name)

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("runs"), out_specs=P("runs"))
    def update(states, signals):
        state, signals = jax.tree.map(lambda x: x[0], (states, signals))
        return jax.tree.map(lambda x: x[None], rule.update(state, **signals))

    states = [rule.init(np.roll(PRIOR, run)) for run in range(8)]
    signals = [draw_signals(run) for run in range(8)]
    new = update(stack(states), stack(signals))
    loop = [rule.update(state, **row) for state, row in zip(states, signals, strict=True)]
    chex.assert_trees_all_close(new, stack(loop), rtol=1e-5, atol=1e-6)


TRACED = {
    "fixed, temperature": (lambda h: rules.fixed(temperature=h), [1.0, 3.0, np.inf]),
    "fixed, weights": (lambda h: rules.fixed([h, 1.0, 2.0]), [0.0, 3.0]),
    "gls, variances": (lambda h: rules.gls(jnp.stack([h, 1.0, 2.0])), [0.1, 3.0]),
    "fgls, min_loss": (lambda h: rules.fgls(min_loss=h), [1e-12, 1.0]),
    "one_shot_fgls, gamma": (lambda h: rules.one_shot_fgls(h), [0.0, 0.3, 1.0]),
    "one_shot_fgls, min_loss": (lambda h: rules.one_shot_fgls(min_loss=h), [1e-12, 1.0]),
    "erma, gamma1": (lambda h: rules.erma(gamma1=h), [0.0, 0.5]),
    "erma, gamma2": (lambda h: rules.erma(gamma2=h), [0.0, 0.5]),
    "erma, max_log_step": (lambda h: rules.erma(1.0, 5.0, max_log_step=h), [0.1, 5.0]),
    "variance_aware, min_ratio": (lambda h: rules.variance_aware(min_ratio=h), [0.0, 0.9]),
    "gradient_norm, floor": (lambda h: rules.gradient_norm(floor=h), [0.0, 0.9]),
    "dro, beta": (lambda h: rules.dro(h), [0.0, 0.5, np.inf]),
    "dro(chi2), beta": (lambda h: rules.dro(h, "chi2"), [0.0, 0.5, np.inf]),
    "dro(chi2), scale": (lambda h: rules.dro(0.5, "chi2", scale=h), [0.5, 1.0]),
    "dro(cvar), beta": (lambda h: rules.dro(h, "cvar"), [0.0, 0.5, np.inf]),
    "group_dro, step_size": (lambda h: rules.group_dro(h), [0.0, 0.5]),
    "group_dro, adjustment": (lambda h: rules.group_dro(0.5, adjustment=jnp.stack([h, 1.0, 2.0])), [0.0, 3.0]),
    "group_dro, decay": (lambda h: rules.group_dro(0.5, decay=h), [0.0, 0.9]),
    "group_dro, max_log_step": (lambda h: rules.group_dro(5.0, max_log_step=h), [0.1, 5.0]),
    "mirror_descent, step_size": (lambda h: rules.mirror_descent(h), [0.0, 0.5]),
    "mirror_descent, max_log_step": (lambda h: rules.mirror_descent(5.0, max_log_step=h), [0.1, 5.0]),
    "projected_gradient, step_size": (lambda h: rules.projected_gradient(h), [0.0, 0.1]),
    "doremi, step_size": (lambda h: rules.doremi(h), [0.0, 0.5]),
    "doremi, floor": (lambda h: rules.doremi(floor=h), [0.0, 0.5]),
    "doremi, max_log_step": (lambda h: rules.doremi(5.0, max_log_step=h), [0.1, 5.0]),
    "doge, step_size": (lambda h: rules.doge(h), [0.0, 0.5]),
    "doge, max_score": (lambda h: rules.doge(max_score=h), [0.1, 5.0]),
    "doge, max_log_step": (lambda h: rules.doge(10.0, max_log_step=h), [0.1, 5.0]),
    "exp3, decay": (lambda h: rules.exp3(h), [0.1, 0.9]),
    "kl_to_prior, strength": (lambda h: rules.kl_to_prior(rules.mirror_descent(), h), [0.0, 5.0]),
    "every, k": (lambda h: rules.every(rules.fgls(), h), [1, 3]),
    "every, start": (lambda h: rules.every(rules.fgls(), 1, h), [1, 2]),
    "freeze_after, k": (lambda h: rules.freeze_after(rules.fgls(), h), [0, 2]),
    "smooth, decay": (lambda h: rules.smooth(rules.fgls(), h), [0.0, 0.5]),
    "floor, fraction": (lambda h: rules.floor(rules.fgls(), h), [0.0, 0.5]),
    "select, index": (lambda h: rules.select([rules.fgls(), rules.fixed()], h), [0, 1]),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_hyperparameters_equal_concrete_ones(name):
    make, values = TRACED[name]
    steps = [draw_signals(seed) for seed in range(5)]  # exp3 explores for three

    @jax.jit
    @jax.vmap
    def traced(value):
        rule = make(value)

        def step(state, signals):
            state = rule.update(state, **signals)
            return state, state.weights

        return jax.lax.scan(step, rule.init(PRIOR), stack(steps))[1]

    traced = traced(jnp.asarray(values))
    for rows, value in zip(traced, values, strict=True):
        rule = make(value)
        state = rule.init(PRIOR)
        for row, signals in zip(rows, steps, strict=True):
            state = rule.update(state, **signals)
            np.testing.assert_allclose(row, state.weights, rtol=1e-5, atol=1e-7)
    assert np.abs(np.diff(traced, axis=0)).max() > 1e-3, "the values should make a difference"


@every_case
def test_runs_in_scan(name):
    steps = [draw_signals(seed) for seed in range(5)]
    stacked = stack(steps)
    rule = jitted(name)

    @jax.jit
    def run(state, signals):
        return jax.lax.scan(lambda state, s: ((new := rule.update(state, **s)), new.weights), state, signals)

    state = rule.init(PRIOR)
    final, history = run(state, stacked)
    for t, signals in enumerate(steps):
        state = rule.update(state, **signals)
        np.testing.assert_allclose(history[t], state.weights, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(final, state, rtol=1e-5, atol=1e-6)


@every_case
def test_three_updates_trace_once(name):
    rule = jitted(name)
    state, before = CASES[name].make(ROWS).init([0.2, 0.3, 0.5]), len(TRACES[name])
    for seed in range(3):
        state = rule.update(state, **draw_signals(seed))
    assert len(TRACES[name]) - before <= 1  # 0 where another test has traced it
    assert all(kind == state_type(state) for kind in TRACES[name])


@every_case
def test_no_gradient_flows(name):
    signals = draw_signals(3)
    signals["counts"] = signals["counts"].astype(np.float32)
    state = moved_state(name)

    def readout(signals):
        return jnp.sum(advance(name, state, signals).weights * jnp.array([1.0, 20.0, -3.0]))

    grads = jax.jit(jax.grad(readout))(signals)
    assert_bitwise(grads, jax.tree.map(np.zeros_like, signals))


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(PRIORS, st.lists(extreme_signals(), min_size=3, max_size=3))
def test_sampling_rules_draw_from_every_weighted_domain(prior, steps):
    for name in CASES:
        if CASES[name].sampling:
            note(name)
            state = jitted(name).init(prior)
            for signals in steps:
                state = jitted(name).update(state, **signals)
                if signals["counts"].any():
                    needed = (signals["loss_weights"] > 0) & (prior > 0)
                    assert (np.asarray(state.weights)[needed] > 0).all()


@pytest.mark.parametrize("name", [name for name in BASE if BASE[name].sampling])
@pytest.mark.parametrize("counts", [[4, 4, 4], [0, 4, 4]])
@pytest.mark.parametrize("c", [[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
def test_all_zero_scores_fall_back_to_the_loss_weights(name, counts, c):
    zeros = draw_signals(0) | {key: np.zeros(3, np.float32) for key in ("grad_stds", "grad_norms", "losses")}
    c = np.float32(c)
    state = jitted(name).update(jitted(name).init(c), **zeros | {"loss_weights": c, "counts": np.int32(counts)})
    np.testing.assert_allclose(state.weights, c, rtol=1e-6)
    state = jitted(name).update(jitted(name).init(PRIOR), **zeros | {"loss_weights": c, "counts": np.int32([4, 4, 4])})
    np.testing.assert_allclose(state.weights, c, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("name", [name for name in BASE if BASE[name].sampling])
def test_weight_only_on_rows_never_seen_stays_on_the_simplex(name):
    c = np.float32([1.0, 0.0, 0.0])
    signals = change(draw_signals(0) | {"loss_weights": c}, 0, counts=0)
    state = jitted(name).update(jitted(name).init(PRIOR), **signals)
    assert_simplex(state.weights)
    assert state.weights[0] > 0


# The laws that tie the adapters together: weighted_loss, aggregate and track.

LOSS_RULES = [name for name in CASES if not CASES[name].sampling]
IDS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
X = np.random.default_rng(0).normal(size=(len(IDS), 2)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=len(IDS)).astype(np.float32)


def example_losses(theta):
    return jnp.square(X @ theta - Y)


@jax.jit
def domain_means(theta):
    """Each domain's mean gradient, and the signals of the batch."""
    per_example = jax.jacrev(example_losses)(theta)
    means = jnp.stack([per_example[np.flatnonzero(d == IDS)].mean(axis=0) for d in range(3)])
    return means, mixjax.signals.moments(example_losses(theta), IDS, 3).signals()


@pytest.mark.parametrize("name", LOSS_RULES)
def test_gradient_of_weighted_loss_equals_aggregate(name):
    rule = jitted(name)
    extra = {key: value for key, value in draw_signals(0).items() if key not in ("counts", "losses", "loss_vars")}
    tx = mixjax.aggregate(rule, PRIOR)

    def objective(theta, state):
        return mixjax.weighted_loss(rule, state, example_losses(theta), IDS, update=True, **extra)

    theta, state = jnp.array([0.3, -0.7]), rule.init(PRIOR)
    opt_state = tx.init(theta)
    for _ in range(3):
        grad, state = jax.grad(objective, has_aux=True)(theta, state)
        means, measured = domain_means(theta)
        combined, opt_state = tx.update(means, opt_state, theta, **measured, **extra)
        np.testing.assert_allclose(grad, combined, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(state, opt_state.rule_state, rtol=1e-5, atol=1e-6)
        assert CASES[name].cuts or (state.weights > 0).all()
        theta -= 0.1 * grad


@pytest.mark.parametrize("name", LOSS_RULES)
def test_track_holds_the_states_of_aggregate_and_applies_its_weights_one_step_later(name):
    rule, params = jitted(name), jnp.zeros(3)
    aggregate, track = mixjax.aggregate(rule, PRIOR), mixjax.track(rule, PRIOR)
    a, b = aggregate.init(params), track.init(params)
    applied = None
    for t in range(4):
        weights = mixjax.get_weights(b)  # what a user of track weights step t with
        np.testing.assert_allclose(weights, rule.init(PRIOR).weights if t == 0 else applied, rtol=1e-6)
        signals = draw_signals(t)
        applied, a = aggregate.update(jnp.eye(3), a, params, **signals)  # unit gradients show the weights
        passed, b = track.update(params + t, b, params, **signals)
        assert_bitwise(passed, params + t)
        chex.assert_trees_all_close(a.rule_state, b.rule_state, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(applied, mixjax.get_weights(a), rtol=1e-6)


@every_case
def test_bfloat16_parameters_leave_the_state_float32(name):
    rule = CASES[name].make(ROWS)
    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    tx = optax.chain(mixjax.aggregate(rule, PRIOR), optax.sgd(0.1))
    state = tx.init(params)
    grads = {"w": jnp.ones((3, 2, 2), jnp.bfloat16)}
    signals = {key: jnp.asarray(value, jnp.bfloat16) for key, value in draw_signals(0).items()}
    updates, new = jax.eval_shape(tx.update, grads, state, params, **signals)
    assert updates["w"].dtype == jnp.bfloat16
    assert state_type(new) == state_type(state)
    assert mixjax.get_weights(state).dtype == jnp.float32

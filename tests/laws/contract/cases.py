"""Lists every rule and every wrapper as a case, with what it promises, and helps to test the laws of all cases."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from mixjax import rules
from mixjax.types import SIGNALS, WeightRule

ROWS = np.arange(3)
PRIOR = np.array([0.5, 0.3, 0.2], np.float32)
VARIANCES = np.array([1.0, 20.0, 4.0])
MEASURED = [signal for signal in SIGNALS if signal not in ("counts", "loss_weights", "sampling_weights")]


class Case(NamedTuple):
    """A rule and what it promises.

    ``make(rows)`` builds it for the domains ``rows`` (a permutation or a part of ``ROWS``); ``by_row`` says that it
    then depends on them. ``reads`` are the signals it looks at; it can do without those that are ``optional``.
    ``unseen`` says what a row without news does: "constant" rules never move, "multiplicative" ones leave ``c_d`` as it
    is, "closed" ones reuse the last signal, "raw" ones keep their raw ``log_w``, "bandit" and "law" ones (tested by
    themselves) their rewards and what they fitted. ``cuts`` says that it may give a weight of exactly zero. ``period``
    updates make it move once, and ``view`` is the part of the state that keeps the law of unseen rows.
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
    "ado": Case(lambda rows: rules.ado(0.3, 0.5, delta_min=0.001, warmup=0, skip=0), ("losses",), "law"),
    "aioli": Case(lambda rows: rules.aioli(0.8, rounds=2, hold=2), ("losses",), "law"),
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


def _limits(rows, limit):
    """The same limit for every domain, but for a single one, which has all the weight."""
    return np.full(len(rows), max(limit, 1.0 / len(rows)))


def _inner(state):
    return state.inner


CASES = BASE | {
    "exp3(perplexity)": BASE["exp3"]._replace(make=lambda rows: rules.exp3(0.5, reward="perplexity")),
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
    "cap(fgls)": Case(
        lambda rows: rules.cap(rules.fgls(), _limits(rows, 0.5)), ("losses",), "closed", view=lambda state: state.inner
    ),
    "cap(erma)": Case(
        lambda rows: rules.cap(rules.erma(0.3, 0.5), _limits(rows, 0.9)), ("losses", "loss_vars"), "multiplicative"
    ),
    "select(erma)": _select("erma"),
    "select(variance_aware)": _select("variance_aware"),
    "select(gradient_norm)": _select("gradient_norm"),
}
every_case = pytest.mark.parametrize("name", CASES)
reading_case = pytest.mark.parametrize("name", [name for name in CASES if CASES[name].reads])
TRACES = collections.defaultdict(list)


@functools.cache
def jitted(name, rows=tuple(ROWS)):
    """The case's rule, compiled once for all laws; TRACES has the state's type at each trace of ``update``, by rows."""
    rule = CASES[name].make(np.array(rows))

    def update(state, **signals):
        TRACES[name, rows].append(state_type(state))
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


def unseen(signals, row):
    """The same signals without a row: no examples, and NaN for what could not be measured."""
    return change(signals, row, counts=0, **dict.fromkeys(MEASURED, np.nan))


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

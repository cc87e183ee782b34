"""Tests the vocabulary of signals and the two estimators against the code that takes them."""

import inspect
from typing import get_args

import jax.numpy as jnp
import pytest

from mixjax import objectives, rules
from mixjax.types import SIGNALS, Estimator, WeightRule


@pytest.mark.parametrize("name", rules.RULES)
def test_update_takes_counts_and_signals_of_the_vocabulary_by_keyword(name):
    factory = rules.RULES[name]
    rule = factory(jnp.ones(2)) if name == "gls" else factory()
    assert isinstance(rule, WeightRule)
    state, *signals, rest = inspect.signature(rule.update).parameters.values()
    assert state.name == "state" and rest.kind is inspect.Parameter.VAR_KEYWORD
    assert {signal.kind for signal in signals} == {inspect.Parameter.KEYWORD_ONLY}
    assert signals[0].name == "counts" and {signal.name for signal in signals} <= set(SIGNALS)


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_every_estimator_weights_examples(estimator):
    half = jnp.array([0.5, 0.5])
    weights = objectives.example_weights(
        half, jnp.array([0, 1]), jnp.array([1, 1]), estimator=estimator, sampling_weights=half
    )
    assert weights.tolist() == [0.5, 0.5]

"""The abstract's sentences."""

from experiments.fewer_weight_updates import sentences


def test_the_abstract_is_quoted_as_such():
    assert sentences.quote("one_step_fails")["source"] == "paper 001, abstract"

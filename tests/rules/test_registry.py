"""Tests that the package lists every rule, every wrapper and the module of states."""

import inspect
import pydoc

from mixjax import rules
from mixjax.types import WeightRule


def test_registry_has_every_base_rule_by_its_own_name():
    for name, factory in rules.RULES.items():
        assert factory.__name__ == name and getattr(rules, name) is factory and name in rules.__all__
    wrappers = {"every", "smooth", "floor", "freeze_after", "select", "kl_to_prior", "cap"}
    factories = {
        name
        for name in rules.__all__
        if inspect.isfunction(getattr(rules, name))
        and inspect.signature(getattr(rules, name), eval_str=True).return_annotation is WeightRule
    }
    assert factories == set(rules.RULES) | wrappers


def test_help_is_short_since_it_shows_no_states():
    text = pydoc.render_doc(rules, renderer=pydoc.plaintext)
    assert len(text.splitlines()) < 1250 and "_replace" not in text

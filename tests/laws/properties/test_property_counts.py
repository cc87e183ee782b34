"""How many cases the properties are tested in."""

import importlib
import math
from pathlib import Path

from hypothesis import is_hypothesis_test


def number_of_cases():
    """The examples of every property, by name: those of each parameter counted, regression tests by hand not."""
    numbers = {}
    for path in sorted(Path(__file__).parent.glob("test_property_*.py")):
        for name, test in vars(importlib.import_module(f"tests.laws.properties.{path.stem}")).items():
            if is_hypothesis_test(test):
                marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
                numbers[f"{path.stem}.{name}"] = test.cases * math.prod(len(mark.args[1]) for mark in marks)
    return numbers


def test_there_are_five_thousand_cases_at_least():
    numbers = number_of_cases()
    print(f"{sum(numbers.values())} cases of {len(numbers)} properties: {numbers}")
    assert sum(numbers.values()) >= 5000, numbers

"""The numbers that pages quote from benchmarks are those of the results."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "experiments" / "benchmarks" / "results"
PAGE = (ROOT / "experiments" / "guides" / "benchmarks.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
NUMBER = re.compile(r"(?<![\w.^/])(?<!\w-)\d[\d,]*(?:\.\d+)?(?![\w^]|\.\d)")
# What is worked out from results: half of a processor time, for two cores, ratios of two rows, the bytes of a gradient,
# and the share of what was left out.
WORKED_OUT = {
    "A sweep of training runs": {"3.2", "18"},
    "Many short runs": {"15", "4.5"},
    "Gradient norms of examples": {"1.2", "6", "360", "2.7"},
}
SIZES = 10**3, 10**5, 10**7


def data_of(name):
    return json.loads((RESULTS / name / "results.json").read_text())["data"]


def medians(data):
    """The numbers of a tree of results, without the least and the most of turns."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name not in {"low", "high", "repeats"}:
                yield from medians(value)
    elif isinstance(data, list):
        for value in data:
            yield from medians(value)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield float(data)


def value_of(token):
    return float(token.replace(",", ""))


def is_rounded(token, value):
    """Whether a token is a number as a reader would round it: to the digits shown, the zeros of a large one aside."""
    whole, _, decimals = token.replace(",", "").partition(".")
    unit = 10.0 ** (len(whole) - max(len(whole.rstrip("0")), 2)) if not decimals else 10.0 ** -len(decimals)
    return abs(value - value_of(token)) <= 0.501 * unit


def known(names):
    """The numbers of some benchmarks, as they are, as thousands and as per cent."""
    found = set()
    for name in names:
        text = re.sub(r"\([^()]* to [^()]*\)", "", (RESULTS / name / "RESULTS.md").read_text())
        written = [text.partition("## Machine")[0], text.partition("## Measurements")[2]]
        tokens = {value_of(token) for part in written for token in NUMBER.findall(part)}
        found |= {value * scale for value in tokens for scale in (1, 100)}
        found |= {value * scale for value in medians(data_of(name)) for scale in (1, 1e3, 100)}
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_numbers_of_a_section_are_in_its_tables(title):
    section = SECTIONS[title]
    pool = known(set(re.findall(r"results/(\w+)/RESULTS", section)))
    # Names of code and addresses hold no measurements, and brackets hold the least and the most.
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|\([^()]* to [^()]*\)", " ", section)
    tokens = set(NUMBER.findall(text)) - WORKED_OUT.get(title, set())
    missing = sorted(token for token in tokens if not any(is_rounded(token, value) for value in pool))
    assert not missing


def row_of(title, label):
    """The cells of a table's row on the page, by the row's first cell."""
    (cells,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", SECTIONS[title], re.MULTILINE)
    return [cell.strip() for cell in cells.split("|")]


def assert_row(title, label, values):
    for cell, value in zip(row_of(title, label), values, strict=True):
        # "not run" where a side has no value there.
        assert is_rounded(cell, value) if value is not None else not NUMBER.search(cell), (label, cell, value)


DRAWS = {
    "`samplers.hardness`, in jit": ("independent", "mixjax, in jit"),
    "the same, without replacement": ("distinct", "mixjax, in jit, distinct"),
    "JAX, cumulative sum of the whole softmax": ("independent", "JAX cumsum + searchsorted"),
    "JAX, Gumbel noise and `top_k`, without replacement": ("distinct", "JAX Gumbel + top_k"),
    "PyTorch `multinomial`": ("independent", "PyTorch multinomial"),
    "NumPy `choice(replace=False, p)`, losses one by one": (
        "distinct",
        "NumPy choice(replace=False, p), losses written one by one",
    ),
}
TREES = {
    "`HostSampler`, compiled by numba": "`HostSampler`, numba",
    "cpprb, C++": "cpprb (C++)",
    "torchrl `SumSegmentTree`, C++": "torchrl `SumSegmentTree` (C++)",
    "`hardness`, in a compiled loop": "`hardness`, in a compiled loop",
    "`proportional`, in a compiled loop": "`proportional`, in a compiled loop",
    "flashbax, in a compiled loop": "flashbax, in a compiled loop",
}


@pytest.mark.parametrize("label", DRAWS)
def test_rows_of_draws_are_those_of_the_results(label):
    (law, side), times = DRAWS[label], data_of("samplers")["microseconds"]
    found = [times[f"n={n} B=64 {law}"].get(side) for n in SIZES]
    assert_row("Hardness sampling", label, [value and value["median"] for value in found])


@pytest.mark.parametrize("label", TREES)
def test_rows_of_trees_are_those_of_the_results(label):
    times = data_of("replay_trees")["microseconds"]
    assert_row("Hardness sampling", label, [times[f"n={n}"][TREES[label]]["median"] for n in SIZES])


@pytest.mark.parametrize("steps", ["1", "8", "64"])
def test_rows_of_calls_are_those_of_the_results(steps):
    times = data_of("calls")["steps a call"][steps]
    assert_row("What a call costs", steps, [times[name]["median"] for name in ("plain", "erma")])


def test_the_readmes_draws_are_those_of_the_results():
    times = data_of("replay_trees")["microseconds"]["n=10000000"]
    (line,) = re.findall(r"^- Drawing 64 of .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    tokens = re.search(r"takes ([\d.]+) microseconds on the host; two C\+\+ trees take ([\d.]+) and ([\d.]+)", line)
    for token, side in zip(tokens.groups(), ("HostSampler`, compiled by numba", "torchrl", "cpprb"), strict=True):
        (name,) = [name for label, name in TREES.items() if side in label]
        assert is_rounded(token, times[name]["median"]), (token, name)


def test_the_cost_in_the_guide_to_hardness_is_that_of_the_results():
    text, times = (ROOT / "experiments" / "guides" / "hardness.md").read_text(), data_of("samplers")["microseconds"]
    (tokens,) = re.findall(r"\*\*Cost\*\*: ([\d.]+) ms a step for 10\^7 examples, and ([\d.]+) ms", text)
    for token, label in zip(tokens, list(DRAWS)[:2], strict=True):
        law, side = DRAWS[label]
        assert is_rounded(token, times[f"n=10000000 B=64 {law}"][side]["median"] / 1e3), (token, label)

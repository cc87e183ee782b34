"""Judges a plan with limits by UniMax's algorithm 1, by the rates that its paper prints, and by what it states."""

import numpy as np
import xarray

from experiments.live_mix.languages import FULL_BUDGET, languages
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, paired, versus

__all__ = ["allocation", "claims"]

_PAPER = "Chung et al. 2023"


def allocation(sizes: np.ndarray, max_epochs: float, budget: float) -> np.ndarray:
    """Runs algorithm 1 of the paper in float64; returns its ``U`` before it is normalised, ``[language]``.

    Args:
        sizes: ``[language]``, the characters ``c`` of each.
        max_epochs: ``N``.
        budget: ``C``, in the units of ``sizes``.
    """
    sizes = np.asarray(sizes, np.float64)
    allotted, left = np.zeros(sizes.size), float(budget)
    for number, language in enumerate(np.argsort(sizes, kind="stable")):
        share = left / (sizes.size - number)
        allotted[language] = min(share, sizes[language] * max_epochs)
        left -= allotted[language]
    return allotted


def claims(results) -> list[Claim]:
    """Judges the plan's draws, the weights of ``rules.cap``, and temperature sampling beside them."""
    (data,) = results.values()
    wanted = xarray.apply_ufunc(
        allocation,
        *(data.corpus, data.max_epochs, data.rows),
        input_core_dims=[["language"], [], []],
        output_core_dims=[["language"]],
        vectorize=True,
    )
    is_free = wanted < data.corpus * data.max_epochs * (1 - 1e-9)
    free = data.drawn.where(is_free)
    epochs = data.drawn / data.corpus
    repeats = (data.temperature * data.rows / data.corpus).max("language").sel(budget=1.0).isel(max_epochs=0)
    settings = "largest of all N and budgets"
    return [
        versus(
            "algorithm_1",
            _largest(abs(data.drawn - wanted)),
            "<=",
            1.0,
            statement="Algorithm 1 [a plan with uniform weights draws its rows of each language, up to one]",
            source=f"{_PAPER}, section 3, algorithm 1",
            note=f"deviation in rows; {settings}",
        ),
        versus(
            "cap_is_algorithm_1",
            _largest(abs(data.cap * data.rows / wanted - 1.0)),
            "<=",
            1e-5,
            statement="Algorithm 1 [rules.cap of uniform weights are its sampling distribution]",
            source=f"{_PAPER}, section 3, algorithm 1",
            note=f"relative deviation of a float32 weight; {settings}",
        ),
        versus(
            "no_more_than_n_epochs",
            _largest(epochs - data.max_epochs),
            "<=",
            0.0,
            statement="without using more than N epochs of any language",
            source=f"{_PAPER}, section 3",
            note=f"epochs drawn above N; {settings}",
        ),
        versus(
            "as_uniform_as_possible",
            _largest(free.max("language") - free.min("language")),
            "<=",
            1.0,
            statement="allocate the character budget to languages as uniformly as possible",
            source=f"{_PAPER}, section 3",
            note=f"difference in rows between two languages that are not limited; {settings}",
        ),
        _printed(data, "unimax_1x", 1.0),
        _printed(data, "unimax_1/8", 0.125),
        *_uniformity(data),
        versus(
            "temperature_repeats_over_100_times",
            repeats,
            ">=",
            100.0,
            statement="When using τ = 3.33 and a trillion token budget [...], the lowest-resource languages are "
            "repeated over 100 times",
            source=f"{_PAPER}, section 1",
            note="epochs of the language that is repeated most. The sentence is about mC4 as it was; the corpus of "
            "table 8 has 35 % more documents, and its smallest language is printed as 0.1 billion characters, which "
            "may be 0.05 to 0.15",
        ),
        paired(
            "repeats_are_capped",
            epochs.max("language").sel(budget=1.0, max_epochs=1.0),
            "<",
            repeats,
            statement="Temperature sampling results in a large number of data repeats for low-resource languages, "
            "whereas UniMax explicitly caps repeats",
            source=f"{_PAPER}, figure 1",
            note=f"epochs of the most repeated language, N = 1 and τ = 3.33 ({text(repeats)}), full budget",
        ),
        versus(
            "limited_languages_last",
            _largest(abs(data.first_half - data.drawn / 2)),
            "<=",
            1.0,
            statement="ours: a plan spreads the languages that are limited over the whole run",
            source="mixjax.live.Plan",
            note=f"rows of a language in the first half of the run, above or below half of its rows; {settings}",
        ),
    ]


def _printed(data: xarray.Dataset, name: str, budget: float) -> Claim:
    """Compares what was drawn with the sampling rates of table 8, as far as rounding lets us."""
    table, drawn = languages(), data.sel(max_epochs=1.0, budget=budget)
    rates = table.rates[name]
    off = abs(drawn.drawn / drawn.rows - xarray.DataArray(rates, dims="language")).max("language")
    # Sizes of limited languages decide their rates; ours and the authors' may both be off by the rounding.
    limited = table.rounding[rates < rates.max()].max() / (FULL_BUDGET * budget)
    return versus(
        f"printed_rates_{name.partition('_')[2].replace('/', '_')}",
        100.0 * off,
        "<=",
        100.0 * (5e-5 + 2.0 * limited),
        statement=f"table 8: sampling rates of UniMax ({name.partition('_')[2]}) for 107 languages",
        source=f"{_PAPER}, appendix F, table 8",
        note="largest deviation of a language in percentage points; the threshold is what the rounding of the printed "
        "rates and sizes allows",
    )


def _uniformity(data: xarray.Dataset) -> list[Claim]:
    """Compares how uniform the mix is with another N and with another budget."""
    share = data.drawn / data.rows
    number = np.exp(-(share * np.log(share)).sum("language"))
    quoted = {
        "source": f"{_PAPER}, section 4.2",
        "note": "exp of the entropy of what was drawn: 107 languages drawn alike would have 107. "
        + "; ".join(
            f"N = {n:g}, {c:g} of the full budget: {text(number.sel(max_epochs=n, budget=c))}"
            for c in data.budget.values
            for n in data.max_epochs.values
        ),
    }
    rest = "all lead to vocabularies that allocate capacity more uniformly across languages"
    return [
        paired(
            "higher_n_is_more_uniform",
            number.sel(max_epochs=10.0, budget=1.0),
            ">",
            number.sel(max_epochs=1.0, budget=1.0),
            statement=f"higher UniMax max-epoch threshold (N) [and others] {rest} [here: the mix]",
            **quoted,
        ),
        paired(
            "smaller_budget_is_more_uniform",
            number.sel(max_epochs=1.0, budget=0.125),
            ">",
            number.sel(max_epochs=1.0, budget=1.0),
            statement=f"smaller UniMax training budget [and others] {rest} [here: the mix]",
            **quoted,
        ),
    ]


def _largest(values: xarray.DataArray) -> xarray.DataArray:
    """Returns the largest value of each seed."""
    return values.max([dim for dim in values.dims if dim != "seed"])

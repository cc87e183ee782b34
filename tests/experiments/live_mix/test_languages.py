"""Tests the table of languages against the totals that its paper states."""

import numpy as np

from experiments.live_mix.languages import RATES, languages


def test_the_table_has_the_papers_totals():
    table = languages()
    assert len(table.names) == len(set(table.names)) == 107
    # "29 trillion characters across 107 languages"; section 6 has 28.8.
    np.testing.assert_allclose(table.characters.sum(), 28.8e6, rtol=5e-3)
    assert (np.diff(table.characters) <= 0).all()
    assert table.rounding[table.names.index("en")] == 500.0 and table.rounding[-1] == 50.0
    assert set(table.rates) == set(RATES)
    for rates in table.rates.values():
        np.testing.assert_allclose(rates.sum(), 1.0, atol=107 * 5e-5)


def test_the_printed_rates_of_temperature_sampling_follow_from_the_sizes():
    table = languages()
    for name, temperature in (("temperature_3.33", 3.33), ("temperature_1", 1.0)):
        powers = (table.characters / table.characters.sum()) ** (1 / temperature)
        # The smallest language has a single digit.
        np.testing.assert_allclose(table.rates[name][:-1], (powers / powers.sum())[:-1], rtol=0.02, atol=1e-4)

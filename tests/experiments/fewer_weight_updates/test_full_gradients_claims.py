"""Claims about full gradients, in both directions."""

import xarray

from experiments.fewer_weight_updates import full_gradients_claims
from tests.experiments.fewer_weight_updates.constructed import along, constructed, decaying, verdicts


def full_results(excess):
    """The runs of full_gradients_claims.toml, with the excess ``excess(N, T, η)`` in all."""
    rates = [1.0, 0.25]
    data = xarray.concat(
        [constructed(lambda n, T, eta=eta: excess(n, T, eta), eta=eta) for eta in rates],
        xarray.DataArray(rates, dims="learning_rate", name="learning_rate"),
    )
    return dict.fromkeys([*full_gradients_claims.RULES, full_gradients_claims.TOO_LARGE], data)


def test_claims_of_full_gradients():
    lawful = verdicts(full_gradients_claims.claims(full_results(decaying)))
    assert lawful["log_n_full_gradients"] and lawful["slope_sqrt"] and lawful["slope_first_order"]
    assert lawful["one_step_does_not_learn"] and lawful["auto_sqrt_mean_weights"]
    assert lawful["last_weights_no_law"] is False and lawful["too_large_no_law"] is False
    power = verdicts(full_gradients_claims.claims(full_results(lambda n, T, eta: along(lambda n: n**0.45)(n, T))))
    assert power["log_n_full_gradients"] is False and power["last_weights_no_law"]
    assert power["auto_sqrt_mean_weights"] is False

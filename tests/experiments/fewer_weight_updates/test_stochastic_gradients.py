"""Claims about stochastic gradients, in both directions."""

import functools

from experiments.fewer_weight_updates import stochastic_gradients
from tests.experiments.fewer_weight_updates.constructed import along, constructed, decaying, verdicts


def test_claims_of_stochastic_gradients():
    root, names = stochastic_gradients.root, [*stochastic_gradients.RULES, *stochastic_gradients.FIXED]
    results = dict.fromkeys(names, constructed(along(lambda n: 0.35 * root(n))))
    results["fixed"] = constructed(functools.partial(decaying, eta=0.125), eta=0.125)
    found = verdicts(stochastic_gradients.claims(results))
    assert found["sqrt_n_log_n_stochastic_gradients"] and found["sqrt_n_log_n_adaptive"] and found["log_n_fixed"]
    assert found["log_n_fixed_large"] is False and found["falling_rate_needed"] is False
    results["sqrt"] = constructed(along(lambda n: 4 * n**0.3))
    assert verdicts(stochastic_gradients.claims(results))["sqrt_n_log_n_stochastic_gradients"] is False

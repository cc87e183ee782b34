"""Claims about the language model, in both directions."""

from experiments.fewer_weight_updates import text_claims
from tests.experiments.fewer_weight_updates.made_up_text import made_up_results


def test_claims_can_hold_and_fail():
    better, worse = (
        {claim.name: claim for claim in text_claims.claims(made_up_results(gain))} for gain in (0.02, -0.02)
    )
    assert set(better) == set(worse) and len(better) > 20
    assert all(claim.statement.startswith("ours") for claim in better.values())
    for name in better:
        assert better[name].holds, name
        assert worse[name].holds is False or name == "erma_weights_differ", name
    assert "python 0.19" in better["t_1_helps"].note
    same = {claim.name: claim.holds for claim in text_claims.claims(made_up_results(0.0))}
    assert same["one_round_in_16_cost"] and same["erma_weights_differ"] is False and same["t_64_helps"] is None

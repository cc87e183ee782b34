"""Hypergradients beside those of peers: the sides that are installed compute the same, and another is an error."""

import pytest

from experiments.benchmarks import hypergradient_peers, peers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "side"),
    [
        ("torchopt", hypergradient_peers.TORCHOPT),
        ("higher", hypergradient_peers.HIGHER),
        ("jaxopt", hypergradient_peers.JAXOPT),
    ],
)
def test_peers_compute_the_same(package, side):
    pytest.importorskip(package)
    made = hypergradient_peers.sides(hypergradient_peers.problem(2, 3, 4))
    assert side in hypergradient_peers.differences(made)
    # called again, it starts from the same parameters
    first, again = made[side](), made[side]()
    assert first.tolist() == again.tolist()


def test_without_peers_ours_are_left_and_a_wrong_side_is_an_error(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda module: False)
    made = hypergradient_peers.sides(hypergradient_peers.problem(2, 3, 4))
    assert set(made) == {hypergradient_peers.PLAIN, *hypergradient_peers.MODES}
    through, implicit = made[hypergradient_peers.ALL](), made[hypergradient_peers.FINITE]()
    for name, values in ((hypergradient_peers.HIGHER, through), (hypergradient_peers.JAXOPT, implicit)):
        assert name in hypergradient_peers.differences({**made, name: lambda values=values: values})
        with pytest.raises(AssertionError, match=f"{name} does not compute the hypergradient of mixjax"):
            hypergradient_peers.differences({**made, name: lambda values=values: 1.01 * values})

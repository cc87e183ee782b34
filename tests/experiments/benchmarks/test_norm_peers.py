"""Norms beside those of peers: the sides that are installed compute the same, and one that does not is an error."""

import jax
import pytest

from experiments.benchmarks import norm_peers, norms, peers

# the quick sizes of the three models
PROBLEMS = range(3)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["jax_privacy", "opacus"])
@pytest.mark.parametrize("index", PROBLEMS)
def test_peers_compute_the_same(package, index):
    pytest.importorskip(package)
    made = norm_peers.sides(norm_peers.problems(quick=True)[index])
    expected = {norm_peers.OPACUS} if package == "opacus" else {norm_peers.WHOLE, norm_peers.BY_16}
    different = norm_peers.differences(made)
    assert expected <= different["norms"].keys() and expected <= different["mean gradient"].keys()


def test_without_peers_ours_are_left_and_a_wrong_side_is_an_error(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda module: False)
    made = norm_peers.sides(norm_peers.of_tape(norms.mlp((4, 3, 2), 5, 5), net=None))
    assert list(made) == [norm_peers.PLAIN, norm_peers.OURS]
    grads, lengths = made[norm_peers.OURS]()
    assert norm_peers.differences({**made, norm_peers.OPACUS: lambda: (grads, lengths * 1.00001)})
    with pytest.raises(AssertionError, match="Opacus, ghost clipping does not compute the norms of mixjax"):
        norm_peers.differences({**made, norm_peers.OPACUS: lambda: (grads, lengths * 1.01)})
    with pytest.raises(AssertionError, match="Opacus, ghost clipping does not compute the mean gradient of mixjax"):
        norm_peers.differences({**made, norm_peers.OPACUS: lambda: (jax.tree.map(lambda g: g * 1.01, grads), lengths)})

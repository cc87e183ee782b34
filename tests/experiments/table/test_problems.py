"""Tests that the parts of a problem's data share no example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.table.pairs import Pair
from experiments.table.problems import Groups, Images
from experiments.table.table import Table, load


@pytest.mark.parametrize("settings", [{"images": Images(distinct=3, hidden=4)}, {"groups": Groups()}])
def test_parts_of_real_data_share_no_example(settings):
    sizes = {"held_out": 6, "validation": 10}
    problem = load(Table((Pair("x"),), **settings, **sizes))
    setup = problem.setup(jax.random.key(0), problem.data)
    drawn = setup.draw(jax.random.key(1), jnp.zeros(200, int))
    ours, theirs = (np.asarray(jax.tree.leaves(batch)[0]) for batch in (setup.held_out, drawn))
    ours = ours[0]  # of the first domain
    assert not (ours[:, None] == theirs[None]).all(axis=-1).any()

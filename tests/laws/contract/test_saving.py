"""Tests that every state is saved and restored to the bit by every format, and that its tree changes only knowingly.

After a change that is meant, write the list of all states' trees anew: `python -m tests.laws.contract.test_saving`.
Saved states lack a field that is new: name it in `mixjax.saving`.
"""

import collections
import functools
import pathlib
import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import mixjax
from mixjax import mixing, placement, rules, samplers, saving, training
from mixjax.transforms import find_states
from tests.laws.contract import compatibility
from tests.laws.contract.compatibility import PRIOR

pytestmark = pytest.mark.usefixtures("quick_compilation")

LIST = pathlib.Path(__file__).parents[2] / "states.txt"
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)}


def chain():
    return optax.named_chain(
        ("c", mixjax.track(rules.doremi(), PRIOR)),
        ("q", mixjax.track(rules.smooth(rules.variance_aware(), 0.5), PRIOR)),
        ("adam", optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3)),
    )


def _training():
    return training.init_state(PARAMS, optax.adam(0.1), PRIOR, rules.erma(), rules.variance_aware())


OTHERS = {
    "rules.erma, not normalised": lambda: rules.erma(normalised=False).init(PRIOR),
    "accumulate(named_chain)": lambda: mixjax.accumulate(chain(), 2).init(PARAMS),
    "training.TrainState": _training,
    "mixing.MixingState": lambda: mixing.init_state(PARAMS, optax.adam(0.1), PRIOR, rules.mirror_descent()),
    "samplers.start_epochs": lambda: samplers.start_epochs(jax.random.key(3, impl="rbg"), 3),
    "samplers.hardness with a prior": lambda: samplers.hardness(9, 1.0, prior=np.arange(1.0, 10.0)).init(2.0),
    "samplers.proportional with ages": lambda: samplers.with_ages(samplers.proportional(9)).init(2.0),
}


@functools.cache
def fresh(name):
    return OTHERS[name]() if name in OTHERS else compatibility.row(name).start()


STATES = [*(name for name in compatibility.ROWS if jax.tree.leaves(fresh(name))), *OTHERS]


def scrambled(tree, seed=0):
    """The same tree with other numbers, as after some steps."""
    rng = np.random.default_rng(seed)

    def other(leaf):
        numbers = rng.integers(0, 2, leaf.shape) if leaf.dtype == bool else rng.uniform(0, 1e6, leaf.shape)
        return jnp.asarray(numbers).astype(leaf.dtype)

    return jax.tree.map(other, tree)


def assert_same(got, want):
    """Asserts that two trees have the same structure, dtypes and bits."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("name", STATES)
def test_pickle_and_msgpack(name):
    state = scrambled(fresh(name))
    assert_same(pickle.loads(pickle.dumps(state)), state)
    saved = flax.serialization.to_bytes(state)
    assert_same(flax.serialization.from_bytes(fresh(name), saved), state)
    assert_same(saving.restore(fresh(name), flax.serialization.msgpack_restore(saved)), state)


def test_orbax_with_and_without_a_target(tmp_path):
    states = {name: scrambled(fresh(name)) for name in STATES}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        with_target = checkpointer.restore(tmp_path / "states", {name: fresh(name) for name in STATES})
        without = checkpointer.restore(tmp_path / "states")
    for name in STATES:
        assert_same(with_target[name], states[name])
        assert_same(saving.restore(fresh(name), without[name]), states[name])


def test_flax_train_state(tmp_path):
    start = TrainState.create(apply_fn=None, params=PARAMS, tx=chain())
    state = start.replace(step=3, opt_state=scrambled(start.opt_state))
    assert_same(flax.serialization.from_bytes(start, flax.serialization.to_bytes(state)).opt_state, state.opt_state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        assert_same(checkpointer.restore(tmp_path / "state", start).opt_state, state.opt_state)
        without = checkpointer.restore(tmp_path / "state")["opt_state"]
    assert_same(saving.restore(start.opt_state, without), state.opt_state)


class Linear(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.ones(3))


def test_nnx_optimizer(tmp_path):
    def make():
        model = Linear()
        return model, nnx.Optimizer(model, chain(), wrt=nnx.Param)

    signals = compatibility.signals(0)
    model, optimizer = make()
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads, **signals)
    plain = nnx.to_pure_dict(nnx.state(optimizer))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "optimizer", plain)
        checkpointer.wait_until_finished()
        saved = [checkpointer.restore(tmp_path / "optimizer")]
    saved.append(flax.serialization.msgpack_restore(flax.serialization.to_bytes(plain)))
    optimizer.update(model, grads, **signals)
    for numbers in saved:
        other_model, other = make()
        state = nnx.state(other)
        nnx.replace_by_pure_dict(state, saving.restore(nnx.to_pure_dict(state), numbers))
        nnx.update(other, state)
        other.update(other_model, grads, **signals)
        assert_same(nnx.to_pure_dict(nnx.state(other)), nnx.to_pure_dict(nnx.state(optimizer)))


def test_a_window_of_accumulate_goes_on_to_the_bit():
    tx = mixjax.accumulate(chain(), 3)
    update = jax.jit(tx.update)
    grads, state, want = jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), tx.init(PARAMS)
    for step in range(4):
        updates, state = update(grads, state, PARAMS, **compatibility.signals(step))
        state = flax.serialization.from_bytes(tx.init(PARAMS), flax.serialization.to_bytes(state))
        wanted, want = update(grads, want, PARAMS, **compatibility.signals(step))
        assert_same(jax.tree.map(jnp.asarray, state), want)
        assert_same(updates, wanted)


# States of older versions.

ADDED = ("unseen_updates", "nonfinite_updates")


def without(tree, field):
    if isinstance(tree, dict):
        return {key: without(value, field) for key, value in tree.items() if key != field}
    return tree


@pytest.mark.parametrize("name", STATES)
def test_a_state_saved_before_a_field_was_added_is_restored(name):
    state = scrambled(fresh(name))
    plain = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
    old = functools.reduce(without, ADDED, plain)
    restored = saving.restore(fresh(name), old)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    # The new field is that of a fresh state, everything else the saved one's.
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(restored), *map(jax.tree.leaves, (fresh(name), state)), strict=True
    )
    for (path, got), start, want in leaves:
        added = getattr(path[-1], "name", None) in ADDED
        np.testing.assert_array_equal(got, start if added else want)


def test_what_flax_and_orbax_say_of_an_older_state(tmp_path):
    start = rules.erma().init(PRIOR)
    old = without(start._asdict(), "unseen_updates")
    with pytest.raises(ValueError, match="unseen_updates"):
        flax.serialization.from_bytes(start, flax.serialization.to_bytes(old))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "old", old)
        checkpointer.wait_until_finished()
        with pytest.raises(ValueError, match="unseen_updates"):
            checkpointer.restore(tmp_path / "old", start)


def test_restore_names_what_does_not_fit():
    start = mixjax.track(rules.erma(), PRIOR).init(None)
    plain = {"rule_state": start.rule_state._asdict()}
    with pytest.raises(ValueError, match=r"has no 'rule_state.log_w'.*"):
        saving.restore(start, {"rule_state": without(plain["rule_state"], "log_w")})
    with pytest.raises(
        ValueError, match=r"has 'rule_state.log_ws', which the fresh one has not; did you mean .*log_w'"
    ):
        saving.restore(start, {"rule_state": plain["rule_state"] | {"log_ws": jnp.ones(4)}})
    with pytest.raises(ValueError, match=r"'rule_state.weights' has shape \(3,\), the fresh one \(4,\)"):
        saving.restore(start, {"rule_state": plain["rule_state"] | {"weights": jnp.ones(3)}})


def test_restore_casts_to_the_fresh_dtypes():
    start = mixjax.track(rules.erma(), PRIOR).init(None)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start)
    assert_same(saving.restore(start, wide), start)


def test_a_program_may_have_registered_ordered_dictionaries_itself():
    with pytest.raises(ValueError, match="already registered"):
        flax.serialization.register_serialization_state(collections.OrderedDict, dict, dict)
    placement.let_flax_save_named_chains.__wrapped__()  # as in a program that did


# The shapes of the trees.


def listing():
    """One line a leaf of every state: its path, shape and dtype."""
    # A hypergradient's state is optax's.
    ours = [name for name in STATES if name in OTHERS or compatibility.row(name).kind != "hypergradient"]
    lines = []
    for name in ours:
        for path, leaf in jax.tree_util.tree_leaves_with_path(fresh(name)):
            lines.append(f"{name}: {jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}")
    return "\n".join(lines) + "\n"


def test_the_trees_of_all_states_are_as_listed():
    """A change here breaks saved checkpoints: new fields come last, and `mixjax.saving` names them."""
    assert listing() == LIST.read_text(), "run python -m tests.laws.contract.test_saving"


def test_the_list_holds_every_kind_of_state():
    kinds = {type(state.rule_state).__name__ for name in STATES for _, state in find_states(fresh(name))}
    kinds |= {type(fresh(name)).__name__ for name in STATES}
    assert {name for name in rules.states.__all__} <= kinds


if __name__ == "__main__":
    LIST.write_text(listing())

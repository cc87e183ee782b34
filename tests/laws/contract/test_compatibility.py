"""Tests every cell of the compatibility table: each row of mixjax with each column of JAX and its neighbours."""

import contextlib
import functools
import tempfile

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mixjax
from tests.laws.contract import compatibility
from tests.laws.contract.compatibility import COLUMNS, PAGE, ROWS

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_STEPS = 3
NUM_DEVICES = 2
CELLS = [(row, column) for row in ROWS for column in COLUMNS if compatibility.reason(row, column) is None]


def as_numbers(tree):
    """Replaces typed keys by their numbers, so that trees can be compared."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key) else x

    return jax.tree.map(lambda x: np.asarray(plain(x)), tree)


def assert_close(got, want, **tolerances):
    chex.assert_trees_all_close(as_numbers(got), as_numbers(want), **({"rtol": 2e-5, "atol": 1e-6} | tolerances))


def assert_equal(got, want):
    chex.assert_trees_all_equal(as_numbers(got), as_numbers(want))


def types_of(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype.name), tree)


def assert_finite(tree):
    for leaf in jax.tree.leaves(as_numbers(tree)):
        assert not np.issubdtype(leaf.dtype, np.floating) or np.isfinite(leaf.astype(np.float32)).all()


@functools.cache
def jitted(name):
    return jax.jit(compatibility.row(name).step)


def run(step, state, inputs):
    outputs = []
    for entry in inputs:
        state, out = step(state, entry)
        outputs.append(out)
    return state, outputs


@functools.cache
def reference(name):
    """The states and outputs of a few jitted steps, which the columns are held against."""
    row = compatibility.row(name)
    return run(jitted(name), row.start(), [row.inputs(seed) for seed in range(NUM_STEPS)])


def inputs_of(name):
    return [compatibility.row(name).inputs(seed) for seed in range(NUM_STEPS)]


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def check_jit(name):
    row = compatibility.row(name)
    assert_close(run(row.step, row.start(), inputs_of(name)[:1]), run(jitted(name), row.start(), inputs_of(name)[:1]))


def check_vmap(name):
    row, inputs = compatibility.row(name), inputs_of(name)
    states = [run(jitted(name), row.start(), inputs[:k])[0] for k in range(NUM_STEPS)]
    loop = [jitted(name)(state, entry) for state, entry in zip(states, inputs, strict=True)]
    assert_close(jax.jit(jax.vmap(row.step))(stack(states), stack(inputs)), stack(loop))


def check_scan(name):
    row = compatibility.row(name)
    got, outputs = jax.jit(functools.partial(jax.lax.scan, row.step))(row.start(), stack(inputs_of(name)))
    want, loop = reference(name)
    assert_close((got, outputs), (want, stack(loop)))


def check_shard_map(name, replicated, check_vma):
    row, mesh = compatibility.row(name), jax.make_mesh((NUM_DEVICES,), ("d",), axis_types=(AxisType.Auto,))
    state = run(jitted(name), row.start(), inputs_of(name)[:1])[0]
    if replicated:
        mapped = jax.shard_map(row.step, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=check_vma)
        entry = inputs_of(name)[1]
        assert_close(jax.jit(mapped)(state, entry), jitted(name)(state, entry))
        return

    def local(state, entry):
        return jax.tree.map(lambda x: x[None], row.step(state, jax.tree.map(lambda x: x[0], entry)))

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("d")), out_specs=P("d"), check_vma=check_vma)
    entries = inputs_of(name)[:NUM_DEVICES]
    loop = [jitted(name)(state, entry) for entry in entries]
    assert_close(jax.jit(mapped)(state, stack(entries)), stack(loop))


def check_mesh(name, axis_type):
    row, mesh = compatibility.row(name), jax.make_mesh((NUM_DEVICES,), ("d",), axis_types=(axis_type,))

    def place(entry):
        def put(key, x):
            return jax.device_put(x, NamedSharding(mesh, P("d") if key in row.spread else P()))

        return {key: put(key, x) for key, x in entry.items()}

    with jax.set_mesh(mesh):
        state = jax.device_put(row.start(), NamedSharding(mesh, P()))
        got = run(jax.jit(row.step), state, [place(entry) for entry in inputs_of(name)])
    assert_close(got, reference(name))


def check_donation(name):
    row = compatibility.row(name)
    donating = jax.jit(row.step, donate_argnums=0)
    assert_close(run(donating, row.start(), inputs_of(name)), reference(name))
    # The donated buffers were the state's own: neither the row nor what it closes over has lost anything.
    assert_equal(run(jitted(name), row.start(), inputs_of(name)), reference(name))


def wider(x):
    kinds = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}
    return x.astype(kinds[x.dtype]) if isinstance(x, np.ndarray) and x.dtype in kinds else x


def check_x64(name):
    row = compatibility.row(name)
    with jax.enable_x64(True):
        start = row.start()
        got = run(jax.jit(row.step), start, [jax.tree.map(wider, entry) for entry in inputs_of(name)])
    # The parameters are the caller's and may widen with the gradients; what mixjax keeps does not.
    if not row.random:
        assert_close(got, reference(name), rtol=1e-3, atol=1e-4)
    if row.kind in ("rule", "sampler"):
        assert types_of(as_numbers(got[0])) == types_of(as_numbers(reference(name)[0]))


def check_strict(name):
    row = compatibility.row(name)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        got = run(jax.jit(row.step), row.start(), inputs_of(name))
        run(row.step, row.start(), inputs_of(name)[:1])
    assert_close(got, reference(name))


def absent(entry):
    """The same inputs, in which the last domain has no examples."""
    entry = dict(entry)
    if "counts" in entry:
        entry["counts"] = np.where(np.arange(compatibility.D) < compatibility.D - 1, entry["counts"], 0)
    if "ids" in entry:
        entry["ids"] = np.minimum(entry["ids"], compatibility.D - 2)
    return entry


def check_debug_nans(name):
    row, entries = compatibility.row(name), [absent(entry) for entry in inputs_of(name)]
    want = run(jitted(name), row.start(), entries)
    with jax.debug_nans(True):
        got = run(jax.jit(row.step), row.start(), entries)
        run(row.step, row.start(), entries[:1])
    assert_close(got, want)


def check_bf16(name):
    row = compatibility.row(name)

    def narrow(x):
        return jnp.asarray(x, jnp.bfloat16) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x

    start = row.start()
    state, outputs = run(jax.jit(row.step), start, [jax.tree.map(narrow, entry) for entry in inputs_of(name)])
    assert_finite((state, outputs))
    if row.kind in ("rule", "sampler"):
        assert types_of(as_numbers(state)) == types_of(as_numbers(start))


def check_saved(name, save_and_restore):
    row, inputs = compatibility.row(name), inputs_of(name)
    state, _ = run(jitted(name), row.start(), inputs[:1])
    restored = save_and_restore(state, row.start())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_equal(run(jitted(name), restored, inputs[1:]), run(jitted(name), state, inputs[1:]))


def through_msgpack(state, like):
    return flax.serialization.from_bytes(like, flax.serialization.to_bytes(state))


def through_orbax(state, like):
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(f"{folder}/state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(f"{folder}/state", like)


def stacked_or_not(name):
    """The gradients that the row's transformation takes; those of a rule go through ``track``."""
    entry = compatibility.row(name).inputs(0)
    return entry.pop("grads", np.ones(3, np.float32)), entry


def rule_states(opt_state):
    return [state.rule_state for _, state in mixjax.transforms.find_states(opt_state)]


def check_accumulate(name):
    tx = compatibility.row(name).transform()
    grads, signals = stacked_or_not(name)
    accumulated, params = mixjax.accumulate(tx, 2), jnp.zeros(3)
    step = jax.jit(lambda state: accumulated.update(grads, state, params, **signals))
    waited, state = step(accumulated.init(params))
    out, state = step(state)
    assert not np.any(waited)
    # Twice the same microbatch: the means stay, the counts double, and the variance gets its own divisor.
    n, merged = signals["counts"], dict(signals)
    merged["counts"] = 2 * n
    merged["loss_vars"] = 2 * (n - 1) * signals["loss_vars"] / (2 * n - 1)
    want, once = jax.jit(lambda state: tx.update(grads, state, params, **merged))(tx.init(params))
    assert_close((out, rule_states(state.inner)), (want, rule_states(once)))


def check_multi_steps(name):
    tx = compatibility.row(name).transform()
    grads, signals = stacked_or_not(name)
    multi, params = optax.MultiSteps(tx, 2), jnp.zeros(3)
    step = jax.jit(lambda state: multi.update(grads, state, params, **signals))
    state = step(step(multi.init(params))[1])[1]
    _, once = tx.update(grads, tx.init(params), params, **signals)
    assert_close(rule_states(state.inner_opt_state), rule_states(once))


class Vector(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.zeros(3))


def check_nnx_optimizer(name):
    tx = compatibility.row(name).transform()
    grads, signals = stacked_or_not(name)
    model = Vector()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        like = nnx.state(model, nnx.Param)
        optimizer.update(model, jax.tree.map(lambda _: jnp.asarray(grads), like), **signals)

    step(model, optimizer)
    params = jnp.zeros(3)
    _, once = jax.jit(lambda state: tx.update(grads, state, params, **signals))(tx.init(params))
    assert_close(
        [state.weights[...] for state in rule_states(optimizer.opt_state)], [s.weights for s in rule_states(once)]
    )


class SignalTrainState(TrainState):
    """Passes the signals on, which flax's own ``apply_gradients`` drops."""

    def apply_gradients(self, *, grads, **signals):
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, **signals)
        return self.replace(step=self.step + 1, params=optax.apply_updates(self.params, updates), opt_state=opt_state)


def check_train_state(name):
    tx = compatibility.row(name).transform()
    grads, signals = stacked_or_not(name)
    state = SignalTrainState.create(apply_fn=None, params=jnp.zeros(3), tx=tx)
    state = jax.jit(lambda state: state.apply_gradients(grads=grads, **signals))(state)
    params = jnp.zeros(3)
    _, once = jax.jit(lambda state: tx.update(grads, state, params, **signals))(tx.init(params))
    assert_close(rule_states(state.opt_state), rule_states(once))


CHECKS = {
    "jit": check_jit,
    "vmap": check_vmap,
    "scan": check_scan,
    "shard_map, a run a device": functools.partial(check_shard_map, replicated=False, check_vma=True),
    "shard_map, replicated": functools.partial(check_shard_map, replicated=True, check_vma=True),
    "shard_map, unchecked": functools.partial(check_shard_map, replicated=False, check_vma=False),
    "Explicit mesh": functools.partial(check_mesh, axis_type=AxisType.Explicit),
    "Auto mesh": functools.partial(check_mesh, axis_type=AxisType.Auto),
    "donation": check_donation,
    "x64": check_x64,
    "strict": check_strict,
    "debug_nans": check_debug_nans,
    "bf16": check_bf16,
    "msgpack": functools.partial(check_saved, save_and_restore=through_msgpack),
    "orbax": functools.partial(check_saved, save_and_restore=through_orbax),
    "accumulate": check_accumulate,
    "MultiSteps": check_multi_steps,
    "nnx.Optimizer": check_nnx_optimizer,
    "TrainState": check_train_state,
}


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(row, column):
    with contextlib.ExitStack() as stack:
        stack.callback(jax.config.update, "jax_debug_nans", False)
        CHECKS[column](row)


def test_every_column_has_a_check():
    assert list(CHECKS) == list(COLUMNS)


def test_the_page_shows_the_table():
    assert PAGE.read_text() == compatibility.table(), "run python -m tests.laws.contract.compatibility"

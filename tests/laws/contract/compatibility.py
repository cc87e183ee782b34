"""Lists what mixjax is used with: JAX's transformations and modes, meshes, checkpoints, other people's optimizers.

A row is a rule, an adapter, a sampler or a hypergradient, written as a pure step
``(state, inputs) -> (state, outputs)``, so that every column can be tried on every row. A cell is tested by
``test_compatibility.py``, or has a reason here for which it cannot be. The command

    python -m tests.laws.contract.compatibility

writes the table to ``experiments/guides/compatibility.md``.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mixjax
from mixjax import rules, samplers
from mixjax.hypergrad import hypergrad
from mixjax.meshes import varying_like
from mixjax.types import SIGNALS

PAGE = pathlib.Path(__file__).parents[3] / "experiments" / "guides" / "compatibility.md"

D = 4
PRIOR = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
BATCH = 16
NUM_EXAMPLES = 64
IDS = np.arange(BATCH, dtype=np.int32) % D
GROUPS = samplers.partition(np.arange(NUM_EXAMPLES) % D)


class Row(NamedTuple):
    """Holds one thing that users call in their training step.

    Attributes:
        kind: heading of the table.
        start: returns a fresh state.
        step: the step.
        inputs: returns the inputs of a step, a dictionary of arrays, from a seed.
        spread: names of the inputs whose leading axis may be spread over devices.
        random: whether outputs are draws, which other dtypes may change.
        transform: returns the row as an optax transformation with what the last columns need; None if it is not one.
    """

    kind: str
    start: Callable[[], Any]
    step: Callable[[Any, dict], tuple[Any, Any]]
    inputs: Callable[[int], dict]
    spread: tuple[str, ...] = ()
    random: bool = False
    transform: Callable[[], optax.GradientTransformationExtraArgs] | None = None


def signals(seed: int) -> dict:
    """Returns every signal of the vocabulary, all rows seen."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.uniform(0.1, 3.0, D).astype(np.float32) for name in SIGNALS}
    for simplex in ("loss_weights", "sampling_weights"):
        drawn[simplex] = rng.dirichlet(np.ones(D)).astype(np.float32)
    return drawn | {"counts": rng.integers(2, 9, D).astype(np.int32)}


def _batch(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    xs, ys = rng.normal(size=(BATCH, 3)).astype(np.float32), rng.normal(size=BATCH).astype(np.float32)
    return {"xs": xs, "ys": ys, "ids": rng.permutation(IDS)}


def _key(seed: int) -> dict:
    return {"key": jax.random.key(seed)}


def _of_rule(make: Callable[[], mixjax.WeightRule]) -> Row:
    """Makes the row of a rule, whose optax form is ``track``."""
    rule = make()

    def step(state, inputs):
        state = rule.update(state, **inputs)
        return state, state.weights

    return Row(
        kind="rule",
        start=lambda: rule.init(PRIOR),
        step=step,
        inputs=signals,
        transform=lambda: mixjax.track(rule, PRIOR),
    )


def _of_transform(make: Callable[[], optax.GradientTransformationExtraArgs], stacked: bool) -> Row:
    """Makes the row of an adapter, in a chain before momentum."""
    tx = make()

    def start():
        params = jnp.zeros(3)
        return params, tx.init(params)

    def step(state, inputs):
        params, opt_state = state
        grads, rest = inputs["grads"], {name: value for name, value in inputs.items() if name != "grads"}
        updates, opt_state = tx.update(grads, opt_state, params, **rest)
        return (optax.apply_updates(params, updates), opt_state), updates

    def inputs(seed):
        shape = (D, 3) if stacked else (3,)
        return {"grads": np.random.default_rng(seed).normal(size=shape).astype(np.float32), **signals(seed)}

    return Row(kind="adapter", start=start, step=step, inputs=inputs, transform=make)


def _chain(*before: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    # Not Adam, which raises under strict promotions of dtypes: it takes a float to the power of an int32.
    return optax.chain(*before, optax.sgd(1e-2, momentum=0.9))


def _of_weighted_loss() -> Row:
    rule = rules.erma(0.3, 0.5)

    def step(state, inputs):
        params, rule_state = state
        # Under shard_map the gradient of a replicated parameter is summed over the devices; a run a device has its own.
        params = varying_like(params, inputs)

        def objective(params):
            losses = jnp.square(inputs["xs"] @ params - inputs["ys"])
            return mixjax.weighted_loss(rule, rule_state, losses, inputs["ids"])

        (value, rule_state), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return (params - (0.1 * grads).astype(params.dtype), rule_state), value

    return Row(
        kind="adapter",
        start=lambda: (jnp.zeros(3), rule.init(PRIOR)),
        step=step,
        inputs=_batch,
        spread=("xs", "ys", "ids"),
    )


def _of_draw(draw: Callable[[jax.Array, jax.Array], jax.Array]) -> Row:
    """Makes the row of a sampler that keeps no state; the weights come with the inputs."""

    def inputs(seed):
        weights = np.random.default_rng(seed).dirichlet(np.ones(D)).astype(np.float32)
        return _key(seed) | {"weights": weights}

    return Row(
        kind="sampler",
        start=tuple,
        step=lambda state, inputs: (state, draw(inputs["key"], inputs["weights"])),
        inputs=inputs,
        random=True,
    )


def _of_carry() -> Row:
    def step(state, inputs):
        counts, state = samplers.carry(state, inputs["weights"], BATCH)
        return state, counts

    return Row(
        kind="sampler",
        start=lambda: samplers.start_carry(D),
        step=step,
        inputs=lambda seed: {"weights": np.random.default_rng(seed).dirichlet(np.ones(D)).astype(np.float32)},
        spread=("weights",),
        random=True,
    )


def _of_with_replacement() -> Row:
    return Row(
        kind="sampler",
        start=tuple,
        step=lambda state, inputs: (state, samplers.with_replacement(inputs["key"], GROUPS, inputs["ids"])),
        inputs=lambda seed: _key(seed) | {"ids": np.random.default_rng(seed).permutation(IDS)},
        spread=("ids",),
        random=True,
    )


def _of_without_replacement() -> Row:
    def step(state, inputs):
        indices, state = samplers.without_replacement(state, GROUPS, inputs["ids"])
        return state, indices

    return Row(
        kind="sampler",
        start=lambda: samplers.start_epochs(jax.random.key(0), D),
        step=step,
        inputs=lambda seed: {"ids": np.random.default_rng(seed).permutation(IDS)},
        spread=("ids",),
        random=True,
    )


def _of_example_sampler(make: Callable[[], samplers.ExampleSampler]) -> Row:
    sampler = make()
    values = np.random.default_rng(9).uniform(0.1, 3.0, NUM_EXAMPLES).astype(np.float32)

    def step(state, inputs):
        indices, weights = sampler.sample(state, inputs["key"], BATCH)
        ratios = sampler.importance_weights(state, indices, inputs["values"])
        return sampler.update(state, indices, inputs["values"]), (indices, weights, ratios)

    def inputs(seed):
        fresh = np.random.default_rng(seed).uniform(0.1, 3.0, BATCH).astype(np.float32)
        return _key(seed) | {"values": fresh}

    return Row(
        kind="sampler",
        start=lambda: sampler.init(values),
        step=step,
        inputs=inputs,
        spread=("values",),
        random=True,
    )


def _of_host_sampler() -> Row:
    return Row(kind="sampler", start=tuple, step=lambda state, inputs: (state, ()), inputs=_key)


def _of_hypergrad(mode: str, **options: Any) -> Row:
    # Not Adam, whose bias correction optax computes from an integer and a float, which strict promotion refuses.
    optimizer = optax.rmsprop(1e-2, momentum=0.9)

    def loss(params, batch):
        return jnp.mean(jnp.square(batch["xs"] @ params - batch["ys"]))

    gradient = hypergrad(loss, loss, optimizer, mode=mode, **options)

    def start():
        params = jnp.full(3, 0.1)
        return params, optimizer.init(params)

    def step(state, inputs):
        val = {"xs": inputs["xs"][0, 0], "ys": inputs["ys"][0, 0]}
        result = gradient(inputs["weights"], *state, {"xs": inputs["xs"], "ys": inputs["ys"]}, val)
        return (result.params, result.opt_state), result.hypergrads

    def inputs(seed):
        rng = np.random.default_rng(seed)
        return {
            "xs": rng.normal(size=(2, D, 4, 3)).astype(np.float32),
            "ys": rng.normal(size=(2, D, 4)).astype(np.float32),
            "weights": rng.dirichlet(np.ones(D)).astype(np.float32),
        }

    return Row(kind="hypergradient", start=start, step=step, inputs=inputs)


def _stratified(key, weights):
    return samplers.stratified(key, weights, BATCH)


_RULES = {
    **{name: make for name, make in rules.RULES.items() if name not in ("gls", "ado", "aioli")},
    # The defaults of ado would keep its weights at the prior for a thousand steps.
    "ado": lambda: rules.ado(warmup=0, skip=0),
    "aioli": lambda: rules.aioli(rounds=1, hold=1),
    "gls": lambda: rules.gls([1.0, 2.0, 3.0, 4.0]),
    "dro (chi2)": lambda: rules.dro(2.0, "chi2"),
    "dro (cvar)": lambda: rules.dro(2.0, "cvar"),
    "every": lambda: rules.every(rules.erma(), 2),
    "freeze_after": lambda: rules.freeze_after(rules.fgls(), 2),
    "smooth": lambda: rules.smooth(rules.fgls(), 0.5),
    "floor": lambda: rules.floor(rules.group_dro(), 0.1),
    "cap": lambda: rules.cap(rules.fgls(), [0.3, 0.3, 0.3, 0.3]),
    "kl_to_prior": lambda: rules.kl_to_prior(rules.mirror_descent(), 0.1),
    "select": lambda: rules.select([rules.fixed(), rules.fgls(), rules.erma()], 1),
}

_MAKERS: dict[str, Callable[[], Row]] = {
    **{f"rules.{name}": functools.partial(_of_rule, make) for name, make in _RULES.items()},
    "weighted_loss": _of_weighted_loss,
    "aggregate": lambda: _of_transform(lambda: _chain(mixjax.aggregate(rules.erma(), PRIOR)), stacked=True),
    "track": lambda: _of_transform(lambda: _chain(mixjax.track(rules.erma(), PRIOR)), stacked=False),
    "accumulate": lambda: _of_transform(
        lambda: mixjax.accumulate(_chain(mixjax.aggregate(rules.erma(), PRIOR)), 2), stacked=True
    ),
    "named_chain": lambda: _of_transform(
        lambda: optax.named_chain(
            ("c", mixjax.track(rules.doremi(), PRIOR)),
            ("q", mixjax.track(rules.variance_aware(), PRIOR)),
            ("sgd", optax.sgd(1e-2, momentum=0.9)),
        ),
        stacked=False,
    ),
    "samplers.allocate": lambda: _of_draw(lambda key, weights: samplers.allocate(weights, BATCH)),
    "samplers.carry": _of_carry,
    "samplers.systematic": lambda: _of_draw(lambda key, weights: samplers.systematic(key, weights, BATCH)),
    "samplers.stratified": lambda: _of_draw(_stratified),
    "samplers.multinomial": lambda: _of_draw(lambda key, weights: samplers.multinomial(key, weights, BATCH)),
    "samplers.with_replacement": _of_with_replacement,
    "samplers.without_replacement": _of_without_replacement,
    "samplers.hardness": lambda: _of_example_sampler(lambda: samplers.hardness(NUM_EXAMPLES, 2.0)),
    "samplers.proportional": lambda: _of_example_sampler(lambda: samplers.proportional(NUM_EXAMPLES, floor=0.1)),
    "samplers.with_ages": lambda: _of_example_sampler(
        lambda: samplers.with_ages(samplers.hardness(NUM_EXAMPLES, 2.0, replacement=False))
    ),
    "samplers.when_it_pays": lambda: _of_example_sampler(
        lambda: samplers.when_it_pays(samplers.proportional(NUM_EXAMPLES, floor=0.1))
    ),
    "samplers.HostSampler": _of_host_sampler,
    "hypergrad (reverse)": lambda: _of_hypergrad("reverse"),
    "hypergrad (forward)": lambda: _of_hypergrad("forward"),
    "hypergrad (implicit)": lambda: _of_hypergrad("implicit", ridge=0.1, neumann_step=0.1),
    "hypergrad (alignment)": lambda: _of_hypergrad("alignment"),
}

ROWS = list(_MAKERS)

COLUMNS = {
    "jit": "jitted equals eager",
    "vmap": "a batch of states and inputs equals a loop",
    "scan": "`jax.lax.scan` over steps",
    "shard_map, a run a device": "replicated state, each device's own inputs, `check_vma=True`",
    "shard_map, replicated": "the same state and inputs on every device, `out_specs=P()`, `check_vma=True`",
    "shard_map, unchecked": "as the first, with `check_vma=False`",
    "Explicit mesh": "inside `jax.set_mesh` of a mesh with Explicit axes, batch sharded",
    "Auto mesh": "the same with Auto axes",
    "donation": "`jax.jit(step, donate_argnums=0)` from a fresh state",
    "x64": "`jax_enable_x64`, float64 and int64 inputs; the state keeps its types",
    "strict": '`jax_numpy_dtype_promotion="strict"` and `jax_numpy_rank_promotion="raise"`',
    "debug_nans": "`jax_debug_nans`, eager and jitted, with a domain that is absent",
    "bf16": "bfloat16 inputs; the state keeps its types",
    "msgpack": "`flax.serialization` saves and restores the state in the middle of a run, to the bit",
    "orbax": "orbax does",
    "accumulate": "inside `mixjax.accumulate`: two microbatches equal one batch",
    "MultiSteps": "inside `optax.MultiSteps`, which hands on the last microbatch's signals",
    "nnx.Optimizer": "`optimizer.update(model, grads, **signals)`",
    "TrainState": "flax's linen `TrainState`, with an `apply_gradients` that passes the signals on",
}

_OPTAX = ("accumulate", "MultiSteps", "nnx.Optimizer", "TrainState")
_SAVED = ("donation", "msgpack", "orbax")


@functools.cache
def row(name: str) -> Row:
    """Returns the row of a name; made once."""
    return _MAKERS[name]()


def reason(name: str, column: str) -> str | None:
    """Returns why a cell is not tested, or None if it is."""
    if name == "samplers.HostSampler":
        return "a plain NumPy object for the host: it pickles, and none of JAX's transformations apply"
    if name == "accumulate" and column in ("accumulate", "MultiSteps"):
        return "accumulates already"
    if name == "aggregate" and column == "MultiSteps":
        return "MultiSteps averages arrays of the parameters' shape, and these are stacked; use `mixjax.accumulate`"
    if name in ("aggregate", "accumulate") and column in ("nnx.Optimizer", "TrainState"):
        return None
    if column in _OPTAX and row(name).transform is None:
        return "not an optax transformation"
    if column in _SAVED and not jax.tree.leaves(row(name).start()):
        return "keeps no state"
    return None


def table() -> str:
    """Returns the page with the table: a tick for a tested cell, a number for a reason."""
    reasons: dict[str, int] = {}

    def cell(name: str, column: str) -> str:
        why = reason(name, column)
        return "✓" if why is None else str(reasons.setdefault(why, len(reasons) + 1))

    rows = [f"| `{name}` | " + " | ".join(cell(name, column) for column in COLUMNS) + " |" for name in ROWS]
    lines = [
        "# What mixjax works with",
        "",
        "Each tick is a test of `tests/laws/contract/test_compatibility.py`, which the suite runs. A number refers to",
        "the reason below for which there is no such test. `python -m tests.laws.contract.compatibility` writes this",
        "page.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *rows,
        "",
        *(f"{number}. {why}." for why, number in reasons.items()),
        "",
        "The columns:",
        "",
        *(f"- **{name}**: {meaning}." for name, meaning in COLUMNS.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(table())

"""Measures what a call of a jitted function costs whatever it computes, and so what a rule adds to a tiny step."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import mixjax
from experiments.benchmarks import overhead, timing

__all__ = ["RULES", "STEPS_A_CALL", "leaf_costs", "run", "several", "step_of"]

ARRAYS = (1, 4, 16, 32)
STEPS_A_CALL = (1, 8, 64)
# what was asked for: a rule's share of a tiny step that is called from Python
LIMIT = 15.0
DIMENSION, BATCH, DOMAINS = 10, 32, 4
RULES = {
    "plain": None,
    "`rules.fixed`": mixjax.rules.fixed(),
    "`rules.erma`": mixjax.rules.erma(),
    "`rules.dro`": mixjax.rules.dro(1.0),
}


def calls(function: Callable, state: Any) -> Callable[[int], None]:
    """Returns ``run(steps)``, which calls ``state = function(state)``."""
    held = [jax.tree.map(jnp.copy, state)]

    def run_steps(steps):
        for _ in range(steps):
            held[0] = function(held[0])
        jax.block_until_ready(held[0])

    return run_steps


def measured(sides: dict[str, Callable[[int], None]], steps: int, repeats: int) -> dict[str, timing.Summary]:
    """Measures the processor time of a step of each side, in turns; microseconds."""
    for side in sides.values():
        side(max(steps // 20, 1))
    turns = {name: functools.partial(side, steps) for name, side in sides.items()}
    seconds = timing.interleave(turns, repeats, time.process_time)
    return {name: timing.summarize([1e6 * value / steps for value in values]) for name, values in seconds.items()}


def leaf_costs(steps: int, repeats: int) -> dict[str, timing.Summary]:
    """Measures calls that add 1 to some arrays of eight numbers, donated or not."""
    sides = {}
    for count in ARRAYS:
        state = [jnp.full(8, float(i)) for i in range(count)]
        for donated in (False, True):
            program = jax.jit(lambda arrays: [x + 1 for x in arrays], donate_argnums=0 if donated else ())
            sides[f"{count} {'donated' if donated else 'kept'}"] = calls(program, state)
    return measured(sides, steps, repeats)


def step_of(rule: mixjax.WeightRule | None) -> tuple[Callable, Any]:
    """Returns a training step of a linear model, ``step(state) -> state``, and its first state."""
    x, optimizer = jax.random.normal(jax.random.key(0), (BATCH, DIMENSION)), optax.sgd(0.01)
    ids, params = jnp.arange(BATCH) % DOMAINS, jnp.zeros(DIMENSION)

    def objective(params, rule_state, x, ids):
        losses = jnp.square(x @ params - x.sum(1))
        if rule is None:
            return losses.mean(), rule_state
        return mixjax.weighted_loss(rule, rule_state, losses, ids)

    def step(state, x, ids):
        params, opt_state, rule_state = state
        grads, rule_state = jax.grad(objective, has_aux=True)(params, rule_state, x, ids)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, rule_state

    rule_state = () if rule is None else rule.init(jnp.ones(DOMAINS))
    return functools.partial(step, x=x, ids=ids), (params, optimizer.init(params), rule_state)


def beside(step: Callable, state: Any, others: Any) -> tuple[Callable, Any]:
    """Returns a step that also adds 1 to the arrays of another state, and its first state."""

    def both(state):
        own, others = state
        return step(own), jax.tree.map(lambda x: x + 1, others)

    return both, (state, others)


def several(step: Callable, count: int) -> Callable:
    """Returns a function that takes some steps."""
    return lambda state: jax.lax.fori_loop(0, count, lambda _, state: step(state), state)


def in_a_loop(step: Callable, state: Any) -> Callable[[int], None]:
    """Returns ``run(steps)``, which takes the steps in one compiled program."""
    program = jax.jit(lambda state, steps: jax.lax.fori_loop(0, steps, lambda _, state: step(state), state))
    return lambda steps: jax.block_until_ready(program(state, steps))


def run(quick: bool) -> timing.Report:
    """Measures calls of arrays, then steps with and without a rule."""
    steps, repeats = (20, 2) if quick else (1000, 9)
    leaves = leaf_costs(steps, repeats)
    steps_of = {name: step_of(rule) for name, rule in RULES.items()}
    called = measured(
        {name: calls(jax.jit(step, donate_argnums=0), state) for name, (step, state) in steps_of.items()},
        steps,
        repeats,
    )
    plain_step, erma_step = steps_of["plain"], steps_of["`rules.erma`"]
    carrying = beside(*plain_step, erma_step[1][2])
    bare = measured({"arrays": calls(jax.jit(carrying[0], donate_argnums=0), carrying[1])}, steps, repeats)["arrays"]
    grouped = {
        count: measured(
            {
                name: calls(jax.jit(several(step, count), donate_argnums=0), state)
                for name, (step, state) in (("plain", plain_step), ("erma", erma_step))
            },
            max(steps // count, 2),
            repeats,
        )
        for count in STEPS_A_CALL
    }
    looped = measured({name: in_a_loop(*pair) for name, pair in steps_of.items()}, steps, repeats)
    operations = {name: operations_of(*pair) for name, pair in steps_of.items()}
    arrays = {name: len(jax.tree.leaves(state)) for name, (_, state) in steps_of.items()}
    kinds = "kept", "donated"
    slopes = {
        kind: (leaves[f"{ARRAYS[-1]} {kind}"].median - leaves[f"1 {kind}"].median) / (ARRAYS[-1] - 1) for kind in kinds
    }
    erma, plain = called["`rules.erma`"].median, called["plain"].median
    computed = looped["`rules.erma`"].median - looped["plain"].median
    share = 100 * (erma - plain) / plain
    text = [
        "Processor time, microseconds a step, median (least to most) of turns. A call that adds 1 to so many arrays of "
        "eight numbers, which are donated, or kept:",
        timing.table(["arrays", *kinds], [(count, *(leaves[f"{count} {kind}"] for kind in kinds)) for count in ARRAYS]),
        f"Each more array costs {slopes['kept']:.2f} microseconds, and {slopes['donated']:.2f} where it is donated.",
        f"A training step of a linear model of {DIMENSION} numbers, with `weighted_loss` and a rule, B = {BATCH}, "
        f"{DOMAINS} domains, state donated; called step by step, and in a compiled loop:",
        timing.table(
            ["", "arrays of the state", "operations", "one call a step", "in a loop"],
            [(name, arrays[name], operations[name], called[name], looped[name]) for name in RULES],
        ),
        f"Of the {erma - plain:.1f} microseconds that ERMA adds to a call, {computed:.1f} are what it computes. The "
        "rest is paid for its arrays, which the call takes and returns, and for starting its operations one by one.",
        f"The plain step takes {bare.median:.1f} microseconds where it only adds 1 to as many arrays as ERMA's state "
        f"has. So {100 * (bare.median - plain) / plain:.0f} % come with the arrays alone, whatever the rule computes "
        f"with them: {LIMIT:.0f} % of this step are {LIMIT / 100 * plain:.1f} microseconds, about one array. The "
        "fields of a rule's state are public, and none of ERMA's can be left out: the weights are what the user reads, "
        "the prior and the log-weights are what the next update starts from, and the count tells how many "
        "updates saw nothing.",
        "Several steps in one call, by `jax.lax.scan` over as many batches or by `fori_loop`, share what the call "
        "costs. Microseconds a step:",
        timing.table(
            ["steps a call", "plain", "`rules.erma`", "ERMA adds"],
            [
                (count, *(_share(pair[name], count) for name in pair), _added(pair, count))
                for count, pair in grouped.items()
            ],
        ),
    ]
    data = {
        "arrays": {name: value._asdict() for name, value in leaves.items()},
        "one call a step": {name: value._asdict() for name, value in called.items()},
        "in a loop": {name: value._asdict() for name, value in looped.items()},
        "plain beside ERMA's arrays": bare._asdict(),
        "operations": operations,
        "steps a call": {
            str(count): {name: _share(value, count)._asdict() for name, value in pair.items()}
            for count, pair in grouped.items()
        },
    }
    statement = f"ERMA adds at most {LIMIT:.0f} % to a tiny step that is called from Python"
    targets = [timing.Target(statement, f"{share:.0f} %", share <= LIMIT)]
    return timing.Report("What a call costs", "\n\n".join(text), data, targets)


def operations_of(step: Callable, state: Any) -> int:
    """Counts the operations that a call of a step starts one by one."""
    return overhead.num_operations(jax.jit(step, donate_argnums=0).lower(state).compile())


def _share(value: timing.Summary, count: int) -> timing.Summary:
    """Returns the time of one of so many steps."""
    return timing.Summary(*(number / count for number in value[:3]), value.repeats)


def _added(pair: dict[str, timing.Summary], count: int) -> str:
    return f"{timing.number((pair['erma'].median - pair['plain'].median) / count)}"

"""Compares draws and updates with the trees of prioritised replay: cpprb and torchrl in C++, flashbax in JAX."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import draws, overhead, peers, timing
from mixjax import samplers

__all__ = ["SIDES", "Side", "drift", "run", "scores_of"]

SIZES = (10**3, 10**5, 10**7)
BATCH = 64
# what was asked for: times the quickest peer of the same kind
ON_THE_HOST, IN_JIT = 1.5, 1.2


class Side(NamedTuple):
    """Holds one sampler of ``n`` examples, drawn in proportion to their scores.

    Attributes:
        run: ``run(steps)`` draws batches and writes new scores back.
        write: ``write(indices, scores)`` writes one batch.
        draw: ``draw(seed)`` draws a batch of indices.
        total: returns the sum by which the sampler draws; None where it does not tell.
    """

    run: Callable[[int], None]
    write: Callable[[np.ndarray, np.ndarray], None]
    draw: Callable[[int], np.ndarray]
    total: Callable[[], float] | None


def scores_of(n: int) -> np.ndarray:
    """Returns positive scores, float32 ``[n]``."""
    return np.exp(draws.losses_of(n))


def fresh(indices):
    """Returns the "new scores" of a batch, by NumPy."""
    return np.abs(np.sin(indices, dtype=np.float32)) + np.float32(1e-3)


def _calls(sample: Callable[[int], np.ndarray], write: Callable[[Any, Any], None], new: Callable = fresh):
    """Returns ``run(steps)`` of a sampler that is called from Python."""
    seed = 0

    def run_steps(steps):
        nonlocal seed
        for _ in range(steps):
            indices = sample(seed)
            write(indices, new(indices))
            seed += 1

    return run_steps


def host_side(n: int, compiled: bool) -> Side | None:
    """Draws by ``HostSampler``, compiled or by NumPy."""
    if compiled and not peers.installed("numba"):
        return None
    sampler = samplers.HostSampler(n, scores_of(n), compiled=compiled)

    def draw(seed):
        return sampler.sample(seed, BATCH)[0]

    def total():
        return float(sampler.values[0] / np.exp(sampler.log_probs([0])[0]))

    return Side(_calls(draw, sampler.update), sampler.update, draw, total)


def cpprb_side(n: int) -> Side | None:
    """Draws by cpprb's prioritised buffer, whose trees are in C++."""
    if not peers.installed("cpprb"):
        return None
    import cpprb

    # alpha = 1 and eps = 0: priorities are scores
    buffer = cpprb.PrioritizedReplayBuffer(n, {"id": {"dtype": np.int32}}, alpha=1.0, eps=0.0)
    buffer.add(id=np.arange(n, dtype=np.int32), priorities=scores_of(n))

    def draw(seed):
        del seed
        return buffer.sample(BATCH, 0.4)["indexes"]

    # a copy, since cpprb hands out the same memory at every draw
    return Side(_calls(draw, buffer.update_priorities), buffer.update_priorities, lambda seed: draw(seed).copy(), None)


def torchrl_side(n: int) -> Side | None:
    """Draws by torchrl's segment tree, in C++."""
    if not peers.installed("torchrl"):
        return None
    import torch
    from torchrl._torchrl import SumSegmentTreeFp32

    torch.set_num_threads(1)
    tree, rng = SumSegmentTreeFp32(n), np.random.default_rng(0)
    tree[torch.arange(n)] = torch.from_numpy(scores_of(n))

    # as torchrl's PrioritizedSampler does
    def sample(seed):
        del seed
        points = torch.from_numpy((rng.random(BATCH) * tree.query(0, n)).astype(np.float32))
        indices = tree.scan_lower_bound(points).clamp_(max=n - 1)
        # the weights need the scores
        tree[indices]
        return indices

    def write(indices, scores):
        tree[indices] = scores

    def new(indices):
        return torch.abs(torch.sin(indices.float())) + 1e-3

    def write_numpy(indices, scores):
        write(torch.from_numpy(np.asarray(indices)), torch.from_numpy(scores))

    return Side(
        _calls(sample, write, new), write_numpy, lambda seed: sample(seed).numpy(), lambda: float(tree.query(0, n))
    )


def jax_side(n: int, called: bool, sampler: Any, values: np.ndarray) -> Side:
    """Draws by a sampler of mixjax in jit: in a compiled loop, or in one call for each step."""

    def step(state, key):
        indices, _ = sampler.sample(state, key, BATCH)
        return sampler.update(state, indices, jnp.abs(draws.fresh(indices)) + 1e-3)

    update, sample = jax.jit(sampler.update, donate_argnums=0), jax.jit(sampler.sample, static_argnums=2)
    held = [jax.tree.map(jnp.copy, jax.jit(sampler.init)(values))]

    def write(indices, scores):
        held[0] = update(held[0], jnp.asarray(indices, jnp.int32), scores)

    def total():
        return float(held[0].values[0] / jnp.exp(sampler.log_probs(held[0], jnp.array([0]))[0]))

    run_steps = one_call_a_step(step, held[0]) if called else draws.loop(step, held[0])
    return Side(run_steps, write, lambda seed: np.asarray(sample(held[0], jax.random.key(seed), BATCH)[0]), total)


def one_call_a_step(step: Callable, state: Any) -> Callable[[int], None]:
    """Returns ``run(steps)``, which calls a jitted step with a donated state."""
    program, held = jax.jit(step, donate_argnums=0), [jax.tree.map(jnp.copy, state)]
    keys = list(jax.random.split(jax.random.key(0), 64))

    def run_steps(steps):
        for i in range(steps):
            held[0] = program(held[0], keys[i % 64])
        jax.block_until_ready(held[0])

    return run_steps


def ours_in_jit(n: int, kind: str, called: bool = False) -> Side:
    """Draws by ``samplers.hardness`` or ``samplers.proportional``, in jit."""
    if kind == "hardness":
        return jax_side(n, called, samplers.hardness(n, 1.0), draws.losses_of(n))
    return jax_side(n, called, samplers.proportional(n), scores_of(n))


def flashbax_side(n: int, called: bool = False) -> Side | None:
    """Draws by flashbax's sum tree with the update that it recommends on a CPU, in jit."""
    if not peers.installed("flashbax"):
        return None
    from flashbax.buffers import sum_tree

    def step(state, key):
        indices = sum_tree.stratified_sample(state, BATCH, key)
        # the weights need the scores
        scores = jnp.abs(draws.fresh(indices)) + 1e-3 + 0.0 * sum_tree.get(state, indices)
        return sum_tree.set_batch_scan(state, indices, scores)

    # once, of all examples: the update for large batches
    first = jax.jit(sum_tree.set_batch_bincount)(sum_tree.init(n), jnp.arange(n), jnp.asarray(scores_of(n)))
    held, update = [jax.tree.map(jnp.copy, first)], jax.jit(sum_tree.set_batch_scan)
    sample = jax.jit(lambda state, key: sum_tree.stratified_sample(state, BATCH, key))

    def write(indices, scores):
        held[0] = update(held[0], jnp.asarray(indices, jnp.int32), jnp.asarray(scores))

    run_steps = one_call_a_step(step, first) if called else draws.loop(step, first)
    return Side(
        run_steps,
        write,
        lambda seed: np.asarray(sample(held[0], jax.random.key(seed))),
        lambda: float(held[0].nodes[0]),
    )


SIDES = {
    "`HostSampler`, numba": functools.partial(host_side, compiled=True),
    "`HostSampler`, NumPy": functools.partial(host_side, compiled=False),
    "cpprb (C++)": cpprb_side,
    "torchrl `SumSegmentTree` (C++)": torchrl_side,
    "`hardness`, in a compiled loop": functools.partial(ours_in_jit, kind="hardness"),
    "`proportional`, in a compiled loop": functools.partial(ours_in_jit, kind="proportional"),
    "flashbax, in a compiled loop": flashbax_side,
    "`proportional`, one call a step": functools.partial(ours_in_jit, kind="proportional", called=True),
    "flashbax, one call a step": functools.partial(flashbax_side, called=True),
}
HOST, CPPRB, TORCHRL = "`HostSampler`, numba", "cpprb (C++)", "torchrl `SumSegmentTree` (C++)"
LOOPS = "`hardness`, in a compiled loop", "`proportional`, in a compiled loop"
FLASHBAX = "flashbax, in a compiled loop"


def times(n: int, repeats: int) -> dict[str, list[float]]:
    """Measures the processor time of a step of each side that is installed, in turns; microseconds."""
    sides = {name: side for name, make in SIDES.items() if (side := make(n)) is not None}
    steps = {}
    for name, side in sides.items():
        # the first call compiles
        side.run(20)
        start = time.process_time()
        side.run(100)
        steps[name] = max(20, round(0.02 * 100 / (time.process_time() - start)))
    turns = {name: functools.partial(side.run, steps[name]) for name, side in sides.items()}
    seconds = timing.interleave(turns, repeats, time.process_time)
    return {name: [1e6 * value / steps[name] for value in values] for name, values in seconds.items()}


def parts(n: int, repeats: int) -> dict[str, Any]:
    """Measures what a step of ``hardness`` consists of, and counts the operations that it starts one by one."""
    sampler = samplers.hardness(n, 1.0)
    state = jax.jit(sampler.init)(draws.losses_of(n))
    numbers = len(state.sums) + 2, BATCH

    def step(state, key):
        indices, _ = sampler.sample(state, key, BATCH)
        return sampler.update(state, indices, draws.fresh(indices))

    def drawn(carry, key):
        state, total = carry
        indices, weights = sampler.sample(state, key, BATCH)
        return state, total + indices.sum() + weights.sum()

    def updated(state, key):
        indices = jax.random.randint(key, (BATCH,), 0, n)
        return sampler.update(state, indices, draws.fresh(indices))

    sides = {
        "a whole step": draws.loop(step, state),
        "a draw": draws.loop(drawn, (state, jnp.zeros(()))),
        "an update of random examples": draws.loop(updated, state),
        "its random numbers": draws.loop(
            lambda total, key: total + jax.random.uniform(key, numbers), jnp.zeros(numbers)
        ),
    }
    for side in sides.values():
        side(100)
    steps = 200
    turns = {name: functools.partial(side, steps) for name, side in sides.items()}
    seconds = timing.interleave(turns, repeats, time.process_time)
    operations = overhead.num_operations(jax.jit(step).lower(state, jax.random.key(0)).compile())
    found = {name: timing.summarize([1e6 * value / steps for value in values]) for name, values in seconds.items()}
    return {"microseconds": found, "operations": operations}


def drift(side: Side, n: int, updates: int = 1000) -> tuple[float | None, float]:
    """Writes scores of eight decades, then the same small one for every example, and looks at the draws.

    Returns:
        The sum by which the side draws over the sum of its scores, None where it does not tell; and the share of the
        draws that the most drawn example gets, times ``n``, which is little more than 1.
    """
    rng = np.random.default_rng(0)
    for _ in range(updates):
        side.write(rng.permutation(n)[:BATCH], (10 ** rng.uniform(-2, 6, BATCH)).astype(np.float32))
    for start in range(0, n, BATCH):
        indices = np.arange(start, start + BATCH) % n
        side.write(indices, np.full(BATCH, 0.01, np.float32))
    counts = np.bincount(np.concatenate([side.draw(seed) for seed in range(400)]), minlength=n)
    ratio = None if side.total is None else side.total() / (0.01 * n)
    return ratio, float(counts.max() / counts.sum() * n)


def run(quick: bool) -> timing.Report:
    """Measures the times at every size, then the drift."""
    sizes, repeats = (SIZES[:1], 2) if quick else (SIZES, 5)
    measured = {n: times(n, repeats) for n in sizes}
    pieces = parts(sizes[-1], repeats)
    size, drifts = 10**3, {}
    for name, make in SIDES.items():
        side = None if "one call" in name else make(size)
        if side is not None:
            drifts[name] = drift(side, size, 50 if quick else 1000)
    rows = []
    for name in SIDES:
        missing = name not in measured[sizes[0]]
        cells = [peers.missing("numba" if "numba" in name else "bench")] * len(sizes)
        rows.append((name, *(cells if missing else (timing.summarize(measured[n][name]) for n in sizes))))
    text = [
        f"A step draws {BATCH} examples in proportion to a score, with the numbers that importance weights need, and "
        "writes new scores back. Processor time of all threads, microseconds a step: median (least to most) of turns.",
        timing.table(["", *(f"n = 10^{len(str(n)) - 1}" for n in sizes)], rows),
        f"**Where the time goes.** Parts of a step of `hardness` at n = {sizes[-1]:.0e}, each alone in a loop, "
        "microseconds of processor time:",
        timing.table(["part", "microseconds"], list(pieces["microseconds"].items())),
        f"A step starts {pieces['operations']} operations one by one, and that is what most of it is spent on: a level "
        "of the tree takes a look-up, the largest of each row, an exponential, sums and a choice, and an update as "
        "many. Look-ups in long arrays are loops on a CPU, since XLA splits gathers from these over threads, which "
        "takes longer than the gathers. flashbax keeps plain sums, so that XLA compiles each of its loops as a "
        "whole, and on a machine without other work, or on a single core, it may be the quicker one; for that "
        "its sums drift, see below. A wider fanout or one number a node in place of two would change draws, or give "
        "up that losses of any size neither overflow nor vanish.",
        "**Drift.** After 1,000 updates with scores over eight decades all scores become equal. A tree that adds "
        "differences up keeps their rounding errors; one that recomputes each sum from its children does not. The sum "
        "by which each draws, over the sum of its scores, and how often the most drawn example comes in 25,600 draws, "
        "times its share:",
        timing.table(
            ["", "sum over scores", "most drawn"],
            [
                (name, "not told" if ratio is None else f"{ratio:.7g}", timing.number(most))
                for name, (ratio, most) in drifts.items()
            ],
        ),
    ]
    data = {
        "microseconds": {
            f"n={n}": {name: timing.summarize(values)._asdict() for name, values in sides.items()}
            for n, sides in measured.items()
        },
        "drift": drifts,
        "parts": {name: value._asdict() for name, value in pieces["microseconds"].items()},
        "operations": pieces["operations"],
    }
    return timing.Report("Trees of prioritised replay", "\n\n".join(text), data, targets(measured, drifts))


def targets(measured: dict[int, dict[str, list[float]]], drifts: dict[str, tuple[float | None, float]]):
    """Compares with the peers that are installed."""
    rows = []
    for n, sides in measured.items():
        if HOST in sides and CPPRB in sides:
            ratio = timing.ratios(sides[HOST], sides[CPPRB])
            rows.append(
                timing.Target(
                    f"`HostSampler` at n = {n:.0e}: at most {ON_THE_HOST} times cpprb",
                    f"{ratio}",
                    ratio.median <= ON_THE_HOST,
                )
            )
    n = max(measured)
    for ours in LOOPS:
        for peer in (FLASHBAX, TORCHRL):
            if peer in measured[n]:
                ratio = timing.ratios(measured[n][ours], measured[n][peer])
                statement = f"{ours}, at n = {n:.0e}: at most {IN_JIT} times {peer}"
                rows.append(timing.Target(statement, f"{ratio}", ratio.median <= IN_JIT))
    worst = max(abs(ratio - 1) for name, (ratio, _) in drifts.items() if name.strip("`").startswith(("H", "h", "p")))
    rows.append(timing.Target("our sums within 1e-5 of the scores' after eight decades", f"{worst:.1e}", worst <= 1e-5))
    return rows

"""Measures time and memory of hypergradients beside plain training, and what differentiating rarely costs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.benchmarks import timing
from mixjax import mixing, rules
from mixjax.hypergrad import hypergrad, unroll
from mixjax.statistics import mean_stderr

__all__ = ["MODES", "TRACED", "at_most", "cell", "digits", "measured", "run"]

# what was asked for, times plain training (FLAT: memory)
STEPWISE, NESTED, FLAT, AMORTISED = 4.0, 5.0, 1.1, 1.25
PIXELS, CLASSES, RATE, BATCH = 64, 10, 0.1, 8
# seconds above which a cell is not timed; its memory is known from the compiled program
LONGEST = 20.0
MODES = {
    "reverse, every state kept": {"mode": "reverse", "checkpoint_every": 1},
    "reverse, square root": {"mode": "reverse"},
    "forward": {"mode": "forward"},
    "implicit, 10 iterations": {"mode": "implicit", "max_iterations": 10, "tolerance": 0.0, "ridge": 0.01},
    "alignment": {"mode": "alignment"},
}

# as "forward", with T an argument of the program and not a constant in it
TRACED = "forward, T traced"


def init(key: jax.Array, width: int) -> dict[str, jax.Array]:
    """Draws the parameters of an MLP with one hidden layer."""
    keys = jax.random.split(key)
    return {
        "in": jax.random.normal(keys[0], (PIXELS, width)) / PIXELS**0.5,
        "bias": jnp.zeros(width),
        "out": jax.random.normal(keys[1], (width, CLASSES)) / width**0.5,
        "shift": jnp.zeros(CLASSES),
    }


def loss(params, batch) -> jax.Array:
    """Returns the mean cross entropy of a batch."""
    images, labels = batch
    logits = jax.nn.relu(images @ params["in"] + params["bias"]) @ params["out"] + params["shift"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def cell(domains: int, num_steps: int, width: int) -> tuple[dict[str, Callable[[], None]], dict[str, int], int]:
    """Compiles every side of one cell of the table.

    Returns:
        ``(sides, memory, size)``: each side's call; the temporary bytes of each side and of ``TRACED``; the number of
        parameters.
    """
    key, optimizer = jax.random.key(0), optax.sgd(RATE)
    params, images = init(key, width), jnp.asarray(load_digits().data[:64] / 16, jnp.float32)
    labels = jnp.asarray(load_digits().target[:64])

    def draw(key):
        rows = jax.random.randint(key, (domains, BATCH), 0, 64)
        return images[rows], labels[rows]

    inputs = jnp.full(domains, 1 / domains), params, optimizer.init(params), jax.random.split(key, num_steps)
    made = {"plain": (unroll(loss, optimizer, draw=draw), inputs)}
    for name, options in MODES.items():
        made[name] = hypergrad(loss, loss, optimizer, draw=draw, **options), (*inputs, (images, labels))
    made[TRACED] = made["forward"][0], (*made["forward"][1], jnp.int32(num_steps))
    sides, memory = {}, {}
    for name, (function, arguments) in made.items():
        compiled = jax.jit(function).lower(*arguments).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes
        sides[name] = functools.partial(lambda f, x: jax.block_until_ready(f(*x)), compiled, arguments)
    # only the memory of the traced length is asked for
    del sides[TRACED]
    return sides, memory, sum(x.size for x in jax.tree.leaves(params))


def measured(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times the sides in turns, without those that took ``LONGEST`` seconds or more in the first call."""
    first = {}
    for name, side in sides.items():
        # forward mode may take 60 times as long as plain training: even its first call would be too long
        if name == "forward" and first["plain"] * 60 > LONGEST:
            continue
        side()
        first |= {name: timing.interleave({name: side}, 1)[name][0]}
    return timing.interleave({name: sides[name] for name in first if first[name] < LONGEST}, repeats)


def digits(seed: int, domains: int, size: int = 150):
    """Returns domains of digits, and clean held-out digits.

    The first half of the domains has fewer and fewer wrong labels, the second half has right labels and fewer and fewer
    classes.
    """
    data, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(data.target))
    images, labels = data.data[order] / 16, data.target[order]
    held, pool = np.arange(400), np.arange(400, len(labels))
    half, rows, given = domains // 2, [], []
    for d in range(domains):
        first = d - half
        allowed = pool if d < half else pool[(labels[pool] >= first) & (labels[pool] < first + CLASSES - half)]
        chosen = rng.choice(allowed, size)
        wrong = rng.random(size) < (0.9 - 0.6 * d / half if d < half else 0.0)
        rows.append(images[chosen])
        given.append(np.where(wrong, rng.integers(0, CLASSES, size), labels[chosen]))
    train = jnp.asarray(rows, jnp.float32), jnp.asarray(given)
    return train, (jnp.asarray(images[held], jnp.float32), jnp.asarray(labels[held]))


def amortised(quick: bool) -> dict[str, tuple[dict[str, Any], list[float], list[float]]]:
    """Times every way to differentiate rarely.

    Returns:
        For each way its options, and the seconds and the final validation losses, one for each seed, in turns.
    """
    domains, width, num_steps, seeds = (4, 8, 256, 2) if quick else (8, 128, 6144, 8)
    horizon, rares, optimizer = (8, (4,), optax.sgd(RATE)) if quick else (64, (4, 8, 12, 16), optax.sgd(RATE))
    ways = {"plain, uniform weights": {"T": horizon, "mode": None}, f"T = {horizon}, every round": {"T": horizon}}
    ways |= {f"T = {horizon}, every {r}th round": {"T": horizon, "rounds_per_update": r} for r in rares}
    ways[f"T = {horizon // 12 or 1}, every 12th round"] = {"T": horizon // 12 or 1, "rounds_per_update": 12}

    def side(options):
        rule = rules.fixed() if options.get("mode", "") is None else rules.mirror_descent()

        @jax.jit
        def run(key, train, held):
            def draw(key):
                rows = jax.random.randint(key, (domains, BATCH), 0, train[1].shape[1])
                return jax.vmap(lambda x, y, i: (x[i], y[i]))(*train, rows)

            state = mixing.init_state(init(key, width), optimizer, jnp.full(domains, 1 / domains), rule)
            state, _ = mixing.fit(
                loss, loss, optimizer, rule, draw, lambda key: held, state, key, num_steps=num_steps, **options
            )
            return loss(state.params, held)

        return run

    runs = {name: side(options) for name, options in ways.items()}
    outcomes = {name: (options, [], []) for name, options in ways.items()}
    for seed in range(seeds + 1):
        inputs = jax.random.key(seed), *digits(seed, domains)
        losses = {}

        def call(name, run, inputs=inputs, losses=losses):
            losses[name] = float(run(*inputs))

        seconds = timing.interleave({name: functools.partial(call, name, run) for name, run in runs.items()}, 1)
        # the first turn compiles
        if seed:
            for name, (_, times, values) in outcomes.items():
                times.append(seconds[name][0])
                values.append(losses[name])
    return outcomes


class Cell(NamedTuple):
    """Holds what was measured of one problem.

    Attributes:
        domains: ``K``.
        num_steps: ``T``.
        size: ``d``, the number of parameters.
        memory: temporary bytes of each side and of ``TRACED``.
        seconds: each side's seconds, without the sides that take too long.
    """

    domains: int
    num_steps: int
    size: int
    memory: dict[str, int]
    seconds: dict[str, list[float]]

    def times_plain(self, name: str) -> timing.Summary:
        """Summarises a side's time over that of plain training, within a turn."""
        return timing.ratios(self.seconds[name], self.seconds["plain"])

    def texts(self) -> list[str]:
        """Writes the time and the memory of every side."""
        texts = []
        for name in ("plain", *MODES):
            if name not in self.seconds:
                taken = "not timed"
            elif name == "plain":
                taken = f"{timing.number(self.milliseconds(name).median)} ms"
            else:
                taken = f"{self.times_plain(name).median:.2f}x"
            texts.append(f"{taken}, {self.memory[name] / 2**20:.2f} MiB")
        return texts

    def milliseconds(self, name: str) -> timing.Summary:
        """Summarises a side's time."""
        return timing.summarize([1e3 * second for second in self.seconds[name]])

    def data(self) -> dict[str, Any]:
        """Returns what ``results.json`` keeps."""
        timed = [name for name in ("plain", *MODES) if name in self.seconds]
        return {
            "temporary bytes": self.memory,
            "ms": {name: self.milliseconds(name)._asdict() for name in timed},
            "ratio": {name: self.times_plain(name)._asdict() for name in timed},
        }


def cell_targets(cells: Sequence[Cell], quick: bool) -> list[timing.Target]:
    """Compares the cells' times and memory with what was asked for."""
    stepwise_mode, nested_mode = list(MODES)[:2]
    stepwise = [
        cell.times_plain(stepwise_mode).median
        for cell in cells
        if stepwise_mode in cell.seconds and (quick or (cell.num_steps > 1 and cell.domains >= 8))
    ]
    nested = [
        cell.times_plain(nested_mode).median for cell in cells if nested_mode in cell.seconds and cell.num_steps > 64
    ]

    def growth(name):
        # memory at the longest T over that at the shortest, for each K and d
        by_length = {}
        for cell in cells:
            by_length.setdefault((cell.domains, cell.size), {})[cell.num_steps] = cell.memory[name]
        return [memory[max(memory)] / memory[min(memory)] for memory in by_length.values()]

    return [
        at_most("reverse with every state kept, K >= 8 and T > 1, times plain training", stepwise, STEPWISE),
        at_most("reverse with the square root of T states, T > 64, times plain training", nested, NESTED),
        at_most("forward's memory at the longest T, times that at T = 1, T traced", growth(TRACED), FLAT),
        at_most("the same, T a constant: at T = 1 there is no loop, and no tangents enter it", growth("forward"), FLAT),
    ]


def rare_rows(outcomes: dict[str, tuple[dict[str, Any], list[float], list[float]]]) -> tuple[list, timing.Target]:
    """Returns the rows of the ways to differentiate rarely, and the target of the best cheap one.

    Args:
        outcomes: what :func:`amortised` returns; the first way is plain training, the second updates every round.
    """
    plain, full = list(outcomes)[:2]
    rows, cheap = [], []
    for name, (options, seconds, losses) in outcomes.items():
        ratio = timing.ratios(seconds, outcomes[plain][1])
        change, error, _ = mean_stderr(np.subtract(losses, outcomes[full][2]))
        rows.append((name, ratio, f"{np.mean(losses):.4f}", f"{change:+.4f} ± {error:.4f}"))
        if options.get("rounds_per_update", 1) > 1 and ratio.median <= AMORTISED:
            cheap.append((float(np.mean(losses)), f"{name}: {ratio} times, loss {change:+.4f} ± {error:.4f}"))
    best = min(cheap, default=None)
    statement = f"some way to differentiate rarely at most {AMORTISED} times plain training; its validation loss"
    return rows, timing.Target(statement, "none" if best is None else best[1], best is not None)


def run(quick: bool) -> timing.Report:
    """Measures every cell, then every way to differentiate rarely."""
    if quick:
        repeats, shapes = 1, [(2, 1, 8), (2, 66, 8)]
    else:
        repeats = 5
        shapes = [(k, t, width) for width in (13, 1333) for k in (2, 8, 32) for t in (1, 16, 256, 1024)]
    cells = []
    for domains, num_steps, width in shapes:
        sides, memory, size = cell(domains, num_steps, width)
        cells.append(Cell(domains, num_steps, size, memory, measured(sides, repeats)))
    outcomes = amortised(quick)
    rare, target = rare_rows(outcomes)
    text = [
        f"An MLP {PIXELS}-h-{CLASSES} of d parameters on digits, {BATCH} examples a domain and step, SGD. Of plain "
        "training the time, of the others how many times that (medians); and the temporary memory of the compiled "
        f"program. A cell that would take more than {LONGEST:.0f} s a call is not timed.",
        timing.table(
            ["K", "T", "d", "plain", *MODES],
            [(cell.domains, cell.num_steps, cell.size, *cell.texts()) for cell in cells],
            text_columns=0,
        ),
        "Differentiating rarely, K domains of digits with wrong labels or few classes, equal numbers of steps, one "
        "seed a turn; the loss is the model's on clean held-out digits at the end, the change is paired.",
        timing.table(["way", "times plain", "validation loss", "minus every round's"], rare),
    ]
    data = {f"K = {cell.domains}, T = {cell.num_steps}, d = {cell.size}": cell.data() for cell in cells}
    data |= {name: {"seconds": seconds, "validation losses": losses} for name, (_, seconds, losses) in outcomes.items()}
    targets = [*cell_targets(cells, quick), target]
    return timing.Report("Hypergradients", "\n\n".join(text), data, targets)


def at_most(statement: str, values: list[float], limit: float) -> timing.Target:
    """Returns a target that every cell has to meet."""
    spread = timing.summarize(values)
    return timing.Target(f"{statement}: at most {limit}", f"{spread} over {len(values)} cells", spread.high <= limit)

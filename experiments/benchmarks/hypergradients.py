"""Measures time and memory of hypergradients beside plain training, and what differentiating rarely costs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.benchmarks import timing
from mixjax import mixing, rules
from mixjax.hypergrad import hypergrad, unroll
from mixjax.runner.claims import mean_stderr

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


def run(quick: bool) -> timing.Report:
    """Measures every cell, then every way to differentiate rarely."""
    repeats, shapes = (1, [(2, 1, 8), (2, 66, 8)]) if quick else (
        5, [(k, t, width) for width in (13, 1333) for k in (2, 8, 32) for t in (1, 16, 256, 1024)]
    )  # fmt: skip
    rows, data, stepwise, nested, lengths = [], {}, [], [], {"forward": {}, TRACED: {}}
    for domains, num_steps, width in shapes:
        sides, memory, size = cell(domains, num_steps, width)
        seconds = measured(sides, repeats)
        label = f"K = {domains}, T = {num_steps}, d = {size}"
        data[label] = {"temporary bytes": memory, "ms": {}, "ratio": {}}
        cells = []
        for name in sides:
            mib = f"{memory[name] / 2**20:.2f} MiB"
            if name not in seconds:
                cells.append(f"not timed, {mib}")
                continue
            taken = timing.summarize([1e3 * s for s in seconds[name]])
            ratio = timing.ratios(seconds[name], seconds["plain"])
            data[label]["ms"][name], data[label]["ratio"][name] = taken._asdict(), ratio._asdict()
            cells.append(
                f"{timing.number(taken.median)} ms, {mib}" if name == "plain" else f"{ratio.median:.2f}x, {mib}"
            )
        rows.append((domains, num_steps, size, *cells))
        if quick or (num_steps > 1 and domains >= 8):
            stepwise += [data[label]["ratio"][n]["median"] for n in list(MODES)[:1] if n in seconds]
        if num_steps > 64:
            nested += [data[label]["ratio"][n]["median"] for n in list(MODES)[1:2] if n in seconds]
        for name, by_cell in lengths.items():
            by_cell.setdefault((domains, size), {})[num_steps] = memory[name]

    traced, constant = (
        [by_length[max(by_length)] / by_length[min(by_length)] for by_length in lengths[name].values()]
        for name in (TRACED, "forward")
    )
    targets = [
        at_most("reverse with every state kept, K >= 8 and T > 1, times plain training", stepwise, STEPWISE),
        at_most("reverse with the square root of T states, T > 64, times plain training", nested, NESTED),
        at_most("forward's memory at the longest T, times that at T = 1, T traced", traced, FLAT),
        at_most("the same, T a constant: at T = 1 there is no loop, and no tangents enter it", constant, FLAT),
    ]
    outcomes = amortised(quick)
    plain, full = list(outcomes)[:2]
    cheap, more = [], []
    for name, (options, seconds, losses) in outcomes.items():
        ratio = timing.ratios(seconds, outcomes[plain][1])
        change, error, _ = mean_stderr(np.subtract(losses, outcomes[full][2]))
        more.append((name, ratio, f"{np.mean(losses):.4f}", f"{change:+.4f} ± {error:.4f}"))
        data[name] = {"seconds": seconds, "validation losses": losses}
        if options.get("rounds_per_update", 1) > 1 and ratio.median <= AMORTISED:
            cheap.append((float(np.mean(losses)), f"{name}: {ratio} times, loss {change:+.4f} ± {error:.4f}"))
    best = min(cheap, default=None)
    measured_text = "none" if best is None else best[1]
    statement = f"some way to differentiate rarely at most {AMORTISED} times plain training; its validation loss"
    targets.append(timing.Target(statement, measured_text, best is not None))
    text = [
        f"An MLP {PIXELS}-h-{CLASSES} of d parameters on digits, {BATCH} examples a domain and step, SGD. Of plain "
        "training the time, of the others how many times that (medians); and the temporary memory of the compiled "
        f"program. A cell that would take more than {LONGEST:.0f} s a call is not timed.",
        timing.table(["K", "T", "d", "plain", *MODES], rows, text_columns=0),
        "Differentiating rarely, K domains of digits with wrong labels or few classes, equal numbers of steps, one "
        "seed a turn; the loss is the model's on clean held-out digits at the end, the change is paired.",
        timing.table(["way", "times plain", "validation loss", "minus every round's"], more),
    ]
    return timing.Report("Hypergradients", "\n\n".join(text), data, targets)


def at_most(statement: str, values: list[float], limit: float) -> timing.Target:
    """Returns a target that every cell has to meet."""
    spread = timing.summarize(values)
    return timing.Target(f"{statement}: at most {limit}", f"{spread} over {len(values)} cells", spread.high <= limit)

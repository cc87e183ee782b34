"""Times a draw by stale losses, and writing the new ones back, against the number of examples."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.benchmarks import draws, timing
from mixjax import samplers

__all__ = ["BATCHES", "run", "summaries", "targets", "timed"]

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
BATCHES = (64, 2)
VMAPPED = 32
# paper 004's examples and batch size, section 4.2
PAPER = 268, 2


def run(quick: bool) -> timing.Report:
    """Measures every side at every size.

    Args:
        quick: tiny sizes.

    Returns:
        The report.
    """
    sizes, repeats = (SIZES[:2], 3) if quick else (SIZES, 7)

    # steps of few microseconds feel what else the machine does, and take more turns
    def turns(n):
        return 31 if n <= 10**4 and not quick else repeats

    measured = {
        (n, batch, law): step_times(n, batch, law, turns(n))
        for n in sizes
        for batch in BATCHES
        for law in (True, False)
    }
    vmapped = {n: vmapped_times(n, repeats) for n in sizes[:4]}
    paper = step_times(*PAPER, True, turns(PAPER[0])) | step_times(*PAPER, False, turns(PAPER[0]))
    training = training_step(quick, repeats)
    bytes_an_example = {n: state_bytes(n) / n for n in sizes}
    text = [
        "A step draws a batch in proportion to the softmax of beta times the stale losses and writes new losses back "
        f"(beta = {draws.BETA:g}, losses normal). JAX sides are steps of a compiled loop with a donated carry, the "
        "others calls from Python. Microseconds a step, median (least to most) of turns; *distinct* sides draw without "
        "replacement, the others with it.",
    ]
    for batch in BATCHES:
        for law in (True, False):
            rows = {n: summaries(measured[n, batch, law]) for n in sizes}
            text += [f"**B = {batch}, {'independent' if law else 'distinct'}**", side_table(rows)]
    text += [
        f"**{VMAPPED} seeds under `vmap`, B = 64**, microseconds a step for all of them:",
        side_table({n: summaries(values) for n, values in vmapped.items()}),
        f"**The paper's row** (section 4.2: n = {PAPER[0]}, B = {PAPER[1]}; it states 2144 bytes and about 100 "
        f"microseconds with NumPy): our state is {state_bytes(PAPER[0])} bytes, and a step takes",
        timing.table(["side", "microseconds"], list(summaries(paper).items())),
        training["text"],
        "**State**, bytes an example: "
        + ", ".join(f"{value:.2f} (n = {n:.0e})" for n, value in bytes_an_example.items()),
    ]
    data = {
        "microseconds": {
            f"n={n} B={batch} {'independent' if law else 'distinct'}": {
                name: value._asdict() for name, value in summaries(values).items()
            }
            for (n, batch, law), values in measured.items()
        },
        "vmapped": {
            f"n={n}": {name: value._asdict() for name, value in summaries(values).items()}
            for n, values in vmapped.items()
        },
        "paper": {name: value._asdict() for name, value in summaries(paper).items()},
        "training": training["data"],
        "bytes_an_example": bytes_an_example,
    }
    return timing.Report(
        "Example samplers", "\n\n".join(text), data, targets(measured, training["share"], bytes_an_example)
    )


def step_times(n: int, batch: int, replacement: bool, repeats: int) -> dict[str, list[float]]:
    """Times a step of every side of one law, in turns; seconds."""
    makers = draws.INDEPENDENT if replacement else draws.DISTINCT
    return timed({name: make(n, batch) for name, make in makers.items()}, repeats)


def timed(sides: dict[str, Callable[[int], None] | None], repeats: int) -> dict[str, list[float]]:
    """Times a step of each side that can be run, in turns of about 30 ms each; seconds."""
    sides, steps = {name: side for name, side in sides.items() if side is not None}, {}
    for name, side in sides.items():
        # the first call compiles and touches the pages
        side(1)
        steps[name] = 3
        # twice, since the first few steps and a call's start take longer than the rest
        for _ in range(2):
            start = time.perf_counter()
            side(steps[name])
            steps[name] = max(1, round(0.03 * steps[name] / (time.perf_counter() - start)))
    turns = {name: functools.partial(side, steps[name]) for name, side in sides.items()}
    seconds = timing.interleave(turns, repeats)
    return {name: [value / steps[name] for value in values] for name, values in seconds.items()}


def vmapped_times(n: int, repeats: int) -> dict[str, list[float]]:
    """Times a step of all seeds under ``vmap``, for our samplers and for the stateless ways of JAX; seconds."""
    makers = {
        "mixjax": functools.partial(draws.mixjax_side, replacement=True),
        "mixjax, distinct": functools.partial(draws.mixjax_side, replacement=False),
        "JAX cumsum + searchsorted": functools.partial(draws.stateless_side, draw=draws.cumsum_draw),
        "JAX categorical": functools.partial(draws.stateless_side, draw=draws.categorical_draw),
    }
    return timed({name: make(n, 64, seeds=VMAPPED) for name, make in makers.items()}, repeats)


def training_step(quick: bool, repeats: int) -> dict[str, Any]:
    """Times a training step of WRN-16-1, and a step of the sampler beside it."""
    n, batch = (1000, 4) if quick else (53_930, 64)
    train, draw = draws.wrn_side(batch), draws.mixjax_side(n, batch, True)
    train(1)
    draw(300)
    seconds = timing.interleave({"training": lambda: train(1), "sampler": lambda: draw(300)}, repeats)
    shares = timing.ratios([100 * second / 300 for second in seconds["sampler"]], seconds["training"])
    text = (
        f"**Inside training**: a step of WRN-16-1 (B = {batch}, n = {n}) takes "
        f"{timing.summarize([1e3 * second for second in seconds['training']])} ms; drawing and writing back take "
        f"{shares} % of it."
    )
    return {"text": text, "data": shares._asdict(), "share": shares}


def state_bytes(n: int) -> int:
    """Returns the bytes of the sampler's state."""
    leaves = jax.tree.leaves(jax.eval_shape(samplers.hardness(n, draws.BETA).init, 0.0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def summaries(values: dict[str, list[float]]) -> dict[str, timing.Summary]:
    """Summarises seconds as microseconds."""
    return {name: timing.summarize([1e6 * second for second in seconds]) for name, seconds in values.items()}


def side_table(columns: dict[int, dict[str, timing.Summary]]) -> str:
    """Writes a table with one row for each side and one column for each size."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [(name, *(column.get(name, "not run") for column in columns.values())) for name in names]
    return timing.table(["side", *(f"n = 10^{round(math.log10(n))}" for n in columns)], rows)


def targets(measured, share: timing.Summary, bytes_an_example) -> list[timing.Target]:
    """Compares what was asked for with what was measured."""
    largest = max(n for n, _, _ in measured)
    rows = []
    for law, name in draws.OURS.items():
        took = timing.summarize([1e3 * second for second in measured[largest, 64, law][name]])
        statement = f"at most 1 ms a step at n = {largest:.0e} ({'independent' if law else 'distinct'}, B = 64)"
        rows.append(timing.Target(statement, f"{took} ms", took.median <= 1))
        times = timing.ratios(measured[largest, 64, False][draws.NUMPY], measured[largest, 64, law][name])
        statement = f"at least 300 times as fast as {draws.NUMPY} there ({name})"
        rows.append(timing.Target(statement, f"{times} times", times.median >= 300))
    for law, name in draws.OURS.items():
        for batch in BATCHES:
            worst, where = 0.0, ""
            for (n, b, same), sides in measured.items():
                if (b, same) != (batch, law):
                    continue
                for other, seconds in sides.items():
                    if not other.startswith("mixjax"):
                        ratio = timing.ratios(sides[name], seconds).median
                        worst, where = max((worst, where), (ratio, f"{other}, n = {n:.0e}"))
            statement = f"at every n at most 1.3 times the best other side of the same law ({name}, B = {batch})"
            rows.append(timing.Target(statement, f"{timing.number(worst)} times ({where})", worst <= 1.3))
    rows.append(timing.Target("at most 1 % of a WRN-16-1 training step", f"{share} %", share.median <= 1))
    most = max(bytes_an_example.values()) / 4
    rows.append(timing.Target("at most 3 floats an example", f"{most:.2f} floats", most <= 3))
    return rows

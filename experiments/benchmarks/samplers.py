"""(e) Drawing a batch by stale losses and writing the new ones back: cost of a step against the number of examples."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from experiments.hardness_sampling import classifiers
from mixjax import samplers

BETA = 10.0
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
BATCHES = (64, 2)
VMAPPED = 32
OURS = {True: "mixjax, in jit", False: "mixjax, in jit, distinct"}
NUMPY = "NumPy choice(replace=False, p), losses written one by one"
PAPER = 268, 2  # examples and batch size of section 4.2
_LARGEST_MATRIX = 10**9  # bytes


def run(quick: bool) -> timing.Report:
    """Measures every side at every size.

    Args:
        quick: tiny sizes.

    Returns:
        The report.
    """
    sizes, repeats = (SIZES[:2], 3) if quick else (SIZES, 7)
    measured = {
        (n, batch, law): step_times(n, batch, law, repeats) for n in sizes for batch in BATCHES for law in (True, False)
    }
    vmapped = {n: vmapped_times(n, repeats) for n in sizes[:4]}
    paper = step_times(*PAPER, True, repeats) | step_times(*PAPER, False, repeats)
    training = training_step(quick, repeats)
    bytes_an_example = {n: state_bytes(n) / n for n in sizes}
    text = [
        "A step draws a batch in proportion to the softmax of beta times the stale losses and writes new losses back "
        f"(beta = {BETA:g}, losses normal). JAX sides are steps of one compiled loop with a donated carry, the others "
        "calls from Python. Microseconds a step, median (least to most) of turns. *Distinct* sides draw without "
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
    """Seconds of a step for every side of one law, in turns."""
    makers = INDEPENDENT if replacement else DISTINCT
    return timed({name: make(n, batch) for name, make in makers.items()}, repeats)


def timed(sides: dict[str, Callable[[int], None] | None], repeats: int) -> dict[str, list[float]]:
    """Seconds of a step of each side that can be run, in turns of about 30 ms each."""
    sides, steps = {name: side for name, side in sides.items() if side is not None}, {}
    for name, side in sides.items():
        side(1)  # compilation, and the pages touched
        start = time.perf_counter()
        side(3)
        steps[name] = max(1, min(1000, round(0.03 * 3 / (time.perf_counter() - start))))
    turns = {name: functools.partial(side, steps[name]) for name, side in sides.items()}
    seconds = timing.interleave(turns, repeats)
    return {name: [value / steps[name] for value in values] for name, values in seconds.items()}


def vmapped_times(n: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step of all seeds, for ours and for the stateless way of JAX."""
    makers = {
        "mixjax": functools.partial(mixjax_side, replacement=True),
        "mixjax, distinct": functools.partial(mixjax_side, replacement=False),
        "JAX cumsum + searchsorted": functools.partial(stateless_side, draw=cumsum_draw),
        "JAX categorical": functools.partial(stateless_side, draw=categorical_draw),
    }
    return timed({name: make(n, 64, seeds=VMAPPED) for name, make in makers.items()}, repeats)


def losses_of(n: int) -> np.ndarray:
    """The stale losses, float32 ``[n]``."""
    return np.random.default_rng(n).normal(size=n).astype(np.float32)


def fresh(indices):
    """The "new losses" of a batch: something that depends on the indices."""
    return jnp.sin(indices.astype(jnp.float32))


def loop(step: Callable, state: Any, seeds: int | None = None) -> Callable[[int], None]:
    """``run(steps)``: that many steps in one compiled program, from where the last call ended."""
    one = jax.vmap(step) if seeds else step

    @functools.partial(jax.jit, donate_argnums=0)
    def program(state, key, steps):
        def body(i, state):
            own = jax.random.fold_in(key, i)
            return one(state, jax.random.split(own, seeds) if seeds else own)

        return jax.lax.fori_loop(0, steps, body, state)

    held = [jax.tree.map(lambda x: jnp.repeat(x[None], seeds, 0) if seeds else jnp.copy(x), state), 0]

    def run_steps(steps):
        held[:] = jax.block_until_ready(program(held[0], jax.random.key(held[1]), steps)), held[1] + 1

    return run_steps


def mixjax_side(n, batch, replacement, fanout=8, seeds=None):
    """Ours, in jit."""
    sampler = samplers.hardness(n, BETA, replacement=replacement, fanout=fanout)

    def step(state, key):
        indices, _ = sampler.sample(state, key, batch)
        return sampler.update(state, indices, fresh(indices))

    return loop(step, sampler.init(losses_of(n)), seeds)


def block_side(n, batch, replacement):
    """Ours with two levels of sqrt(n) children."""
    return mixjax_side(n, batch, replacement, fanout=math.ceil(n**0.5))


def host_side(n, batch, replacement):
    """Ours on the host."""
    from mixjax.samplers.host import HostSampler

    sampler, key = HostSampler(n, losses_of(n), beta=BETA, replacement=replacement), [0]

    def run_steps(steps):
        for _ in range(steps):
            indices, _ = sampler.sample(key[0], batch)
            sampler.update(indices, np.sin(indices, dtype=np.float32))
            key[0] += 1

    return run_steps


def stateless_side(n, batch, draw, seeds=None):
    """JAX without a tree: the whole softmax every step."""
    if draw in (categorical_draw, top_k_draw) and n * batch * 4 * (seeds or 1) > _LARGEST_MATRIX:
        return None

    def step(losses, key):
        indices = draw(losses, key, batch)
        return losses.at[indices].set(fresh(indices))

    return loop(step, jnp.asarray(losses_of(n)), seeds)


def cumsum_draw(losses, key, batch):
    """Inverse transform over all examples; one float32 uniform a draw."""
    cdf = jnp.cumsum(jnp.exp(BETA * (losses - losses.max())))
    return jnp.searchsorted(cdf, jax.random.uniform(key, (batch,)) * cdf[-1])


def categorical_draw(losses, key, batch):
    """``jax.random.categorical``: a Gumbel variable for every draw and example."""
    return jax.random.categorical(key, BETA * losses, shape=(batch,))


def top_k_draw(losses, key, batch):
    """Distinct: the largest of the perturbed losses."""
    return jax.lax.top_k(BETA * losses + jax.random.gumbel(key, losses.shape), batch)[1]


def numpy_side(n, batch, draw):
    """NumPy: ``draw(rng, losses, batch)`` from the whole vector; new losses by one assignment."""
    losses, rng = losses_of(n), np.random.default_rng(0)

    def run_steps(steps):
        for _ in range(steps):
            indices = draw(rng, losses, batch)
            losses[indices] = np.sin(indices, dtype=np.float32)

    return run_steps


def softmax(losses):
    """Probabilities in float64, as ``choice`` wants them."""
    p = np.exp(BETA * (losses - losses.max()), dtype=np.float64)
    return p / p.sum()


def numpy_one_by_one(n, batch):
    """What a plain NumPy sampler does: softmax, floor, ``choice`` without replacement, losses in a Python loop."""
    losses, rng = losses_of(n), np.random.default_rng(0)

    def run_steps(steps):
        for _ in range(steps):
            p = np.maximum(softmax(losses), 1e-4 / n)
            indices = rng.choice(n, batch, replace=False, p=p / p.sum())
            for i in indices:
                losses[i] = math.sin(i)

    return run_steps


def torch_side(n, batch, replacement):
    """PyTorch: softmax and ``multinomial``, which stops at 2^24 examples."""
    from experiments.benchmarks import pytorch

    torch = pytorch.load()
    losses = torch.from_numpy(losses_of(n))

    def run_steps(steps):
        for _ in range(steps):
            indices = torch.multinomial(torch.softmax(BETA * losses, 0), batch, replacement)
            losses[indices] = torch.sin(indices.float())

    return run_steps


def numpy_draws(draw):
    """A side's maker for a way to draw."""
    return functools.partial(numpy_side, draw=draw)


INDEPENDENT = {
    OURS[True]: functools.partial(mixjax_side, replacement=True),
    "mixjax, in jit, two levels of sqrt(n)": functools.partial(block_side, replacement=True),
    "mixjax, on the host": functools.partial(host_side, replacement=True),
    "NumPy choice(p)": numpy_draws(lambda rng, x, b: rng.choice(x.size, b, p=softmax(x))),
    "NumPy cumsum + searchsorted": numpy_draws(
        lambda rng, x, b: np.searchsorted(np.cumsum(softmax(x)), rng.random(b)).clip(max=x.size - 1)
    ),
    "PyTorch multinomial": functools.partial(torch_side, replacement=True),
    "JAX cumsum + searchsorted": functools.partial(stateless_side, draw=cumsum_draw),
    "JAX categorical": functools.partial(stateless_side, draw=categorical_draw),
}
DISTINCT = {
    OURS[False]: functools.partial(mixjax_side, replacement=False),
    "mixjax, on the host, distinct": functools.partial(host_side, replacement=False),
    NUMPY: numpy_one_by_one,
    "NumPy Gumbel + argpartition": numpy_draws(
        lambda rng, x, b: np.argpartition(BETA * x + rng.gumbel(size=x.size), -b)[-b:]
    ),
    "PyTorch multinomial, distinct": functools.partial(torch_side, replacement=False),
    "JAX Gumbel + top_k": functools.partial(stateless_side, draw=top_k_draw),
}


def training_step(quick: bool, repeats: int) -> dict[str, Any]:
    """A training step of WRN-16-1, and what a step of the sampler takes beside it."""
    n, batch = (1000, 4) if quick else (53_930, 64)
    train, draw = wrn_side(batch), mixjax_side(n, batch, True)
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


def wrn_side(batch):
    """Steps of plain SGD on one batch of noise."""
    model = classifiers.build("wrn")
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.random((batch, 28, 28, 1)), jnp.float32), jnp.asarray(rng.integers(10, size=batch))

    def step(state, _):
        def objective(params, stats):
            losses, stats = model.train_losses(params, stats, images, labels)
            return losses.mean(), stats

        grads, stats = jax.grad(objective, has_aux=True)(*state)
        return jax.tree.map(lambda p, g: p - 0.01 * g, state[0], grads), stats

    return loop(step, model.init(jax.random.key(0)))


def state_bytes(n: int) -> int:
    """Bytes of the sampler's state."""
    leaves = jax.tree.leaves(jax.eval_shape(samplers.hardness(n, BETA).init, 0.0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def summaries(values: dict[str, list[float]]) -> dict[str, timing.Summary]:
    """Microseconds."""
    return {name: timing.summarize([1e6 * second for second in seconds]) for name, seconds in values.items()}


def side_table(columns: dict[int, dict[str, timing.Summary]]) -> str:
    """One row a side, one column a size."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [(name, *(column.get(name, "not run") for column in columns.values())) for name in names]
    return timing.table(["side", *(f"n = 10^{round(math.log10(n))}" for n in columns)], rows)


def targets(measured, share: timing.Summary, bytes_an_example) -> list[timing.Target]:
    """What was asked for."""
    largest = max(n for n, _, _ in measured)
    rows = []
    for law, name in OURS.items():
        took = timing.summarize([1e3 * second for second in measured[largest, 64, law][name]])
        statement = f"at most 1 ms a step at n = {largest:.0e} ({'independent' if law else 'distinct'}, B = 64)"
        rows.append(timing.Target("e", statement, f"{took} ms", took.median <= 1))
        times = timing.ratios(measured[largest, 64, False][NUMPY], measured[largest, 64, law][name])
        statement = f"at least 300 times as fast as {NUMPY} there ({name})"
        rows.append(timing.Target("e", statement, f"{times} times", times.median >= 300))
    for law, name in OURS.items():
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
            rows.append(timing.Target("e", statement, f"{timing.number(worst)} times ({where})", worst <= 1.3))
    rows.append(timing.Target("e", "at most 1 % of a WRN-16-1 training step", f"{share} %", share.median <= 1))
    most = max(bytes_an_example.values()) / 4
    rows.append(timing.Target("e", "at most 3 floats an example", f"{most:.2f} floats", most <= 3))
    return rows

"""Times the plan of a live mix alone, what the mix adds to a training step, and restoring it."""

import functools
import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from mixjax import live, rules

__all__ = ["Training", "plan_times", "restoring", "started_plan", "state_at", "training_step"]

SIZE = 2**33


def plan_times(
    num_domains: Sequence[int], batch_sizes: Sequence[int], repeats: int, quick: bool
) -> dict[tuple[int, int], list[float]]:
    """Times drawing and publishing, without reading; microseconds of processor time a row.

    Args:
        num_domains: numbers of domains.
        batch_sizes: batch sizes.
        repeats: number of turns.
        quick: few steps.

    Returns:
        For each number of domains and batch size ``repeats`` numbers.
    """
    sides = list(itertools.product(num_domains, batch_sizes))
    plans, times = {side: started_plan(*side) for side in sides}, {side: [] for side in sides}
    for _ in range(repeats):
        for d, b in sides:
            plan, moving = plans[d, b]
            steps = 3 if quick else max(200, 2**18 // b)
            start = time.process_time()
            draw(plan, moving, steps)
            times[d, b].append(1e6 * (time.process_time() - start) / (steps * b))
    return times


def started_plan(num_domains: int, batch_size: int) -> tuple[live.Plan, np.ndarray]:
    """Makes a plan in the middle of a run, whose domains stand anywhere in their blocks of rows, and its next weights.

    Otherwise all domains would need their next block in the same steps, and many of them none while time is taken.
    """
    rng = np.random.default_rng(0)
    moving = rng.uniform(0.5, 1.5, (16, num_domains))
    plan = live.Plan([SIZE] * num_domains, batch_size, moving[0], lag=2)
    plan.set_state(state_at(plan, 10**6, rng))
    # The first row of a domain shuffles its first block. That is not to fall into the time that is taken.
    draw(plan, moving, 8 * max(1, num_domains // batch_size))
    return plan, moving


def state_at(plan: live.Plan, step: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns a plan's state before a step, as if the domains had been drawn at random and were owed nothing."""
    state = plan.get_state()
    rows, num_domains = step * plan.batch_size, len(plan.sizes)
    drawn = rng.integers(0, rows // num_domains, num_domains)
    drawn[0] += rows - drawn.sum()
    first = [{**change, "from": 0} for change in state["changes"]]
    return state | {"step": step, "next_to_publish": step, "drawn": drawn.tolist(), "changes": first}


def draw(plan: live.Plan, moving: np.ndarray, num_steps: int) -> None:
    """Draws batches, with new weights after each."""
    for _ in range(num_steps):
        batch = next(plan)
        plan.publish(batch.step, moving[batch.step % len(moving)])


def restoring(quick: bool) -> dict[str, Any]:
    """Times putting a plan of 2,000 domains back to step 10^9."""
    num_domains, batch_size = (20, 8) if quick else (2000, 4096)
    rng = np.random.default_rng(0)
    new_plan = functools.partial(live.Plan, [SIZE] * num_domains, batch_size, np.ones(num_domains))
    text = json.dumps(state_at(new_plan(), 10**9, rng))
    seconds = {"set_state": [], "json.loads and set_state": [], "set_state and the first batch": []}
    for _ in range(7):
        # A new one, since a plan keeps its blocks of shuffled rows.
        plan = new_plan()
        start = time.perf_counter()
        state = json.loads(text)
        parsed = time.perf_counter()
        plan.set_state(state)
        restored = time.perf_counter()
        next(plan)
        drawn = time.perf_counter()
        for name, taken in zip(seconds, (restored - parsed, restored - start, drawn - parsed), strict=True):
            seconds[name].append(1e3 * taken)
    summaries = {name: timing.summarize(values) for name, values in seconds.items()}
    listed = ", ".join(f"{name} {value} ms" for name, value in summaries.items())
    return {
        "text": f"**Restoring** a state of {num_domains:,} domains at step 10^9, {len(text) / 1e3:.0f} kB of JSON: "
        f"{listed}. The first batch shuffles a block of every domain that it draws from.",
        "data": seconds,
        "milliseconds": summaries["set_state"],
    }


def training_step(quick: bool) -> dict[str, Any]:
    """Times training steps that are fed by the live mix, which they steer, and by arrays that were loaded before."""
    num_domains, batch_size, width = (3, 8, 16) if quick else (200, 256, 3072)
    steps, repeats = (2, 2) if quick else (10, 15)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(num_domains, batch_size, width, f"{folder}/ledger.jsonl")
        # Compiles.
        training.live(steps)
        training.host_seconds.clear()
        sides = {"live": lambda: training.live(steps), "loaded": lambda: training.loaded(steps)}
        seconds = timing.interleave(sides, repeats)
        training.close()
    overhead = timing.summarize([100 * (a / b - 1) for a, b in zip(seconds["live"], seconds["loaded"], strict=True)])
    step_ms = timing.summarize([1e3 * value / steps for value in seconds["loaded"]])
    host = timing.summarize([1e3 * value for value in training.host_seconds])
    return {
        "text": f"**Inside training**: a step of a network of three layers (B = {batch_size}, D = {num_domains}, new "
        f"weights from `group_dro` after each) takes {step_ms} ms from arrays that were loaded before. With `mix` of "
        f"arrays, `Feedback` and a `Ledger` line a step it takes {overhead} % longer; the calls of the mix take "
        f"{host} ms of processor time a step, mostly while the device computes.",
        "data": {"seconds": seconds, "host_seconds": training.host_seconds},
        "overhead": overhead,
    }


class Training:
    """Trains a small network whose losses move the weights of its domains.

    Attributes:
        host_seconds: processor time of this thread in the calls of the live mix, a number for each step.
    """

    def __init__(self, num_domains: int, batch_size: int, width: int, ledger: str):
        """Makes the data, the plan and the parameters."""
        rng = np.random.default_rng(0)
        datasets = [rng.integers(0, 2**16, (100, 1024)).astype(np.uint16) for _ in range(num_domains)]
        plan = live.Plan(live.sizes_of(datasets), batch_size, np.ones(num_domains))
        self.batches, self.feedback = iter(live.mix(datasets, plan)), live.Feedback(plan)
        self.ledger = live.Ledger(ledger, plan)
        rule = rules.group_dro(step_size=0.01)
        self.step = jax.jit(functools.partial(train, rule=rule), donate_argnums=(0, 1))
        self.parameters, self.state = layers(width), rule.init(jnp.ones(num_domains))
        self.host_seconds: list[float] = []
        spare = live.Plan(plan.sizes, batch_size, np.ones(num_domains), lag=16)
        self.held = itertools.cycle(list(itertools.islice(live.mix(datasets, spare), spare.lag)))

    def train(self, element: Mapping[str, Any]) -> jax.Array:
        """Takes a step, and returns the domains' mean losses while the device computes them."""
        fields = (element[name] for name in ("value", "domain_ids", "row_weights", "counts"))
        self.parameters, self.state, losses = self.step(self.parameters, self.state, *fields)
        return losses

    def live(self, num_steps: int) -> None:
        """Takes steps on batches of the live mix, sends new weights after each, and writes the ledger."""
        losses = None
        for _ in range(num_steps):
            start = time.thread_time()
            element = next(self.batches)
            seconds = time.thread_time() - start
            new_losses = self.train(element)
            # The losses of the step before have arrived by now. Those of this step would have to be waited for.
            read = None if losses is None else np.asarray(losses)
            start = time.thread_time()
            self.feedback.send(element["step"], self.state.weights)
            self.ledger.write(element, read)
            self.host_seconds.append(seconds + time.thread_time() - start)
            losses = new_losses
        jax.block_until_ready(self.parameters)

    def loaded(self, num_steps: int) -> None:
        """Takes steps on batches that were loaded before, and reads the losses too."""
        losses = None
        for _ in range(num_steps):
            new_losses = self.train(next(self.held))
            if losses is not None:
                np.asarray(losses)
            losses = new_losses
        jax.block_until_ready(self.parameters)

    def close(self) -> None:
        """Closes the files."""
        self.batches.close()
        self.ledger.close()


def layers(width: int) -> list[jax.Array]:
    """Returns the parameters of a small network."""
    shapes = [(1024, width), (width, width), (width, 1)]
    return [jax.random.normal(jax.random.key(i), shape) / shape[0] ** 0.5 for i, shape in enumerate(shapes)]


def train(parameters, state, tokens, domain_ids, row_weights, counts, *, rule):
    """Takes a step of gradient descent, and updates the weights by each domain's mean loss."""

    def objective(parameters):
        x = tokens / 2.0**15 - 1.0
        for layer in parameters[:-1]:
            x = jax.nn.relu(x @ layer)
        row_losses = jnp.square(x @ parameters[-1] - 1.0)[:, 0]
        return jnp.sum(row_weights * row_losses), row_losses

    gradients, row_losses = jax.grad(objective, has_aux=True)(parameters)
    parameters = [layer - 1e-3 * gradient for layer, gradient in zip(parameters, gradients, strict=True)]
    losses = jnp.zeros(counts.size).at[domain_ids].add(row_losses) / jnp.maximum(counts, 1)
    return parameters, rule.update(state, losses=losses, counts=counts), losses

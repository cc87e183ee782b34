"""The experiment on importance sampling for networks on real data: which method reaches a target loss first.

Paper 003 has no network and no real data, so every claim is ours. All methods descend the mean loss over a training set
from the same parameters, with batches of one size. They differ in how they draw a batch:

===================  =================================================================================================
uniform draws        every example with the same probability, as in plain SGD or Adam
variance-aware       each domain's share of the batch by the spread of its gradients (paper 000, section 4), with the
                     stratified estimator; a probe of some points of each domain every ``record_every`` steps
RR, stale norms      examples by the norm of their gradient when they were last drawn (eq. 3.5), which the same
                     backward pass gives
RR while it pays     as RR with stale norms, but through :func:`mixjax.samplers.when_it_pays`, hence uniformly where
                     the norms promise little
by loss, weighted    examples by the exponential of their loss when they were last drawn, weighted back to the mean loss
hardness sampling    as by loss, but without weights (paper 004, algorithm 1); it descends another objective, and is
                     judged by the mean loss all the same
===================  =================================================================================================

Learning rates are constant after a warm-up. Each method's learning rate was tuned for the fewest steps to the target
loss, together with the method's own hyperparameter where it has one. Every method was tuned by the same number of runs;
the configs say how.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import timing
from experiments.resampling_reweighting import domains, draws
from experiments.resampling_reweighting.real_data_report import METHODS, claims, figure
from experiments.resampling_reweighting.runs import Run
from mixjax import grad_norms, resampling
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = [
    "POINTS",
    "TURNS",
    "Rates",
    "RealData",
    "Strengths",
    "Trainer",
    "batches",
    "milliseconds",
    "real_data",
    "stack",
    "train",
    "trainers",
]

# The number of measurements of each method's time.
TURNS = 15
# The number of training examples by which the possible gain is estimated.
POINTS = 512


@dataclasses.dataclass(frozen=True)
class Rates:
    """Holds the learning rate of each method."""

    sgd: float = 1.0
    va: float = 1.0
    rr: float = 1.0
    switch: float = 1.0
    by_loss: float = 1.0
    hardness: float = 1.0


@dataclasses.dataclass(frozen=True)
class Strengths:
    """Holds the hyperparameter that each method has beside the learning rate.

    Attributes:
        va: the share of the batch that is spread over the domains by their sizes, whatever their gradients.
        rr: the share of the draws that are uniform.
        switch: the share of the draws that are uniform while importance sampling is on.
        by_loss: beta, in 1 / nats.
        hardness: beta, in 1 / nats.
    """

    va: float = 1.0
    rr: float = 1.0
    switch: float = 1.0
    by_loss: float = 1.0
    hardness: float = 1.0


@dataclasses.dataclass(frozen=True)
class RealData(Run):
    """Holds the settings of one source of data and one network.

    Attributes:
        source: the name of a function of :mod:`experiments.resampling_reweighting.domains` that builds the problem.
        width: the width of the hidden layers, or of the decoder.
        layers: the number of hidden layers, or of the decoder's blocks.
        num_examples: ``n``, the number of examples in a seed's training set.
        num_evaluated: the number of training examples whose mean loss is recorded; each domain has its share of them.
        num_probed: the number of points of each domain in a probe of the variance-aware method.
        num_measured: the number of points of each domain by which variances are recorded.
        batch_size: ``B``, at least the number of domains.
        optimizer: the name of the optimizer.
        warmup: the number of steps over which the learning rate rises from 0.
        target: the loss to be reached, in nats.
        rates: the learning rate of each method.
        strengths: the own hyperparameter of each method.
        learning_rate: a factor on every entry of ``rates``. The grids that chose the rates have it as an axis.
        strength: a factor on every entry of ``strengths``, for the same purpose.
        methods: the methods to run, ``"sgd"`` first.
    """

    learning_rate: float = 1.0
    num_steps: int = 2000
    record_every: int = 50
    source: Literal["adult", "mnist", "text"] = "adult"
    width: int = 64
    layers: int = 1
    num_examples: int = 8192
    num_evaluated: int = 4096
    num_probed: int = 16
    num_measured: int = 64
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    warmup: int = 0
    target: float = 0.3
    rates: Rates = Rates()
    strengths: Strengths = Strengths()
    strength: float = 1.0
    methods: tuple[Literal["sgd", "va", "rr", "switch", "by_loss", "hardness"], ...] = tuple(METHODS)


class Trainer(NamedTuple):
    """Trains with one method on one training set.

    A state is the triple of the parameters, the optimizer's state and the method's state.

    Attributes:
        method: the method that draws the batches.
        start: ``start() -> state`` returns the first state.
        stage: ``stage(state, key) -> state`` takes ``record_every`` steps and makes a probe.
    """

    method: draws.Method
    start: Callable[[], Any]
    stage: Callable[[Any, jax.Array], Any]


def stack(*trees):
    """Stacks pytrees of one structure along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def batches(examples) -> Callable[[jax.Array], Any]:
    """Returns a function that maps indices into a training set to ``(x, y)``."""
    return lambda indices: jax.tree.map(lambda x: x[indices], examples)


def trainers(config: RealData, problem: domains.Problem, examples, params) -> dict[str, Trainer]:
    """Builds a trainer for each of the config's methods, all on one training set and from the same parameters."""
    batch_of = batches(examples)
    strengths = {name: value * config.strength for name, value in dataclasses.asdict(config.strengths).items()}
    known = draws.methods(problem, config.batch_size, batch_of, strengths, config.num_probed)

    def make(name, method):
        rate = getattr(config.rates, name) * config.learning_rate
        kind = {"sgd": optax.sgd, "adam": optax.adam}[config.optimizer]
        optimizer = kind(lambda count: rate * jnp.minimum(1.0, (count + 1) / max(config.warmup, 1)))

        def backward(params, batch, weights):
            if method.scores == "norms":
                return grad_norms.value_grads_and_norms(problem.losses, params, batch, weights=weights)[1:]

            def objective(params):
                losses = problem.losses(grad_norms.Tape(), params, batch)
                return (weights * losses).mean(), losses

            return jax.grad(objective, has_aux=True)(params)

        def step(state, key):
            params, opt_state, own = state
            indices, weights = method.draw(own, key)
            grads, scores = backward(params, batch_of(indices), weights)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state, method.observe(own, indices, scores)), None

        def stage(state, key):
            step_key, probe_key = jax.random.split(key)
            (params, opt_state, own), _ = jax.lax.scan(step, state, jax.random.split(step_key, config.record_every))
            return params, opt_state, method.probe(own, params, probe_key)

        def start():
            # The training set is sorted by domain: evenly spaced rows hold every domain by its size.
            few = batch_of(jnp.arange(config.batch_size) * config.num_examples // config.batch_size)
            losses, _, norms = grad_norms.value_grads_and_norms(problem.losses, params, few)
            return params, optimizer.init(params), method.start(losses.mean(), norms.mean())

        return Trainer(method, start, stage)

    return {name: make(name, known[name]) for name in config.methods}


def train(key: jax.Array, config: RealData, problem: domains.Problem, source) -> dict[str, jax.Array]:
    """Trains with every method on one seed's training set.

    Returns:
        A dict of:

        - ``loss`` ``[method, step]``; the first record is made before any step.
        - ``variance_ratio`` ``[method, step]``, the variance of the method's estimate over that of uniform draws, both
          at the method's own parameters.
        - ``possible_ratio`` ``[when, scheme]``, the ratio that fresh norms of all examples, or exact spreads of the
          domains, would give. It is measured at the first method's parameters at the start and at the end.
        - ``norm`` ``[when, domain]``, the root mean square of the gradient norms at the same parameters.
    """
    draw_key, init_key, step_key, measure_key = jax.random.split(key, 4)
    examples, first = problem.draw(draw_key, source), problem.init(init_key)
    batch_of, n = batches(examples), config.num_examples

    def spread_at(params, key):
        return draws.measure(key, problem, params, batch_of, config.num_measured)

    def record(method, state, key):
        params, _, own = state
        rows = batch_of(jnp.arange(config.num_evaluated) * n // config.num_evaluated)
        spread = spread_at(params, key)
        loss = problem.losses(grad_norms.Tape(), params, rows).mean()
        return {"loss": loss, "variance_ratio": method.variance(own, spread) / spread.uniform}

    def run(trainer):
        def stage(state, keys):
            first, step_key, measure_key = keys
            # The first turn of the scan only records: `first` is the scan's index, not batched, so this stays a cond
            # under vmap.
            state = jax.lax.cond(first, lambda s: s, lambda s: trainer.stage(s, step_key), state)
            return state, record(trainer.method, state, measure_key)

        count = len(config.steps) + 1
        keys = [jax.random.split(k, count) for k in (step_key, measure_key)]
        (params, *_), records = jax.lax.scan(stage, trainer.start(), (jnp.arange(count) == 0, *keys))
        return params, records

    def loss_of_one(params, example):
        return problem.losses(grad_norms.Tape(), params, jax.tree.map(lambda x: x[None], example))[0]

    def describe(params):
        spread = spread_at(params, measure_key)
        gains = resampling.gains(loss_of_one, params, batch_of(jnp.arange(POINTS) * n // POINTS))
        aware = jnp.square(problem.prior @ spread.stds) / spread.uniform
        norms = jnp.sqrt(jnp.square(spread.norms).mean(1))
        return {"possible_ratio": jnp.stack([gains.per_term_ratio[0], aware]), "norm": norms}

    lasts, records = zip(*map(run, trainers(config, problem, examples, first).values()), strict=True)
    ends = jax.lax.map(describe, stack(first, lasts[0]))
    return stack(*records) | ends


def milliseconds(config: RealData, problem: domains.Problem) -> np.ndarray:
    """Measures the time of a step with each method, probes included, in ms, ``[method, turn]``.

    The methods take turns of ``record_every`` steps, so that a load on the machine slows all of them alike.
    """
    draw_key, init_key, step_key = jax.random.split(jax.random.key(0), 3)
    examples, params = jax.jit(problem.draw)(draw_key, problem.source), jax.jit(problem.init)(init_key)

    def side(name):
        def stage(state, examples, key):
            return trainers(config, problem, examples, params)[name].stage(state, key)

        # The state is donated to each call, so the next call must start from the state that this one returned. The list
        # keeps it between calls.
        held = [jax.jit(lambda examples: trainers(config, problem, examples, params)[name].start())(examples)]
        compiled = jax.jit(stage, donate_argnums=0)

        def call():
            held[0] = jax.block_until_ready(compiled(held[0], examples, step_key))

        # The first call compiles, which must not be measured.
        call()
        return call

    sides = {name: side(name) for name in config.methods}
    seconds = timing.interleave(sides, TURNS)
    return 1e3 * np.array(list(seconds.values())) / config.record_every


def real_data(config: RealData) -> Experiment:
    """Builds the experiment, and measures the methods' times, which are part of its data.

    Raises:
        ValueError: ``batch_size`` is less than the number of domains.
    """
    problem = getattr(domains, config.source)(config.num_examples, config.width, config.layers)
    if config.batch_size < len(problem.sizes):
        raise ValueError(f"batch_size must be at least {len(problem.sizes)}, one a domain, got {config.batch_size}.")
    by_step = ("method", "step")

    def run(key, hparams, data):
        found = train(key, configs.replace(config, hparams), problem, data["source"])
        return found | {"milliseconds": data["milliseconds"], "target": jnp.float32(config.target)}

    return Experiment(
        train=run,
        data={"source": problem.source, "milliseconds": jnp.asarray(milliseconds(config, problem), jnp.float32)},
        dims={
            "loss": by_step,
            "variance_ratio": by_step,
            "possible_ratio": ("when", "scheme"),
            "norm": ("when", "domain"),
            "milliseconds": ("method", "turn"),
            "target": (),
        },
        coords={
            "method": list(config.methods),
            "step": [0, *config.steps],
            "when": ["start", "end"],
            "scheme": ["rr", "va"],
            "domain": list(problem.names),
            "turn": list(range(TURNS)),
        },
        units={"loss": "nats", "variance_ratio": "1", "possible_ratio": "1", "norm": "nats", "milliseconds": "ms"},
        figure=figure,
        claims=claims,
    )

"""Importance sampling where people would use it: networks on real data of unlike domains, by steps and by the clock.

Paper 003 has no network and no real data, so every claim is ours. The methods descend the mean loss over a training
set, from the same parameters, with batches of one size, and differ in what they draw:

===================  =================================================================================================
uniform draws        plain SGD, or Adam
variance-aware       each domain's share of the batch by the spread of its gradients (paper 000, section 4), stratified;
                     a probe of some points of each domain every ``record_every`` steps
RR, stale norms      examples by the norm of their gradient when last drawn (eq. 3.5), from the same backward pass
RR while it pays     the same behind :func:`mixjax.samplers.when_it_pays`, hence uniform where the norms promise little
by loss, weighted    examples by the exponential of their loss when last drawn, weighted back to the mean loss
hardness sampling    the same without weights (paper 004, algorithm 1): another objective, judged by this one
===================  =================================================================================================

Learning rates are constant after a warm-up. Every method's was tuned for the fewest steps to a target loss, together
with its own hyperparameter where it has one, by as many runs as the others'; the configs say how.
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

TURNS = 15  # measurements of each method's time
POINTS = 512  # of the training set, by which gains are told


@dataclasses.dataclass(frozen=True)
class Rates:
    """Each method's learning rate."""

    sgd: float = 1.0
    va: float = 1.0
    rr: float = 1.0
    switch: float = 1.0
    by_loss: float = 1.0
    hardness: float = 1.0


@dataclasses.dataclass(frozen=True)
class Strengths:
    """Each method's own hyperparameter.

    Attributes:
        va: share of the batch that is spread over the domains by their sizes, whatever their gradients.
        rr: share of the draws that are uniform.
        switch: the same while it is on.
        by_loss: beta, in 1 / nats.
        hardness: the same.
    """

    va: float = 1.0
    rr: float = 1.0
    switch: float = 1.0
    by_loss: float = 1.0
    hardness: float = 1.0


@dataclasses.dataclass(frozen=True)
class RealData(Run):
    """One source of data, one network.

    Attributes:
        source: a function of :mod:`experiments.resampling_reweighting.domains`.
        width: of the hidden layers, or of the decoder.
        layers: how many.
        num_examples: ``n``, of a seed's training set.
        num_evaluated: of those, every domain by its size, whose mean loss is recorded.
        num_probed: points of each domain in a probe of the variance-aware method.
        num_measured: points of each domain by which variances are recorded.
        batch_size: ``B``, at least the number of domains.
        optimizer: ``"sgd"`` or ``"adam"``.
        warmup: steps over which the learning rate rises from 0.
        target: the loss to be reached, in nats.
        rates: each method's learning rate.
        strengths: each method's own hyperparameter.
        learning_rate: multiplies every rate: an axis for the grids that chose them.
        strength: multiplies every strength: another.
        methods: which of them to run, ``"sgd"`` first.
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
    """One method on one training set; a state is ``(params, optimizer's state, method's state)``.

    Attributes:
        method: a :class:`draws.Method`.
        start: ``start() -> state``.
        stage: ``stage(state, key) -> state``, ``record_every`` steps and a probe.
    """

    method: draws.Method
    start: Callable[[], Any]
    stage: Callable[[Any, jax.Array], Any]


def stack(*trees):
    """Pytrees of one structure as one, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def batches(examples) -> Callable[[jax.Array], Any]:
    """Indices into a training set to ``(x, y)``."""
    return lambda indices: jax.tree.map(lambda x: x[indices], examples)


def trainers(config: RealData, problem: domains.Problem, examples, params) -> dict[str, Trainer]:
    """The config's methods on one training set, from the same parameters."""
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
            few = batch_of(jnp.arange(config.batch_size) * config.num_examples // config.batch_size)
            losses, _, norms = grad_norms.value_grads_and_norms(problem.losses, params, few)
            return params, optimizer.init(params), method.start(losses.mean(), norms.mean())

        return Trainer(method, start, stage)

    return {name: make(name, known[name]) for name in config.methods}


def train(key: jax.Array, config: RealData, problem: domains.Problem, source) -> dict[str, jax.Array]:
    """Every method on one seed's training set.

    Returns:
        ``loss`` and ``variance_ratio``, the variance of the method's estimate over that of uniform draws at the
        method's own parameters, ``[method, step]``, the first before any step. At the first method's first and last
        parameters (``when``): ``possible_ratio`` ``[when, scheme]``, what all fresh norms, or exact spreads, would
        give; ``norm`` ``[when, domain]``, the root mean square of the gradient norms.
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
            state = jax.lax.cond(first, lambda s: s, lambda s: trainer.stage(s, step_key), state)
            return state, record(trainer.method, state, measure_key)

        count = len(config.steps) + 1
        keys = [jax.random.split(k, count) for k in (step_key, measure_key)]
        (params, *_), records = jax.lax.scan(stage, trainer.start(), (jnp.arange(count) == 0, *keys))
        return params, records

    def one(params, example):
        return problem.losses(grad_norms.Tape(), params, jax.tree.map(lambda x: x[None], example))[0]

    def described(params):
        spread = spread_at(params, measure_key)
        gains = resampling.gains(one, params, batch_of(jnp.arange(POINTS) * n // POINTS))
        aware = jnp.square(problem.prior @ spread.stds) / spread.uniform
        norms = jnp.sqrt(jnp.square(spread.norms).mean(1))
        return {"possible_ratio": jnp.stack([gains.per_term_ratio[0], aware]), "norm": norms}

    lasts, records = zip(*map(run, trainers(config, problem, examples, first).values()), strict=True)
    ends = jax.lax.map(described, stack(first, lasts[0]))
    return stack(*records) | ends


def milliseconds(config: RealData, problem: domains.Problem) -> np.ndarray:
    """Time of a step, probes included, ``[method, turn]``: the methods in turns, ``record_every`` steps each."""
    draw_key, init_key, step_key = jax.random.split(jax.random.key(0), 3)
    examples, params = jax.jit(problem.draw)(draw_key, problem.source), jax.jit(problem.init)(init_key)

    def side(name):
        def stage(state, examples, key):
            return trainers(config, problem, examples, params)[name].stage(state, key)

        held = [jax.jit(lambda examples: trainers(config, problem, examples, params)[name].start())(examples)]
        compiled = jax.jit(stage, donate_argnums=0)

        def call():
            held[0] = jax.block_until_ready(compiled(held[0], examples, step_key))

        call()
        return call

    sides = {name: side(name) for name in config.methods}
    seconds = timing.interleave(sides, TURNS)
    return 1e3 * np.array(list(seconds.values())) / config.record_every


def real_data(config: RealData) -> Experiment:
    """The methods side by side; their times are measured first, in turns.

    Raises:
        ValueError: a batch of fewer examples than there are domains.
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

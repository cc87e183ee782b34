"""Trains a network on real data with each of the methods that draw batches."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.resampling_reweighting import domains, draws
from experiments.resampling_reweighting.real_data_report import METHODS
from experiments.resampling_reweighting.runs import Run
from mixjax import grad_norms

__all__ = ["Rates", "RealData", "Strengths", "Trainer", "batches", "stack", "trainers"]


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
        # `max` keeps 0 steps of warm-up from dividing by zero.
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

"""Lists the methods of MNIST's experiment: their rules, their horizons, their signals and what a step of each costs."""

import dataclasses
import itertools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.fewer_weight_updates.mnist_domains import Batch, Setup, begin, cross_entropy, setup
from mixjax import mixing, rules
from mixjax.mixing import horizons
from mixjax.types import WeightRule

__all__ = [
    "COSTS",
    "Method",
    "Mnist",
    "affordable",
    "first_state",
    "fit",
    "grid",
    "horizon",
    "methods",
    "signals",
]

COSTS = {
    "logistic": {"reverse": (2.3, 0.7), "alignment": (1.0, 2.1), "norms": (1.0, 3.0), "reference": (1.0, 0.6)},
    "mlp": {"reverse": (2.9, 0.6), "alignment": (1.0, 2.7), "norms": (1.0, 4.4), "reference": (1.0, 0.8)},
}
"""The time of a step, and the time that a round adds to its steps, in units of a plain step.

``mnist_costs`` measured both. Group DRO and EXP3 take 1.1 and count as plain training. Drawing and gathering a batch is
a good part of a plain step here.
"""


@dataclasses.dataclass(frozen=True)
class Mnist:
    """Sets one model on one set of domains.

    Attributes:
        model: logistic regression or MLP.
        domains: the domains to train on.
        sizes: number of images of each domain; also the proportional weights.
        flip: share of wrong labels in the noisy domain.
        validation: number of clean images that the weights are to fit. Every hypergradient looks at all of them.
        hidden: number of ReLUs of the MLP.
        l2: half of it times the squared norm of all weights is part of the training loss.
        batch_size: number of images of each domain in a step.
        learning_rate: learning rate of SGD.
        num_steps: ``N``, the number of training steps.
        horizons: each ``T`` of the T-step hypergradients.
        alignments: each ``T`` of the first-order hypergradients.
        step_size: step size of mirror descent on either hypergradient.
        doge: step size of DoGE.
        doremi: step size of DoReMi.
        group_dro: step size of group DRO.
        exp3: decay of EXP3.
        grid: fixed weights are taken from the simplex's grid of step 1 / grid, and every method's mean weights are held
            fixed for another training run; 0 for neither.
    """

    model: Literal["logistic", "mlp"] = "logistic"
    domains: tuple[Literal["noisy", "skewed", "swapped", "clean"], ...] = ("noisy", "skewed", "swapped")
    sizes: tuple[int, ...] = (500, 200, 300)
    flip: float = 0.6
    validation: int = 200
    hidden: int = 64
    l2: float = 0.001
    batch_size: int = 32
    learning_rate: float = 0.1
    num_steps: int = 2048
    horizons: tuple[int, ...] = (1, 4, 16, 64, 256)
    alignments: tuple[int, ...] = (1, 16, 256)
    step_size: float = 1.0
    doge: float = 0.1
    doremi: float = 1.0
    group_dro: float = 0.01
    exp3: float = 0.99
    grid: int = 0


class Method(NamedTuple):
    """Says how the weights move.

    Attributes:
        rule: the rule that moves them.
        mode: the mode of the hypergradient, as in ``mixing.fit``; None for no hypergradient.
        T: steps from one update of the weights to the next.
        signals: the other signals that the rule is told; see :func:`signals`.
    """

    rule: WeightRule
    mode: str | None = None
    T: int = 1
    signals: str | None = None


def methods(config: Mnist, auto: int) -> dict[str, Method]:
    """Returns every method by name; ``auto`` is the horizon that the library chooses."""
    descent = rules.mirror_descent(config.step_size)
    found = {"uniform": Method(rules.fixed()), "proportional": Method(rules.fixed(config.sizes))}
    found |= {f"T={T}": Method(descent, "reverse", T) for T in config.horizons}
    found |= {"auto": Method(descent, "reverse", auto)}
    found |= {f"alignment T={T}": Method(descent, "alignment", T) for T in config.alignments}
    return found | {
        "doge": Method(rules.doge(config.doge), "alignment", signals="norms"),
        "doremi": Method(rules.doremi(config.doremi), signals="reference"),
        "group_dro": Method(rules.group_dro(config.group_dro)),
        "exp3": Method(rules.exp3(config.exp3), signals="draw"),
    }


def affordable(config: Mnist, method: Method) -> int:
    """Returns the number of steps, in whole rounds, that take the time of N plain ones."""
    step, round_ = COSTS[config.model].get(method.signals or method.mode, (1.0, 0.0))
    return int(config.num_steps / (step + round_ / method.T)) // method.T * method.T


def grid(config: Mnist) -> np.ndarray:
    """Returns the grid of fixed weights ``[point, domain]``."""
    parts = itertools.product(range(config.grid + 1), repeat=len(config.sizes))
    return np.array([point for point in parts if sum(point) == config.grid]) / config.grid


def horizon(config: Mnist, data: dict[str, Batch]) -> int:
    """Returns the T of ``T="auto"`` on seed 0. It must be known before a run is compiled, so all seeds share it."""
    count = horizons.pilot_steps(config.num_steps)

    @jax.jit
    def measure(data):
        problem = setup(begin(jax.random.key(0), config, data), config)
        keys = jax.random.split(jax.random.key(1), count)
        weights, state = jnp.full(len(config.sizes), 1 / len(config.sizes)), problem.optimizer.init(problem.params)
        run = mixing.contraction(problem.loss, problem.optimizer, draw=problem.draw)
        return run(weights, problem.params, state, keys, jax.random.key(2))[0]

    return mixing.horizon(config.num_steps - count, float(measure(data)))


def signals(problem: Setup, kind: str | None, reference):
    """Returns the function that measures a rule's other signals, beside losses and hypergradients, on its own batch."""

    def norms(state, key):
        grads = jax.vmap(jax.grad(problem.loss), (None, 0))(state.params, problem.draw(key))
        return {"grad_norms": jax.vmap(optax.tree.norm)(grads)}

    def against_reference(state, key):
        batch = problem.draw(key)
        losses, others = (jax.vmap(cross_entropy, (None, 0))(params, batch) for params in (state.params, reference))
        return {"losses": losses, "reference_losses": others}

    def drawn(state, key):
        weights = state.rule_state.weights
        return {"counts": jax.nn.one_hot(jax.random.categorical(key, jnp.log(weights)), len(weights))}

    return {"norms": norms, "reference": against_reference, "draw": drawn, None: lambda state, key: {}}[kind]


def first_state(problem: Setup, rule: WeightRule) -> mixing.MixingState:
    """Returns the state before the first step."""
    return mixing.init_state(problem.params, problem.optimizer, np.ones(problem.num_domains), rule)


def fit(config: Mnist, problem: Setup, method: Method, key: jax.Array, reference=None, *, state, num_steps, **options):
    """Trains ``num_steps`` steps with one method, by ``mixing.fit``, from a state on."""
    options |= {"checkpoint_every": 1} if method.mode == "reverse" else {}
    return mixing.fit(
        problem.loss,
        cross_entropy,
        problem.optimizer,
        method.rule,
        problem.draw,
        lambda key: problem.split.validation,
        state,
        key,
        num_steps=num_steps,
        T=method.T,
        mode=method.mode,
        signals=signals(problem, method.signals, reference),
        **options,
    )

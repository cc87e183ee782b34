"""Trains with every method on one seed's split, in pieces: a run that is killed goes on from the last saved one."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fewer_weight_updates.mnist_domains import Beginning, begin, on_validation_alone, setup, worth
from experiments.fewer_weight_updates.mnist_methods import Method, Mnist, affordable, first_state, fit, grid, methods
from mixjax import rules
from mixjax.mixing import MixingState
from mixjax.sweeps import HostRun, in_rounds

__all__ = ["PIECES", "train"]

PIECES = 8
"""Each model is trained in as many pieces, or as many as it has rounds. It is saved between them."""


def train(run: HostRun, config: Mnist, auto: int) -> dict[str, Any]:
    """Trains with every method on one seed's split, then on the validation set alone, then with fixed weights.

    Args:
        run: the seed, and MNIST.
        config: the settings.
        auto: the horizon that the library chooses.

    Returns:
        Metrics ``[method, budget, ...]``; those of retraining are ``[method]`` or ``[point]``, those of the validation
        set alone scalars.
    """
    setup_key, fit_key, reference_key = jax.random.split(jax.random.key(run.seed), 3)
    beginning = _begin(setup_key, config, jax.tree.map(jnp.asarray, run.data))
    compared = methods(config, auto)
    num_stages = len(compared) + (3 if config.grid else 2)
    stages = itertools.count()

    def in_pieces(name, start, advance, num):
        stage = next(stages)
        part = run._replace(report=lambda done: run.report((stage + done) / num_stages))
        return in_rounds(part, start, lambda state, number: (advance(state, number), {}), num, name=name)[0]

    def with_fixed(name, weights, key):
        def advance(state, number):
            return _advance_fixed(state, key, beginning, config, _part(config.num_steps, number, PIECES))

        return in_pieces(name, lambda: _start_fixed(weights, beginning, config), advance, PIECES).params

    def with_method(name, method, reference):
        rounds, left_over = divmod(config.num_steps, method.T)
        num = min(PIECES, rounds)

        def take(carry, count, num_steps):
            return _advance(carry, count, fit_key, beginning, reference, config, name, auto, num_steps)

        def advance(carry, number):
            count = _part(rounds, number, num)
            if number + 1 < num or not left_over:
                return take(carry, count, method.T)
            # `fit` takes the steps that are left over in the call of the last round.
            return take(take(carry, count - 1, method.T), 1, method.T + left_over)

        state, on_the_way = in_pieces(name, lambda: _start(beginning, config, method), advance, num)
        return jax.tree.map(lambda *x: np.stack(x), on_the_way, _report(beginning, config, *_reported(state)))

    even = np.ones((1, len(config.sizes)))
    reference = jax.tree.map(lambda x: x[0], with_fixed("reference", even, reference_key))
    rows = [with_method(name, method, reference) for name, method in compared.items()]
    found: dict[str, Any] = jax.tree.map(lambda *x: np.stack(x), *rows)
    found["T"] = np.array([method.T for method in compared.values()])
    found["steps"] = np.array([[affordable(config, method), config.num_steps] for method in compared.values()])

    def advance_alone(state, number):
        return _advance_alone(state, beginning, config, _part(config.num_steps, number, PIECES))

    alone, _ = in_pieces("validation alone", lambda: _start_alone(beginning, config), advance_alone, PIECES)
    found |= {f"validation_alone_{name}": value for name, value in _worth(beginning, config, alone).items()}
    if config.grid:
        weights = np.concatenate([found["mean_weights"][:, -1], grid(config)])
        again = _worths(beginning, config, with_fixed("again", weights, fit_key))
        found |= {f"retrained_{name}": values[: len(compared)] for name, values in again.items()}
        found |= {f"grid_{name}": values[len(compared) :] for name, values in again.items()}
    return found


def _part(whole: int, number: int, num: int) -> int:
    """Returns how many of ``whole`` steps or rounds belong to a piece."""
    return whole * (number + 1) // num - whole * number // num


def _program(*static: str) -> Callable[[Callable], Any]:
    """Compiles a function once for all seeds, and anew for other values of some of its arguments."""
    return functools.partial(jax.jit, static_argnames=static)


@_program("config")
def _begin(key: jax.Array, config: Mnist, data: Any) -> Beginning:
    return begin(key, config, data)


def _start(beginning: Beginning, config: Mnist, method: Method) -> tuple[MixingState, dict[str, jax.Array]]:
    """Returns a method's state before the first step, and zeros in place of what it is worth on the way."""
    # Not compiled, since each method would be a program of its own.
    state = first_state(setup(beginning, config), method.rule)
    found = jax.eval_shape(lambda: _report(beginning, config, *_reported(state)))
    return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)


@_program("config", "name", "auto", "num_steps")
def _advance(carry, num_rounds, key, beginning, reference, config, name, auto, num_steps):
    """Takes a method through some rounds.

    Args:
        carry: the state, and what the model was worth when it had cost as much as N plain steps.
        num_rounds: how often to take ``num_steps``. It is traced, so that pieces of any length are one program.
        key: the key of all steps of the method.
        beginning: the seed's arrays.
        reference: the parameters that DoReMi refers to.
        config: the settings.
        name: the method's name.
        auto: the horizon that the library chooses.
        num_steps: the steps of a round, or those of the last round with what is left over.

    Returns:
        The carry after these rounds.
    """
    problem, method = setup(beginning, config), methods(config, auto)[name]
    stop = affordable(config, method)

    def one_round(_, carry):
        state, on_the_way = carry

        def record(state, result):
            parts = _reported(state)
            return jax.lax.cond(
                state.step == stop, lambda *parts: _report(beginning, config, *parts), lambda *_: on_the_way, *parts
            )

        state, records = fit(config, problem, method, key, reference, state=state, num_steps=num_steps, record=record)
        return state, jax.tree.map(lambda x: x[0], records)

    return jax.lax.fori_loop(0, num_rounds, one_round, carry)


@_program("config")
def _report(beginning: Beginning, config: Mnist, params: Any, weights, mean_weights) -> dict[str, jax.Array]:
    return worth(setup(beginning, config), params) | {"weights": weights, "mean_weights": mean_weights}


def _reported(state: MixingState) -> tuple[Any, jax.Array, jax.Array]:
    """Returns the parts of a state that are reported. They are alike for all methods, so that one program does it."""
    return state.params, state.rule_state.weights, state.mean_weights


@_program("config")
def _start_fixed(weights: jax.Array, beginning: Beginning, config: Mnist) -> MixingState:
    """Returns one state for each row of fixed weights."""
    problem = setup(beginning, config)
    return jax.vmap(lambda one: first_state(problem, rules.fixed(one)))(weights)


@_program("config", "num_steps")
def _advance_fixed(states, key, beginning, config, num_steps):
    """Takes steps with each state's weights, which stay as they are."""
    problem, method = setup(beginning, config), Method(rules.fixed(), T=num_steps)
    return jax.vmap(lambda state: fit(config, problem, method, key, state=state, num_steps=num_steps)[0])(states)


@_program("config")
def _worths(beginning: Beginning, config: Mnist, params: Any) -> dict[str, jax.Array]:
    return jax.vmap(lambda one: worth(setup(beginning, config), one))(params)


@_program("config")
def _start_alone(beginning: Beginning, config: Mnist) -> tuple[Any, Any]:
    problem = setup(beginning, config)
    return problem.params, problem.optimizer.init(problem.params)


@_program("config", "num_steps")
def _advance_alone(state, beginning, config, num_steps):
    return on_validation_alone(setup(beginning, config), state, num_steps)


@_program("config")
def _worth(beginning: Beginning, config: Mnist, params: Any) -> dict[str, jax.Array]:
    return worth(setup(beginning, config), params)

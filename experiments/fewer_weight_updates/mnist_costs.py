"""Measures ``mnist_methods.COSTS``: ``python -m experiments.fewer_weight_updates.mnist_costs``."""

import statistics
import time

import jax
import jax.numpy as jnp

from experiments.fewer_weight_updates import mnist_methods
from experiments.fewer_weight_updates.mnist_domains import begin, load, setup

LONG = 64


def costs(model: str, data, num_steps: int = 256, repeats: int = 21) -> dict[str, tuple[float, float]]:
    """Measures the time of a step and of a round, in plain steps, for each kind of method.

    Every kind runs ``num_steps`` at T = 1 and at T = 64, all in turns. Its time is divided by that of a plain run of
    the same turn, and the median over the turns counts. Both numbers follow from ``cost(T) = step + round / T``. Time
    is processor time, all threads together, which other programs on the machine disturb the least.
    """
    config = mnist_methods.Mnist(model=model, num_steps=num_steps)
    problem = setup(begin(jax.random.key(0), config, data), config)
    known = mnist_methods.methods(config, LONG)
    kinds = {"reverse": "T=1", "alignment": "alignment T=1", "norms": "doge", "reference": "doremi"}
    kinds |= {"draw": "exp3", "losses": "group_dro"}
    sides = {(kind, T): known[name]._replace(T=T) for kind, name in kinds.items() for T in (1, LONG)}
    sides["plain"] = known["uniform"]._replace(T=num_steps)

    def compiled(method):
        def run(key):
            state = mnist_methods.first_state(problem, method.rule)
            fitted, _ = mnist_methods.fit(
                config, problem, method, key, problem.params, state=state, num_steps=num_steps
            )
            return fitted.params

        return jax.jit(run).lower(jax.random.key(1)).compile()

    programs = {side: compiled(method) for side, method in sides.items()}
    seconds = {side: [] for side in sides}
    for _ in range(repeats):
        for side, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(jax.random.key(1)))
            seconds[side].append(time.process_time() - start)

    def relative(side):
        return statistics.median(a / b for a, b in zip(seconds[side], seconds["plain"], strict=True))

    found = {}
    for kind in kinds:
        short, long = relative((kind, 1)), relative((kind, LONG))
        step = (LONG * long - short) / (LONG - 1)
        found[kind] = (step, short - step)
    return found


if __name__ == "__main__":
    data = jax.tree.map(jnp.asarray, load())
    for model in mnist_methods.COSTS:
        print(model, {kind: (round(step, 2), round(round_, 2)) for kind, (step, round_) in costs(model, data).items()})

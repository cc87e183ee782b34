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

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from experiments.resampling_reweighting import domains, draws
from experiments.resampling_reweighting.real_data_report import claims, figure
from experiments.resampling_reweighting.real_data_training import RealData, batches, stack, trainers
from mixjax import grad_norms, resampling
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = [
    "POINTS",
    "TURNS",
    "milliseconds",
    "real_data",
    "train",
]

# The number of measurements of each method's time.
TURNS = 15
# The number of training examples by which the possible gain is estimated.
POINTS = 512


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

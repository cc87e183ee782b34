"""Trains one pair of rules on one problem."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.table.pairs import Pair, rules_of
from experiments.table.probe import LOOKS, Probe
from experiments.table.problems import Problem
from mixjax import rules, samplers, training

__all__ = ["run"]


def run(
    key: jax.Array,
    hparams: dict[str, jax.Array],
    data: Any,
    *,
    problem: Problem,
    pairs: Sequence[Pair],
    settings: Any,
) -> dict[str, jax.Array]:
    """Trains one run of one pair at one point of its grid, on one seed's problem.

    Args:
        key: decides the data, the initial model and the batches: the same for all pairs.
        hparams: ``pair``, its position in ``pairs``; ``learning_rate``, a factor; every hyperparameter.
        data: the problem's data.
        problem: the problem that is trained on.
        pairs: the pairs that the problem can run.
        settings: has ``batch_size``, ``num_steps``, ``learning_rate``, ``schedule``, ``probe_every`` and ``warmup``.

    Returns:
        ``validation`` and ``test`` of the last model, and the last ``loss_weights`` and ``sampling_weights``.
    """
    setup_key, fit_key, reference_key = jax.random.split(key, 3)
    setup, index, size = problem.setup(setup_key, data), hparams["pair"], settings.batch_size
    rate = settings.learning_rate * hparams["learning_rate"]
    cosine = settings.schedule == "cosine"
    optimizer = optax.sgd(optax.cosine_decay_schedule(rate, settings.num_steps) if cosine else rate)
    prior = jnp.asarray(problem.prior, jnp.float32)

    def plan(weights):
        return samplers.counts_to_ids(samplers.allocate(weights, size), size), weights

    def draw_exactly(key, plan):
        return setup.draw(key, plan[0]), plan[0]

    def draw_independently(key, plan):
        domain_key, key = jax.random.split(key)
        domain_ids = samplers.multinomial(domain_key, plan[1], size)
        return setup.draw(key, domain_ids), domain_ids

    estimators = ("stratified", "horvitz_thompson")
    estimator = jnp.asarray([estimators.index(pair.estimator) for pair in pairs])[index]
    steps = [training.make_step(setup.losses, optimizer, estimator=name) for name in estimators]
    length = {"num_steps": settings.num_steps, "probe_every": settings.probe_every}

    def reference():
        state = training.init_state(setup.params, optimizer, prior, rules.fixed(), rules.fixed())

        def unchanged(state, key):
            return state

        return training.fit(steps[0], unchanged, plan, draw_exactly, state, reference_key, **length)[0].params

    needs_reference = jnp.asarray([LOOKS.get(pair.loss) == "reference model" for pair in pairs])[index]
    other = jax.lax.cond(needs_reference, reference, lambda: setup.params)

    warmup = round(settings.warmup * settings.num_steps / settings.probe_every)
    loss_rule, sampling_rule = rules_of(pairs, hparams, problem, warmup)
    probe = Probe(
        setup,
        pairs,
        index,
        loss_rule=loss_rule,
        sampling_rule=sampling_rule,
        prior=prior,
        reference=other,
    )
    state = training.init_state(setup.params, optimizer, prior, loss_rule, sampling_rule)
    state, _ = training.fit(
        lambda state, batch, domain_ids: jax.lax.switch(estimator, steps, state, batch, domain_ids),
        probe,
        plan,
        lambda key, plan: jax.lax.switch(estimator, [draw_exactly, draw_independently], key, plan),
        state,
        fit_key,
        **length,
    )
    weights = {"loss_weights": state.loss_state.weights, "sampling_weights": state.sampling_state.weights}
    return {**setup.judge(state.params), **weights}

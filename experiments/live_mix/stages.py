"""Trains one model of the comparison while a method moves its weights: one loop for all methods, pure and jittable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.live_mix.step_gradients import gradient, gradients_by_domain
from experiments.shared.decoder import Decoder
from experiments.shared.device_plan import Drawn, DrawState, draw, shuffled_rows, start_draws
from mixjax import WeightRule, rules, signals

__all__ = ["NUM_EVALUATIONS", "Corpus", "Model", "Moving", "Trained", "train_stage"]

NUM_EVALUATIONS = 10
"""How often losses of test rows are measured, at equal distances."""


class Corpus(NamedTuple):
    """Holds rows of tokens, uint16 ``[rows, length + 1]`` or with the leading axes that are named.

    Attributes:
        train: for each domain its training rows.
        validation: ``[D, rows, ...]``.
        test: ``[D + 1, rows, ...]``, the last ones of the target domain.
    """

    train: tuple[jax.Array, ...]
    validation: jax.Array
    test: jax.Array


class Model(NamedTuple):
    """Describes a model and its optimizer.

    Attributes:
        layers: blocks of the decoder.
        width: width of the decoder.
        heads: heads of its attention.
        vocabulary: number of different tokens.
        learning_rate: the highest one, after the warm-up.
        warmup: share of the steps in which the learning rate rises; then it falls along a cosine.
        clip: largest norm of a gradient.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    learning_rate: Any
    warmup: float
    clip: float


class Moving(NamedTuple):
    """Describes how weights move.

    Attributes:
        loss_rule: None where the loss weights are the sampling weights.
        sampling_rule: the rule for the sampling weights.
        prior: ``[D]``.
        reads: see :class:`experiments.live_mix.methods.Method`.
        reads_spreads: see there.
        interval: steps between two updates.
        probe_size: held-out rows of each domain that an update reads.
        reference: row losses of a reference model; None where nothing reads them.
    """

    loss_rule: WeightRule | None
    sampling_rule: WeightRule
    prior: Any
    reads: str = "nothing"
    reads_spreads: bool = False
    interval: int = 1
    probe_size: int = 4
    reference: Callable[[jax.Array], jax.Array] | None = None


class Trained(NamedTuple):
    """Holds the outcome of a stage.

    Attributes:
        row_losses: ``row_losses(rows [n, length + 1]) -> [n]``, mean losses of the tokens of rows, in nats.
        history: metric -> one entry for each evaluation.
        mean_weights: ``[D]``, mean loss weights of all steps.
        drawn: int32 ``[D]``, rows drawn of each domain.
        least_domains: the least effective number of domains among all loss weights.
    """

    row_losses: Callable[[jax.Array], jax.Array]
    history: Mapping[str, jax.Array]
    mean_weights: jax.Array
    drawn: jax.Array
    least_domains: jax.Array


class Carried(NamedTuple):
    """Holds what one step hands on to the next."""

    params: Any
    opt_state: Any
    loss_state: Any
    sampling_state: Any
    draws: DrawState
    loss_weight_sum: jax.Array
    sampling_weight_sum: jax.Array
    least_domains: jax.Array


def train_stage(
    key: jax.Array, model: Model, moving: Moving, corpus: Corpus, *, num_steps: int, batch_size: int, eval_size: int
) -> Trained:
    """Trains a model from its start.

    Args:
        key: a random key.
        model: the model and its optimizer.
        moving: how the weights move.
        corpus: the rows.
        num_steps: optimizer steps, a multiple of :data:`NUM_EVALUATIONS`.
        batch_size: rows of a step.
        eval_size: test rows of each domain in an evaluation; 0 evaluates nothing.
    """
    init_key, order_key, probe_key, test_key = jax.random.split(key, 4)
    num_domains, length = len(corpus.train), corpus.test.shape[-1] - 1
    decoder = Decoder(
        model.layers, model.width, model.heads, length, vocabulary=model.vocabulary, rngs=nnx.Rngs(init_key)
    )
    graph, params = nnx.split(decoder, nnx.Param)
    optimizer = _optimizer(model, num_steps)

    def row_losses(params, rows):
        logits = nnx.merge(graph, params)(rows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:].astype(jnp.int32)).mean(axis=-1)

    sizes = [len(rows) for rows in corpus.train]
    order = shuffled_rows(order_key, sizes, num_steps * batch_size)
    # All domains in one array, so that a batch is one gather.
    order += jnp.cumsum(jnp.array([0, *sizes[:-1]], jnp.int32))[:, None]
    train_rows = jnp.concatenate(corpus.train)
    test = _chosen(test_key, corpus.test, eval_size) if eval_size else None

    by_domain = moving.reads == "alignments"
    if by_domain and batch_size % num_domains:
        raise ValueError(f"batch_size must be a multiple of the {num_domains} domains, got {batch_size}.")

    def take_batch(carried):
        if by_domain:
            return _even_batch(carried.draws, num_domains, batch_size)
        loss_weights = None if moving.loss_rule is None else carried.loss_state.weights
        return draw(carried.draws, carried.sampling_state.weights, loss_weights, batch_size)

    def step(carried: Carried, number):
        batch, draws = take_batch(carried)
        rows = train_rows[order[batch.domain_ids, batch.row_numbers]]
        c = _loss_weights(carried)
        if by_domain:
            grads, told = gradients_by_domain(row_losses, carried.params, rows, c)
        else:
            tells = moving.reads in ("training losses", "reference losses")
            grads, told = gradient(row_losses, carried.params, rows, batch, tells=tells, reference=moving.reference)
        updates, opt_state = optimizer.update(grads, carried.opt_state, carried.params)
        new = carried._replace(
            params=optax.apply_updates(carried.params, updates),
            opt_state=opt_state,
            draws=draws,
            loss_weight_sum=carried.loss_weight_sum + c,
            sampling_weight_sum=carried.sampling_weight_sum + carried.sampling_state.weights,
        )
        if moving.interval == 1:
            return _updated(new, moving, told), None
        # The number is the same for all runs of a compiled call, so this stays a branch under vmap.
        is_last = number % moving.interval == moving.interval - 1
        return jax.lax.cond(
            is_last, lambda new: _updated(new, moving, measure(new, number)), lambda new: new, new
        ), None

    def measure(carried, number):
        """Reads held-out rows; the same ones each time where the rule compares losses of two updates."""
        fixed = moving.reads == "same held-out losses"
        rows = _chosen(
            probe_key if fixed else jax.random.fold_in(probe_key, number), corpus.validation, moving.probe_size
        )
        rows = rows.reshape(-1, length + 1)
        ids = jnp.repeat(jnp.arange(num_domains), moving.probe_size)
        told = {"counts": jnp.full(num_domains, float(moving.probe_size))}
        if moving.reads != "nothing":
            told = signals.moments(row_losses(carried.params, rows), ids, num_domains).signals()
        if moving.reads_spreads:
            told["grad_stds"] = signals.grad_stds(
                lambda params, row: row_losses(params, row[None])[0], carried.params, rows, ids, num_domains
            )
        return told

    def evaluate(params):
        if test is None:
            return {}
        losses = jax.lax.map(lambda rows: row_losses(params, rows).mean(), test)
        return {"loss": losses[:-1], "target_loss": losses[-1]}

    def interval(carried, numbers):
        before = carried
        carried, _ = jax.lax.scan(step, carried, numbers)
        return carried, evaluate(carried.params) | {
            "loss_weight": (carried.loss_weight_sum - before.loss_weight_sum) / len(numbers),
            "sampling_weight": (carried.sampling_weight_sum - before.sampling_weight_sum) / len(numbers),
        }

    zeros = jnp.zeros(num_domains, jnp.float32)
    loss_state = None if moving.loss_rule is None else moving.loss_rule.init(moving.prior)
    sampling_state = moving.sampling_rule.init(moving.prior)
    start = Carried(
        params=params,
        opt_state=optimizer.init(params),
        loss_state=loss_state,
        sampling_state=sampling_state,
        draws=start_draws(num_domains),
        loss_weight_sum=zeros,
        sampling_weight_sum=zeros,
        least_domains=jnp.float32(num_domains),
    )
    start = _noting_domains(start)
    numbers = jnp.arange(num_steps, dtype=jnp.int32).reshape(NUM_EVALUATIONS, -1)
    end, history = jax.lax.scan(interval, start, numbers)
    return Trained(
        lambda rows: row_losses(end.params, rows),
        history,
        end.loss_weight_sum / end.loss_weight_sum.sum(),
        end.draws.drawn,
        end.least_domains,
    )


def _optimizer(model: Model, num_steps: int) -> optax.GradientTransformation:
    """Makes AdamW with clipping, a warm-up and a cosine."""
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(int(model.warmup * num_steps), 1), num_steps)
    return optax.chain(
        optax.clip_by_global_norm(model.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(1e-4),
        optax.scale_by_schedule(shape),
        # Apart from the schedule, which branches on its peak and so takes no traced one.
        optax.scale(-model.learning_rate),
    )


def _chosen(key: jax.Array, rows: jax.Array, num: int) -> jax.Array:
    """Draws so many rows of each domain, ``[D, num, length + 1]``."""
    which = jax.random.randint(key, (rows.shape[0], num), 0, rows.shape[1])
    return jnp.take_along_axis(rows, which[..., None], axis=1)


def _loss_weights(carried: Carried) -> jax.Array:
    state = carried.sampling_state if carried.loss_state is None else carried.loss_state
    return state.weights


def _noting_domains(carried: Carried) -> Carried:
    effective = rules.effective_domains(_loss_weights(carried))
    return carried._replace(least_domains=jnp.minimum(carried.least_domains, effective))


def _updated(carried: Carried, moving: Moving, told: Mapping[str, jax.Array]) -> Carried:
    """Updates the loss rule, and then the sampling rule, which may read the new loss weights."""
    if not told:
        return carried
    loss_state = carried.loss_state
    if moving.loss_rule is not None:
        loss_state = moving.loss_rule.update(loss_state, **told)
        told = {**told, "loss_weights": loss_state.weights}
    sampling_state = moving.sampling_rule.update(carried.sampling_state, **told)
    return _noting_domains(carried._replace(loss_state=loss_state, sampling_state=sampling_state))


def _even_batch(draws: DrawState, num_domains: int, batch_size: int) -> tuple[Drawn, DrawState]:
    """Draws as many rows of each domain."""
    each = batch_size // num_domains
    ids = jnp.repeat(jnp.arange(num_domains, dtype=jnp.int32), each)
    numbers = draws.drawn[ids] + jnp.tile(jnp.arange(each, dtype=jnp.int32), num_domains)
    counts = jnp.full(num_domains, each, jnp.int32)
    batch = Drawn(ids, numbers, jnp.full(batch_size, 1.0 / batch_size), counts)
    return batch, draws._replace(drawn=draws.drawn + counts)

"""Trains, probes and tests the language model on a live mix, by one compiled program each."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.live_mix.methods import rules_of
from experiments.live_mix.text_settings import Text
from experiments.shared.decoder import Decoder, adamw
from mixjax import signals

__all__ = ["METRICS", "State", "Trainer", "trainer_of"]

METRICS = ("loss", "loss_weight", "sampling_weight")


class State(NamedTuple):
    """Holds all that training changes, apart from the plan.

    Attributes:
        params: the decoder's parameters.
        opt_state: the optimizer's state.
        loss_rule: state of the rule for the loss weights; None where they are the sampling weights.
        sampling_rule: state of the rule for the sampling weights.
        history: metric -> ``[evaluations, domain]``, filled up to the present.
    """

    params: Any
    opt_state: Any
    loss_rule: Any
    sampling_rule: Any
    history: dict[str, jax.Array]

    @property
    def weights(self) -> tuple[jax.Array, jax.Array | None]:
        """Returns the sampling weights, and the loss weights where they are others, as a plan takes them."""
        return self.sampling_rule.weights, None if self.loss_rule is None else self.loss_rule.weights


class Trainer:
    """Compiles what one setting needs: a step, a probe, a test, and the state to begin with."""

    def __init__(self, config: Text, num_domains: int, vocabulary: int = 256):
        """Builds the model's graph for so many different tokens, the optimizer and the rules."""
        self.config, self.vocabulary = config, vocabulary
        self.optimizer = adamw(config.num_steps, config.learning_rate, config.warmup, config.clip)
        self.method = config.rule_method
        self.loss_rule, self.sampling_rule = rules_of(self.method, config, config.num_steps)
        self.history_shape = config.num_steps // config.eval_every, num_domains
        # Shapes are enough for the graph, and take a tenth of the time.
        self.graph = nnx.graphdef(nnx.eval_shape(lambda: self._model(jax.random.key(0))))
        self.step, self.probe, self.test = jax.jit(self._step), jax.jit(self._probe), jax.jit(self._test)

    def init(self, key: jax.Array, prior: np.ndarray) -> State:
        """Makes the state before the first step."""
        params = nnx.state(self._model(key), nnx.Param)
        history = {name: jnp.full(self.history_shape, jnp.nan) for name in METRICS}
        loss_rule = None if self.loss_rule is None else self.loss_rule.init(prior)
        return State(params, self.optimizer.init(params), loss_rule, self.sampling_rule.init(prior), history)

    @property
    def reads_batches(self) -> bool:
        """Tells whether the weights move in each step, by the losses of its batch."""
        return self.method.reads == "training losses"

    @property
    def reads_probes(self) -> bool:
        """Tells whether the weights move by probes."""
        return self.method.reads_spreads or not (self.reads_batches or self.method.reads == "nothing")

    @property
    def interval(self) -> int:
        """Returns the steps from one set of weights to the next."""
        # DoGE's own proxy is probed in each step; here the model is, at the cost of a step for each domain.
        is_dear = self.method.reads == "alignments"
        return self.config.probe_every if is_dear else self.method.interval(self.config)

    def row_losses(self, params: Any, rows: Any) -> jax.Array:
        """Returns the mean loss of the tokens of each row, in nats.

        Args:
            params: the decoder's parameters.
            rows: windows ``[n, length + 1]``, or packed rows, of which a token is predicted from those of its document.
        """
        model = nnx.merge(self.graph, params)
        if not isinstance(rows, Mapping):
            return _token_losses(model(rows[:, :-1]), rows).mean(axis=-1)
        tokens, segments = rows["tokens"], rows["tokens_segment_ids"]
        losses = _token_losses(model(tokens[:, :-1], segments[:, :-1], rows["tokens_positions"][:, :-1]), tokens)
        # The first token of a document is predicted by none, and segment 0 is padding.
        is_target = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
        # A row of documents of one token each has no target.
        return jnp.sum(losses * is_target, axis=-1) / jnp.maximum(jnp.sum(is_target, axis=-1), 1)

    def _model(self, key):
        c = self.config
        return Decoder(c.layers, c.width, c.heads, c.length, vocabulary=self.vocabulary, rngs=nnx.Rngs(key))

    def _step(self, state: State, batch: Mapping[str, Any]) -> tuple[State, jax.Array]:
        """Takes a step on a batch of the mix; returns the loss of each row too."""

        def objective(params, part):
            losses = self.row_losses(params, part["value"])
            return jnp.sum(part["row_weights"] * losses), losses

        def add(grads, part):
            part_grads, losses = jax.grad(objective, has_aux=True)(state.params, part)
            return jax.tree.map(jnp.add, grads, part_grads), losses

        # Weighted by row_weights, losses add up over the parts of a batch as they do over its rows.
        rows = {name: batch[name] for name in ("value", "row_weights")}
        parts = jax.tree.map(lambda x: x.reshape(self.config.microbatches, -1, *x.shape[1:]), rows)
        grads, losses = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.params), parts)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        state = state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
        losses = losses.reshape(-1)
        if self.reads_batches:
            seen = signals.moments(losses, batch["domain_ids"], self.history_shape[1]).signals()
            state = self._updated(state, seen)
        return state, losses

    def _probe(self, state: State, domains: jax.Array, windows: jax.Array) -> State:
        """Updates the rules by validation windows ``[m, n, length + 1]`` of some domains, integers ``[m]``."""
        ids = jnp.repeat(domains, windows.shape[1])
        rows = windows.reshape(ids.size, -1)
        num_domains = self.history_shape[1]
        # Domains that were not probed count 0, and the rules leave them as they are.
        told = signals.moments(self.row_losses(state.params, rows), ids, num_domains).signals()
        if self.method.reads_spreads:
            told["grad_stds"] = signals.grad_stds(
                lambda params, row: self.row_losses(params, row[None])[0], state.params, rows, ids, num_domains
            )
        if self.method.reads == "alignments":
            told |= self._alignments(state.params, domains, windows)
        return self._updated(state, told)

    def _alignments(self, params, domains, windows):
        """Measures how the gradient of each domain agrees with the sum of all, DoGE's target for all domains alike."""
        stacked = jax.vmap(jax.grad(lambda params, rows: self.row_losses(params, rows).mean()), (None, 0))(
            params, windows
        )
        flat = jnp.concatenate([g.reshape(len(domains), -1) for g in jax.tree.leaves(stacked)], axis=1)
        found = {"hypergrads": -(flat @ flat.sum(axis=0)), "grad_norms": jnp.linalg.norm(flat, axis=1)}
        unseen = jnp.full(self.history_shape[1], jnp.nan)
        return {name: unseen.at[domains].set(values) for name, values in found.items()}

    def _updated(self, state: State, told: Mapping[str, jax.Array]) -> State:
        """Updates the loss rule, and then the sampling rule, which may read the new loss weights."""
        if self.loss_rule is not None:
            state = state._replace(loss_rule=self.loss_rule.update(state.loss_rule, **told))
            told = {**told, "loss_weights": state.loss_rule.weights}
        return state._replace(sampling_rule=self.sampling_rule.update(state.sampling_rule, **told))

    def _test(self, state: State, number: jax.Array, windows: jax.Array) -> State:
        """Notes the losses of test windows ``[domain, n, length + 1]``, and the weights."""
        tested = jax.lax.map(lambda rows: self.row_losses(state.params, rows).mean(), windows)
        sampling_weights, loss_weights = state.weights
        loss_weights = sampling_weights if loss_weights is None else loss_weights
        values = dict(zip(METRICS, (tested, loss_weights, sampling_weights), strict=True))
        history = {name: state.history[name].at[number].set(values[name]) for name in METRICS}
        return state._replace(history=history)


# The seeds of one setting share its compiled programs.
trainer_of = functools.lru_cache(maxsize=1)(Trainer)


def _token_losses(logits, tokens):
    """Returns the loss of each token but the first, ``[n, length]``."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:].astype(jnp.int32))

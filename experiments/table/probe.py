"""Measures, once a round, what a pair of rules looks at, and moves the pair's weights."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.table.pairs import Pair
from experiments.table.problems import Setup
from mixjax import WeightRule, grad_norms
from mixjax.hypergrad import alignment
from mixjax.training import TrainState

__all__ = ["LOOKS", "Probe"]

# What a loss rule is told besides its losses on held-out points, or in place of them; nothing where it is not named.
# The reference model is trained first, without weighting, as long as the model itself; no budget counts that. The
# bandit is told of one domain at each probe, and so learns far less than where every step draws one.
LOOKS = {
    "fgls": "training points",
    "mirror_descent": "validation gradient",
    "projected_gradient": "validation gradient",
    "doge": "validation gradient",
    "doremi": "reference model",
    "exp3": "one domain drawn",
}
KINDS = ("held-out points", *dict.fromkeys(LOOKS.values()))
# the sampling rules that are told how gradients spread
SPREADS = ("variance_aware", "gradient_norm")


class Probe:
    """Measures what a pair looks at, and moves ``c``, then ``q``: ``probe(state, key) -> state``.

    Losses are told in units of the mean loss before training, so that one grid of hyperparameters serves all problems.
    Signals that a pair does not look at are told as NaN, which a rule takes for unseen.
    """

    def __init__(
        self,
        setup: Setup,
        pairs: Sequence[Pair],
        index: jax.Array,
        *,
        loss_rule: WeightRule,
        sampling_rule: WeightRule,
        prior: np.ndarray | jax.Array,
        reference: Any,
    ):
        """Prepares the probe of one pair.

        Args:
            setup: the seed's problem.
            pairs: all pairs of the compiled call.
            index: the pair's position in ``pairs``.
            loss_rule: the pair's rule for the loss weights.
            sampling_rule: the pair's rule for the sampling weights.
            prior: the domains' prior ``[D]``.
            reference: parameters of the reference model.
        """
        self.setup, self.loss_rule, self.sampling_rule, self.reference = setup, loss_rule, sampling_rule, reference
        self.num_domains, self.size = jax.tree.leaves(setup.held_out)[0].shape[:2]
        self.unit = jnp.dot(prior, setup.losses(setup.params, setup.held_out).mean(axis=1))
        self.nothing = jnp.full(self.num_domains, jnp.nan)
        self.looks = jnp.asarray([KINDS.index(LOOKS.get(pair.loss, KINDS[0])) for pair in pairs])[index]
        self.needs_spread = jnp.asarray([pair.sampling in SPREADS for pair in pairs])[index]

    def __call__(self, state: TrainState, key: jax.Array) -> TrainState:
        """Returns the state with both rules' states moved."""
        found = self.moments(state.params, self.setup.held_out)
        unseen = {**found, **dict.fromkeys(("hypergrads", "grad_norms", "reference_losses"), self.nothing)}
        # a switch and a cond by the pair's number stay what they are under vmap, since the number is not batched
        told = jax.lax.switch(self.looks, [self._branch(unseen, kind) for kind in KINDS], state, key)
        loss_state = self.loss_rule.update(state.loss_state, **told)
        spreads = jax.lax.cond(
            self.needs_spread,
            self.spread,
            lambda params: dict.fromkeys(("grad_norms", "grad_stds"), self.nothing),
            state.params,
        )
        found |= {**spreads, "loss_weights": loss_state.weights}
        sampling_state = self.sampling_rule.update(state.sampling_state, **found)
        return state.replace(loss_state=loss_state, sampling_state=sampling_state)

    def _branch(self, unseen: dict[str, jax.Array], kind: str) -> Callable:
        look = {
            "held-out points": lambda state, key: {},
            "training points": self.by_training_points,
            "validation gradient": self.by_validation_gradient,
            "reference model": self.by_reference_model,
            "one domain drawn": self.by_one_domain_drawn,
        }[kind]
        return lambda state, key: {**unseen, **look(state, key)}

    def losses(self, params: Any, batch: Any) -> jax.Array:
        """Returns the losses, in units of the mean loss before training."""
        return self.setup.losses(params, batch) / self.unit

    def mean_loss(self, params: Any, batch: Any) -> jax.Array:
        """Returns the mean of the losses."""
        return self.losses(params, batch).mean()

    def moments(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        """Measures ``counts``, ``losses`` and ``loss_vars`` of a batch ``[D, n, ...]``."""
        values = self.losses(params, batch)
        counts = jnp.full(self.num_domains, self.size, jnp.float32)
        return {"counts": counts, "losses": values.mean(axis=1), "loss_vars": values.var(axis=1, ddof=1)}

    def training_points(self, key: jax.Array) -> Any:
        """Draws as many training points of each domain as are held out, ``[D, n, ...]``."""
        batch = self.setup.draw(key, jnp.repeat(jnp.arange(self.num_domains), self.size))
        return jax.tree.map(lambda x: x.reshape(self.num_domains, self.size, *x.shape[1:]), batch)

    def by_training_points(self, state: TrainState, key: jax.Array) -> dict[str, jax.Array]:
        """Measures the losses of training points."""
        return self.moments(state.params, self.training_points(key))

    def by_validation_gradient(self, state: TrainState, key: jax.Array) -> dict[str, jax.Array]:
        """Measures each domain's gradient against that of the held-out points, and its norm."""
        batch = self.training_points(key)
        weights, still = state.loss_state.weights, optax.set_to_zero().init(state.params)
        first_order = alignment(self.mean_loss, self.mean_loss, optax.set_to_zero())
        one_step = jax.tree.map(lambda x: x[None], batch)
        result = first_order(weights, state.params, still, one_step, self.setup.held_out)
        grads = jax.vmap(jax.grad(self.mean_loss), (None, 0))(state.params, batch)
        return {"hypergrads": result.hypergrads, "grad_norms": jax.vmap(optax.tree.norm)(grads)}

    def by_reference_model(self, state: TrainState, key: jax.Array) -> dict[str, jax.Array]:
        """Measures the reference model's losses on the held-out points."""
        del state, key
        return {"reference_losses": self.losses(self.reference, self.setup.held_out).mean(axis=1)}

    def by_one_domain_drawn(self, state: TrainState, key: jax.Array) -> dict[str, jax.Array]:
        """Leaves one domain seen, drawn by the loss weights."""
        drawn = jax.random.categorical(key, jnp.log(state.loss_state.weights))
        return {"counts": jax.nn.one_hot(drawn, self.num_domains) * self.size}

    def spread(self, params: Any) -> dict[str, jax.Array]:
        """Measures the root mean square and the standard deviation of gradients on the held-out points."""
        grads = jax.vmap(jax.vmap(jax.grad(self.losses), (None, 0)), (None, 0))(params, self.setup.held_out)
        norms = jax.vmap(grad_norms.norm)(grads)
        means = jax.tree.map(lambda g: g.mean(axis=1), grads)
        m = jnp.sqrt(jnp.square(norms).mean(axis=1))
        # rounding may leave the difference of the squares below 0
        within = jnp.maximum(jnp.square(m) - jnp.square(grad_norms.norm(means)), 0.0)
        return {"grad_norms": m, "grad_stds": jnp.sqrt(within * self.size / (self.size - 1))}

r"""Trains on two quadratics in the plane, whose optimal weights T = 1 misses.

Domains ``f_k(θ) = (θ - m_k)' diag(1, ε) (θ - m_k) / 2`` with ``m_1 = (1, 1)`` and ``m_2 = (0, 0)``, validation loss
``F(θ) = |θ - u|^2 / 2``, plain gradient descent with the learning rate 1. Weights ``(p, 1 - p)`` have their optimum at
``(p, p)``. After T steps a coordinate of curvature ``λ`` shows a share ``π = 1 - (1 - λ)^T`` of its response. The
weights stop moving at

.. math:: p_T = \Bigl[\frac{u_1 + π_2 u_2}{1 + π_2}\Bigr]_0^1 \quad\text{instead of}\quad
          p^* = \Bigl[\frac{u_1 + u_2}{2}\Bigr]_0^1.

The example is ours, because of papers 001 and 002 we have only the abstract.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax import mixing, rules
from mixjax.hypergrad import counterfactual, reverse, unroll

METHODS = {
    "mirror_descent": "mirror descent",
    "projected_gradient": "projected gradient",
    "reset": "parameters reset to 0 each round",
    "alignment": "curvature dropped (alignment)",
    "implicit": "implicit function theorem",
}
# The other methods differentiate the steps.
MODES = {"alignment": "alignment", "implicit": "implicit"}
MINIMA = jnp.array([[1.0, 1.0], [0.0, 0.0]])
# The weights p' of the counterfactual, whose steps are taken with p = 1/2.
OTHERS = np.linspace(0, 1, 11)
# The first weights p are drawn from this range.
FIRST_SHARES = 0.1, 0.9


@dataclasses.dataclass(frozen=True)
class TwoDomains:
    """Sets the example. A seed draws the first weights and parameters.

    Attributes:
        epsilon: ``ε``, curvature of the second coordinate, in (0, 1).
        targets: the ``u``. The first has its best weights inside the simplex, the second at a vertex.
        horizons: the T; the first of them is 1.
        num_steps: ``N``, the number of training steps.
        num_rounds: number of first rounds whose weights and parameters are kept for the figure.
    """

    epsilon: float = 0.1
    targets: tuple[tuple[float, float], tuple[float, float]] = ((1.0, -0.5), (1.3, -1.5))
    horizons: tuple[int, ...] = (1, 2, 5, 20, 80)
    num_steps: int = 16000
    num_rounds: int = 100

    def __post_init__(self):
        """Raises a ValueError for horizons that do not begin with 1 or leave too few rounds."""
        if self.horizons[0] != 1 or self.num_steps < self.num_rounds * max(self.horizons):
            raise ValueError(
                f"horizons must begin with 1 and leave {self.num_rounds} rounds in {self.num_steps} steps, "
                f"got {self.horizons}."
            )


def train(key: jax.Array, config: TwoDomains) -> dict[str, jax.Array]:
    """Trains with every method at every T on both targets, from one start.

    Returns:
        For each target, a dictionary of

        - ``share`` ``[method, horizon]``: the last ``p``;
        - ``rounds`` and ``theta``: ``p`` and the parameters after each of the first rounds;
        - ``response`` ``[horizon, coordinate]``: how far T steps move the parameters when all weight moves from the
          second domain to the first;
        - ``predicted`` and ``actual`` ``[horizon, other]``: the validation loss after T steps with other weights.
    """
    share_key, params_key = jax.random.split(key)
    share = jax.random.uniform(share_key, minval=FIRST_SHARES[0], maxval=FIRST_SHARES[1])
    start = jnp.stack([share, 1 - share]), jax.random.normal(params_key, (2,))
    return jax.vmap(lambda target: all_runs(target, *start, config))(jnp.array(config.targets))


def all_runs(target: jax.Array, weights: jax.Array, params: jax.Array, config: TwoDomains) -> dict[str, jax.Array]:
    """Trains on one target: see :func:`train`."""
    curvatures, tx = jnp.array([1.0, config.epsilon]), optax.sgd(1.0)

    def loss(theta, minimum):
        return jnp.sum(curvatures * jnp.square(theta - minimum)) / 2

    def val_loss(theta, target):
        return jnp.sum(jnp.square(theta - target)) / 2

    def run(method, T):
        rule = rules.projected_gradient() if method == "projected_gradient" else rules.mirror_descent()
        state, rounds = mixing.init_state(params, tx, weights, rule), config.num_steps // T

        def fit(state, num_steps):
            return mixing.fit(
                loss,
                val_loss,
                tx,
                rule,
                lambda key: MINIMA,
                lambda key: target,
                state,
                jax.random.key(0),  # nothing is drawn
                num_steps=num_steps,
                T=T,
                mode=MODES.get(method, "reverse"),
                record=lambda state, result: (state.rule_state.weights[0], result.params),
            )

        def fresh(state, _):
            state, records = fit(state.replace(params=jnp.zeros(2)), T)
            return state, jax.tree.map(lambda x: x[0], records)

        if method == "reset":
            state, (shares, thetas) = jax.lax.scan(fresh, state.replace(T=jnp.int32(T)), length=rounds)
        else:
            state, (shares, thetas) = fit(state, rounds * T)
        kept = config.num_rounds
        return {"share": state.rule_state.weights[0], "rounds": shares[:kept], "theta": thetas[:kept]}

    def responses(T):
        half, others = jnp.array([0.5, 0.5]), jnp.stack([OTHERS, 1 - OTHERS], -1).astype(jnp.float32)
        batches = jnp.broadcast_to(MINIMA, (T, *MINIMA.shape))
        result = reverse(loss, val_loss, tx)(half, params, tx.init(params), batches, target)
        steps = unroll(loss, tx)
        ends = jax.vmap(lambda c: steps(c, params, tx.init(params), batches)[0])(others)
        return {
            "response": ends[-1] - ends[0],
            "predicted": counterfactual(result, half, others),
            "actual": jax.vmap(lambda theta: val_loss(theta, target))(ends),
        }

    def stacked(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    runs = stacked([stacked([run(method, T) for T in config.horizons]) for method in METHODS])
    return runs | stacked([responses(T) for T in config.horizons])


def best_share(target) -> float:
    """Returns ``p*``, the best share of the first domain."""
    return float(np.clip(np.mean(target), 0, 1))


def last_share(method: str, target, T: int, epsilon: float) -> float:
    """Returns the closed form of ``p`` where a method's weights stop moving."""
    (first, second), shown = target, 1 - (1 - epsilon) ** T
    if method == "implicit":
        return best_share(target)
    if method == "alignment":
        shown = epsilon
    return float(np.clip((first + shown * second) / (1 + shown ** (2 if method == "reset" else 1)), 0, 1))


def excess(share, target):
    """Returns the validation loss at the optimum for ``p``, less that at ``p*``."""

    def value(p):
        return sum((p - u) ** 2 for u in target) / 2

    return value(share) - value(best_share(target))

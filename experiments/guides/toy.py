"""Trains one small model on four domains by any rule, so that the pages of the rules can be compared by eye.

The model is linear with three parameters, and its loss is the squared error. The domains differ in one thing each: the
noise of the labels, the true parameters, or the size of the features. Every four steps the rule reads its signals on 32
held-out examples of each domain, and the weights are used from then on.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mixjax
from mixjax import WeightRule, rules
from mixjax.hypergrad import hypergrad

__all__ = ["DOMAINS", "PRIOR", "RULES", "WRAPPED", "Shown", "optional_signals", "read_signals", "train"]

DOMAINS = ("clean", "noisy", "different", "steep")
"""The domains: small noise; large noise; another truth; features and gradients three times as large."""

PRIOR = (0.4, 0.3, 0.2, 0.1)
NOISE = (0.1, 2.0, 0.1, 0.1)
SCALE = (1.0, 1.0, 1.0, 3.0)
TRUTHS = ((1.0, -1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 0.0, 0.5), (1.0, -1.0, 0.5))

# Hypergradients and DoGE go down the loss on examples of these two domains, half of them each.
TARGET = (0.5, 0.0, 0.5, 0.0)

NUM_STEPS, PROBE_EVERY, NUM_SEEDS = 400, 4, 16
_BATCH_SIZE, _HELD_OUT, _LEARNING_RATE, _INNER_STEPS = 32, 32, 0.01, 8


@dataclasses.dataclass(frozen=True)
class Shown:
    """Describes a rule as the pages show it.

    Attributes:
        text: the code that makes the rule.
        make: makes it.
        moves: the weights that the rule moves. ``c`` leaves the draws at the prior, ``q`` leaves the loss at the prior,
            and ``both`` takes the rule's weights for the draws and for the loss.
        extra: what is measured or drawn in another way for this rule: ``hypergrads`` through eight steps,
            ``alignment`` of gradients, ``reference`` losses of a model trained without weights, or ``random`` counts.
    """

    text: str
    make: Callable[[], WeightRule]
    moves: Literal["c", "q", "both"] = "c"
    extra: Literal["", "hypergrads", "alignment", "reference", "random"] = ""


RULES = {
    "fixed": Shown("fixed(temperature=3.0)", lambda: rules.fixed(temperature=3.0), "both"),
    "gls": Shown("gls([0.01, 4.0, 0.01, 0.01])", lambda: rules.gls(np.square(NOISE))),
    "fgls": Shown("every(fgls(), 1, start=25)", lambda: rules.every(rules.fgls(), 1, start=25)),
    "one_shot_fgls": Shown(
        "every(one_shot_fgls(gamma=0.1), 1, start=10)", lambda: rules.every(rules.one_shot_fgls(0.1), 1, start=10)
    ),
    "erma": Shown("erma(gamma1=0.02, gamma2=0.01)", lambda: rules.erma(0.02, 0.01)),
    "variance_aware": Shown("variance_aware()", rules.variance_aware, "q"),
    "gradient_norm": Shown("gradient_norm(floor=0.1)", lambda: rules.gradient_norm(floor=0.1), "q", "random"),
    "dro": Shown("dro(beta=0.5)", lambda: rules.dro(0.5)),
    "group_dro": Shown("group_dro(step_size=0.02)", lambda: rules.group_dro(0.02)),
    "mirror_descent": Shown("mirror_descent(step_size=0.3)", lambda: rules.mirror_descent(0.3), extra="hypergrads"),
    "projected_gradient": Shown(
        "projected_gradient(step_size=0.1)", lambda: rules.projected_gradient(0.1), extra="hypergrads"
    ),
    "doremi": Shown("doremi(step_size=1.0, floor=0.1)", lambda: rules.doremi(1.0, floor=0.1), extra="reference"),
    "doge": Shown("doge(step_size=0.05)", lambda: rules.doge(0.05), extra="alignment"),
    "exp3": Shown("exp3(0.9, reward='perplexity')", lambda: rules.exp3(0.9, reward="perplexity"), "both"),
    "ado": Shown("ado(warmup=10, skip=2)", lambda: rules.ado(warmup=10, skip=2), "both"),
    "aioli": Shown("aioli(1.0, rounds=2, hold=10)", lambda: rules.aioli(1.0, rounds=2, hold=10), "both"),
}
"""The rules, with settings at which their weights can be seen to move."""

WRAPPED = {
    "group_dro": RULES["group_dro"],
    "every": Shown("every(group_dro(0.02), k=20)", lambda: rules.every(rules.group_dro(0.02), 20)),
    "freeze_after": Shown("freeze_after(group_dro(0.02), k=25)", lambda: rules.freeze_after(rules.group_dro(0.02), 25)),
    "smooth": Shown("smooth(group_dro(0.02), decay=0.95)", lambda: rules.smooth(rules.group_dro(0.02), 0.95)),
    "floor": Shown("floor(group_dro(0.02), 0.5)", lambda: rules.floor(rules.group_dro(0.02), 0.5)),
    "cap": Shown("cap(group_dro(0.02), 4 * [0.45])", lambda: rules.cap(rules.group_dro(0.02), jnp.full(4, 0.45))),
    "mirror_descent": RULES["mirror_descent"],
    "kl_to_prior": Shown(
        "kl_to_prior(mirror_descent(0.3), 1.0)",
        lambda: rules.kl_to_prior(rules.mirror_descent(0.3), 1.0),
        extra="hypergrads",
    ),
}
"""Two rules, and what each wrapper makes of them."""


def read_signals(name: str) -> tuple[str, ...]:
    """Returns the signals that a rule needs, by the signature of its ``update``; ``counts`` is left out.

    Args:
        name: a name of ``mixjax.rules.RULES``.
    """
    return tuple(key for key, each in _signals(name).items() if each.default is each.empty)


def optional_signals(name: str) -> tuple[str, ...]:
    """Returns the signals that a rule reads where they are given.

    Args:
        name: a name of ``mixjax.rules.RULES``.
    """
    return tuple(key for key, each in _signals(name).items() if each.default is not each.empty)


def _signals(name):
    # A factory with required arguments is given one; which one does not matter to the signature.
    rule = rules.gls(1.0) if name == "gls" else rules.RULES[name]()
    parameters = inspect.signature(rule.update).parameters
    return {key: each for key, each in parameters.items() if each.kind is each.KEYWORD_ONLY and key != "counts"}


def train(shown: Shown, num_steps: int = NUM_STEPS, num_seeds: int = NUM_SEEDS) -> dict[str, np.ndarray]:
    """Trains the model by a rule.

    Args:
        shown: the rule.
        num_steps: number of training steps, a multiple of four.
        num_seeds: number of runs, each with its own draws and held-out examples.

    Returns:
        The metrics ``weights`` and ``losses`` (on held-out examples), ``[seed, probe, D]``, measured before each probe,
        and ``last_losses``, ``[seed, D]``.
    """
    keys = jax.random.split(jax.random.key(0), num_seeds)
    metrics = jax.jit(jax.vmap(lambda key: _run(key, shown, num_steps)))(keys)
    return jax.tree.map(np.asarray, metrics)


def _examples(key, ids):
    """Draws an example of each domain in ``ids``."""
    x_key, noise_key = jax.random.split(key)
    x = jax.random.normal(x_key, (*ids.shape, 3)) * jnp.array(SCALE)[ids][..., None]
    noise = jnp.array(NOISE)[ids] * jax.random.normal(noise_key, ids.shape)
    return x, (x * jnp.array(TRUTHS)[ids]).sum(axis=-1) + noise


def _losses(params, examples):
    x, y = examples
    return jnp.square(x @ params - y)


def _mean_loss(params, examples):
    return _losses(params, examples).mean()


def _target_loss(params, held_out):
    return jnp.array(TARGET) @ jax.vmap(_mean_loss, (None, 0))(params, held_out)


def _run(key, shown, num_steps):
    """Returns the metrics of one run."""
    held_key, reference_key, key = jax.random.split(key, 3)
    ids = jnp.broadcast_to(jnp.arange(len(DOMAINS))[:, None], (len(DOMAINS), _HELD_OUT))
    held_out = _examples(held_key, ids)
    prior = jnp.array(PRIOR)
    reference = jnp.zeros(len(DOMAINS))
    if shown.extra == "reference":
        plain = Shown("fixed()", rules.fixed)
        reference = _train(reference_key, plain, num_steps, held_out, prior, reference)["last_losses"]
    return _train(key, shown, num_steps, held_out, prior, reference)


def _train(key, shown, num_steps, held_out, prior, reference):
    rule, optimizer = shown.make(), optax.sgd(_LEARNING_RATE)

    def weights_of(state):
        c = prior if shown.moves == "q" else state.weights
        q = prior if shown.moves == "c" else state.weights
        return c, q

    def step(carry, key):
        params, opt_state, c, q = carry
        ids_key, key = jax.random.split(key)
        if shown.extra == "random":
            ids = mixjax.samplers.systematic(ids_key, q, _BATCH_SIZE)
            estimator: dict[str, Any] = {"estimator": "horvitz_thompson", "sampling_weights": q}
        else:
            ids = mixjax.samplers.counts_to_ids(mixjax.samplers.allocate(q, _BATCH_SIZE), _BATCH_SIZE)
            estimator = {}
        examples = _examples(key, ids)

        def objective(params):
            return mixjax.weighted_loss(None, c, _losses(params, examples), ids, **estimator)[0]

        updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state, c, q), jnp.bincount(ids, length=len(DOMAINS))

    def round_of_steps(carry, key):
        params, opt_state, state = carry
        c, q = weights_of(state)
        losses = jax.vmap(_mean_loss, (None, 0))(params, held_out)
        steps_key, probe_key = jax.random.split(key)
        keys = jax.random.split(steps_key, PROBE_EVERY)
        (params, opt_state, *_), counts = jax.lax.scan(step, (params, opt_state, c, q), keys)
        signals = _measured(shown, params, opt_state, optimizer, c, held_out, reference, probe_key)
        new = rule.update(state, counts=counts.sum(axis=0), loss_weights=c, **signals)
        return (params, opt_state, new), {"weights": state.weights, "losses": losses}

    params = jnp.zeros(3)
    carry = params, optimizer.init(params), rule.init(prior)
    (params, *_), metrics = jax.lax.scan(round_of_steps, carry, jax.random.split(key, num_steps // PROBE_EVERY))
    return metrics | {"last_losses": jax.vmap(_mean_loss, (None, 0))(params, held_out)}


def _measured(shown, params, opt_state, optimizer, c, held_out, reference, key) -> Mapping[str, jax.Array]:
    """Returns the signals on the held-out examples. XLA removes those that the rule does not read."""
    losses = jax.vmap(_losses, (None, 0))(params, held_out)
    per_example = jax.vmap(jax.vmap(jax.grad(lambda p, x, y: jnp.square(x @ p - y)), (None, 0, 0)), (None, 0, 0))
    grads = per_example(params, *held_out)
    means = grads.mean(axis=1)
    signals = {
        "losses": losses.mean(axis=1),
        "loss_vars": losses.var(axis=1, ddof=1),
        "grad_stds": jnp.sqrt(jnp.square(grads - means[:, None]).sum(axis=2).mean(axis=1)),
        "grad_norms": jnp.sqrt(jnp.square(grads).sum(axis=2).mean(axis=1)),
        "reference_losses": reference,
    }
    if shown.extra == "alignment":
        signals |= {"hypergrads": -means @ (jnp.array(TARGET) @ means), "grad_norms": jnp.linalg.norm(means, axis=1)}
    if shown.extra == "hypergrads":
        ids = jnp.broadcast_to(jnp.arange(len(DOMAINS))[:, None], (_INNER_STEPS, len(DOMAINS), 8))
        gradient = hypergrad(_mean_loss, _target_loss, optimizer)
        batches = _examples(key, ids)
        signals["hypergrads"] = gradient(c, params, opt_state, batches, held_out).hypergrads
    return signals

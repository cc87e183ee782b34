"""Trains a language model of bytes on six domains of text, mixed for a seventh that it is not trained on.

The target is Python's language reference by default, which is English prose about code. The training domains hold
English only as verse (Shakespeare) and in code (comments and docstrings of Python's library). The others are C and
three families of other languages. Every method has the same batches, with ``batch_size`` windows of every domain at
each step. The hypergradient sees the target's validation part. All losses reported are those of the test parts.

The weights are judged twice: by the model that was trained while they moved, and by a model that is trained anew, from
the same start and on the same batches, with the mean of the weights over the run.

ERMA is run beside these methods, on a few kilobytes of each domain, where a model can overfit. Its variance of the loss
is measured over sequences, or over bytes as if the bytes of a sequence were independent. Paper 000, section 6, leaves
dependence open.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.fewer_weight_updates import text_claims, text_figure
from experiments.fewer_weight_updates.text_model import Decoder, byte_losses, design_effects, loss_variances
from mixjax import WeightRule, data, mixing, rules
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.runner.loading import load_once
from mixjax.sweeps import HostLoop, HostRun, in_rounds

DOMAINS = ("python", "c", "shakespeare", "european", "cyrillic", "indic")
# Inside Adam's root, whose derivative at 0 is infinite: a byte that was not yet seen has gradient 0.
EPS_ROOT = 1e-10
# Length of an excerpt, in bytes.
EXCERPT = 256
# Number of windows of each domain that ERMA's signals are measured on.
PROBE = 32


@dataclasses.dataclass(frozen=True)
class Text:
    """Sets one method on one model.

    Attributes:
        method: the method that moves the weights. Both ``erma`` read held-out losses of the training domains.
        T: steps a round.
        rounds_per_update: rounds from one update of the weights to the next.
        domains: names of ``mixjax.data.load_text`` to train on.
        target: name of the domain whose loss is to be low.
        train_bytes: number of bytes used of each domain's training part, a multiple of 256; 0 for all.
        layers: number of the decoder's layers.
        width: width of the decoder.
        heads: number of the decoder's attention heads.
        length: number of bytes that the decoder reads.
        batch_size: number of windows of each domain in a step.
        val_batch_size: number of windows of the target at an update of the weights.
        test_windows: number of windows of each domain that losses are measured on.
        num_steps: ``N``, the number of training steps.
        num_records: how often the target's loss is measured, at equal intervals of a multiple of
            ``T * rounds_per_update`` steps.
        learning_rate: learning rate of Adam.
        step_size: step size of mirror descent.
        doge_step_size: step size of DoGE.
        gamma1: ``gamma1`` of ERMA.
        gamma2: ``gamma2`` of ERMA.
    """

    method: Literal["uniform", "hypergradient", "alignment", "doge", "erma_sequences", "erma_bytes"] = "uniform"
    T: int = 16
    rounds_per_update: int = 1
    domains: tuple[str, ...] = DOMAINS
    target: str = "reference"
    train_bytes: int = 0
    layers: int = 1
    width: int = 32
    heads: int = 2
    length: int = 32
    batch_size: int = 4
    val_batch_size: int = 16
    test_windows: int = 128
    num_steps: int = 512
    num_records: int = 8
    learning_rate: float = 0.01
    step_size: float = 1.0
    doge_step_size: float = 0.1
    gamma1: float = 2.0
    gamma2: float = 10.0

    def __post_init__(self):
        """Raises a ValueError for numbers that do not fit, or a target to train on."""
        if self.num_steps % (self.num_records * self.T * self.rounds_per_update):
            raise ValueError(
                "num_steps must be a multiple of num_records * T * rounds_per_update = "
                f"{self.num_records * self.T * self.rounds_per_update}, got {self.num_steps}."
            )
        if self.train_bytes % EXCERPT:
            raise ValueError(f"train_bytes must be a multiple of {EXCERPT}, got {self.train_bytes}.")
        if self.target in self.domains:
            raise ValueError(f"target must not be among the domains, got {self.target!r}.")

    @property
    def steps(self) -> range:
        """Returns the steps after which the target's loss is measured."""
        interval = self.num_steps // self.num_records
        return range(interval, self.num_steps + 1, interval)

    @property
    def blocks(self) -> list[int]:
        """Returns the block lengths of the design effects: the powers of 2 that divide ``length``."""
        return [2**i for i in range(self.length.bit_length()) if self.length % 2**i == 0]


class Texts(NamedTuple):
    """Holds one part of every domain and of the target, uint8 ``[number of bytes]`` each."""

    domains: tuple[jax.Array, ...]
    target: jax.Array


def load(config: Text) -> dict[str, Texts]:
    """Loads the three parts of all texts: ``train``, ``validation`` and ``test``."""
    return _load(config.domains, config.target, config.train_bytes)


@load_once
def _load(domains: Sequence[str], target: str, train_bytes: int) -> dict[str, Texts]:
    # What is held out stays as it was when the claims were judged, with the few runs that it shares with training.
    texts = {name: data.load_text(name, separate=False) for name in (*domains, target)}
    parts = {
        part: Texts(tuple(getattr(texts[name], part) for name in domains), getattr(texts[target], part))
        for part in ("train", "validation", "test")
    }
    if train_bytes:
        short = tuple(excerpts(text, train_bytes // EXCERPT) for text in parts["train"].domains)
        parts["train"] = parts["train"]._replace(domains=short)
    return parts


def excerpts(text: np.ndarray, number: int) -> np.ndarray:
    """Cuts ``number`` pieces of 256 bytes out of a text, at equal distances from its beginning to its end."""
    starts = np.linspace(0, len(text) - EXCERPT, number).astype(int)
    return np.concatenate([text[start : start + EXCERPT] for start in starts])


def draw(key: jax.Array, texts: Sequence[jax.Array], length: int, batch_size: int) -> jax.Array:
    """Draws windows of every domain, ``[D, batch_size, length + 1]``."""
    keys = jax.random.split(key, len(texts))
    return jnp.stack([data.windows(k, text, length + 1, batch_size) for k, text in zip(keys, texts, strict=True)])


def rule_of(config: Text) -> WeightRule:
    """Returns the rule of the method."""
    return {
        "uniform": rules.fixed(),
        "hypergradient": rules.mirror_descent(config.step_size),
        "alignment": rules.mirror_descent(config.step_size),
        "doge": rules.doge(config.doge_step_size),
        "erma_sequences": rules.erma(config.gamma1, config.gamma2),
        "erma_bytes": rules.erma(config.gamma1, config.gamma2),
    }[config.method]


def mode_of(config: Text) -> str | None:
    """Returns the mode of the method's hypergradient, or None if it has none."""
    return {"hypergradient": "reverse", "alignment": "alignment", "doge": "alignment"}.get(config.method)


def start(config: Text, key: jax.Array) -> tuple[Any, Any, optax.GradientTransformation]:
    """Returns the model's graph, its first parameters and its optimizer."""
    model = Decoder(config.layers, config.width, config.heads, config.length, rngs=nnx.Rngs(key))
    return *nnx.split(model), optax.adam(config.learning_rate, b2=0.99, eps_root=EPS_ROOT)


def losses_of(graphdef: Any) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns the function ``losses(params, windows)`` of a model: see ``byte_losses``."""
    return lambda params, windows: byte_losses(nnx.merge(graphdef, params), windows)


def fit_of(
    config: Text, graphdef: Any, optimizer: optax.GradientTransformation, parts: Mapping[str, Texts], key: jax.Array
) -> Callable[..., mixing.MixingState]:
    """Returns ``fit(rule, state, **how)``, which is ``mixing.fit`` on these texts with the signals of the method."""
    losses = losses_of(graphdef)

    def loss(params, windows):
        return losses(params, windows).mean()

    def batch(key):
        return draw(key, parts["train"].domains, config.length, config.batch_size)

    def val_batch(key):
        return data.windows(key, parts["validation"].target, config.length + 1, config.val_batch_size)

    def grad_norms(state, key):
        grads = jax.vmap(jax.grad(loss), (None, 0))(state.params, batch(key))
        return {"grad_norms": jax.vmap(optax.tree.norm)(grads)}

    def held_out(state, key):
        values = jax.vmap(losses, (None, 0))(state.params, draw(key, parts["validation"].domains, config.length, PROBE))
        of_sequences, of_bytes = loss_variances(values)
        return {
            "counts": jnp.full(len(values), PROBE),
            "losses": values.mean(axis=(1, 2)),
            "loss_vars": of_sequences if config.method == "erma_sequences" else of_bytes,
        }

    def fit(rule, state, **how):
        return mixing.fit(loss, loss, optimizer, rule, batch, val_batch, state, key, **how)[0]

    measured = {"doge": grad_norms, "erma_sequences": held_out, "erma_bytes": held_out}
    return functools.partial(fit, signals=measured[config.method]) if config.method in measured else fit


def train(run: HostRun, config: Text) -> dict[str, np.ndarray]:
    """Trains one seed while the weights move, then anew with their mean.

    Both are cut where the target's loss is measured, and saved there: a run that is killed goes on.

    Args:
        run: the seed, and the texts.
        config: the settings.

    Returns:
        Metrics ``[step, ...]`` of the first training, and others of the end of both.
    """
    names = "init", "fit", "test", "target", "train"
    keys = dict(zip(names, jax.random.split(jax.random.key(run.seed), len(names)), strict=True))
    parts = jax.tree.map(jnp.asarray, run.data)

    def half(number):
        return run._replace(report=lambda done: run.report((number + done) / 2))

    def advance(state, number):
        state = _advance(state, keys["fit"], parts, config)
        loss = _target_loss(state.params, keys["target"], parts, config)
        return state, {"target_loss": loss, "weights": state.rule_state.weights}

    def advance_anew(state, number):
        return _advance_anew(state, keys["fit"], parts, config), {}

    rule = rule_of(config)
    moved, records = in_rounds(half(0), lambda: _start(keys["init"], rule, config), advance, config.num_records)
    fixed = rules.fixed(moved.mean_weights)
    again, _ = in_rounds(
        half(1), lambda: _start(keys["init"], fixed, config), advance_anew, config.num_records, name="anew"
    )
    return records | {
        "mean_weights": moved.mean_weights,
        "retrained_loss": _target_loss(again.params, keys["target"], parts, config),
        **_tested(moved.params, keys["test"], keys["train"], parts, config),
    }


def _start(key: jax.Array, rule: WeightRule, config: Text) -> mixing.MixingState:
    _, params, optimizer = start(config, key)
    return mixing.init_state(params, optimizer, jnp.ones(len(config.domains)), rule)


# One program for all seeds, since the settings are static.
_program = functools.partial(jax.jit, static_argnames="config")


@_program
def _advance(state: mixing.MixingState, key: jax.Array, parts: Mapping[str, Texts], config: Text) -> mixing.MixingState:
    """Takes the steps until the target's loss is measured, while the weights move."""
    fit = fit_of(config, *_net(config), parts, key)
    how = {"T": config.T, "rounds_per_update": config.rounds_per_update, "mode": mode_of(config)}
    return fit(rule_of(config), state, num_steps=config.num_steps // config.num_records, **how)


@_program
def _advance_anew(state: mixing.MixingState, key: jax.Array, parts: Mapping[str, Texts], config: Text):
    """Takes as many steps with the weights of the state, which stay as they are."""
    num_steps = config.num_steps // config.num_records
    return fit_of(config, *_net(config), parts, key)(rules.fixed(), state, num_steps=num_steps, T=num_steps, mode=None)


@_program
def _target_loss(params: Any, key: jax.Array, parts: Mapping[str, Texts], config: Text) -> jax.Array:
    windows = data.windows(key, parts["test"].target, config.length + 1, config.test_windows)
    return losses_of(_net(config)[0])(params, windows).mean()


@_program
def _tested(params: Any, test_key, train_key, parts: Mapping[str, Texts], config: Text) -> dict[str, jax.Array]:
    """Measures a model on all domains, on what was held out and on what it was trained on."""
    losses = losses_of(_net(config)[0])
    test = draw(test_key, parts["test"].domains, config.length, config.test_windows)
    seen = draw(train_key, parts["train"].domains, config.length, config.test_windows)
    tested, trained = jnp.split(jax.lax.map(lambda windows: losses(params, windows), jnp.concatenate([test, seen])), 2)
    return {
        "test_losses": tested.mean(axis=(1, 2)),
        "train_losses": trained.mean(axis=(1, 2)),
        "design_effects": design_effects(tested, config.blocks),
    }


def _net(config: Text) -> tuple[Any, optax.GradientTransformation]:
    """Returns the model's graph and its optimizer."""
    graphdef, _, optimizer = start(config, jax.random.key(0))
    return graphdef, optimizer


def text(config: Text) -> Experiment:
    """Builds the experiment of one method on one model."""
    losses = ("target_loss", "retrained_loss", "test_losses", "train_losses")
    return Experiment(
        train=HostLoop(lambda run: train(run, configs.replace(config, run.hparams))),
        data=load(config),
        dims={
            "target_loss": ("step",),
            "retrained_loss": (),
            "test_losses": ("domain",),
            "train_losses": ("domain",),
            "weights": ("step", "domain"),
            "mean_weights": ("domain",),
            "design_effects": ("domain", "block"),
        },
        coords={"step": list(config.steps), "domain": list(config.domains), "block": config.blocks},
        units=dict.fromkeys(losses, "nats/byte") | dict.fromkeys(("weights", "mean_weights", "design_effects"), "1"),
        figure=text_figure.figure,
        claims=text_claims.claims,
    )

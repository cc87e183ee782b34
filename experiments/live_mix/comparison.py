"""Compares mixing methods on a language model of real text, at equal steps or at equal processor time.

Each run is one compiled program. It draws as a live plan of lag 1 does (:mod:`experiments.shared.device_plan`), and
trains all models that a method asks for: DoReMi's reference and proxy, DoGE's proxy. Domains are cut so that a run
passes ``repetition`` times over all of them together. A method that draws small domains often repeats them, as it would
in a run a thousand times as large.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments.live_mix.comparison_claims import claims
from experiments.live_mix.comparison_figure import figure
from experiments.live_mix.methods import METHODS, Settings, check_domains, check_run, prior_of, rules_of
from experiments.live_mix.stages import NUM_EVALUATIONS, Corpus, Model, Moving, Trained, train_stage
from mixjax import data, design, live, rules
from mixjax.checks import check_integer, check_positive, check_range
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.runner.loading import load_once

__all__ = ["Comparison", "comparison", "load", "train"]

BYTES = 256
"""The number of different bytes, which as a size of the vocabulary means texts of bytes."""


@dataclasses.dataclass(frozen=True)
class Comparison(Settings):
    """Holds the settings of a run, besides those of the methods.

    Attributes:
        method: a name of :data:`experiments.live_mix.methods.METHODS`.
        domains: the domains to train on.
        target: the domain of which only test losses are measured.
        vocabulary: number of tokens of the files that ``mixjax data tokens --vocabulary`` makes; 256 for bytes.
        length: tokens of a row.
        batch_size: rows of a step.
        num_steps: optimizer steps of each model, a multiple of 10.
        full_steps: steps of the longest run that is compared, for which domains are cut; 0 for ``num_steps``.
        repetition: how often a run of ``full_steps`` passes over all domains together.
        layers: blocks of the decoder.
        width: width of the decoder.
        proxy_width: width of the models that only choose weights.
        heads: heads of the attention.
        learning_rate: the highest one, after the warm-up.
        warmup: share of the steps in which the learning rate rises.
        clip: largest norm of a gradient.
        probe_size: held-out rows of each domain that ERMA and VA read.
        law_size: held-out rows of each domain that Aioli reads.
        eval_size: test rows of each domain, drawn anew for each seed.
    """

    method: str = "uniform"
    domains: tuple[str, ...] = ("help", "manpages", "linux", "linux-docs", "rust", "perl", "services", "dictionary")
    target: str = "bible"
    vocabulary: int = 1024
    length: int = 32
    batch_size: int = 16
    num_steps: int = 600
    full_steps: int = 0
    repetition: float = 1.0
    layers: int = 1
    width: int = 32
    proxy_width: int = 16
    heads: int = 4
    learning_rate: float = 3e-2
    warmup: float = 0.05
    clip: float = 1.0
    probe_size: int = 4
    law_size: int = 4
    eval_size: int = 64

    def __post_init__(self):
        """Raises a ValueError for settings out of their range, or that do not go together."""
        super().__post_init__()
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}.")
        method = METHODS[self.method]
        check_domains(self.domains)
        if self.target in self.domains:
            raise ValueError(f"target must not be among the domains, got {self.target!r}.")
        if self.num_steps <= 0 or self.num_steps % NUM_EVALUATIONS:
            raise ValueError(f"num_steps must be a positive multiple of {NUM_EVALUATIONS}, got {self.num_steps}.")
        for name in ("length", "batch_size", "width", "proxy_width", "heads", "eval_size", "law_size"):
            check_integer(name, getattr(self, name), 1)
        for name in ("full_steps", "layers"):
            check_integer(name, getattr(self, name), 0)
        # One row has no variance.
        check_integer("probe_size", self.probe_size, 2)
        for name in ("repetition", "learning_rate", "clip"):
            check_positive(name, getattr(self, name))
        check_range("warmup", self.warmup, 0.0, 1.0)
        if not 2 <= self.vocabulary <= _MAX_VOCABULARY:
            raise ValueError(f"vocabulary must be from 2 to {_MAX_VOCABULARY}, got {self.vocabulary}.")
        for name in ("width", "proxy_width"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} must be a multiple of heads = {self.heads}, got {getattr(self, name)}.")
        if method.reads == "alignments" and self.batch_size % len(self.domains):
            raise ValueError(
                f"batch_size must be a multiple of the {len(self.domains)} domains for {method.title}, "
                f"got {self.batch_size}."
            )
        check_run(method, self, self.num_steps, len(self.domains))

    @property
    def steps(self) -> list[int]:
        """Returns the steps after which losses are measured."""
        interval = self.num_steps // NUM_EVALUATIONS
        return list(range(interval, self.num_steps + 1, interval))

    @property
    def budget(self) -> int:
        """Returns the rows of the longest run."""
        return (self.full_steps or self.num_steps) * self.batch_size


# Rows are kept as uint16.
_MAX_VOCABULARY = 2**16
# Rows of each domain that test and validation rows are drawn from.
_POOL = 2048


def load(config: Comparison) -> Corpus:
    """Loads the rows of all domains, and cuts the training rows to what the run's budget asks for."""
    return _load(
        config.domains,
        config.target,
        config.vocabulary,
        config.length,
        repetition=config.repetition,
        budget=config.budget,
    )


@load_once
def _load(
    domains: tuple[str, ...], target: str, vocabulary: int, length: int, *, repetition: float, budget: int
) -> Corpus:
    def parts(name):
        if vocabulary == BYTES:
            return data.load_text(name)
        return data.load_tokens(name, vocabulary_size=vocabulary)

    texts = {name: parts(name) for name in (*domains, target)}

    def rows(name, part):
        return live.windows(getattr(texts[name], part), length, overlap=1)

    def pool(name, part):
        found = rows(name, part)
        return found[np.random.default_rng(0).integers(len(found), size=_POOL)]

    sizes = [len(rows(name, "train")) for name in domains]
    cut = design.proxy_sizes(sizes, max(sum(sizes) * repetition, budget), budget)
    train = tuple(
        rows(name, "train")[design.subset(size, int(num), seed=i)].astype(np.uint16)
        for i, (name, size, num) in enumerate(zip(domains, sizes, cut, strict=True))
    )
    return Corpus(
        train,
        np.stack([pool(name, "validation") for name in domains]).astype(np.uint16),
        np.stack([pool(name, "test") for name in (*domains, target)]).astype(np.uint16),
    )


def train(key: jax.Array, config: Comparison, corpus: Corpus, prior: ArrayLike | None = None) -> dict[str, jax.Array]:
    """Trains one seed of one method, with all its stages.

    Args:
        key: a random key.
        config: the settings.
        corpus: the rows, from :func:`load`.
        prior: ``[D]``, the mix that the weights start from, and that a static method keeps; None for the method's own.

    Returns:
        A dict of:

        - ``loss`` ``[step, domain]`` and ``target_loss`` ``[step]``, test losses in nats per token;
        - ``validation_loss`` ``[domain]`` at the end, by which settings are chosen;
        - ``loss_weight`` and ``sampling_weight`` ``[step, domain]``, means over the steps since the last evaluation;
        - ``epochs`` ``[domain]``, how often the last model passed over each domain;
        - ``least_effective_domains``, the least effective number of domains that any stage's loss weights had.
    """
    method = METHODS[config.method]
    sizes = [len(rows) for rows in corpus.train]
    if prior is None:
        prior = prior_of(method, config, sizes, config.budget)
    validation_key, proxy_key, reference_key, key = jax.random.split(key, 4)
    if method.stages == 1:
        trained = _stage(key, config, corpus, _moving(config, prior), config.eval_size)
        least = trained.least_domains
    else:
        proxy = _proxy(proxy_key, reference_key, config, corpus, prior)
        trained = _stage(key, config, corpus, _static(proxy.mean_weights), config.eval_size)
        least = jnp.minimum(proxy.least_domains, trained.least_domains)
    which = jax.random.randint(validation_key, (len(sizes), config.eval_size), 0, _POOL)
    validation = jnp.take_along_axis(jnp.asarray(corpus.validation), which[..., None], axis=1)
    return {
        **trained.history,
        "validation_loss": jax.lax.map(lambda rows: trained.row_losses(rows).mean(), validation),
        "epochs": trained.drawn / jnp.array(sizes, jnp.float32),
        "least_effective_domains": least,
    }


def _proxy(key: jax.Array, reference_key: jax.Array, config: Comparison, corpus: Corpus, prior: ArrayLike) -> Trained:
    """Trains the models that choose the weights of the last one; nothing is evaluated.

    A step of a proxy uses the weights from before its update, as everywhere in this comparison. The mean over the run,
    which the last model takes, is shifted by one step where a paper's algorithm uses the new weights at once.
    """
    small = dataclasses.replace(config, width=config.proxy_width)
    moving = _moving(config, prior)
    if moving.reads == "reference losses":
        reference = _stage(reference_key, small, corpus, _static(prior), eval_size=0)
        moving = moving._replace(reference=reference.row_losses)
    return _stage(key, small, corpus, moving, eval_size=0)


def _moving(config: Comparison, prior: ArrayLike) -> Moving:
    method = METHODS[config.method]
    loss_rule, sampling_rule = rules_of(method, config, config.num_steps)
    is_law = method.reads == "same held-out losses"
    return Moving(
        loss_rule,
        sampling_rule,
        prior,
        method.reads,
        method.reads_spreads,
        method.interval(config),
        config.law_size if is_law else config.probe_size,
    )


def _static(weights: ArrayLike) -> Moving:
    return Moving(None, rules.fixed(), weights)


def _stage(key: jax.Array, config: Comparison, corpus: Corpus, moving: Moving, eval_size: int) -> Trained:
    model = Model(
        config.layers,
        config.width,
        config.heads,
        config.vocabulary,
        config.learning_rate,
        config.warmup,
        config.clip,
    )
    return train_stage(
        key,
        model,
        moving,
        corpus,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        eval_size=eval_size,
    )


def comparison(config: Comparison) -> Experiment:
    """Makes the experiment of one method."""
    losses = {"loss": ("step", "domain"), "target_loss": ("step",), "validation_loss": ("domain",)}
    weights = {"loss_weight": ("step", "domain"), "sampling_weight": ("step", "domain")}
    return Experiment(
        train=lambda key, hparams, corpus: train(key, configs.replace(config, hparams), corpus),
        data=load(config),
        dims=losses | weights | {"epochs": ("domain",), "least_effective_domains": ()},
        coords={"step": config.steps, "domain": list(config.domains)},
        units=dict.fromkeys(losses, "nats per token")
        | dict.fromkeys(weights, "share")
        | {"epochs": "1", "least_effective_domains": "domains"},
        figure=figure,
        claims=claims,
    )

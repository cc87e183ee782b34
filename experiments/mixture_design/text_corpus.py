"""Describes the design of a mixture for real text: its settings, and the rows that small and large runs see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from experiments.shared.token_training import Proxy, Rows
from mixjax import data, design, live

__all__ = ["Corpus", "Text", "load_corpus", "rows_of"]


@dataclasses.dataclass(frozen=True)
class Text:
    """Holds the settings.

    Attributes:
        domains: names of :data:`mixjax.data.TEXT_DOMAINS`, or for ``bpe`` of :func:`mixjax.data.token_domains`.
        target: a domain that is tested and never trained on; "" for none.
        tokens: ``bytes``, or the pieces of words of the files that ``mixjax data tokens`` makes, ``bpe``.
        folder: the folder of these files; "" for the one in the cache.
        length: tokens of a row.
        repetition: how often the big run will draw as many rows as there are. A proxy sees so few rows of each domain
            that it repeats them as often.
        max_epochs: the most passes over a domain that any mixture of the swarm, or proposed by it, may need.
        eval_size: test rows of each domain.
        num_mixtures: mixtures of the swarm.
        repeats: runs of each of them.
        all_rows_repeats: runs of each mixture that draw from all rows, and so never repeat any.
        fresh_seeds: runs of the proposal and of each mixture it is compared with, at the size of the proxies.
        large_seeds: the same at the large size; 0 leaves the large size out.
        num_transfer: mixtures of the swarm that are trained at the large size too, a run each.
        grid_domains: three domains for which a whole grid of mixtures is trained.
        grid_steps: parts into which the grid cuts the simplex; n give (n + 1)(n + 2) / 2 mixtures, of which those
            within ``max_epochs`` are trained.
        grid_swarm: mixtures of the swarm of these three domains.
        num_finalists: the best mixtures of the grid, which are trained again.
        final_seeds: runs of each finalist and of the proposal for the three domains.
        batch_size: rows of a step of a proxy.
        num_steps: steps of a proxy.
        layers: blocks of a proxy.
        width: width of a proxy.
        heads: heads of its attention.
        learning_rate: the highest one of a proxy.
        large_batch_size: rows of a step at the large size, and so on.
        large_num_steps: see ``num_steps``.
        large_layers: see ``layers``.
        large_width: see ``width``.
        large_heads: see ``heads``.
        large_learning_rate: see ``learning_rate``.
    """

    domains: tuple[str, ...] = ("python", "c", "reference")
    target: str = ""
    tokens: Literal["bytes", "bpe"] = "bytes"
    folder: str = ""
    length: int = 32
    repetition: float = 4.0
    max_epochs: float = 16.0
    eval_size: int = 128
    num_mixtures: int = 32
    repeats: int = 2
    all_rows_repeats: int = 1
    fresh_seeds: int = 8
    large_seeds: int = 0
    num_transfer: int = 0
    grid_domains: tuple[str, ...] = ("python", "c", "reference")
    grid_steps: int = 5
    grid_swarm: int = 16
    num_finalists: int = 3
    final_seeds: int = 8
    batch_size: int = 16
    num_steps: int = 200
    layers: int = 1
    width: int = 16
    heads: int = 2
    learning_rate: float = 0.03
    large_batch_size: int = 32
    large_num_steps: int = 800
    large_layers: int = 2
    large_width: int = 56
    large_heads: int = 4
    large_learning_rate: float = 0.01

    @property
    def metrics(self) -> tuple[str, ...]:
        """Returns the domains on which a run is tested."""
        return (*self.domains, self.target) if self.target else self.domains

    def limits(self, shares: np.ndarray) -> np.ndarray:
        """Returns the largest share of each domain, by its natural share and the number of passes that is allowed."""
        return np.minimum(shares * self.max_epochs / self.repetition, 1.0)

    @property
    def small(self) -> Proxy:
        """Returns the settings of a proxy."""
        return Proxy(self.width, self.layers, self.heads, self.batch_size, self.num_steps, self.learning_rate)

    @property
    def large(self) -> Proxy:
        """Returns the settings of a run at the large size."""
        return Proxy(
            self.large_width,
            self.large_layers,
            self.large_heads,
            self.large_batch_size,
            self.large_num_steps,
            self.large_learning_rate,
        )


class Corpus(NamedTuple):
    """Holds the text of an experiment.

    Attributes:
        train: domain -> ``[rows, length + 1]``, views of the texts.
        test: domain -> ``[eval_size, length + 1]``, the target's among them.
        vocabulary: number of different tokens.
    """

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    vocabulary: int

    def shares(self, domains: Sequence[str]) -> np.ndarray:
        """Returns the domains' natural shares, by their numbers of rows."""
        sizes = np.array([len(self.train[name]) for name in domains], np.float64)
        return sizes / sizes.sum()


def load_corpus(config: Text) -> Corpus:
    """Loads the texts, and draws the test rows, the same for all runs."""
    train, test, vocabulary = {}, {}, 256
    names = dict.fromkeys((*config.domains, *config.grid_domains, *config.metrics))
    for number, name in enumerate(names):
        if config.tokens == "bytes":
            text = data.load_text(name)
        else:
            text = data.load_tokens(name, folder=config.folder or None)
            vocabulary = text.vocabulary.size
        if name != config.target:
            train[name] = live.windows(text.train, config.length, overlap=1)
        rows = live.windows(text.test, config.length, overlap=1)
        test[name] = rows[np.random.default_rng([0, number]).integers(len(rows), size=config.eval_size)]
    return Corpus(train, test, vocabulary)


def rows_of(
    corpus: Corpus, domains: Sequence[str], metrics: Sequence[str], proxy: Proxy, repetition: float | None
) -> tuple[Rows, tuple[int, ...]]:
    """Cuts the training rows of each domain as a run is to see them.

    Args:
        corpus: the text.
        domains: the domains that are mixed.
        metrics: the domains that are tested.
        proxy: the settings, which say how many rows a run draws.
        repetition: how often the big run draws as many rows as there are, for simulated epochs. None gives so many rows
            that no run draws one twice, where the domain has them.

    Returns:
        The rows, and the number of training rows of each domain.
    """
    sizes = np.array([len(corpus.train[name]) for name in domains])
    if repetition is None:
        kept = np.minimum(sizes, proxy.num_rows)
    else:
        kept = design.proxy_sizes(sizes, budget_big=repetition * sizes.sum(), budget_proxy=proxy.num_rows)
    chosen = {
        name: corpus.train[name][design.subset(size, num, seed)]
        for seed, (name, size, num) in enumerate(zip(domains, sizes.tolist(), kept.tolist(), strict=True))
    }
    return Rows.of(chosen, {name: corpus.test[name] for name in metrics}), tuple(kept.tolist())

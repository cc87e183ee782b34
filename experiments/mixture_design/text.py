"""Designs a mixture for real text, from the text to a mixture with error bars in one command, and tests the method.

``mixjax run configs/mixture_design/text.toml`` goes through these stages, each of them a sweep that is resumed:

1. a swarm of proxies with simulated epochs, a law, and a proposal;
2. the same swarm without simulated epochs, for the proposal that it would lead to;
3. the proposal and the mixtures that need no design, on fresh paired seeds;
4. all mixtures of a grid of three domains, for what the proposal of a small swarm loses to the best of them;
5. the comparison of 3, and a part of the swarm, at a larger size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import mixjax
from experiments.mixture_design.text_analysis import CANDIDATES, LARGE_CANDIDATES, proposal_of
from experiments.mixture_design.text_corpus import Corpus, Text, load_corpus, rows_of
from experiments.mixture_design.text_figure import figure
from experiments.mixture_design.text_page import summary
from experiments.mixture_design.text_results import claims
from experiments.shared.token_training import Proxy, train
from mixjax import design
from mixjax.design.report import write_design
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop, HostRun

__all__ = ["Text", "designed", "text"]

# Seeds of runs on which a mixture is judged are far from those on which it is chosen.
_FRESH, _FINAL = 10_000, 20_000


class _Runner:
    """Trains lists of mixtures, each as one sweep, and tells how much of all is done."""

    def __init__(self, run: HostRun, config: Text, corpus: Corpus):
        self.run, self.config, self.corpus = run, config, corpus
        self.done, self.total = 0.0, _total_cost(config)

    def losses(
        self,
        name: str,
        mixtures: np.ndarray,
        seeds: int,
        *,
        domains: Sequence[str],
        metrics: Sequence[str],
        proxy: Proxy,
        repetition: float | None,
        first_seed: int | None = None,
    ) -> np.ndarray:
        """Trains each mixture with several seeds; returns the test losses ``[mixtures, seeds, metrics]``.

        With a ``first_seed`` all mixtures have the same seeds. Without it each run has a seed of its own: a law is
        fitted through runs whose noise is independent.
        """
        rows, sizes = rows_of(self.corpus, domains, metrics, proxy, repetition)
        numbers = 1.0 + np.arange(len(mixtures)) if first_seed is None else np.zeros(len(mixtures))
        cost = _cost(proxy)

        def report(done, total):
            self.run.report(min((self.done + cost * done) / self.total, 1.0))

        found = mixjax.sweep(
            _train_function(sizes, proxy, self.corpus.vocabulary),
            seeds=seeds,
            first_seed=first_seed or 0,
            points={"mixture": mixtures.tolist(), "number": numbers},
            data=rows,
            vectorize="map",
            checkpoint=self.run.scratch / name,
            callback=report,
        )
        self.done += cost * len(mixtures) * seeds
        return found.loss.values


# Stages that differ only in their mixtures and seeds share a compiled program, which goes by its function.
@functools.lru_cache(maxsize=8)
def _train_function(sizes: tuple[int, ...], proxy: Proxy, vocabulary: int) -> Callable:
    def train_one(key, hparams, data):
        key = jax.random.fold_in(key, hparams["number"].astype(int))
        return {"loss": train(key, hparams["mixture"], data, sizes=sizes, proxy=proxy, vocabulary=vocabulary)}

    return train_one


def designed(run: HostRun, config: Text) -> dict[str, np.ndarray]:
    """Goes through all stages; the design itself is in the folder ``design`` of the run's files.

    Returns:
        Metrics by name: mixtures ``[..., domain]``, and test losses ``[..., seeds, domain]`` in nats per token.
    """
    corpus = load_corpus(config)
    runner = _Runner(run, config, corpus)
    prior = corpus.shares(config.domains)
    common: dict[str, Any] = {"domains": config.domains, "metrics": config.metrics}
    small: dict[str, Any] = {**common, "proxy": config.small, "repetition": config.repetition}

    limits = config.limits(prior)
    mixtures = design.swarm(prior, config.num_mixtures, max_share=limits, seed=run.seed)
    losses = runner.losses("swarm", mixtures, config.repeats, **small)
    proposal = proposal_of(mixtures, losses, config.domains, config.metrics, prior, limits)
    write_design(run.files / "design", proposal, source="proxies with simulated epochs")
    flat = design.as_swarm(
        mixtures.repeat(config.repeats, axis=0), _flat(losses), domains=config.domains, metrics=config.metrics
    )
    design.write_tables(flat, run.files / "design" / "ratios.csv", run.files / "design" / "metrics.csv")

    all_rows = runner.losses("all_rows", mixtures, config.all_rows_repeats, **small | {"repetition": None})
    repeated_wrongly = proposal_of(mixtures, all_rows, config.domains, config.metrics, prior, limits)
    candidates = design.candidates(proposal, {"all_rows": repeated_wrongly.weights})
    # Where no limit cuts the uniform mixture, it is UniMax's too.
    candidates = {"unimax": candidates["uniform"]} | candidates
    candidate_mixtures = np.stack([candidates[name] for name in CANDIDATES])
    fresh = runner.losses("candidates", candidate_mixtures, config.fresh_seeds, first_seed=_FRESH, **small)

    metrics = {
        "prior": prior,
        "limit": limits,
        "mixture": mixtures,
        "loss": losses,
        "all_rows_loss": all_rows,
        "candidate_mixture": candidate_mixtures,
        "candidate_loss": fresh,
    }
    metrics |= _three_domains(runner, config, run.seed)
    if config.large_seeds:
        large = {**common, "proxy": config.large, "repetition": config.repetition}
        chosen = np.stack([candidates[name] for name in LARGE_CANDIDATES])
        metrics["large_loss"] = runner.losses("large", chosen, config.large_seeds, first_seed=_FRESH, **large)
        # Mixtures from the best to the worst, evenly by rank.
        order = np.argsort(losses[..., : len(prior)].mean(axis=(1, 2)))
        places = order[np.linspace(0, len(order) - 1, config.num_transfer).round().astype(int)]
        metrics["transfer_place"] = places
        metrics["transfer_loss"] = runner.losses("transfer", mixtures[places], 1, **large)[:, 0]
    return {name: np.asarray(values) for name, values in metrics.items()}


def _three_domains(runner: _Runner, config: Text, seed: int) -> dict[str, np.ndarray]:
    """Trains a grid of mixtures of three domains, proposes from a small swarm, and trains the best again."""
    names = config.grid_domains
    three: dict[str, Any] = {"domains": names, "metrics": names, "proxy": config.small, "repetition": config.repetition}
    prior, n = runner.corpus.shares(names), config.grid_steps
    limits = config.limits(prior)
    grid = np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]) / n
    grid = grid[(grid <= limits + 1e-9).all(axis=1)]
    grid_losses = runner.losses("grid", grid, 1, **three)[:, 0]
    mixtures = design.swarm(prior, config.grid_swarm, max_share=limits, seed=seed)
    losses = runner.losses("three", mixtures, config.repeats, **three)
    proposal = proposal_of(mixtures, losses, names, names, prior, limits)
    best = np.argsort(grid_losses.mean(axis=1))[: config.num_finalists]
    finalists = np.vstack([proposal.weights, grid[best]])
    return {
        "grid_limit": limits,
        "grid_mixture": grid,
        "grid_loss": grid_losses,
        "three_mixture": mixtures,
        "three_loss": losses,
        "finalist_mixture": finalists,
        "finalist_loss": runner.losses("finalists", finalists, config.final_seeds, first_seed=_FINAL, **three),
    }


def _flat(losses: np.ndarray) -> np.ndarray:
    return losses.reshape(-1, losses.shape[-1])


def _cost(proxy: Proxy) -> float:
    """Returns a number that grows like the time of a run."""
    return proxy.num_rows * proxy.layers * (proxy.width + 16.0) ** 1.5


def _total_cost(config: Text) -> float:
    small = config.num_mixtures * (config.repeats + config.all_rows_repeats) + len(CANDIDATES) * config.fresh_seeds
    small += (config.grid_steps + 1) * (config.grid_steps + 2) // 2 + config.grid_swarm * config.repeats
    small += (1 + config.num_finalists) * config.final_seeds
    large = len(LARGE_CANDIDATES) * config.large_seeds + config.num_transfer if config.large_seeds else 0
    return small * _cost(config.small) + large * _cost(config.large)


_DIMS = {
    "prior": ("domain",),
    "limit": ("domain",),
    "mixture": ("mixture_number", "domain"),
    "loss": ("mixture_number", "repeat", "metric"),
    "all_rows_loss": ("mixture_number", "all_rows_repeat", "metric"),
    "candidate_mixture": ("candidate", "domain"),
    "candidate_loss": ("candidate", "fresh_seed", "metric"),
    "grid_limit": ("grid_domain",),
    "grid_mixture": ("grid", "grid_domain"),
    "grid_loss": ("grid", "grid_domain"),
    "three_mixture": ("three", "grid_domain"),
    "three_loss": ("three", "repeat", "grid_domain"),
    "finalist_mixture": ("finalist", "grid_domain"),
    "finalist_loss": ("finalist", "final_seed", "grid_domain"),
}
_LARGE_DIMS = {
    "large_loss": ("large_candidate", "large_seed", "metric"),
    "transfer_place": ("transfer",),
    "transfer_loss": ("transfer", "metric"),
}


def text(config: Text) -> Experiment:
    """Makes the experiment of designing a mixture for real text."""
    dims = _DIMS | (_LARGE_DIMS if config.large_seeds else {})
    token = "byte" if config.tokens == "bytes" else "token"
    coords = {"domain": config.domains, "metric": config.metrics, "grid_domain": config.grid_domains}
    coords |= {"candidate": CANDIDATES} | ({"large_candidate": LARGE_CANDIDATES} if config.large_seeds else {})
    return Experiment(
        train=HostLoop(lambda run: designed(run, configs.replace(config, run.hparams))),
        dims=dims,
        coords={name: list(labels) for name, labels in coords.items()},
        units={name: f"nats per {token}" if name.endswith("loss") else "share" for name in dims},
        figure=figure,
        claims=claims,
        summary=summary,
    )

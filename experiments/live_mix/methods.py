"""Lists the mixing methods that are compared: the rules of each, the mix it starts from, and what its rules read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mixjax import WeightRule, rules
from mixjax.checks import check_integer, check_positive, check_range
from mixjax.numbers import is_concrete
from mixjax.rules.states import CountingState

__all__ = ["METHODS", "Method", "Settings", "check_domains", "check_run", "prior_of", "rules_of"]

Prior = Literal["uniform", "proportional", "temperature", "unimax"]
Reads = Literal[
    "nothing",
    "training losses",
    "held-out losses",
    "same held-out losses",
    "reference losses",
    "alignments",
]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds the settings of all methods; each method reads those that it has.

    Attributes:
        prior: the mix that methods with moving weights start from.
        temperature: exponent of the domains' sizes in the mix "temperature", from 0 to 1.
        max_epochs: how often UniMax repeats a domain at most.
        step_size: step size of group DRO, DoReMi, DoGE and Aioli.
        floor: least share of the prior in weights that move by ERMA, VA, group DRO and DoGE, and in DoReMi's step.
        gamma1: ``gamma1`` of :func:`mixjax.rules.erma`.
        gamma2: ``gamma2`` of :func:`mixjax.rules.erma`.
        decay: weight of the old value in the averages of ODM and Aioli.
        credit: exponent ``s`` of ADO.
        pace: weight ``gamma2`` of the new preference in ADO.
        probe_every: steps between two updates of ERMA and of VA.
        window: steps between two updates of Aioli.
        rounds: probes of each domain in one estimate of Aioli.
        hold: windows between two estimates of Aioli.
        waiting: share of a run in which ODM and ADO learn and the weights stay at the prior.
    """

    prior: Prior = "uniform"
    temperature: float = 0.3
    max_epochs: float = 4.0
    step_size: float = 0.1
    floor: float = 0.1
    gamma1: float = 0.01
    gamma2: float = 0.05
    decay: float = 0.5
    credit: float = 0.5
    pace: float = 0.1
    probe_every: int = 20
    window: int = 10
    rounds: int = 2
    hold: int = 4
    waiting: float = 0.1

    def __post_init__(self):
        """Raises a ValueError for a number out of its range, also where the chosen method does not read it."""
        for name in ("temperature", "floor", "decay", "pace", "waiting"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("step_size", "gamma1", "gamma2", "credit"):
            check_range(name, getattr(self, name), 0.0)
        check_positive("max_epochs", self.max_epochs)
        for name in ("probe_every", "window", "rounds", "hold"):
            check_integer(name, getattr(self, name), 1)


Factory = Callable[[Settings, int], WeightRule]
"""Makes a rule of the settings and the number of updates of a whole run."""


class Method(NamedTuple):
    """Describes a method.

    Attributes:
        title: the name in tables and figures.
        words: what the method does, in a few words.
        prior: the mix that the weights start from, by its own paper; None for that of the settings.
        loss: makes the rule for the loss weights; None where the loss weights are the sampling weights.
        sampling: makes the rule for the sampling weights; None where they stay at the prior.
        reads: which losses or gradients move the weights. "held-out losses" are of rows drawn anew at each update,
            "same held-out losses" of the same rows in all of a run's updates, for a rule that reads differences.
        reads_spreads: whether the sampling rule reads the standard deviation of the gradients of held-out rows.
        every: the field of :class:`Settings` that holds the steps between two updates; None for an update each step.
        stages: models that are trained. Where there are several, the weights move while a proxy is trained, and the
            last model is trained with their mean.
    """

    title: str
    words: str
    prior: Prior | None = None
    loss: Factory | None = None
    sampling: Factory | None = None
    reads: Reads = "nothing"
    reads_spreads: bool = False
    every: str | None = None
    stages: int = 1

    @property
    def moves(self) -> bool:
        """Tells whether any weights move."""
        return self.loss is not None or self.sampling is not None

    def interval(self, settings: Settings) -> int:
        """Returns the number of steps from one update of the rules to the next."""
        return 1 if self.every is None else getattr(settings, self.every)


def _fixed(settings: Settings, num_updates: int) -> WeightRule:
    return rules.fixed()


def _erma(settings: Settings, num_updates: int) -> WeightRule:
    return rules.floor(rules.erma(settings.gamma1, settings.gamma2), settings.floor)


def _va(settings: Settings, num_updates: int) -> WeightRule:
    return rules.floor(rules.variance_aware(), settings.floor)


def _group_dro(settings: Settings, num_updates: int) -> WeightRule:
    return rules.floor(rules.group_dro(settings.step_size), settings.floor)


def _doremi(settings: Settings, num_updates: int) -> WeightRule:
    return rules.doremi(settings.step_size, floor=settings.floor)


def _doge(settings: Settings, num_updates: int) -> WeightRule:
    return rules.floor(rules.doge(settings.step_size), settings.floor)


def _odm(settings: Settings, num_updates: int) -> WeightRule:
    bandit = rules.exp3(settings.decay, reward="perplexity")
    return _at_prior_until(bandit, int(settings.waiting * num_updates))


def _ado(settings: Settings, num_updates: int) -> WeightRule:
    # The authors wait for 1,000 steps, and leave the losses of the first 500 out.
    waiting = int(settings.waiting * num_updates)
    return rules.ado(s=settings.credit, gamma2=settings.pace, count="total", warmup=waiting, skip=waiting // 2)


def _aioli(settings: Settings, num_updates: int) -> WeightRule:
    return rules.aioli(
        settings.step_size, rounds=settings.rounds, hold=settings.hold, decay=settings.decay, restart=True
    )


def _at_prior_until(rule: WeightRule, start: int) -> WeightRule:
    """Keeps the weights at the prior in the first ``start`` updates with news, in which the rule learns all the same.

    :func:`mixjax.rules.every` would keep the rule from learning as well.
    """

    def wrap(inner, step):
        return CountingState(jnp.where(step < start, inner.prior, inner.weights), inner.prior, inner, step)

    def init(prior):
        inner = rule.init(prior)
        # The prior's own buffer may not stand in two fields of a state, which could not be donated then.
        return wrap(inner, jnp.zeros((), jnp.int32))._replace(weights=jnp.copy(inner.prior))

    def update(state, *, counts, **signals):
        inner = rule.update(state.inner, counts=counts, **signals)
        return wrap(inner, state.step + jnp.any(jnp.asarray(counts) > 0).astype(jnp.int32))

    return WeightRule(init, update)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "uniform": Method("uniform", "all domains alike", prior="uniform"),
        "proportional": Method("proportional", "domains by their sizes", prior="proportional"),
        "temperature": Method("temperature", "sizes to a power", prior="temperature"),
        "unimax": Method("UniMax", "uniform, with a limit of epochs", prior="unimax"),
        "erma": Method("ERMA", "loss weights by a bound", loss=_erma, reads="held-out losses", every="probe_every"),
        "erma_va": Method(
            "ERMA + VA",
            "loss weights by a bound, draws by gradient spread",
            loss=_erma,
            sampling=_va,
            reads="held-out losses",
            reads_spreads=True,
            every="probe_every",
        ),
        "va": Method(
            "VA", "draws by gradient spread", loss=_fixed, sampling=_va, reads_spreads=True, every="probe_every"
        ),
        "group_dro": Method("group DRO", "loss weights by high losses", loss=_group_dro, reads="training losses"),
        "doremi": Method(
            "DoReMi", "weights by excess losses of a proxy", loss=_doremi, reads="reference losses", stages=3
        ),
        "doge": Method("DoGE", "weights by a proxy's gradients", loss=_doge, reads="alignments", stages=2),
        "odm": Method("ODM", "draws by a bandit", prior="uniform", sampling=_odm, reads="training losses"),
        "ado": Method("ADO", "draws by scaling laws", prior="proportional", sampling=_ado, reads="training losses"),
        "aioli": Method(
            "Aioli",
            "draws by a mixing law",
            prior="uniform",
            sampling=_aioli,
            reads="same held-out losses",
            every="window",
        ),
    }
)
"""The methods by the names that configs use."""


def check_domains(domains: Sequence[str]) -> None:
    """Raises a ValueError if there is no domain, or if one is named twice.

    Args:
        domains: names of domains.
    """
    if not domains or len(set(domains)) < len(domains):
        raise ValueError(f"domains must be one or more different names, got {', '.join(domains) or 'none'}.")


def check_run(method: Method, settings: Settings, num_steps: int, num_domains: int) -> None:
    """Raises a ValueError if a run is too short for a method's weights to move even once.

    Args:
        method: the method.
        settings: the settings.
        num_steps: optimizer steps of the run.
        num_domains: number of domains.
    """
    if method.every is None:
        return
    interval = method.interval(settings)
    if interval > num_steps:
        raise ValueError(f"{method.every} must be at most num_steps = {num_steps}, got {interval}.")
    if method.every == "window" and is_concrete(settings.rounds):
        # Aioli's first window is one of the mixture, and then each domain has its probes.
        needed = interval * (1 + settings.rounds * num_domains)
        if needed > num_steps:
            raise ValueError(
                f"num_steps must be at least window * (1 + rounds * {num_domains} domains) = {needed} for "
                f"{method.title} to estimate its law once, got {num_steps}."
            )


def prior_of(method: Method, settings: Settings, sizes: ArrayLike, budget: float) -> np.ndarray:
    """Computes the mix that a method starts from; for a static method, the mix that it keeps.

    Args:
        method: the method.
        settings: the settings, with the prior of the methods that do not have one of their own.
        sizes: ``[D]``, rows of each domain.
        budget: rows of the whole run, which UniMax divides.

    Returns:
        float64 ``[D]`` on the simplex.

    Raises:
        ValueError: a domain without rows, or limits of UniMax that leave a part of the budget without rows.
    """
    sizes = np.asarray(sizes, np.float64)
    if not (sizes > 0).all():
        raise ValueError(f"sizes must be positive, got {sizes.tolist()}.")
    name = method.prior or settings.prior
    if name == "unimax":
        needed = budget / sizes.sum()
        # A run that is as long as its rows has limits that add up to 1 but for rounding.
        if settings.max_epochs < needed * (1.0 - 1e-6):
            raise ValueError(
                f"max_epochs must be at least the {needed:.4g} passes of the run over all domains together, "
                f"got {settings.max_epochs:g}."
            )
        limited = rules.cap(rules.fixed(), sizes * settings.max_epochs / budget)
        # A number also where a compiled training asks for it, since sizes and budget are numbers.
        with jax.ensure_compile_time_eval():
            prior = np.asarray(limited.init(np.ones(sizes.size)).weights, np.float64)
    else:
        prior = sizes ** {"uniform": 0.0, "proportional": 1.0, "temperature": settings.temperature}[name]
    return prior / prior.sum()


def rules_of(method: Method, settings: Settings, num_steps: int) -> tuple[WeightRule | None, WeightRule]:
    """Makes the rules of a method for a run of so many steps.

    Args:
        method: the method.
        settings: the settings.
        num_steps: optimizer steps of the run.

    Returns:
        ``(loss_rule, sampling_rule)``; ``loss_rule`` is None where the loss weights are the sampling weights.
    """
    num_updates = num_steps // method.interval(settings)
    loss = None if method.loss is None else method.loss(settings, num_updates)
    return loss, (method.sampling or _fixed)(settings, num_updates)

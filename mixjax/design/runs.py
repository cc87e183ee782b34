"""Checks mixtures and losses, whether they come as arrays, as data frames or from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["Swarm", "as_mixtures", "as_swarm"]

# Published tables have shares of three digits, so that twenty of them may miss 1 by a hundredth.
_SLACK = 0.0101


@dataclasses.dataclass(frozen=True)
class Swarm:
    """Holds the mixtures and losses of the runs of a swarm, checked.

    Attributes:
        mixtures: ``[n, D]``, rows that sum to one.
        losses: ``[n, M]``; lower is better.
        domains: the names of the D domains.
        metrics: the names of the M metrics.
        budgets: ``[n]``, the tokens that each run was trained on; None where they are the same.
    """

    mixtures: np.ndarray
    losses: np.ndarray
    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    budgets: np.ndarray | None = None

    def groups(self, across_budgets: bool = False) -> np.ndarray:
        """Numbers the mixtures: runs that repeat a mixture at the same budget have the same number.

        Args:
            across_budgets: whether runs of a mixture have the same number at all budgets.

        Returns:
            ``[n]``, integers from 0.
        """
        # Shares that were rounded when they were written are the same shares.
        inputs = self.mixtures.round(9)
        if self.budgets is not None and not across_budgets:
            inputs = np.column_stack([inputs, self.budgets])
        return np.unique(inputs, axis=0, return_inverse=True)[1].reshape(-1)

    def log_tokens(self, budgets: np.ndarray) -> np.ndarray:
        """Computes the logarithms of budgets over the reference, the geometric mean of the runs' own."""
        assert self.budgets is not None
        return np.log(budgets) - np.log(self.budgets).mean()

    def inputs(self) -> np.ndarray:
        """Returns what a law takes: the mixtures, and the logarithm of the tokens as one more column if they differ."""
        if self.budgets is None:
            return self.mixtures
        return np.column_stack([self.mixtures, self.log_tokens(self.budgets)])

    def part(self, chosen: np.ndarray) -> Swarm:
        """Returns the swarm of some of the runs.

        Args:
            chosen: ``[n]``, booleans.
        """
        budgets = None if self.budgets is None else self.budgets[chosen]
        return dataclasses.replace(self, mixtures=self.mixtures[chosen], losses=self.losses[chosen], budgets=budgets)


def as_swarm(
    mixtures: Any,
    losses: Any,
    *,
    domains: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    budgets: Any = None,
    mixture_row: Callable[[int], str] | None = None,
    loss_row: Callable[[int], str] | None = None,
    budget_row: Callable[[int], str] | None = None,
) -> Swarm:
    """Checks the mixtures and losses of a swarm, and names what is wrong by row and column.

    Args:
        mixtures: ``[n, D]``, an array or a data frame. Rows that sum to one within 0.01 are normalised.
        losses: ``[n, M]``, the same rows.
        domains: names of the domains; by default the columns of a data frame, or "domain_0" and so on.
        metrics: names of the metrics; by default the columns of a data frame, or "loss_0" and so on.
        budgets: ``[n]``, the tokens that each run was trained on, where they differ.
        mixture_row: how an error calls a row of the mixtures; by default "mixtures, row 3".
        loss_row: how an error calls a row of the losses.
        budget_row: how an error calls a row of the budgets; by default as one of the mixtures.

    Returns:
        The swarm.

    Raises:
        TypeError: entries that are no numbers, or rows of different lengths.
        ValueError: no two axes, other numbers of rows or names, data frames of different indices, a single run, a share
            that is negative or missing, a row that does not sum to one, a loss that is missing or infinite, a domain or
            a metric that never varies, domains that only vary together, names that stand twice, or budgets that are not
            positive or all the same.

    Example:
        >>> import mixjax
        >>> mixtures, losses = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], [[1.0], [0.9], [1.1]]
        >>> swarm = mixjax.design.as_swarm(mixtures, losses, domains=["web", "code"])
        >>> swarm.domains, swarm.metrics, swarm.groups().max().item() + 1
        (('web', 'code'), ('loss_0',), 3)
    """
    _check_index(mixtures, losses)
    shares, values = _numbers("mixtures", mixtures), _numbers("losses", losses)
    domains = _names("domain", mixtures, domains)
    metrics = _names("loss", losses, metrics)
    mixture_row = mixture_row or (lambda i: f"mixtures, row {i}")
    loss_row = loss_row or (lambda i: f"losses, row {i}")
    if len(shares) != len(values):
        raise ValueError(f"mixtures and losses must have a row for each run, got {len(shares)} and {len(values)} rows.")
    for what, array, names in (("domains", shares, domains), ("metrics", values, metrics)):
        if array.shape[1] != len(names):
            raise ValueError(f"{what} must have a name for each column, got {len(names)} for {array.shape[1]}.")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"{what} must have a name each, got {twice!r} twice.")
    shares = _checked_shares(shares, domains, mixture_row)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        found = "missing" if np.isnan(values[row, column]) else "infinite"
        raise ValueError(f"{loss_row(row)}: the loss {metrics[column]!r} is {found}.")
    if len(shares) < 2:
        raise ValueError(f"a law needs several runs of different mixtures, got {len(shares)}.")
    _check_variation(shares, values, domains, metrics)
    return Swarm(shares, values, domains, metrics, _checked_budgets(budgets, len(shares), budget_row or mixture_row))


def as_mixtures(name: str, mixtures: Any, domains: Sequence[str]) -> np.ndarray:
    """Checks mixtures of known domains.

    Args:
        name: the argument as the error calls it.
        mixtures: ``[m, D]``, or one mixture ``[D]``; or a data frame with the domains as columns, in any order.
        domains: their names.

    Returns:
        float64 ``[m, D]``, rows that sum to one.

    Raises:
        TypeError: entries that are no numbers.
        ValueError: another number of domains, a negative or missing share, or a row that does not sum to one.
    """
    if hasattr(mixtures, "columns"):
        absent = [domain for domain in domains if domain not in mixtures.columns]
        if absent:
            raise ValueError(f"{name}: the column {absent[0]!r} is missing.")
        mixtures = mixtures[list(domains)]
    shares = _numbers(name, mixtures, least_dims=2)
    if shares.shape[1] != len(domains):
        raise ValueError(f"{name} must be [m, {len(domains)}], a share per domain, got shape {shares.shape}.")
    return _checked_shares(shares, domains, lambda i: f"{name}, row {i}")


def _checked_budgets(budgets, num, row):
    if budgets is None:
        return None
    try:
        budgets = np.asarray(budgets, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"budgets must be numbers of tokens, got {type(budgets).__name__}.") from None
    if budgets.shape != (num,):
        raise ValueError(f"budgets must be [{num}], a number of tokens per run, got shape {budgets.shape}.")
    bad = np.flatnonzero(~((budgets > 0) & np.isfinite(budgets)))
    if len(bad):
        raise ValueError(
            f"{row(int(bad[0]))}: the budget must be a positive number of tokens, got {budgets[bad[0]]:g}."
        )
    if np.ptp(budgets) == 0:
        raise ValueError(f"budgets must differ between runs, got {budgets[0]:g} for all of them; leave them out.")
    return budgets


def _names(kind, table, names):
    if names is not None:
        return tuple(map(str, names))
    if hasattr(table, "columns"):
        return tuple(map(str, table.columns))
    return tuple(f"{kind}_{i}" for i in range(np.shape(table)[-1] if np.ndim(table) else 0))


def _check_index(mixtures, losses):
    """Refuses two data frames whose rows have other names: by their order they could be those of different runs."""
    if not (hasattr(mixtures, "columns") and hasattr(losses, "columns")):
        return
    # Data frames of other packages may have no index.
    own, others = getattr(mixtures, "index", None), getattr(losses, "index", None)
    if own is not None and others is not None and len(own) == len(others) and list(own) != list(others):
        raise ValueError(
            "mixtures and losses must have the same index; sort both by it, or take reset_index(drop=True) of both if "
            "their rows are in the same order."
        )


def _numbers(name, table, least_dims=0):
    try:
        array = np.array(table, np.float64, ndmin=least_dims)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a table of numbers, got {type(table).__name__} with other entries or rows of different "
            "lengths."
        ) from None
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a table with a row for each run, got shape {array.shape}.")
    return array


def _checked_shares(shares, domains, row_name):
    bad = np.argwhere(~(np.isfinite(shares) & (shares >= 0)))
    if len(bad):
        row, column = bad[0]
        value = shares[row, column]
        found = "missing" if np.isnan(value) else f"{value:.6g}, which is no share"
        raise ValueError(f"{row_name(row)}: the share of {domains[column]!r} is {found}.")
    sums = shares.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1.0) > _SLACK)
    if len(wrong):
        raise ValueError(f"{row_name(wrong[0])}: the shares must sum to 1, got {sums[wrong[0]]:.6g}.")
    return shares / sums[:, None]


def _check_variation(shares, values, domains, metrics):
    for what, array, names in (("domain", shares, domains), ("metric", values, metrics)):
        # A table of one domain has nothing to choose, and its share never varies.
        constant = np.flatnonzero(np.ptp(array, axis=0) == 0)
        if len(constant):
            value = array[0, constant[0]]
            raise ValueError(
                f"the {what} {names[constant[0]]!r} is {value:.6g} in every run; leave it out, or vary it."
            )
    rank = np.linalg.matrix_rank(shares, tol=1e-9 * np.sqrt(len(shares)))
    if rank < len(domains):
        raise ValueError(
            f"the mixtures must vary in all directions, got {rank} independent mixtures of {len(domains)} domains; add "
            "runs, or merge domains that always vary together."
        )

"""Tells each site its own scores: their spread, the worst cases, and what they would be under another weighting.

A site is a centre, a scanner or a hospital; a case is one patient that is tested. :mod:`mixjax.runner.site_page` writes
the tables as a page and draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mixjax.checks import requires
from mixjax.numbers import as_size, check_choice, check_integer
from mixjax.runner.score_files import COLUMNS, read_scores

with requires("experiments", "mixjax.runner.sites"):
    import pandas as pd
    import scipy.special

__all__ = ["ALL_SITES", "MIN_CASES", "SiteReport", "decimals_of", "paired_bootstrap", "read_scores", "site_report"]

ALL_SITES = "all sites"
"""The name of the rows in which the cases of all sites stand together, each case counted once."""

MIN_CASES = 5
"""The fewest cases with an interval: the bootstrap of fewer has too few different samples to have a 95 % interval."""

# Type checkers take what pandas returns for several types at once: functions below that are not public say Any.
_DRAWS = 10_000


class SiteReport(NamedTuple):
    """Holds the tables of :func:`site_report`.

    Attributes:
        scores: one row for each case: ``label``, ``site``, ``case``, ``method`` and ``score``, the mean over seeds.
        levels: one row for each label, site and method: ``cases``, the number of cases with a score, ``without_score``,
            ``mean``, ``median``, ``low_quartile``, ``high_quartile``, ``iqr`` and ``worst``, a text of the worst cases.
        differences: one row for each label, site, method and baseline: ``cases``, those with a score under both,
            ``difference``, the mean of method - baseline, ``low`` and ``high``, its 95 % interval, and ``verdict``.
        better: "higher" or "lower".
    """

    scores: pd.DataFrame
    levels: pd.DataFrame
    differences: pd.DataFrame
    better: str


def site_report(
    scores: pd.DataFrame,
    baselines: Sequence[str] = (),
    *,
    better: Literal["higher", "lower"] = "higher",
    num_worst: int = 3,
    seed: int = 0,
) -> SiteReport:
    """Describes the scores of each site, and compares methods with baselines case by case.

    A baseline is a method too: the same model, trained with another weighting, such as "uniform" (each site counts the
    same) or "volume" (each case counts the same, so that large sites count more). The difference is what a site would
    gain or lose under the method.

    Where there is a column ``seed``, scores of a case are averaged over seeds first, and differences over the seeds in
    which both have a score: the cases are the sample, however often a model was trained. Intervals are those of
    :func:`paired_bootstrap`.

    Args:
        scores: one row for each score. Columns ``site``, ``case``, ``method``, ``score``; optional ``label``, the
            structure that was segmented, and ``seed``. A score that is not finite is a missing one.
        baselines: methods that the others, and the baselines after them, are compared with.
        better: which scores are good.
        num_worst: how many of the worst cases are named, at least 1.
        seed: of the bootstrap.

    Returns:
        The tables, with the rows of each site and of all sites together, in order of appearance.

    Raises:
        ValueError: a column is missing, there is no row, a row has no site, case or method, a score stands twice, a
            site is called "all sites", or a baseline is unknown.

    Example:
        >>> scores = pd.DataFrame({"site": ["A"] * 4, "case": [1, 2, 1, 2], "method": ["volume"] * 2 + ["dro"] * 2,
        ...                        "score": [80.0, 60.0, 82.0, 70.0]})
        >>> report = site_report(scores, ["volume"])
        >>> row = report.levels.iloc[1]
        >>> print(row["method"], row["mean"], "worst:", row["worst"])
        dro 76.0 worst: 2 (70.0)
        >>> row = report.differences.iloc[0]
        >>> print(row["difference"], row["verdict"])
        6.0 too few cases
    """
    check_choice("better", better, ("higher", "lower"))
    check_integer("num_worst", as_size("num_worst", num_worst), 1)
    # A name alone is a list of one, and a name that is given twice is compared once.
    baselines = list(dict.fromkeys(map(str, [baselines] if isinstance(baselines, str) else baselines)))
    frame = _checked(scores, baselines)
    # One column a method, and NaN where a case has no score of it.
    keys = ["label", "site", "case", "seed"]
    by_seed: Any = frame.pivot(index=keys, columns="method", values="score")
    # pivot sorts, and tables are read in the order in which the scores came.
    by_seed = by_seed.reindex(pd.MultiIndex.from_frame(frame[keys].drop_duplicates()))
    decimals = decimals_of(frame["score"])
    methods, levels, differences = list(dict.fromkeys(frame["method"])), [], []
    for label, site, rows in _parts(by_seed):
        head = {"label": label, "site": site}
        for method in methods:
            levels.append({**head, "method": method, **_level(_by_case(rows[method]), better, num_worst, decimals)})
        for number, baseline in enumerate(baselines):
            for method in methods:
                # Two baselines are compared once.
                if method != baseline and method not in baselines[:number]:
                    found = _difference(_by_case(rows[method] - rows[baseline]).dropna(), better, seed)
                    differences.append({**head, "method": method, "baseline": baseline, **found})
    means = _by_case(by_seed.stack(future_stack=True), "label", "site", "case", "method")
    return SiteReport(means.rename("score").reset_index(), pd.DataFrame(levels), pd.DataFrame(differences), better)


def paired_bootstrap(differences: ArrayLike, *, seed: int = 0) -> tuple[float, float, float]:
    r"""Computes the mean of paired differences, and its 95 % interval by resampling the cases.

    The ends are the quantiles α and 1 - α of the means of 10,000 samples of n cases, drawn with replacement, with

    .. math:: \alpha = \Phi\left(-\sqrt{n / (n - 1)}\; t_{n - 1}(0.975)\right)

    which is 0.025 for many cases. With few, plain percentiles would be too narrow, and this makes up for it: Φ is the
    normal distribution, and t the quantile function of Student's. Of normal differences the interval then holds the
    mean in 92 % of the samples of 5 cases, and in 95 % from 12 on.

    Args:
        differences: one finite number for each case, ``[n]``.
        seed: of the resampling.

    Returns:
        The mean (NaN without a case), and the ends (NaN for fewer than :data:`MIN_CASES`).

    Raises:
        ValueError: something else than a vector of finite numbers.

    Example:
        >>> mean, low, high = paired_bootstrap([1.0, 2.0, 4.0, 3.0, 5.0, 3.0, 2.0, 4.0])
        >>> mean, 1.5 < low < 2.5, 3.5 < high < 4.5
        (3.0, True, True)

    References:
        Hesterberg, "What teachers should know about the bootstrap", 2015: the expanded percentile interval.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"differences must be a vector of finite numbers, got shape {values.shape}.")
    n = values.size
    if n < MIN_CASES:
        return (float(values.mean()) if n else math.nan), math.nan, math.nan
    # Around the mean: then the interval of equal differences is that number, and not its neighbours by rounding.
    mean = values.mean()
    rng, chunk = np.random.default_rng(seed), max(1, 2_000_000 // n)
    sizes = [min(chunk, _DRAWS - start) for start in range(0, _DRAWS, chunk)]
    shifts = np.concatenate([(values - mean)[rng.integers(0, n, (size, n))].mean(axis=1) for size in sizes])
    alpha = scipy.special.ndtr(-math.sqrt(n / (n - 1)) * scipy.special.stdtrit(n - 1, 0.975))
    low, high = mean + np.quantile(shifts, [alpha, 1 - alpha])
    return float(mean), float(low), float(high)


def decimals_of(scores: ArrayLike) -> int:
    """Counts the decimals with which scores are written: three digits of the usual one, as 84.3 and 0.843.

    Args:
        scores: the scores; those that are not finite do not count.

    Returns:
        A number from 0 to 6.

    Example:
        >>> decimals_of([84.3, 71.2, 100.0]), decimals_of([0.843, 1.0]), decimals_of([])
        (1, 3, 2)
    """
    sizes = np.abs(np.asarray(scores, np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    usual = np.median(sizes) if sizes.size else 1.0
    return int(np.clip(2 - np.floor(np.log10(usual)), 0, 6))


def _checked(scores: Any, baselines: Sequence[str]) -> Any:
    """Returns the scores with a column for labels and for seeds, and NaN for what is not finite."""
    missing = [name for name in COLUMNS if name not in scores]
    if missing:
        raise ValueError(
            f"scores must have the columns {', '.join(COLUMNS)}; {_listed(missing)} {_are(missing)} missing, got "
            f"{', '.join(map(str, scores))}{_way_out(list(scores), missing)}."
        )
    if scores.empty:
        raise ValueError("scores must have a row at least, got none.")
    frame: Any = pd.DataFrame({name: scores[name].to_numpy() for name in COLUMNS})
    for name in ("label", "seed"):
        # pandas would leave rows of a missing label or seed out.
        frame[name] = scores[name].astype(object).where(scores[name].notna(), "").to_numpy() if name in scores else ""
    for name in ("site", "case", "method"):
        nameless = frame[name].isna() | (frame[name] == "")
        if nameless.any():
            raise ValueError(f"{name} must be named in every row, got none in row {int(nameless.argmax()) + 1}.")
    # Their names are compared with texts: a site may be called 3 in the table, and "3" in the report.
    for name in ("site", "method", "label"):
        frame[name] = frame[name].astype(str)
    frame["score"] = frame["score"].astype(float).where(lambda values: np.isfinite(values))
    if (frame["site"] == ALL_SITES).any():
        raise ValueError(f"a site is called {ALL_SITES!r}, which is the name of the rows of all of them.")
    keys = ["label", "site", "case", "method", "seed"]
    if frame.duplicated(keys).any():
        row = frame.loc[frame.duplicated(keys).idxmax(), keys]
        told = ", ".join(f"{name} {row[name]}" for name in keys if name in scores)
        raise ValueError(f"a score must stand once, got two of {told}.")
    known = list(dict.fromkeys(frame["method"]))
    for name in baselines:
        if name not in known:
            raise ValueError(f"baseline must be one of the methods {known}, got {name!r}.")
    return frame


def _way_out(columns: Sequence[Any], missing: Sequence[str]) -> str:
    """Says how a table under other names, or with a column for each method, becomes one that is taken."""
    names = {str(column).strip().lower(): column for column in columns}
    hints = []
    for name in missing:
        known = [other for other in (name, *COLUMNS[name]) if other in names]
        hints += [f"rename {names[other]!r} to {name}" for other in known[:1]]
    if {"method", "score"} <= set(missing) and not any(hint.endswith(("method", "score")) for hint in hints):
        hints.append(
            "a column for each method is turned into rows by "
            "pandas.melt(table, id_vars=['site', 'case'], var_name='method', value_name='score')"
        )
    return "; " + "; ".join(hints) if hints else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _parts(by_seed: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields label, site and scores: of each label all its sites, then all sites together."""
    for label, rows in by_seed.groupby(level="label", sort=False):
        for site, own in rows.groupby(level="site", sort=False):
            yield str(label), str(site), own
        yield str(label), ALL_SITES, rows


def _by_case(values: Any, *keys: str) -> Any:
    """Averages over the seeds in which a case has a score; NaN where it has none."""
    return values.groupby(level=list(keys or ("site", "case")), sort=False).mean()


def _level(scores: Any, better: str, num_worst: int, decimals: int) -> dict[str, Any]:
    """Describes the scores of one site under one method, one a case."""
    known = scores.dropna()
    # One case has no spread, which is not a spread of 0.
    low, high = known.quantile([0.25, 0.75]) if len(known) > 1 else (math.nan, math.nan)
    # At most half of the cases: the better half of two cases is not among the worst.
    num = min(num_worst, max(1, len(known) // 2))
    worst = known.sort_values(ascending=better == "higher", kind="stable")[:num]
    several = scores.index.get_level_values("site").nunique() > 1
    names = [f"{case} of {site}" if several else str(case) for site, case in worst.index]
    return {
        "cases": len(known),
        "without_score": len(scores) - len(known),
        "mean": known.mean(),
        "median": known.median(),
        "low_quartile": low,
        "high_quartile": high,
        "iqr": high - low,
        "worst": "; ".join(f"{name} ({score:.{decimals}f})" for name, score in zip(names, worst, strict=True)),
    }


def _difference(paired: Any, better: str, seed: int) -> dict[str, Any]:
    """Describes the differences of one site's cases between two methods."""
    mean, low, high = paired_bootstrap(paired, seed=seed)
    found: dict[str, Any] = {"cases": len(paired), "difference": mean, "low": low, "high": high}
    if not len(paired):
        return found | {"verdict": "no case has both scores"}
    if len(paired) < MIN_CASES:
        return found | {"verdict": "too few cases"}
    if low <= 0 <= high:
        return found | {"verdict": "no difference seen"}
    return found | {"verdict": "better" if (mean > 0) == (better == "higher") else "worse"}

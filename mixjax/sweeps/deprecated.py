"""Keeps old names of :mod:`mixjax.sweeps` for a while; each warns, and says what took its place."""

from __future__ import annotations

import warnings
from typing import Any

from mixjax.sweeps.dry_run import DryRun, dry_run
from mixjax.sweeps.segments import Segments
from mixjax.sweeps.spec import Sweep, Train

__all__ = ["plan"]


def plan(train: Train | Segments, **arguments: Any) -> DryRun:
    """Sizes and times a sweep, as :func:`mixjax.sweeps.dry_run` does.

    Args:
        train: the training run.
        **arguments: as :class:`mixjax.sweeps.Sweep` takes them.

    Returns:
        What ``dry_run(Sweep(train, **arguments))`` returns.
    """
    warnings.warn(
        "mixjax.sweeps.plan(train, ...) is now mixjax.sweeps.dry_run(Sweep(train, ...)).",
        DeprecationWarning,
        stacklevel=2,
    )
    return dry_run(Sweep(train, **arguments))

"""Does faults inside this process: runs that diverge, and memory that is not there."""

import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import mixjax
from experiments.faults.command import Row
from mixjax.sweeps import devices, programs


def _descent(key, hparams, data):
    """Descends a quadratic of curvature 1, which diverges for rates above 2."""
    start = jax.random.normal(key, (8,))
    x = jax.lax.fori_loop(0, 4000, lambda _, x: x - hparams["rate"] * x, start)
    return {"x": x}


def nan_runs() -> Row:
    """Sweeps over runs that diverge and others that do not, and compares the latter with a sweep of their own."""
    rates, alone = [0.5, 3.0, 1.5, 40.0], [0.5, 1.5]
    lost, diverged = [], 0
    for vectorize in ("map", "vmap"):
        arguments = {"seeds": 50, "vectorize": vectorize, "chunk": 16}
        mixed = mixjax.sweep(_descent, axes={"rate": rates}, **arguments)
        clean = mixjax.sweep(_descent, axes={"rate": alone}, **arguments)
        if not mixed.x.sel(rate=alone).equals(clean.x):
            lost.append(f"{vectorize}: neighbours changed")
        diverged += int((~np.isfinite(mixed.x)).all("x_0").sum())
    said = f"{diverged} of 400 runs diverged; the others equal, bit by bit, those of a sweep without them"
    return Row("NaN runs", diverged, said, "; ".join(lost) or "nothing")


def _large(key, hparams, data):
    # 40 MB for the numbers, and as much for their sums.
    x = jnp.cumsum(jax.random.normal(key, (10_000_000,)))
    return {"x": x[::1_000_000] * hparams["scale"]}


def no_memory() -> Row:
    """Sweeps in a process that may not have the memory that was found free."""
    small = mixjax.sweep(_large, seeds=32, axes={"scale": [1.0]}, vectorize="vmap", chunk=2)
    sizes, build = [], programs.Program.__init__

    def counted(self, train, slots, **arguments):
        sizes.append(slots)
        build(self, train, slots, **arguments)

    free, used = devices.free_bytes, int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    programs.Program.__init__, devices.free_bytes = counted, lambda devices: 1e13
    resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000, before[1]))
    try:
        result = mixjax.sweep(_large, seeds=32, axes={"scale": [1.0]}, vectorize="vmap")
    finally:
        programs.Program.__init__, devices.free_bytes = build, free
        resource.setrlimit(resource.RLIMIT_AS, before)
    said = f"1.5 GB for 32 runs in one chunk: halved, {' → '.join(map(str, dict.fromkeys(sizes)))}, and finished"
    close = np.allclose(result.x, small.x, rtol=1e-6)
    return Row("out of memory", len(dict.fromkeys(sizes)) - 1, said, "nothing" if close else "the result differs")

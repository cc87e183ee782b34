"""Trains figure 1's runs in PyTorch on CPU, many seeds at once: the strongest rivals of a sweep.

The seeds of a method are one batch: rows are gathered for all of them, and products are ``torch.bmm``. Everything
that does not change from step to step is computed once a round, and nothing is read back. A step is one of three:

- "by hand": the linear model's gradient is written out, and the parameters are updated in place;
- "vmap": the gradient is ``torch.func.vmap(torch.func.grad(loss))``;
- "compiled": ``torch.compile`` of the step by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks import pytorch
from experiments.loss_and_sampling_weights.linear import Linear

__all__ = ["STEPS", "allocate", "train", "uniforms"]

STEPS = ("by hand", "vmap", "compiled")


def uniforms(config: Linear, seeds: int):
    """Draws the random numbers of many runs: for the steps ``[T, S, B]`` and for the probes ``[rounds, S, 2 B_e]``."""
    torch = pytorch.load()
    rounds = config.num_steps // config.probe_every
    steps = torch.rand(config.num_steps, seeds, config.batch_size)
    return steps, torch.rand(rounds, seeds, 2 * config.gradient_size)


def allocate(weights: Any, batch_size: int) -> Any:
    """Allocates as :func:`pytorch.allocate` for many seeds at once: weights ``[S, D]`` to counts ``[S, D]``."""
    torch = pytorch.load()
    counts = torch.ones_like(weights)
    for _ in range(batch_size - weights.shape[1]):
        gains = weights / (counts * (counts + 1)).sqrt_()
        counts.scatter_add_(1, gains.argmax(1, keepdim=True), torch.ones_like(counts))
    return counts


@functools.cache
def _step(kind: str, rate: float) -> Callable:
    """Returns ``step(theta, x, y, rows, coefficients) -> theta``, for parameters ``[S, d]`` and rows ``[S, B]``."""
    torch = pytorch.load()

    def by_hand(theta, x, y, rows, coefficients):
        batch_x = x[rows]
        residual = (torch.bmm(batch_x, theta[:, :, None])[:, :, 0] - y[rows]) * coefficients
        return torch.baddbmm(theta[:, None], residual[:, None], batch_x, alpha=-2.0 * rate)[:, 0]

    def loss(theta, batch_x, batch_y, coefficients):
        return (coefficients * (batch_x @ theta - batch_y).square()).sum()

    gradients = torch.func.vmap(torch.func.grad(loss))

    def vmapped(theta, x, y, rows, coefficients):
        return theta - rate * gradients(theta, x[rows], y[rows], coefficients)

    return {"by hand": by_hand, "vmap": vmapped, "compiled": torch.compile(by_hand, dynamic=False)}[kind]


def train(config: Linear, method: str, data: Any, draws: Any, step: str) -> dict[str, np.ndarray]:
    """Trains one method on many seeds.

    Args:
        config: figure 1's settings.
        method: a key of ``linear.METHODS``.
        data: ``(x [K N, d], y [K N])`` of K data sets, one after the other; seed ``s`` has data set ``s mod K``.
        draws: as :func:`uniforms` returns them.
        step: one of ``STEPS``.

    Returns:
        ``params`` ``[S, d]``, and ``error``, ``loss_weight``, ``sampling_weight`` ``[S, rounds]``.
    """
    torch = pytorch.load()
    (x, y), (step_draws, probe_draws) = data, draws
    seeds, size, batch = step_draws.shape[1], config.num_examples, config.batch_size
    take_step, norm, n = _step(step, config.learning_rate), config.dim**-0.5, config.gradient_size
    # the place of each seed's data set
    offset = 2 * size * (torch.arange(seeds) % (len(x) // (2 * size)))[:, None]
    prior = torch.full((seeds, 2), 0.5)
    raw = 1.0 / torch.tensor(config.noise) if method.startswith("aitken") else torch.ones(2)
    raw = raw.expand(seeds, 2)
    c, q = prior * raw / (prior * raw).sum(1, keepdim=True), prior
    theta = torch.zeros(seeds, config.dim)
    points = torch.cat([domain * size + torch.arange(min(config.estimation_size, size)) for domain in range(2)])
    probe_x, probe_y = x[offset + points], y[offset + points]
    fresh_starts = offset + (size * torch.arange(2)).repeat_interleave(n)
    records = []

    def choose(starts, uniform):
        return starts + (uniform * size).long().clamp_(max=size - 1)

    with torch.inference_mode() if step == "by hand" else torch.no_grad():
        for r in range(config.num_steps // config.probe_every):
            counts = allocate(q, batch)
            ids = (torch.arange(batch) >= counts[:, :1]).long()
            starts, coefficients = offset + size * ids, (c / counts).gather(1, ids)
            first = r * config.probe_every
            # the rows of a round's steps at once
            rows = choose(starts, step_draws[first : first + config.probe_every])
            for chosen in rows:
                theta = take_step(theta, x, y, chosen, coefficients)

            losses = (torch.bmm(probe_x, theta[:, :, None])[:, :, 0] - probe_y).square().view(seeds, 2, -1).mean(2)
            fresh = choose(fresh_starts, probe_draws[r])
            batch_x = x[fresh]
            slopes = 2.0 * (torch.bmm(batch_x, theta[:, :, None])[:, :, 0] - y[fresh]).view(seeds * 2, 1, n)
            batch_x = batch_x.view(seeds * 2, n, -1)
            means = torch.bmm(slopes, batch_x)[:, 0] / n
            squares = (slopes[:, 0].square() * batch_x.square().sum(2)).sum(1) - n * means.square().sum(1)
            v = (squares.view(seeds, 2) / (n - 1)).clamp_(min=0.0).sqrt()
            if method.startswith("fgls") and r >= config.warmup_rounds:
                raw = (1.0 - config.gamma) * raw + config.gamma / losses.clamp(min=1e-12)
                c = prior * raw / (prior * raw).sum(1, keepdim=True)
            if method.endswith("va"):
                q = c * torch.maximum(v, 1e-6 * v.amax(1, keepdim=True))
                q = q / q.sum(1, keepdim=True)
            records.append(torch.stack([torch.linalg.vector_norm(theta - norm, dim=1), c[:, 0], q[:, 0]]))
        error, loss_weight, sampling_weight = torch.stack(records, 2).numpy()
        return {
            "params": theta.numpy(),
            "error": error,
            "loss_weight": loss_weight,
            "sampling_weight": sampling_weight,
        }

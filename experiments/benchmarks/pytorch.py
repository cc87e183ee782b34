"""Trains figure 1's runs in PyTorch eager on CPU, one at a time, with the same rules, probes and warm-up: a rival.

This rival is written to be fast. Batches are taken by ``index_select``, counts and coefficients are computed once a
round, and only two numbers a round are read back.

- ``autograd=False`` writes the gradient of the linear model by hand and updates in place, in 5 operations a step.
- ``autograd=True`` calls ``torch.autograd.grad``, which is faster here than ``loss.backward()`` and
  ``torch.optim.SGD``.
"""

import math
import os

import numpy as np

from experiments.loss_and_sampling_weights.linear import Linear
from mixjax.checks import requires

__all__ = ["allocate", "generate", "load", "train", "uniforms"]


def load():
    """Imports ``torch``, with OpenMP threads that wait without spinning.

    By default they spin, and where another process has one of the cores, two threads then take 1 ms an operation.

    Raises:
        ImportError: it is not installed; the message has the command that installs it.
    """
    # OpenMP reads this when torch is first imported, and never again
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with requires("bench", "the comparison with PyTorch"):
        import torch
    return torch


def generate(config: Linear, seed: int):
    """Draws a data set ``(x, y)`` of the figure's problem by PyTorch's generator."""
    torch = load()
    generator = torch.Generator().manual_seed(seed)
    size = 2 * config.num_examples
    scale = torch.tensor(config.scales).sqrt().repeat_interleave(config.num_examples)
    noise = torch.tensor(config.noise).sqrt().repeat_interleave(config.num_examples)
    x = torch.randn(size, config.dim, generator=generator).mul_(scale[:, None])
    return x, x.sum(1) * config.dim**-0.5 + noise * torch.randn(size, generator=generator)


def uniforms(config: Linear):
    """Draws the random numbers of one run: for the steps ``[T, B]`` and for the probes ``[rounds, 2 B_e]``."""
    torch = load()
    rounds = config.num_steps // config.probe_every
    return torch.rand(config.num_steps, config.batch_size), torch.rand(rounds, 2 * config.gradient_size)


def allocate(weights: list[float], batch_size: int) -> list[int]:
    """Allocates by Huntington-Hill: from one each, the next example goes to the largest ``q / sqrt(n (n + 1))``."""
    counts = [1] * len(weights)
    for _ in range(batch_size - len(weights)):
        gains = [q / math.sqrt(n * (n + 1)) for q, n in zip(weights, counts, strict=True)]
        counts[gains.index(max(gains))] += 1
    return counts


def train(config: Linear, method: str, data, draws, *, autograd: bool) -> dict[str, np.ndarray]:
    """Trains one run of one method.

    Args:
        config: figure 1's settings.
        method: a key of ``linear.METHODS``.
        data: ``(x, y)``, domain by domain.
        draws: uniform random numbers, as from :func:`uniforms`.
        autograd: see the module.

    Returns:
        ``params`` ``[d]`` and ``error``, ``loss_weight``, ``sampling_weight`` ``[rounds]``.
    """
    torch = load()
    (x, y), (step_draws, probe_draws) = data, draws
    size, rate, norm = config.num_examples, config.learning_rate, config.dim**-0.5
    prior = torch.tensor([0.5, 0.5])
    raw = 1.0 / torch.tensor(config.noise) if method.startswith("aitken") else torch.ones(2)
    c, q = prior * raw / (prior * raw).sum(), prior
    theta = torch.zeros(config.dim, requires_grad=autograd)
    points = torch.cat([domain * size + torch.arange(min(config.estimation_size, size)) for domain in range(2)])
    probe_x, probe_y = x[points], y[points]
    fresh_starts = (size * torch.arange(2)).repeat_interleave(config.gradient_size)
    records = []

    def choose(starts, uniform):
        return starts + (uniform * size).long().clamp_(max=size - 1)

    def steps(first, number):
        nonlocal theta
        counts = torch.tensor(allocate(q.tolist(), config.batch_size))
        ids = torch.arange(2).repeat_interleave(counts)
        starts, coefficients = size * ids, (c / counts)[ids]
        for t in range(first, first + number):
            rows = choose(starts, step_draws[t])
            batch_x, batch_y = x.index_select(0, rows), y.index_select(0, rows)
            if autograd:
                with torch.enable_grad():
                    objective = (coefficients * (batch_x @ theta - batch_y).square()).sum()
                theta.sub_(torch.autograd.grad(objective, theta)[0], alpha=rate)
            else:
                residual = torch.mv(batch_x, theta).sub_(batch_y)
                theta.addmv_(batch_x.t(), residual.mul_(coefficients), alpha=-2.0 * rate)

    def probe(r):
        nonlocal c, q, raw
        losses = (torch.mv(probe_x, theta) - probe_y).square().view(2, -1).mean(1)
        rows = choose(fresh_starts, probe_draws[r])
        batch_x, n = x.index_select(0, rows).view(2, config.gradient_size, -1), config.gradient_size
        slopes = 2.0 * (batch_x @ theta - y[rows].view(2, -1))
        means = (slopes[:, None] @ batch_x)[:, 0] / n
        squares = (slopes.square() * batch_x.square().sum(2)).sum(1) - n * means.square().sum(1)
        v = (squares / (n - 1)).clamp_(min=0.0).sqrt()
        if method.startswith("fgls") and r >= config.warmup_rounds:
            raw = (1.0 - config.gamma) * raw + config.gamma / losses.clamp(min=1e-12)
            c = prior * raw / (prior * raw).sum()
        if method.endswith("va"):
            q = c * v.clamp(min=1e-6 * float(v.max()))
            q = q / q.sum()
        records.append((torch.linalg.vector_norm(theta - norm), c[0], q[0]))

    with torch.no_grad() if autograd else torch.inference_mode():
        rounds, rest = divmod(config.num_steps, config.probe_every)
        for r in range(rounds):
            steps(r * config.probe_every, config.probe_every)
            probe(r)
        steps(rounds * config.probe_every, rest)
        error, loss_weight, sampling_weight = torch.tensor(records).numpy().reshape(-1, 3).T
        return {
            "params": theta.detach().numpy().copy(),
            "error": error,
            "loss_weight": loss_weight,
            "sampling_weight": sampling_weight,
        }

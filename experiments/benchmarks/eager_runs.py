"""Trains the runs of ``short_runs`` in PyTorch eager on CPU, one after the other.

This rival is written to be fast. ERMA's few numbers are Python floats, which takes half the time of tensors of two
elements, and nothing else is read back. ``by_hand`` writes the linear model's gradient out and updates in place.
"""

import math
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import pytorch
from experiments.benchmarks.short_runs import Problem, data

__all__ = ["erma", "tensors", "train"]

GAMMA2, MAX_LOG_STEP = 0.05, 5.0  # ERMA's defaults


def erma(weights: list[float], losses: list[float], variances: list[float], gamma1: float) -> list[float]:
    """Returns the loss weights after one step from a uniform prior (paper 000, eq. 12, normalised)."""
    prior = 1 / len(weights)
    w = [c / prior for c in weights]
    gap = sum(prior * (1 - a) * loss for a, loss in zip(w, losses, strict=True))
    steps = (
        gamma1 * prior * gap * loss - GAMMA2 * prior * a * v for a, loss, v in zip(w, losses, variances, strict=True)
    )
    raw = [a * math.exp(max(-MAX_LOG_STEP, min(step, MAX_LOG_STEP))) for a, step in zip(w, steps, strict=True)]
    return [a / sum(raw) for a in raw]


def tensors(problem: Problem, seed: int) -> tuple[Any, Any, Any]:
    """Returns ``(data, params, rows)`` of the sweep's run with this seed, as tensors."""
    torch = pytorch.load()

    def tensor(array):
        array = np.array(array)
        return torch.from_numpy(array.astype(np.int64) if array.dtype.kind == "i" else array)

    params, rows = problem.start(jax.random.key(seed))
    return tuple(map(tensor, data(problem))), jax.tree.map(tensor, params), tensor(rows)


def train(problem: Problem, inputs: tuple[Any, Any, Any], gamma1: float, *, by_hand: bool) -> dict[str, np.ndarray]:
    """Trains one run.

    Args:
        problem: what to train.
        inputs: what :func:`tensors` returns; not changed.
        gamma1: ERMA's ``gamma1``.
        by_hand: whether the linear model's gradient is written out, without autograd.

    Returns:
        As ``Problem.train``.
    """
    torch = pytorch.load()
    (x, y), start, rows = inputs
    domains, size, rate = problem.domains, problem.rows // problem.domains, problem.learning_rate
    c = [1 / domains] * domains
    leaves = [leaf.clone() for leaf in jax.tree.leaves(start)]

    def losses_of(leaves, x, y):
        if problem.linear:
            return torch.mv(x, leaves[0]).sub_(y).square()
        for kernel, bias in zip(leaves[:-2:2], leaves[1:-2:2], strict=True):
            x = torch.relu(torch.addmm(bias, x, kernel))
        logits = torch.addmm(leaves[-1], x, leaves[-2])
        return torch.nn.functional.cross_entropy(logits, y, reduction="none")

    def moved(c, losses):
        variances, means = torch.var_mean(losses.detach().view(domains, size), 1)
        return erma(c, means.tolist(), variances.tolist(), gamma1)

    with torch.inference_mode() if by_hand else torch.enable_grad():
        for leaf in leaves:
            leaf.requires_grad_(not by_hand)
        for chosen in rows:
            batch_x, batch_y = (x.index_select(0, chosen), y.index_select(0, chosen)) if problem.batch else (x, y)
            if by_hand:
                residual = torch.mv(batch_x, leaves[0]).sub_(batch_y)
                c = moved(c, residual.square())
                for share, part in zip(c, residual.split(size), strict=True):
                    part.mul_(share / size)
                leaves[0].addmv_(batch_x.t(), residual, alpha=-2 * rate)
            else:
                losses = losses_of(leaves, batch_x, batch_y)
                c = moved(c, losses)
                objective = torch.dot(losses, torch.tensor([share / size for share in c]).repeat_interleave(size))
                grads = torch.autograd.grad(objective, leaves)
                with torch.no_grad():
                    torch._foreach_add_(leaves, grads, alpha=-rate)
    with torch.inference_mode():
        means = losses_of(leaves, x, y).view(domains, -1).mean(1)
    return {"losses": means.numpy(), "loss_weights": np.array(c, np.float32)}

"""Trains the models of ``proxies`` in PyTorch on CPU, one run after the other: a rival of the benchmark ``swarm``.

The gradient is ``torch.autograd.grad``'s and the optimizer PyTorch's fused AdamW. The first parameters and the windows
of all steps are the sweep's, made beforehand. With ``compiled``, ``torch.compile`` makes one function of the model, its
loss and the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import pytorch
from experiments.benchmarks.proxies import BYTES, CONTEXT, Proxy, texts

__all__ = ["inputs", "train"]


def inputs(proxy: Proxy, mixtures: Sequence[Sequence[float]]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Returns each run's first parameters by name, and where its windows begin, as the sweep's runs with seed 0."""
    size = texts(proxy)["train"].shape[1]

    @jax.jit
    def start(mixture):
        _, params, starts = proxy.start(jax.random.key(0), mixture, size)
        return params, starts

    made = []
    for mixture in mixtures:
        params, starts = start(jnp.asarray(mixture))
        named = {_name(path): np.array(leaf) for path, leaf in jax.tree.leaves_with_path(params)}
        made.append((named, np.array(starts, np.int64)))
    return made


def _name(path) -> str:
    """Writes a parameter's place in the model, such as "blocks.0.qkv.kernel"."""
    return ".".join(str(part.key) for part in path if hasattr(part, "key"))


def _byte_logits(p, x):
    torch = pytorch.load()
    padded = torch.nn.functional.pad(p["embed.embedding"][x], (0, 0, CONTEXT - 1, 0))
    context = torch.cat([padded[:, i : i + x.shape[1]] for i in range(CONTEXT)], -1)
    hidden = torch.relu(context @ p["hidden.kernel"] + p["hidden.bias"])
    return hidden @ p["out.kernel"] + p["out.bias"]


def _decoder_logits(p, x, heads):
    torch = pytorch.load()

    def norm(x, scale):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale

    x = p["tokens.embedding"][x] + p["positions.embedding"]
    block = "blocks.0."
    qkv = norm(x, p[block + "norms.0.scale"]) @ p[block + "qkv.kernel"]
    q, k, v = qkv.view(*x.shape[:2], heads, -1).transpose(1, 2).chunk(3, -1)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + mixed.transpose(1, 2).reshape(x.shape) @ p[block + "mix.kernel"]
    up = norm(x, p[block + "norms.1.scale"]) @ p[block + "up.kernel"]
    x = x + torch.nn.functional.gelu(up, approximate="tanh") @ p[block + "down.kernel"]
    return norm(x, p["norm.scale"]) @ p["out.kernel"] + p["out.bias"]


_compiled: dict[Proxy, Any] = {}


def _loss_of(proxy: Proxy, compiled: bool):
    """Returns ``loss(parameters, windows)``, the mean over each window's bytes, ``[n]``; compiled once a process."""
    torch = pytorch.load()

    def losses(p, windows):
        x, targets = windows[:, :-1], windows[:, 1:]
        logits = _byte_logits(p, x) if proxy.kind == "bytes" else _decoder_logits(p, x, proxy.hidden)
        flat = torch.nn.functional.cross_entropy(logits.reshape(-1, BYTES), targets.reshape(-1), reduction="none")
        return flat.view(targets.shape).mean(-1)

    if not compiled:
        return losses
    if proxy not in _compiled:
        _compiled[proxy] = torch.compile(losses, dynamic=False)
    return _compiled[proxy]


def train(proxy: Proxy, start: tuple[dict[str, np.ndarray], np.ndarray], *, compiled: bool) -> np.ndarray:
    """Trains one run.

    Args:
        proxy: what to train.
        start: an entry of :func:`inputs`.
        compiled: whether ``torch.compile`` is used.

    Returns:
        Each domain's held-out loss, ``[D]``.
    """
    torch = pytorch.load()
    data = {name: torch.from_numpy(np.array(x, np.int64)) for name, x in texts(proxy).items()}
    params = {name: torch.from_numpy(x.copy()).requires_grad_() for name, x in start[0].items()}
    starts, leaves = torch.from_numpy(start[1]), list(params.values())
    optimizer = torch.optim.AdamW(leaves, lr=proxy.learning_rate, weight_decay=1e-4, fused=True)
    losses, text, reach = _loss_of(proxy, compiled), data["train"].reshape(-1), torch.arange(proxy.length + 1)
    for places in starts:
        windows = text[places[:, None] + reach]
        grads = torch.autograd.grad(losses(params, windows).mean(), leaves)
        for leaf, grad in zip(leaves, grads, strict=True):
            leaf.grad = grad
        optimizer.step()
    with torch.no_grad():
        # Not the compiled function: other sizes would be compiled anew.
        held_out = _loss_of(proxy, False)(params, data["held_out"].reshape(-1, proxy.length + 1))
    return held_out.view(len(data["held_out"]), -1).mean(1).numpy()

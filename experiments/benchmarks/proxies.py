"""Defines the small language models that the benchmark ``swarm`` trains at many mixtures.

Each is an ordinary ``train(key, hparams, data)`` on three domains of embedded text, as bytes: Python, C and English.
The hyperparameter is the mixture, by which every step draws its windows, and the metrics are the domains' losses on
held-out windows.

- The byte model guesses each byte of a window from the 4 before it: an embedding, a hidden layer and the logits.
- The decoder is the one of the live mix's experiments (:class:`experiments.shared.decoder.Decoder`), with one layer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import mixjax
from experiments.shared.decoder import Decoder
from mixjax import data, samplers

__all__ = ["DOMAINS", "ByteModel", "Proxy", "loop", "mixtures", "proxies", "sweep", "texts", "trainer"]

DOMAINS = ("python", "c", "reference")
BYTES, CONTEXT = 256, 4


class ByteModel(nnx.Module):
    """Maps bytes ``[n, length]`` to logits of the next bytes ``[n, length, 256]``, each guessed from the last 4."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        """Creates the parameters."""
        self.embed = nnx.Embed(BYTES, width, rngs=rngs)
        self.hidden = nnx.Linear(CONTEXT * width, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, BYTES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits; before the first byte of a window there are zeros."""
        padded = jnp.pad(self.embed(x.astype(jnp.int32)), ((0, 0), (CONTEXT - 1, 0), (0, 0)))
        context = jnp.concatenate([padded[:, i : i + x.shape[1]] for i in range(CONTEXT)], axis=-1)
        return self.out(jax.nn.relu(self.hidden(context)))


@dataclasses.dataclass(frozen=True)
class Proxy:
    """Describes a training.

    Attributes:
        name: for the tables.
        kind: "bytes" or "decoder".
        width: numbers in a byte's embedding.
        hidden: the hidden layer of the byte model; heads of the decoder.
        length: bytes that the model reads.
        batch: windows of a step.
        num_steps: steps of a run.
        learning_rate: AdamW's.
        held_out: windows of each domain that a run is judged by.
    """

    name: str
    kind: str
    width: int
    hidden: int
    length: int
    batch: int
    num_steps: int
    learning_rate: float
    held_out: int

    def model(self, rngs: nnx.Rngs) -> nnx.Module:
        """Creates the model."""
        if self.kind == "bytes":
            return ByteModel(self.width, self.hidden, rngs=rngs)
        return Decoder(1, self.width, self.hidden, self.length, rngs=rngs)

    def losses(self, model: Any, windows: jax.Array) -> jax.Array:
        """Returns the mean loss of each window, ``[n]``."""
        logits, targets = model(windows[:, :-1]), windows[:, 1:].astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(-1)

    def start(self, key: jax.Array, mixture: jax.Array, size: int) -> tuple[Any, Any, jax.Array]:
        """Draws a run's first parameters, and the places where the windows of its steps begin.

        Args:
            key: the run's key.
            mixture: ``[D]``, each domain's share of the windows.
            size: the bytes of a domain.

        Returns:
            The model's structure, its parameters, and ``[steps, batch]`` places in the domains' bytes one after the
            other.
        """
        model_key, domain_key, place_key = jax.random.split(key, 3)
        structure, params = nnx.split(self.model(nnx.Rngs(model_key)))
        keys = jax.random.split(domain_key, self.num_steps)
        ids = jax.vmap(lambda key: samplers.systematic(key, mixture, self.batch))(keys)
        places = jax.random.randint(place_key, ids.shape, 0, size - self.length)
        return structure, params, ids * size + places

    def train(self, key: jax.Array, hparams: dict[str, jax.Array], texts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Trains one run, as :func:`mixjax.sweep` asks, and gives each domain's held-out loss."""
        structure, params, starts = self.start(key, hparams["mixture"], texts["train"].shape[1])
        optimizer, text = optax.adamw(self.learning_rate), texts["train"].reshape(-1)

        def step(carry, starts):
            params, state = carry
            windows = text[starts[:, None] + jnp.arange(self.length + 1)]
            grads = jax.grad(lambda params: self.losses(nnx.merge(structure, params), windows).mean())(params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), starts)
        held_out = texts["held_out"]
        losses = self.losses(nnx.merge(structure, params), held_out.reshape(-1, self.length + 1))
        return {"losses": losses.reshape(len(held_out), -1).mean(1)}


@functools.cache
def corpus() -> dict[str, np.ndarray]:
    """Returns the domains' bytes for training and testing, ``[D, n]`` each, cut to the shortest domain's."""
    texts = [data.load_text(name) for name in DOMAINS]

    def cut(parts):
        return np.stack([np.asarray(part[: min(map(len, parts))]) for part in parts])

    return {"train": cut([text.train for text in texts]), "test": cut([text.test for text in texts])}


@functools.cache
def texts(proxy: Proxy) -> dict[str, jax.Array]:
    """Returns the data of a sweep: the bytes to train on, ``[D, n]``, and held-out windows ``[D, m, length + 1]``."""
    found, length = corpus(), proxy.length + 1
    # evenly over the held-out text
    starts = np.linspace(0, found["test"].shape[1] - length, proxy.held_out).astype(int)
    held_out = found["test"][:, starts[:, None] + np.arange(length)]
    return {"train": jnp.asarray(found["train"]), "held_out": jnp.asarray(held_out)}


def proxies(quick: bool) -> list[Proxy]:
    """Returns both proxies, or tiny ones where ``quick``."""
    if quick:
        return [
            Proxy("byte model", "bytes", 2, 4, 4, 2, 3, 3e-3, 2),
            Proxy("decoder", "decoder", 4, 2, 4, 2, 3, 3e-3, 2),
        ]
    return [
        Proxy("byte model", "bytes", 8, 16, 32, 16, 300, 1e-2, 32),
        Proxy("decoder", "decoder", 16, 2, 32, 16, 300, 1e-2, 32),
    ]


def mixtures(num: int) -> list[list[float]]:
    """Draws mixtures of the domains, uniformly on the simplex."""
    return np.random.default_rng(0).dirichlet(np.ones(len(DOMAINS)), num).tolist()


@functools.cache
def trainer(proxy: Proxy) -> Callable:
    """Returns ``proxy.train``, the same object each time, so that its compiled sweeps are found again."""
    return proxy.train


def sweep(proxy: Proxy, runs: int, **options: Any) -> Any:
    """Sweeps ``runs`` mixtures, one seed each."""
    return mixjax.sweep(trainer(proxy), seeds=1, points={"mixture": mixtures(runs)}, data=texts(proxy), **options)


@functools.cache
def _jitted(proxy: Proxy) -> Callable:
    return jax.jit(proxy.train)


def loop(proxy: Proxy, chosen: Sequence[Sequence[float]]) -> list[dict[str, np.ndarray]]:
    """Runs jitted runs one after the other on one device, and reads nothing back before the end."""
    run, made = _jitted(proxy), texts(proxy)
    key = jax.random.key(0)
    return jax.device_get([run(key, {"mixture": jnp.asarray(mixture)}, made) for mixture in chosen])

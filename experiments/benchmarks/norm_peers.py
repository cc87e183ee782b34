"""Compares the norms of examples' gradients with those of Opacus and jax-privacy."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks import module_norms, norm_nets, norms, peers, pytorch, timing
from mixjax import grad_norms

__all__ = ["OURS", "SIDES", "Problem", "differences", "problems", "run", "sides"]

OURS = "mixjax"
PLAIN, PLAIN_TORCH = "JAX, gradient alone", "PyTorch, gradient alone"
OPACUS = "Opacus, ghost clipping"
WHOLE, BY_16 = "jax-privacy", "jax-privacy, 16 at a time"
SIDES = PLAIN, OURS, WHOLE, BY_16, PLAIN_TORCH, OPACUS
# float32, and two libraries that add in other orders
TOLERANCE = 1e-4


class Problem(NamedTuple):
    """Holds a model with a batch, in JAX and in PyTorch.

    Attributes:
        name: for the tables.
        losses: ``losses(params, batch) -> [B]`` in JAX.
        ours: ``ours(params, batch) -> (losses, mean gradient, norms)`` by mixjax.
        params: the parameters.
        batch: inputs and labels.
        net: makes the module of PyTorch.
        inputs: turns the inputs into those of the module.
    """

    name: str
    losses: Callable[[Any, Any], jax.Array]
    ours: Callable[[Any, Any], tuple[jax.Array, Any, jax.Array]]
    params: Any
    batch: tuple[jax.Array, jax.Array]
    net: Callable[[], norm_nets.Net]
    inputs: Callable[[np.ndarray], np.ndarray]


def of_tape(model: norms.Model, net: Callable[[], norm_nets.Net]) -> Problem:
    """Makes the problem of a model that is written on a tape."""
    batch = model.x[: model.batch_size], model.y[: model.batch_size]

    def losses(params, batch):
        return norms.losses_of(model, grad_norms.Tape(), params, batch)

    def ours(params, batch):
        tapped = lambda tape, params, batch: norms.losses_of(model, tape, params, batch)  # noqa: E731
        return grad_norms.value_grads_and_norms(tapped, params, batch)

    return Problem(model.name, losses, ours, model.params, batch, net, lambda x: x)


def of_module(task: module_norms.Task) -> Problem:
    """Makes the problem of images from a module of flax."""
    graphdef, params, rest = nnx.split(task.model, nnx.Param, ...)

    def losses(params, batch):
        return module_norms.losses_of(nnx.merge(graphdef, params, rest), batch)

    def ours(params, batch):
        return grad_norms.nnx.value_grads_and_norms(module_norms.losses_of, nnx.merge(graphdef, params, rest), batch)

    def net():
        return norm_nets.images(task.model)

    # contiguous, since Opacus reads an input of a convolution as if it were, and returns other norms where it is not
    return Problem(
        task.name, losses, ours, params, task.batch, net, lambda x: np.ascontiguousarray(np.moveaxis(x, -1, 1))
    )


def problems(quick: bool) -> list[Problem]:
    """Returns the MLP, the decoder and the small CNN of the benchmarks ``norms`` and ``module_norms``."""
    mlp, decoder = norms.models(quick)
    cnn = module_norms.tasks(quick)[1]
    return [
        of_tape(mlp, lambda: norm_nets.perceptron(mlp.params)),
        of_module(cnn),
        of_tape(decoder, lambda: norm_nets.decoder(decoder.params, heads=2 if quick else 4)),
    ]


def jax_sides(problem: Problem) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Returns the sides in JAX that are installed; each returns the mean gradient, and the norms or None."""

    def mean(params, batch):
        return problem.losses(params, batch).mean()

    made = {PLAIN: lambda params, batch: (jax.grad(mean)(params, batch), None)}
    made[OURS] = lambda params, batch: problem.ours(params, batch)[1:]
    if peers.installed("jax_privacy"):
        from jax_privacy import clipping

        def private(size):
            # A bound of infinity clips nothing. The mean is over one example, which comes with a batch axis of 1.
            clipped = clipping.clipped_grad(
                mean,
                l2_clip_norm=jnp.inf,
                normalize_by=len(problem.batch[1]),
                return_grad_norms=True,
                nan_safe=False,
                microbatch_size=size,
            )

            def call(params, batch):
                grads, aux = clipped(params, batch)
                return grads, aux.grad_norms

            return call

        made |= {WHOLE: private(None), BY_16: private(min(16, len(problem.batch[1])))}

    def side(function):
        compiled = jax.jit(function).lower(problem.params, problem.batch).compile()
        return lambda: jax.block_until_ready(compiled(problem.params, problem.batch))

    return {name: side(function) for name, function in made.items()}


def torch_sides(problem: Problem) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Returns the sides in PyTorch that are installed; each returns the mean gradient, and the norms or None."""
    if not peers.installed("torch"):
        return {}
    torch = pytorch.load()
    torch.set_num_threads(1)
    x, y = (np.asarray(part) for part in problem.batch)
    x = torch.from_numpy(np.array(problem.inputs(x)))
    x, y = x if x.is_floating_point() else x.long(), torch.from_numpy(np.array(y)).long()

    def losses(module):
        logits = module(x)
        flat = logits.reshape(-1, logits.shape[-1])
        return torch.nn.functional.cross_entropy(flat, y.reshape(-1), reduction="none").view(len(y), -1).mean(1)

    def plain(net):
        def side():
            net.module.zero_grad()
            losses(net.module).mean().backward()
            return net.grads(), None

        return side

    made = {PLAIN_TORCH: plain(problem.net())}
    if peers.installed("opacus"):
        from opacus.grad_sample import GradSampleModuleFastGradientClipping

        net = problem.net()
        hooked = GradSampleModuleFastGradientClipping(net.module, loss_reduction="mean", use_ghost_clipping=True)

        # Clipping would take a second backward pass. The first one has the mean gradient and the norms.
        def ghost():
            hooked.zero_grad()
            losses(hooked).mean().backward()
            return net.grads(), hooked.get_norm_sample()

        made[OPACUS] = ghost
    return made


def sides(problem: Problem) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Returns all sides that are installed, compiled."""
    made = jax_sides(problem) | torch_sides(problem)
    return {name: made[name] for name in SIDES if name in made}


def differences(made: dict[str, Callable[[], tuple[Any, Any]]]) -> dict[str, dict[str, float]]:
    """Returns how far the sides' mean gradients and norms are from those of mixjax.

    Raises:
        AssertionError: they are too far: the sides do not compute the same.
    """
    found = {name: side() for name, side in made.items()}
    grads = {name: [np.asarray(leaf) for leaf in jax.tree.leaves(grads)] for name, (grads, _) in found.items()}
    lengths = {name: [np.asarray(values)] for name, (_, values) in found.items() if values is not None}
    return {
        "mean gradient": peers.check("mean gradient", grads, OURS, TOLERANCE),
        "norms": peers.check("norms", lengths, OURS, TOLERANCE),
    }


def memory(quick: bool) -> list[dict[str, float]]:
    """Returns the megabytes of every side of each problem."""
    peers.give_back()
    return [peers.peaks(sides(problem)) for problem in problems(quick)]


def measure(quick: bool, megabytes: list[dict[str, float]]) -> tuple[str, dict[str, Any], list[timing.Target]]:
    """Times every problem, and returns text, data and targets."""
    text, data, targets = [], {}, []
    for problem, peaks in zip(problems(quick), megabytes, strict=True):
        made = sides(problem)
        different = differences(made)
        ms = peers.milliseconds(made, 2 if quick else 5)
        found = {name: peers.Found(ms[name], peaks[name]) for name in made}
        worst = max(value for values in different.values() for value in values.values())
        text += [f"**{problem.name}**, sides equal within {worst:.0e}", peers.table(found, SIDES, OURS)]
        measured = {
            name: {"ms": timing.summarize(one.ms)._asdict(), "megabytes": one.megabytes} for name, one in found.items()
        }
        data[problem.name] = {"different": different, **measured}
        for name in (OPACUS, WHOLE, BY_16):
            if name in found:
                ratio = timing.ratios(found[name].ms, found[OURS].ms)
                statement = f"the norms and the gradient in less time than by {name} ({problem.name.split(',')[0]})"
                targets.append(timing.Target(statement, f"{name} takes {ratio} times ours", ratio.median > 1))
    note = (
        "A call computes the mean gradient of a batch and the norm of every example's gradient, except where it says "
        '"gradient alone". All sides have the same parameters and the same batch, in one process on one core, in '
        "turns. The memory is that of another process at the peak of a call, beyond what it held before; PyTorch's "
        "sides hold the gradient of the call before, which is left out. Opacus computes norms without gradients for "
        "linear layers and embeddings, and from each example's gradient for convolutions and the scales of norms; its "
        "pass that clips is left out. jax-privacy computes each example's gradient by vmap. "
        f"{peers.versions('opacus', 'jax-privacy', 'torch')}."
    )
    return "\n\n".join([note, *text]), data, targets


def run(quick: bool) -> timing.Report:
    """Measures memory and time, each in a process on one core."""
    title = "Gradient norms of examples, beside peers"
    return peers.measured_apart(title, quick, functools.partial(memory, quick), functools.partial(measure, quick))

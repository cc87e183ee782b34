"""Compares hypergradients with those of TorchOpt, higher and jaxopt."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from experiments.benchmarks import hypergradients, peers, pytorch, timing
from mixjax.hypergrad import hypergrad, unroll

__all__ = ["IMPLICIT", "THROUGH", "Problem", "differences", "problem", "run", "sides"]

ALL, ROOT, FINITE = "mixjax, every state kept", "mixjax, square root of them", "mixjax, implicit"
TORCHOPT, HIGHER, JAXOPT = "TorchOpt", "higher", "jaxopt, implicit"
PLAIN, PLAIN_TORCH = "JAX, training alone", "PyTorch, training alone"
THROUGH = PLAIN, ALL, ROOT, PLAIN_TORCH, TORCHOPT, HIGHER
IMPLICIT = FINITE, JAXOPT
# float32 through hundreds of steps, in two libraries; the solvers take the same iterations
TOLERANCE = 1e-3
# A ridge of 1 makes the Hessian of these networks positive definite; where it is not, the iterations amplify rounding.
ITERATIONS, RIDGE = 10, 1.0
MODES = {
    ALL: {"mode": "reverse", "checkpoint_every": 1},
    ROOT: {"mode": "reverse"},
    FINITE: {"mode": "implicit", "max_iterations": ITERATIONS, "tolerance": 0.0, "ridge": RIDGE},
}


class Problem(NamedTuple):
    """Holds a training on several domains, after which a validation loss is differentiated by their weights.

    Attributes:
        params: the first parameters, of the MLP of the benchmark ``hypergradients``.
        weights: the domains' weights ``[K]``.
        rows: the examples of each step, ``[T, K, B]``.
        images: all examples, which are the validation batch too.
        labels: their classes.
    """

    params: dict[str, jax.Array]
    weights: jax.Array
    rows: np.ndarray
    images: jax.Array
    labels: jax.Array


def problem(domains: int, num_steps: int, width: int) -> Problem:
    """Makes a problem on 64 digits."""
    data, rng = load_digits(), np.random.default_rng(0)
    weights = jnp.asarray(rng.dirichlet(np.full(domains, 5.0)), jnp.float32)
    rows = rng.integers(0, 64, (num_steps, domains, hypergradients.BATCH))
    images, labels = jnp.asarray(data.data[:64] / 16, jnp.float32), jnp.asarray(data.target[:64])
    return Problem(hypergradients.init(jax.random.key(0), width), weights, rows, images, labels)


def jax_sides(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Returns the sides in JAX that are installed; each returns the hypergradient ``[K]``."""
    loss, optimizer = hypergradients.loss, optax.sgd(hypergradients.RATE)
    val = problem.images, problem.labels

    def draw(rows):
        return problem.images[rows], problem.labels[rows]

    inputs = problem.weights, problem.params, optimizer.init(problem.params), jnp.asarray(problem.rows)
    made = {PLAIN: lambda weights, *rest: unroll(loss, optimizer, draw=draw)(weights, *rest)[0]["shift"]}
    for name, options in MODES.items():
        function = hypergrad(loss, loss, optimizer, draw=draw, **options)
        made[name] = lambda *arguments, f=function: f(*arguments, val).hypergrads
    if peers.installed("jaxopt"):
        from jaxopt import implicit_diff, linear_solve

        def by_root(weights, params, opt_state, rows):
            def optimality(params, weights):
                """Is 0 where the weighted loss on the last batch is least."""
                objective = lambda params: weights @ jax.vmap(loss, (None, 0))(params, draw(rows[-1]))  # noqa: E731
                return jax.grad(objective)(params)

            # The bound on the residual is 0, so that both solvers take all iterations.
            solve = functools.partial(linear_solve.solve_cg, ridge=RIDGE, maxiter=ITERATIONS, tol=0.0)

            @implicit_diff.custom_root(optimality, solve=solve)
            def train(start, weights):
                return unroll(loss, optimizer, draw=draw)(weights, start, opt_state, rows)[0]

            return jax.grad(lambda weights: loss(train(params, weights), val))(weights)

        made[JAXOPT] = by_root

    def side(function):
        compiled = jax.jit(function).lower(*inputs).compile()
        return lambda: jax.block_until_ready(compiled(*inputs))

    return {name: side(function) for name, function in made.items()}


def torch_sides(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Returns the sides in PyTorch that are installed; each returns the hypergradient ``[K]``."""
    if not peers.installed("torch"):
        return {}
    torch = pytorch.load()
    torch.set_num_threads(1)
    (num_domains, size), rate = problem.rows.shape[1:], hypergradients.RATE
    images, labels, steps = (
        torch.from_numpy(np.array(part)) for part in (problem.images, problem.labels, problem.rows)
    )
    labels = labels.long()
    start = {name: torch.from_numpy(np.array(leaf)) for name, leaf in problem.params.items()}
    pixels, width = start["in"].shape
    net = torch.nn.Sequential(
        torch.nn.Linear(pixels, width), torch.nn.ReLU(), torch.nn.Linear(width, hypergradients.CLASSES)
    )
    first = [start["in"].T, start["bias"], start["out"].T, start["shift"]]
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), first, strict=True):
            parameter.copy_(value)
    entropy = torch.nn.functional.cross_entropy

    def weighted(net, weights, rows):
        rows = rows.reshape(-1)
        losses = entropy(net(images[rows]), labels[rows], reduction="none")
        return weights @ losses.view(num_domains, size).mean(1)

    def weights():
        return torch.from_numpy(np.array(problem.weights)).requires_grad_()

    def hypergradient(net, weights):
        return torch.autograd.grad(entropy(net(images), labels), weights)[0]

    def plain():
        own, fixed = list(net.parameters()), weights().detach()
        kept = [parameter.detach().clone() for parameter in own]
        for rows in steps:
            grads = torch.autograd.grad(weighted(net, fixed, rows), own)
            with torch.no_grad():
                torch._foreach_add_(own, grads, alpha=-rate)
        with torch.no_grad():
            torch._foreach_copy_(own, kept)

    made = {PLAIN_TORCH: plain}
    if peers.installed("torchopt"):
        import torchopt

        # It puts new tensors in the place of the parameters, so that references lead back to the first.
        before = torchopt.extract_state_dict(net, by="reference")

        def by_torchopt():
            c, optimizer = weights(), torchopt.MetaSGD(net, lr=rate)
            for rows in steps:
                optimizer.step(weighted(net, c, rows))
            found = hypergradient(net, c)
            torchopt.recover_state_dict(net, before)
            return found

        made[TORCHOPT] = by_torchopt
    if peers.installed("higher"):
        import higher

        def by_higher():
            c = weights()
            with higher.innerloop_ctx(net, torch.optim.SGD(net.parameters(), lr=rate)) as (inner, optimizer):
                for rows in steps:
                    optimizer.step(weighted(inner, c, rows))
                return hypergradient(inner, c)

        made[HIGHER] = by_higher
    return made


def sides(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Returns all sides that are installed, compiled."""
    made = jax_sides(problem) | torch_sides(problem)
    return {name: made[name] for name in (*THROUGH, *IMPLICIT) if name in made}


def differences(made: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns how far the sides' hypergradients are from those of mixjax, by steps or implicit.

    Raises:
        AssertionError: they are too far: the sides do not compute the same.
    """
    found = {name: [np.asarray(side())] for name, side in made.items() if name not in (PLAIN, PLAIN_TORCH)}
    through = {name: values for name, values in found.items() if name in THROUGH}
    implicit = {name: values for name, values in found.items() if name in IMPLICIT}
    return peers.check("hypergradient", through, ALL, TOLERANCE) | peers.check(
        "hypergradient", implicit, FINITE, TOLERANCE
    )


Shapes = Sequence[tuple[int, int, int]]


def memory(shapes: Shapes) -> list[dict[str, float]]:
    """Returns the megabytes of every side of each problem."""
    peers.give_back()
    return [peers.peaks(sides(problem(*shape))) for shape in shapes]


def measure(
    shapes: Shapes, megabytes: list[dict[str, float]], repeats: int
) -> tuple[str, dict[str, Any], list[timing.Target]]:
    """Times every problem, and returns text, data and targets."""
    text, data, targets = [], {}, []
    for (domains, num_steps, width), peaks in zip(shapes, megabytes, strict=True):
        one = problem(domains, num_steps, width)
        made = sides(one)
        different = differences(made)
        ms = peers.milliseconds(made, repeats)
        found = {name: peers.Found(ms[name], peaks[name]) for name in made}
        size = sum(leaf.size for leaf in jax.tree.leaves(one.params))
        name = f"K = {domains}, T = {num_steps}, d = {size}"
        text += [f"**{name}**", peers.table(found, THROUGH, ALL), peers.table(found, IMPLICIT, FINITE)]
        measured = {
            side: {"ms": timing.summarize(part.ms)._asdict(), "megabytes": part.megabytes}
            for side, part in found.items()
        }
        data[name] = {"different": different, **measured}
        for peer, ours in ((TORCHOPT, ALL), (HIGHER, ALL), (JAXOPT, FINITE)):
            if peer in found:
                ratio = timing.ratios(found[peer].ms, found[ours].ms)
                statement = f"{ours} takes less time than {peer} ({name})"
                targets.append(timing.Target(statement, f"{peer} takes {ratio} times ours", ratio.median > 1))
    note = (
        f"The problem of the benchmark `hypergradients`: an MLP 64-h-10 of d parameters on digits, T steps of SGD with "
        f"{hypergradients.BATCH} examples of each of K domains, and the derivative of a validation loss by the "
        "domains' weights. All sides have the same parameters, weights and batches, in one process on one core, in "
        "turns. The memory is that of another process at the peak of a call, beyond what it held before. TorchOpt and "
        "higher differentiate through the steps, and so does mixjax in the first table. In the second the weights' "
        f"effect is that on an optimum: both solve by {ITERATIONS} iterations of conjugate gradients with a ridge of "
        f"{RIDGE:g}. The hypergradients were found equal within {TOLERANCE} of the largest before they were timed. "
        f"{peers.versions('torchopt', 'higher', 'jaxopt', 'torch')}."
    )
    return "\n\n".join([note, *text]), data, targets


def run(quick: bool) -> timing.Report:
    """Measures memory and time, each in a process on one core."""
    shapes = [(2, 3, 4)] if quick else [(8, 256, 13), (8, 256, 1333)]
    timed = functools.partial(measure, shapes, repeats=2 if quick else 5)
    return peers.measured_apart("Hypergradients, beside peers", quick, functools.partial(memory, shapes), timed)

"""Two groups with slopes 1 and K: paper 003, section 2.1 (figure 1, lemma 2.1) and appendix C.1 (figure 5)."""

import dataclasses
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from experiments.resampling_reweighting import lattice
from experiments.resampling_reweighting.runs import Run, at, by_rate, interval, swept
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.figures import text
from mixjax import grad_norms, resampling
from mixjax.runner import configs
from mixjax.runner.claims import Claim, near, paired, versus
from mixjax.runner.experiment import Experiment

METHODS = {
    "sgd": "SGD",
    "static": "RR, f and w of section 2",
    "per_term": "RR, gradient norms (eq. 3.5)",
}
SMALL_RATES = (0.2, 0.04)  # at which lemma 2.1 is looked at, on the exact walk
STAY, LEFT = 0.95, -0.5  # "stays": in so many of the runs; a run has left the basin once it is below -1/2


@dataclasses.dataclass(frozen=True)
class Piecewise(Run):
    """Section 2.1's example.

    Attributes:
        share: ``a_1``, the share of the group of slope 1.
        epsilon: ``ε``, the slope of either loss where the other one acts.
        steepness: ``K``.
        first: the first parameter.
        shown: learning rates whose trajectories are drawn; the first is figure 1's.
    """

    learning_rate: float = 0.04
    num_steps: int = 1000
    record_every: int = 10
    share: float = 0.4
    epsilon: float = 0.1
    steepness: float = 5.0
    first: float = 0.25
    shown: tuple[float, ...] = (0.04,)


def slopes(theta: jax.Array, config: Piecewise) -> jax.Array:
    """Derivatives of both groups' losses, ``[2, 1]``."""
    left = jnp.stack([jnp.sign(theta + 1), jnp.full_like(theta, -config.epsilon)])
    right = jnp.stack([jnp.full_like(theta, config.epsilon), jnp.sign(config.steepness * theta - 1) * config.steepness])
    return jnp.where(theta <= 0, left, right)[:, None]


def train(key: jax.Array, config: Piecewise) -> dict[str, jax.Array]:
    """Runs every method from the same parameter with the same random numbers.

    Returns:
        ``theta`` ``[method, step]``; ``left_at`` ``[method]``, the first step below ``LEFT``, ``num_steps + 1`` if
        there is none; ``spread`` ``[method]``, the standard deviation over the second half; ``right``, the share of it
        spent at theta > 0.
    """
    prior = jnp.array([config.share, 1 - config.share])
    lipschitz = jnp.array([1.0, config.steepness])

    def scores(method, grads):
        return {"sgd": jnp.ones(2), "static": lipschitz, "per_term": grad_norms.norm(grads)}[method]

    def step(method, theta, key):
        grads = slopes(theta, config)
        q = resampling.probabilities(scores(method, grads), prior)
        theta = theta - config.learning_rate * resampling.estimate(key, grads, prior, q)[0]
        return theta, theta

    def run(method):
        keys = jax.random.split(key, config.num_steps)
        return jax.lax.scan(functools.partial(step, method), jnp.float32(config.first), keys)[1]

    theta = jnp.stack([run(method) for method in METHODS])
    out, half = theta < LEFT, theta[:, config.num_steps // 2 :]
    return {
        "theta": theta[:, config.record_every - 1 :: config.record_every],
        "left_at": 1.0 + jnp.where(out.any(1), jnp.argmax(out, 1), config.num_steps),
        "spread": half.std(1),
        "right": (half > 0).mean(1),
    }


def experiment_of(config: Piecewise, figure, claims) -> Experiment:
    """What both experiments share."""
    dims = {"theta": ("method", "step")} | dict.fromkeys(("left_at", "spread", "right"), ("method",))
    return Experiment(
        train=lambda key, hparams, data: train(key, configs.replace(config, hparams)),
        data=None,
        dims=dims,
        coords={"method": list(METHODS), "step": config.steps},
        units={"theta": "1", "left_at": "steps", "spread": "1", "right": "share"},
        figure=lambda results: figure(swept(results, config.learning_rate), config),
        claims=lambda results: claims(swept(results, config.learning_rate), config),
    )


def piecewise(config: Piecewise) -> Experiment:
    """Figures 1 and 5."""
    return experiment_of(config, figure, claims)


def equilibrium(config: Piecewise) -> Experiment:
    """Lemma 2.1: how much time long runs spend on either side."""
    return experiment_of(config, equilibrium_figure, equilibrium_claims)


def chain(method: str, config: Piecewise, learning_rate: float) -> lattice.Walk:
    """The same walk, exactly: the config's decimals as fractions."""
    numbers = (learning_rate, config.first, config.share, config.epsilon, config.steepness)
    return lattice.walk(method, *(Fraction(str(round(float(number), 9))) for number in numbers))


@functools.cache
def exits(method: str, config: Piecewise, learning_rate: float) -> float:
    """Exact probability of leaving within the steps of a run."""
    return lattice.exit_probabilities(chain(method, config, learning_rate), LEFT, [config.num_steps])[0]


def claims(data, config: Piecewise) -> list:
    """What figures 1 and 5 show, within the steps run."""
    rate, steps, ours = config.shown[0], config.num_steps, {"source": "paper 003, section 2.1"}
    left = (data.left_at <= steps).astype(float)
    stays = {method: (1.0 - left.sel({"method": method})).sum("learning_rate") for method in METHODS}
    calm = data.learning_rate.where((left.sel({"method": ["sgd", "static"]}) == 0).all(("seed", "method")), drop=True)
    spread = {m: data.spread.sel({"method": m}).sel(learning_rate=calm).mean("learning_rate") for m in METHODS}
    exact = {method: exits(method, config, rate) for method in METHODS}

    def told(method):
        return f"{interval(at(left, rate, method))} left within {steps} steps, exactly {exact[method]:.2g}"

    def jumps():
        median = np.median(at(data.left_at, rate, "sgd"))
        note = f"share of runs below {LEFT:g} at learning rate {rate:g}; {told('sgd')}; median step {median:.0f}"
        return versus("sgd_jumps", at(left, rate, "sgd"), ">=", 0.5, **quote("sgd_jumps"), note=note)

    def remains(name, method, **sentence):
        note = f"share of runs that stay, learning rate {rate:g}; {told(method)}"
        return versus(name, 1.0 - at(left, rate, method), ">=", STAY, **sentence, note=note)

    def wider(name, method, **sentence):
        note = (
            f"number of the grid's learning rates at which a run stays for {steps} steps; shares that left, "
            f"{' / '.join(METHODS)}, by learning rate: {by_rate(left)}"
        )
        return paired(name, stays[method], ">", stays["sgd"], **sentence, note=note)

    def oscillates():
        note = (
            "standard deviation of theta over the second half, mean over the learning rates where no run left, "
            f"{text(spread['static'])} against {text(spread['sgd'])}"
        )
        return paired(
            "rr_oscillates_less", spread["static"], "<", spread["sgd"], **quote("rr_oscillates_less"), note=note
        )

    def follows(method):
        tolerance = 4 * np.sqrt(max(exact[method] * (1 - exact[method]), 1e-3) / left.sizes["seed"])
        note = f"share of runs that left at learning rate {rate:g}; exactly {exact[method]:.4f}"
        statement = f"ours: the runs of {METHODS[method]} follow the exact lattice chain"
        share = at(left, rate, method)
        return near(f"exact_chain_{method}", share, exact[method], tolerance, statement=statement, **ours, note=note)

    return [
        jumps(),
        remains("rr_stays", "static", **quote("rr_stays")),
        remains("rr_stays_per_term", "per_term", statement="ours: so does RR by gradient norms, eq. 3.5", **ours),
        wider("rr_wider_range", "static", **quote("rr_wider_range")),
        wider("rr_wider_range_per_term", "per_term", statement="ours: so is RR by gradient norms, eq. 3.5", **ours),
        oscillates(),
        *(follows(method) for method in METHODS),
    ]


@functools.cache
def mass_right(method: str, config: Piecewise, learning_rate: float) -> float:
    """The exact stationary share at theta > 0."""
    walk = chain(method, config, learning_rate)
    return float(lattice.stationary(walk)[walk.positions > 0].sum())


def lemma_mass(method: str, config: Piecewise, learning_rate: float) -> float:
    """Lemma 2.1's share at theta > 0; SGD's only."""
    return lattice.gibbs_mass_right(learning_rate, config.share, config.epsilon, config.steepness)


def log_odds(p: float) -> float:
    """Logarithm of p / (1 - p)."""
    return float(np.log(p) - np.log1p(-p))


def equilibrium_claims(data, config: Piecewise) -> list:
    """Lemma 2.1 against the walk."""
    ours, (smallest, *_) = {"source": "paper 003, section 2.1"}, data.learning_rate.values
    right = {method: data.right.sel({"method": method}) for method in METHODS}

    def row(eta):
        measured = ", ".join(
            f"{method} {text(right[method].sel(learning_rate=eta))} (exactly {mass_right(method, config, eta):.4f})"
            for method in METHODS
        )
        return f"{eta:g}: {measured}, lemma {lattice.gibbs_mass_right(eta):.4f}"

    share = f"share of time at theta > 0 in the second half of {config.num_steps} steps, learning rate {smallest:g}"
    table = "; ".join(map(row, data.learning_rate.values))
    at_smallest = {method: values.sel(learning_rate=smallest) for method, values in right.items()}
    exact = mass_right("sgd", config, smallest)
    odds = {eta: [log_odds(mass("sgd", config, eta)) for mass in (mass_right, lemma_mass)] for eta in SMALL_RATES}
    least = min(SMALL_RATES)
    return [
        Claim(
            "sgd_equilibrium",
            **quote("sgd_equilibrium"),
            value=odds[least][0],
            stderr=None,
            threshold=odds[least][1],
            num_seeds=0,
            holds=abs(odds[least][0] / odds[least][1] - 1) < 0.1,
            note=f"log odds of theta > 0 at learning rate {least:g}, of the exact walk, within a tenth of the lemma's: "
            + ", ".join(f"{walk:.4g} against {law:.4g} at {eta:g}" for eta, (walk, law) in odds.items())
            + f". In runs, {share}, by learning rate: {table}. The lemma is the law of its stochastic differential "
            "equation, which is not the walk's however small the learning rate: drift and step are both in proportion "
            "to it, so that the wells are always a few steps wide",
        ),
        versus(
            "sgd_prefers_flat",
            at_smallest["sgd"],
            "<=",
            0.5,
            **quote("sgd_prefers_flat"),
            note=f"{share}: the side of theta = -1 has the rest",
        ),
        versus(
            "rr_equilibrium",
            at_smallest["static"],
            ">=",
            0.5,
            statement="ours: in equilibrium RR with f and w of section 2 prefers the global minimum",
            **ours,
            note=share,
        ),
        near(
            "exact_equilibrium",
            at_smallest["sgd"],
            exact,
            0.02,
            statement="ours: long runs of SGD follow the exact stationary law of the lattice chain",
            **ours,
            note=f"{share}; exactly {exact:.4f}",
        ),
    ]


def figure(data, config: Piecewise):
    """Loss, trajectories at the learning rates shown, and the share that left against the learning rate."""
    columns = len(config.shown)
    drawn, axes = plt.subplots(3, columns + 1, figsize=(3.4 * (columns + 1), 7.6), squeeze=False, layout="constrained")
    for row, (method, label) in enumerate(METHODS.items()):
        for axis, eta in zip(axes[row], config.shown, strict=False):
            curves = at(data.theta, eta, method)
            axis.plot(data.step, curves.isel(seed=slice(0, 10)).T, color=f"C{row}", lw=0.5, alpha=0.8)
            axis.axhline(1 / config.steepness, color="0.3", lw=0.8, ls=":")
            axis.axhline(-1, color="0.3", lw=0.8, ls="--")
            axis.set(xlabel="steps", ylabel="θ", ylim=(-1.6, 1.0), title=f"{label}\nη = {eta:g}, 10 runs")
            axis.title.set_fontsize(9)
    loss, right = axes[0, -1], axes[1, -1]
    theta = np.linspace(-1.5, 0.6, 400)
    first = np.where(theta <= 0, abs(theta + 1) - 1, config.epsilon * theta)
    second = np.where(theta <= 0, -config.epsilon * theta, abs(config.steepness * theta - 1) - 1)
    loss.plot(theta, config.share * first + (1 - config.share) * second, color="0.2", lw=1.4)
    loss.set(xlabel="θ", ylabel="loss V(θ)", title="loss")
    left = data.left_at <= config.num_steps
    total = left.sizes["seed"]
    for number, (method, label) in enumerate(METHODS.items()):
        counts = left.sel({"method": method}).sum("seed").values
        edges = np.array([stats.binomtest(int(c), total).proportion_ci(method="exact") for c in counts]).T
        share = counts / total
        style = {"fmt": "o", "ms": 3.5, "lw": 1, "capsize": 2, "color": f"C{number}"}
        right.errorbar(data.learning_rate, share, abs(edges - share), **style, label=label)
        exact = [exits(method, config, eta) for eta in data.learning_rate.values]
        right.plot(data.learning_rate, exact, color=f"C{number}", lw=0.9)
    right.set(
        xlabel="learning rate η",
        ylabel=f"left within {config.num_steps} steps (share)",
        title="dots: runs, lines: exact",
    )
    axes[2, -1].axis("off")
    axes[2, -1].legend(*right.get_legend_handles_labels(), loc="upper left", fontsize=8.5, title="bars: 95 % intervals")
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.suptitle(
        f"Paper 003, figures 1 and 5: {total} runs from θ = {config.first:g}; dotted: 1/K, dashed: -1", fontsize=11
    )
    return drawn


def equilibrium_figure(data, config: Piecewise):
    """Share of time on the right against the learning rate: runs, exact, lemma."""
    drawn, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    rates = data.learning_rate.values
    fine = np.geomspace(rates[0], rates[-1], 100)
    for number, (method, label) in enumerate(METHODS.items()):
        values = data.right.sel({"method": method})
        error = 2 * values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
        style = {"fmt": "o", "ms": 4, "lw": 1, "capsize": 2, "color": f"C{number}", "label": label}
        axis.errorbar(rates, values.mean("seed"), error, **style)
        exact = [mass_right(method, config, eta) for eta in rates]
        axis.plot(rates, exact, "_", ms=14, color=f"C{number}", label="exact" if number == 0 else None)
    axis.plot(
        fine, [lattice.gibbs_mass_right(eta) for eta in fine], color="0.3", lw=1, ls="--", label="lemma 2.1 (SGD)"
    )
    axis.set(xscale="log", yscale="log", xlabel="learning rate η", ylabel="share of time at θ > 0")
    axis.grid(alpha=0.3, lw=0.5)
    axis.legend(fontsize=8.5)
    seeds = data.sizes["seed"]
    axis.set_title(
        f"Equilibrium: second half of {config.num_steps} steps, mean of {seeds} runs, ±2 standard errors", fontsize=10
    )
    return drawn

"""Trains with pairs of a loss rule and a sampling rule: what a config lists, what each looks at, and one run of it.

Every pair trains by the same loop: rounds of steps with fixed weights, each ended by one probe that moves first ``c``
and then ``q``. The pair's number says which rules, which signals and which estimator it has. The number is the same for
all runs of a compiled call, so that nothing is computed that a pair does not need.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.table.problems import Problem, Setup
from mixjax import WeightRule, grad_norms, rules, samplers, training
from mixjax.hypergrad import alignment

__all__ = ["Pair", "excluded", "make_probe", "points", "reason", "run"]

# What a loss rule is told besides its losses on held-out points, or in place of them; nothing where it is not named.
# The reference model is trained first, without weighting, as long as the model itself; no budget counts that. The
# bandit is told of one domain at each probe, and so learns far less than where every step draws one.
LOOKS = {
    "fgls": "training points",
    "mirror_descent": "validation gradient",
    "projected_gradient": "validation gradient",
    "doge": "validation gradient",
    "doremi": "reference model",
    "exp3": "one domain drawn",
}
KINDS = ("held-out points", *dict.fromkeys(LOOKS.values()))
# the sampling rules that are told how gradients spread
SPREADS = ("variance_aware", "gradient_norm")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Holds a loss rule, a sampling rule and the values that are tried for their hyperparameters.

    Attributes:
        name: the pair's label in the table.
        loss: the rule for the loss weights, a name of ``mixjax.rules.RULES``.
        sampling: the rule for the sampling weights, likewise.
        estimator: how the gradient is estimated. ``stratified`` goes with exact integer counts, ``horvitz_thompson``
            with independently drawn domains.
        grid: from a hyperparameter to its values. All lists are equally long: their first entries are tried together,
            then their second ones. Each goes to the rule that has it.
    """

    name: str
    loss: str = "fixed"
    sampling: str = "fixed"
    estimator: Literal["stratified", "horvitz_thompson"] = "stratified"
    grid: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Raises a ValueError for a rule that does not exist, a hyperparameter that neither has, lists that differ."""
        for name in (self.loss, self.sampling):
            if name not in rules.RULES:
                raise ValueError(f"pair {self.name!r}: no rule {name!r}; there are {', '.join(rules.RULES)}.")
        known = {**_parameters(self.loss), **_parameters(self.sampling)}
        unknown = [name for name in self.grid if name not in known]
        if unknown:
            raise ValueError(
                f"pair {self.name!r}: neither rule has {', '.join(unknown)}; they have {', '.join(known)}."
            )
        if len({len(values) for values in self.grid.values()}) > 1:
            raise ValueError(f"pair {self.name!r}: all lists of its grid must be equally long, got {self.grid}.")


def _parameters(rule: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(rules.RULES[rule]).parameters)


class Need(NamedTuple):
    """Describes what some pairs need of a problem.

    Attributes:
        of: tells which pairs need it.
        met: tells which problems meet the need.
        reason: says why the other problems leave these pairs out.
    """

    of: Callable[[Pair], bool]
    met: Callable[[Problem], bool]
    reason: str


NEEDS = (
    Need(
        lambda pair: "gls" in (pair.loss, pair.sampling),
        lambda problem: problem.variances is not None and np.ptp(problem.variances) > 0,
        "needs variances of the label noise that are known and differ",
    ),
    Need(
        lambda pair: pair.loss == "fgls",
        lambda problem: not problem.streams,
        "needs residuals of training points, and a stream shows none twice",
    ),
    Need(
        lambda pair: "temperature" in pair.grid,
        lambda problem: np.ptp(problem.prior) > 0,
        "the prior is uniform, at every temperature",
    ),
)


def excluded(pair: Pair, problem: Problem) -> bool:
    """Tells whether a problem lacks what the pair needs."""
    return any(need.of(pair) and not need.met(problem) for need in NEEDS)


def reason(pair: Pair) -> str:
    """Says why a problem leaves the pair out, if it does."""
    return "; ".join(need.reason for need in NEEDS if need.of(pair))


def points(pairs: Sequence[Pair], learning_rates: Sequence[float]) -> dict[str, list]:
    """Returns everything that is tried, by column: ``pair``, ``learning_rate`` (a factor) and every hyperparameter.

    A pair's grid is crossed with the learning rates. A pair without one tries as many learning rates, between the same
    ends, so that no pair has more tries than another. Hyperparameters that a pair does not have are NaN.

    Raises:
        ValueError: grids of different lengths.
    """
    lengths = {len(values) for pair in pairs for values in pair.grid.values()}
    if len(lengths) > 1:
        raise ValueError(f"the grids of all pairs must be equally long, or some get more tries, got {sorted(lengths)}.")
    tries = max(lengths, default=1)
    finer = np.geomspace(min(learning_rates), max(learning_rates), tries * len(learning_rates)).tolist()
    names = list(dict.fromkeys(name for pair in pairs for name in pair.grid))
    rows = []
    for pair in pairs:
        for number in range(tries if pair.grid else 1):
            own = {name: values[number] for name, values in pair.grid.items()}
            rates = learning_rates if pair.grid else finer
            rows += [(pair.name, rate, *(own.get(name, np.nan) for name in names)) for rate in rates]
    return dict(zip(["pair", "learning_rate", *names], map(list, zip(*rows, strict=True)), strict=True))


def make_rule(name: str, pair: Pair, hparams: dict[str, jax.Array], problem: Problem) -> WeightRule:
    """Makes a rule with its own hyperparameters.

    FGLS is the two-stage one, with one look at the residuals and then its weights.
    """
    if name == "gls":
        return rules.gls(problem.variances)
    known = _parameters(name)
    rule = rules.RULES[name](**{key: hparams[key] for key in pair.grid if key in known})
    return rules.freeze_after(rule, 1) if name == "fgls" else rule


def rules_of(
    pairs: Sequence[Pair], hparams: dict[str, jax.Array], problem: Problem, warmup: int
) -> tuple[WeightRule, WeightRule]:
    """Returns the pair's two rules, chosen by ``hparams["pair"]``; loss weights wait for ``warmup`` probes."""
    chosen = [
        rules.select([make_rule(getattr(pair, kind), pair, hparams, problem) for pair in pairs], hparams["pair"])
        for kind in ("loss", "sampling")
    ]
    return rules.every(chosen[0], 1, start=warmup), chosen[1]


def make_probe(
    setup: Setup,
    pairs: Sequence[Pair],
    index: jax.Array,
    loss_rule: WeightRule,
    sampling_rule: WeightRule,
    prior: np.ndarray,
    reference: Any,
) -> Callable[[training.TrainState, jax.Array], training.TrainState]:
    """Returns ``probe(state, key)``, which measures what the pair looks at and moves ``c``, then ``q``.

    Losses are told in units of the mean loss before training, so that one grid of hyperparameters serves all problems.
    Signals that a pair does not look at are told as NaN, which a rule takes for unseen.
    """
    held_out = setup.held_out
    num_domains, size = jax.tree.leaves(held_out)[0].shape[:2]
    unit = jnp.dot(prior, setup.losses(setup.params, held_out).mean(axis=1))
    nothing = jnp.full(num_domains, jnp.nan)

    def losses(params, batch):
        return setup.losses(params, batch) / unit

    def mean_loss(params, batch):
        return losses(params, batch).mean()

    first_order = alignment(mean_loss, mean_loss, optax.set_to_zero())

    def moments(params, batch):
        values = losses(params, batch)
        counts = jnp.full(num_domains, size, jnp.float32)
        return {"counts": counts, "losses": values.mean(axis=1), "loss_vars": values.var(axis=1, ddof=1)}

    def training_points(key):
        batch = setup.draw(key, jnp.repeat(jnp.arange(num_domains), size))
        return jax.tree.map(lambda x: x.reshape(num_domains, size, *x.shape[1:]), batch)

    def by_training_points(state, key):
        return moments(state.params, training_points(key))

    def by_validation_gradient(state, key):
        batch = training_points(key)
        weights, still = state.loss_state.weights, optax.set_to_zero().init(state.params)
        result = first_order(weights, state.params, still, jax.tree.map(lambda x: x[None], batch), held_out)
        grads = jax.vmap(jax.grad(mean_loss), (None, 0))(state.params, batch)
        return {"hypergrads": result.hypergrads, "grad_norms": jax.vmap(optax.tree.norm)(grads)}

    def by_reference_model(state, key):
        return {"reference_losses": losses(reference, held_out).mean(axis=1)}

    def by_one_domain_drawn(state, key):
        drawn = jax.random.categorical(key, jnp.log(state.loss_state.weights))
        return {"counts": jax.nn.one_hot(drawn, num_domains) * size}

    measures = {
        "held-out points": lambda state, key: {},
        "training points": by_training_points,
        "validation gradient": by_validation_gradient,
        "reference model": by_reference_model,
        "one domain drawn": by_one_domain_drawn,
    }
    looks = jnp.asarray([KINDS.index(LOOKS.get(pair.loss, KINDS[0])) for pair in pairs])[index]
    needs_spread = jnp.asarray([pair.sampling in SPREADS for pair in pairs])[index]

    def spread(params):
        grads = jax.vmap(jax.vmap(jax.grad(losses), (None, 0)), (None, 0))(params, held_out)
        norms = jax.vmap(grad_norms.norm)(grads)
        means = jax.tree.map(lambda g: g.mean(axis=1), grads)
        m = jnp.sqrt(jnp.square(norms).mean(axis=1))
        within = jnp.maximum(jnp.square(m) - jnp.square(grad_norms.norm(means)), 0.0)
        return {"grad_norms": m, "grad_stds": jnp.sqrt(within * size / (size - 1))}

    # a switch and a cond by the pair's number stay what they are under vmap, since the number is not batched
    def probe(state, key):
        found = moments(state.params, held_out)
        blank = {**found, **dict.fromkeys(("hypergrads", "grad_norms", "reference_losses"), nothing)}
        branches = [lambda state, key, look=measures[kind]: {**blank, **look(state, key)} for kind in KINDS]
        told = jax.lax.switch(looks, branches, state, key)
        loss_state = loss_rule.update(state.loss_state, **told)
        spreads = jax.lax.cond(
            needs_spread, spread, lambda params: dict.fromkeys(("grad_norms", "grad_stds"), nothing), state.params
        )
        found |= {**spreads, "loss_weights": loss_state.weights}
        return state.replace(loss_state=loss_state, sampling_state=sampling_rule.update(state.sampling_state, **found))

    return probe


def run(
    key: jax.Array,
    hparams: dict[str, jax.Array],
    data: Any,
    *,
    problem: Problem,
    pairs: Sequence[Pair],
    settings: Any,
) -> dict[str, jax.Array]:
    """Trains one run of one pair at one point of its grid, on one seed's problem.

    Args:
        key: decides the data, the initial model and the batches: the same for all pairs.
        hparams: ``pair``, its position in ``pairs``; ``learning_rate``, a factor; every hyperparameter.
        data: the problem's data.
        problem: the problem that is trained on.
        pairs: the pairs that the problem can run.
        settings: has ``batch_size``, ``num_steps``, ``learning_rate``, ``schedule``, ``probe_every`` and ``warmup``.

    Returns:
        ``validation`` and ``test`` of the last model, and the last ``loss_weights`` and ``sampling_weights``.
    """
    setup_key, fit_key, reference_key = jax.random.split(key, 3)
    setup, index, size = problem.setup(setup_key, data), hparams["pair"], settings.batch_size
    rate = settings.learning_rate * hparams["learning_rate"]
    cosine = settings.schedule == "cosine"
    optimizer = optax.sgd(optax.cosine_decay_schedule(rate, settings.num_steps) if cosine else rate)
    prior = jnp.asarray(problem.prior, jnp.float32)

    def plan(weights):
        return samplers.counts_to_ids(samplers.allocate(weights, size), size), weights

    def draw_exactly(key, plan):
        return setup.draw(key, plan[0]), plan[0]

    def draw_independently(key, plan):
        domain_key, key = jax.random.split(key)
        domain_ids = samplers.multinomial(domain_key, plan[1], size)
        return setup.draw(key, domain_ids), domain_ids

    estimators = ("stratified", "horvitz_thompson")
    estimator = jnp.asarray([estimators.index(pair.estimator) for pair in pairs])[index]
    steps = [training.make_step(setup.losses, optimizer, estimator=name) for name in estimators]
    length = {"num_steps": settings.num_steps, "probe_every": settings.probe_every}

    def reference():
        state = training.init_state(setup.params, optimizer, prior, rules.fixed(), rules.fixed())

        def unchanged(state, key):
            return state

        return training.fit(steps[0], unchanged, plan, draw_exactly, state, reference_key, **length)[0].params

    needs_reference = jnp.asarray([LOOKS.get(pair.loss) == "reference model" for pair in pairs])[index]
    other = jax.lax.cond(needs_reference, reference, lambda: setup.params)

    warmup = round(settings.warmup * settings.num_steps / settings.probe_every)
    loss_rule, sampling_rule = rules_of(pairs, hparams, problem, warmup)
    probe = make_probe(setup, pairs, index, loss_rule, sampling_rule, prior, other)
    state = training.init_state(setup.params, optimizer, prior, loss_rule, sampling_rule)
    state, _ = training.fit(
        lambda state, batch, domain_ids: jax.lax.switch(estimator, steps, state, batch, domain_ids),
        probe,
        plan,
        lambda key, plan: jax.lax.switch(estimator, [draw_exactly, draw_independently], key, plan),
        state,
        fit_key,
        **length,
    )
    weights = {"loss_weights": state.loss_state.weights, "sampling_weights": state.sampling_state.weights}
    return {**setup.judge(state.params), **weights}

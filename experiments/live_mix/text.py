"""Trains a language model on texts in a live mix: ERMA moves the loss weights, VA the sampling weights."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.live_mix.text_results import claims, figure
from experiments.shared.decoder import Decoder
from mixjax import data, live, rules, signals
from mixjax.checks import requires
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop, HostRun

with requires("live", "experiments.live_mix.text"):
    import orbax.checkpoint as ocp

__all__ = ["Text", "text"]

Method = Literal["static", "erma", "va", "erma_va"]


@dataclasses.dataclass(frozen=True)
class Text:
    """Holds the settings.

    Attributes:
        method: ``static`` draws and weighs by the domains' sizes to the power ``temperature``; ``erma`` moves the loss
            weights, ``va`` the sampling weights, ``erma_va`` both.
        domains: names of :data:`mixjax.data.TEXT_DOMAINS`; for ``bpe`` of :func:`mixjax.data.token_domains`.
        tokens: ``bytes``, or the pieces of words of the files that ``mixjax data tokens`` makes, ``bpe``.
        temperature: 1 draws domains by their sizes, 0 all alike.
        length: tokens of a row.
        batch_size: rows of a step.
        microbatches: parts of a batch, whose gradients are added up.
        num_steps: optimizer steps.
        layers: blocks of the decoder.
        width: width of the decoder.
        heads: heads of its attention.
        learning_rate: the highest one, after the warm-up.
        warmup: share of the steps in which the learning rate rises; then it falls along a cosine.
        clip: largest norm of a gradient.
        probe_every: steps between two probes, at each of which the weights move.
        probe_size: validation rows of each domain in a probe.
        gamma1: ``gamma1`` of :func:`mixjax.rules.erma`.
        gamma2: ``gamma2`` of :func:`mixjax.rules.erma`.
        floor: least share of the prior in the loss weights and in the sampling weights.
        eval_size: test rows of each domain.
        lag: steps from a publication to its effect.
        workers: processes that read.
        save_every: steps between two checkpoints.
    """

    method: Method = "erma_va"
    domains: tuple[str, ...] = ("python", "c", "reference")
    tokens: Literal["bytes", "bpe"] = "bytes"
    temperature: float = 0.3
    length: int = 64
    batch_size: int = 32
    microbatches: int = 2
    num_steps: int = 200
    layers: int = 2
    width: int = 64
    heads: int = 4
    learning_rate: float = 3e-3
    warmup: float = 0.05
    clip: float = 1.0
    probe_every: int = 10
    probe_size: int = 8
    gamma1: float = 0.01
    gamma2: float = 0.05
    floor: float = 0.2
    eval_size: int = 32
    lag: int = 4
    workers: int = 0
    save_every: int = 100


class State(NamedTuple):
    """Holds all that training changes, apart from the plan.

    Attributes:
        params: the decoder's parameters.
        opt_state: the optimizer's state.
        loss_rule: state of the rule for the loss weights.
        sampling_rule: state of the rule for the sampling weights.
        history: metric -> ``[probes, domain]``, filled up to the present.
    """

    params: Any
    opt_state: Any
    loss_rule: Any
    sampling_rule: Any
    history: dict[str, jax.Array]


METRICS = ("loss", "loss_weight", "sampling_weight")


class Trainer:
    """Compiles what one setting needs: a step, a probe, and the state to begin with."""

    def __init__(self, config: Text, vocabulary: int = 256):
        """Builds the model's graph for so many different tokens, the optimizer and the rules."""
        self.config, self.vocabulary = config, vocabulary
        num_probes = config.num_steps // config.probe_every
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, max(int(config.warmup * config.num_steps), 1), config.num_steps
        )
        self.optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule))
        moves_loss, moves_sampling = "erma" in config.method, "va" in config.method
        erma = rules.erma(config.gamma1, config.gamma2) if moves_loss else rules.fixed()
        self.loss_rule = rules.floor(erma, config.floor)
        # Where VA does not move them, the sampling weights are the prior.
        va = rules.variance_aware() if moves_sampling else rules.fixed()
        self.sampling_rule = rules.floor(va, config.floor)
        self.history_shape = num_probes, len(config.domains)
        self.graph = nnx.graphdef(self._model(jax.random.key(0)))
        self.step, self.probe = jax.jit(self._step), jax.jit(self._probe)

    def init(self, key: jax.Array, prior: np.ndarray) -> State:
        """Makes the state before the first step."""
        params = nnx.state(self._model(key), nnx.Param)
        history = {name: jnp.full(self.history_shape, jnp.nan) for name in METRICS}
        states = self.loss_rule.init(prior), self.sampling_rule.init(prior)
        return State(params, self.optimizer.init(params), *states, history)

    def row_losses(self, params: Any, rows: jax.Array) -> jax.Array:
        """Returns the mean loss of the tokens of each row ``[n, length + 1]``, in nats."""
        model = nnx.merge(self.graph, params)
        targets = rows[:, 1:].astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(model(rows[:, :-1]), targets).mean(axis=-1)

    def _model(self, key):
        c = self.config
        return Decoder(c.layers, c.width, c.heads, c.length, vocabulary=self.vocabulary, rngs=nnx.Rngs(key))

    def _step(self, state: State, batch: Mapping[str, jax.Array]) -> tuple[State, jax.Array]:
        """Takes a step on a batch of the mix; returns the loss of each row too."""

        def objective(params, part):
            losses = self.row_losses(params, part["value"])
            return jnp.sum(part["row_weights"] * losses), losses

        def add(grads, part):
            part_grads, losses = jax.grad(objective, has_aux=True)(state.params, part)
            return jax.tree.map(jnp.add, grads, part_grads), losses

        # Weighted by row_weights, losses add up over the parts of a batch as they do over its rows.
        parts = {name: x.reshape(self.config.microbatches, -1, *x.shape[1:]) for name, x in batch.items()}
        grads, losses = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.params), parts)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state), losses.reshape(-1)

    def _probe(self, state: State, number: jax.Array, probe: jax.Array, test: jax.Array) -> State:
        """Updates the rules by validation rows ``[D, n, length + 1]``, and notes test losses and weights."""
        num_domains, size = probe.shape[:2]
        ids = jnp.repeat(jnp.arange(num_domains), size)
        rows = probe.reshape(num_domains * size, -1)
        seen = signals.moments(self.row_losses(state.params, rows), ids, num_domains).signals()
        stds = signals.grad_stds(
            lambda params, row: self.row_losses(params, row[None])[0], state.params, rows, ids, num_domains
        )
        loss_rule = self.loss_rule.update(state.loss_rule, **seen)
        sampling_rule = self.sampling_rule.update(
            state.sampling_rule, counts=seen["counts"], grad_stds=stds, loss_weights=loss_rule.weights
        )
        tested = jax.lax.map(lambda rows: self.row_losses(state.params, rows).mean(), test)
        values = dict(zip(METRICS, (tested, loss_rule.weights, sampling_rule.weights), strict=True))
        history = {name: state.history[name].at[number].set(values[name]) for name in METRICS}
        return state._replace(loss_rule=loss_rule, sampling_rule=sampling_rule, history=history)


# The seeds of one setting share its compiled programs.
_trainer = functools.lru_cache(maxsize=1)(Trainer)


def train(run: HostRun, config: Text) -> dict[str, np.ndarray]:
    """Trains one seed, from its last checkpoint if it has one.

    Returns:
        Metrics by name, ``[probes, domain]``, and ``epochs`` ``[domain]``, how often each domain's rows were drawn.
    """
    load = data.load_text if config.tokens == "bytes" else data.load_tokens
    texts = {name: load(name) for name in config.domains}
    parts = _windows(config, texts)
    sizes = live.sizes_of(parts["train"])
    prior = np.array(list(sizes.values()), np.float64) ** config.temperature
    prior /= prior.sum()
    plan = live.Plan(sizes, config.batch_size, prior, prior, seed=run.seed, lag=config.lag)
    feedback = live.Feedback(plan)
    trainer = _trainer(config, max(text.vocabulary.size if config.tokens == "bpe" else 256 for text in texts.values()))
    state = trainer.init(jax.random.key(run.seed), prior)
    test = _rows(parts["test"], config.eval_size, np.random.default_rng(0))

    with ocp.CheckpointManager(run.scratch.absolute() / "checkpoints", options=_OPTIONS) as manager:
        if manager.latest_step() is not None:
            state = _restored(manager, state, plan)
        else:
            # A run that was killed before its first checkpoint left a ledger, which a plan at step 0 refuses.
            (run.files / "ledger.jsonl").unlink(missing_ok=True)
        iterator = iter(live.mix(parts["train"], plan, workers=config.workers))
        with live.Ledger(run.files / "ledger.jsonl", plan) as ledger:
            # Workers draw steps ahead, so the plan's own step would end the loop too early.
            for _ in range(plan.step, config.num_steps):
                batch = next(iterator)
                step = batch["step"]
                state, losses = trainer.step(state, {name: batch[name] for name in ("value", "row_weights")})
                weights = None, None
                if (step + 1) % config.probe_every == 0:
                    rows = _rows(parts["validation"], config.probe_size, np.random.default_rng([run.seed, step]))
                    state = trainer.probe(state, step // config.probe_every, rows, test)
                    weights = state.sampling_rule.weights, state.loss_rule.weights
                    ledger.write(batch, losses=_by_domain(losses, batch, len(sizes)))
                    run.report((step + 1) / config.num_steps)
                else:
                    ledger.write(batch)
                feedback.send(step, *weights)
                if (step + 1) % config.save_every == 0:
                    # Lines first: a ledger that is ahead of the checkpoint is cut, one that is behind has lost weights.
                    ledger.flush()
                    plan_state = ocp.args.JsonSave(feedback.get_state())
                    manager.save(step + 1, args=ocp.args.Composite(state=ocp.args.StandardSave(state), plan=plan_state))
        iterator.close()
    drawn = np.array(feedback.get_state()["drawn"]) / np.array(list(sizes.values()))
    return {name: np.asarray(values) for name, values in state.history.items()} | {"epochs": drawn}


_OPTIONS = ocp.CheckpointManagerOptions(max_to_keep=2)


def _windows(config: Text, texts: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the rows of each part of each domain, ``[rows, length + 1]``."""
    return {
        part: {name: live.windows(getattr(text, part), config.length, overlap=1) for name, text in texts.items()}
        for part in ("train", "validation", "test")
    }


def _restored(manager: ocp.CheckpointManager, state: State, plan: live.Plan) -> State:
    """Returns the state of the last checkpoint, and sets the plan back to it."""
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(state), plan=ocp.args.JsonRestore())
    found = manager.restore(manager.latest_step(), args=wanted)
    plan.set_state(found["plan"])
    return found["state"]


def _rows(windows: Mapping[str, np.ndarray], num: int, rng: np.random.Generator) -> np.ndarray:
    """Draws rows of each domain, ``[D, num, length + 1]``."""
    return np.stack([each[rng.integers(len(each), size=num)] for each in windows.values()])


def _by_domain(losses: jax.Array, batch: Mapping[str, Any], num_domains: int) -> np.ndarray:
    """Returns the mean loss of each domain in a batch; NaN where it has no row."""
    seen = signals.moments(losses, batch["domain_ids"], num_domains).signals()
    return np.where(np.asarray(seen["counts"]) > 0, seen["losses"], np.nan)


def text(config: Text) -> Experiment:
    """Makes the experiment of training a language model on texts in a live mix."""
    probes = config.num_steps // config.probe_every
    token = "byte" if config.tokens == "bytes" else "token"
    return Experiment(
        train=HostLoop(lambda run: train(run, configs.replace(config, run.hparams))),
        dims={name: ("step", "domain") for name in METRICS} | {"epochs": ("domain",)},
        coords={"step": [(i + 1) * config.probe_every for i in range(probes)], "domain": list(config.domains)},
        units={"loss": f"nats per {token}", "loss_weight": "share", "sampling_weight": "share", "epochs": "1"},
        figure=figure,
        claims=claims,
    )

"""Trains a language model on texts in a live mix, while a method moves the loss weights and the sampling weights."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.live_mix import text_rows
from experiments.live_mix.methods import prior_of
from experiments.live_mix.text_results import claims, figure
from experiments.live_mix.text_settings import Text
from experiments.live_mix.text_trainer import METRICS, State, trainer_of
from mixjax import live, signals
from mixjax.checks import requires
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop, HostRun

with requires("live", "experiments.live_mix.text"):
    import orbax.checkpoint as ocp

__all__ = ["Text", "text"]


def train(run: HostRun, config: Text) -> dict[str, np.ndarray]:
    """Trains one seed, from its last checkpoint if it has one.

    Returns:
        Metrics by name, ``[evaluations, domain]``, and ``epochs`` ``[domain]``, how often each domain's rows were
        drawn.
    """
    domains = text_rows.load(config, run.scratch / "packings")
    sizes = live.sizes_of(domains.train)
    trainer = trainer_of(config, len(sizes), domains.vocabulary)
    prior = prior_of(trainer.method, config, list(sizes.values()), config.num_steps * config.batch_size)
    loss_weights = None if trainer.loss_rule is None else prior
    plan = live.Plan(
        sizes, config.batch_size, prior, loss_weights, seed=run.seed, lag=config.lag, lengths=domains.lengths
    )
    feedback = live.Feedback(plan)
    state = trainer.init(jax.random.key(run.seed), prior)
    test = text_rows.draw(list(domains.test.values()), config.eval_size, np.random.default_rng(0))

    with ocp.CheckpointManager(run.scratch.absolute() / "checkpoints", options=_OPTIONS) as manager:
        if manager.latest_step() is not None:
            state = _restored(manager, state, plan)
        else:
            # A run that was killed before its first checkpoint left a ledger, which a plan at step 0 refuses.
            (run.files / "ledger.jsonl").unlink(missing_ok=True)
        iterator = iter(live.mix(domains.train, plan, workers=config.workers))
        with live.Ledger(run.files / "ledger.jsonl", plan) as ledger:
            # Workers draw steps ahead, so the plan's own step would end the loop too early.
            for _ in range(plan.step, config.num_steps):
                batch = next(iterator)
                step = batch["step"]
                given = {name: batch[name] for name in ("value", "row_weights", "domain_ids")}
                state, losses = trainer.step(state, given)
                moves = (step + 1) % trainer.interval == 0
                if moves and trainer.reads_probes:
                    state = trainer.probe(state, *_probe_of(domains.validation, config, run.seed, step))
                if (step + 1) % config.probe_every == 0:
                    ledger.write(batch, _by_domain(losses, batch, len(sizes)), state.weights[1])
                    run.report((step + 1) / config.num_steps)
                else:
                    ledger.write(batch)
                feedback.send(step, *(state.weights if moves else (None, None)))
                if (step + 1) % config.eval_every == 0:
                    state = trainer.test(state, step // config.eval_every, test)
                if (step + 1) % config.save_every == 0:
                    # Lines first: a ledger that is ahead of the checkpoint is cut, one that is behind has lost weights.
                    ledger.flush()
                    plan_state = ocp.args.JsonSave(feedback.get_state())
                    manager.save(step + 1, args=ocp.args.Composite(state=ocp.args.StandardSave(state), plan=plan_state))
        iterator.close()
    drawn = np.array(feedback.get_state()["drawn"]) / np.array(list(sizes.values()))
    return {name: np.asarray(values) for name, values in state.history.items()} | {"epochs": drawn}


_OPTIONS = ocp.CheckpointManagerOptions(max_to_keep=2)


def _restored(manager: ocp.CheckpointManager, state: State, plan: live.Plan) -> State:
    """Returns the state of the last checkpoint, and sets the plan back to it."""
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(state), plan=ocp.args.JsonRestore())
    found = manager.restore(manager.latest_step(), args=wanted)
    plan.set_state(found["plan"])
    return found["state"]


def _probe_of(windows, config, seed, step) -> tuple[np.ndarray, np.ndarray]:
    """Returns the domains of a probe, which take turns, and windows of them ``[m, probe_size, length + 1]``."""
    num_domains = len(windows)
    num = config.probe_domains or num_domains
    rounds, places = np.divmod(step // config.probe_every * num + np.arange(num), num_domains)
    # A rule compares the domains of one probe, so each round has other ones together.
    order = {each: np.random.default_rng([seed, each]).permutation(num_domains) for each in set(rounds.tolist())}
    domains = np.array([order[each][place] for each, place in zip(rounds.tolist(), places, strict=True)])
    probed = [list(windows.values())[domain] for domain in domains]
    # Aioli compares the losses of two updates, and so of the same rows.
    is_fixed = config.rule_method.reads == "same held-out losses"
    return domains, text_rows.draw(probed, config.probe_size, np.random.default_rng([seed, 0 if is_fixed else step]))


def _by_domain(losses: jax.Array, batch: Mapping[str, Any], num_domains: int) -> np.ndarray:
    """Returns the mean loss of each domain in a batch; NaN where it has no row."""
    seen = signals.moments(losses, batch["domain_ids"], num_domains).signals()
    return np.where(np.asarray(seen["counts"]) > 0, seen["losses"], np.nan)


def text(config: Text) -> Experiment:
    """Makes the experiment of training a language model on texts in a live mix."""
    evaluations = config.num_steps // config.eval_every
    token = "byte" if config.tokens == "bytes" else "token"
    return Experiment(
        train=HostLoop(lambda run: train(run, configs.replace(config, run.hparams))),
        dims={name: ("step", "domain") for name in METRICS} | {"epochs": ("domain",)},
        coords={
            "step": [(i + 1) * config.eval_every for i in range(evaluations)],
            "domain": list(text_rows.domain_names(config)),
        },
        units={"loss": f"nats per {token}", "loss_weight": "share", "sampling_weight": "share", "epochs": "1"},
        figure=figure,
        claims=claims,
    )

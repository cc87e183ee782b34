"""Adaptive search: it finds, it keeps one program, it goes on after a kill, and it says what is wrong."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import mixjax
from mixjax.sweeps import Sweep, lowering, programs
from mixjax.sweeps.search import search

pytestmark = pytest.mark.usefixtures("quick_compilation")
SPACE = {"x": ("linear", -2.0, 2.0), "rate": ("log", 1e-4, 1.0)}


def bowl(key, hparams, data):
    """Least at x = 1, rate = 0.01."""
    error = (hparams["x"] - data) ** 2 + (jnp.log10(hparams["rate"]) + 2) ** 2
    return {"error": error + 0.01 * jax.random.normal(key)}


def mean(result):
    return result.error.mean("seed")


def seeded(seed=0, **settings):
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), **settings)


def run(study, train=bowl, space=SPACE, objective=mean, **changes):
    names = {field.name for field in dataclasses.fields(Sweep)}
    fields = {"seeds": 2, "data": jnp.float32(1.0), "chunk": 8}
    fields |= {name: value for name, value in changes.items() if name in names}
    others = {"num_trials": 48, "batch": 8} | {name: value for name, value in changes.items() if name not in names}
    return search(Sweep(train, **fields), space, objective, study=study, **others)


def values(study):
    return [trial.value for trial in study.trials]


@pytest.fixture(scope="module", name="studies")
def _studies(quick_compilation):
    return [run(seeded(seed)) for seed in range(4)]


def test_it_is_better_than_chance(studies):
    gains = []
    for seed, study in enumerate(studies):
        points = mixjax.sweeps.random_points(SPACE, num=48, seed=seed)
        chance = mixjax.sweep(bowl, seeds=2, points=points, data=jnp.float32(1.0), chunk=8)
        best_random = float(mean(chance).min())
        gains.append(best_random - study.best_value)
        late, early = np.mean(values(study)[-16:]), np.mean(values(study)[:16])
        assert late < 0.5 * early  # later batches are nearer: the sampler learnt from those before
    assert np.mean(gains) > 0


def test_the_same_sampler_gives_the_same_search(studies):
    again = run(seeded())
    assert [trial.params for trial in again.trials] == [trial.params for trial in studies[0].trials]
    assert values(again) == values(studies[0])
    assert values(studies[1]) != values(studies[0])


def labelled(key, hparams, data):
    """The index of "b" is 1 in every batch, whatever came first in it."""
    losses = [lambda x: 5.0 + 0 * x, lambda x: (x - 1) ** 2, lambda x: 9.0 + 0 * x]
    return {"error": jax.lax.switch(hparams["kind"], losses, hparams["x"]), "kind_seen": hparams["kind"]}


def segments():
    return mixjax.sweeps.Segments(
        lambda key, hparams, data: jnp.float32(0),
        lambda carry, hparams, data: (
            carry,
            {name: value[None] for name, value in labelled(None, hparams, data).items()},
        ),
        num=2,
    )


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_labels_keep_their_positions_and_batches_share_one_program(cut, vectorize):
    kinds, seen = ["a", "b", "c"], []

    def objective(result):
        kind_seen = result.kind_seen if not cut else result.kind_seen.isel(kind_seen_0=-1)
        assert [kinds[i] for i in kind_seen.values[:, 0]] == result.kind.values.tolist()
        seen.append(result.kind.values[0])
        return result.error.mean([dim for dim in result.error.dims if dim != "point"])

    train = segments() if cut else labelled
    before = lowering.lower.cache_info().misses
    space = {"kind": kinds, "x": ("linear", -2.0, 2.0), "n": [1, 2.5], "m": ("integer", 0, 3)}
    study = run(seeded(), train, space, objective, data=None, chunk="auto", vectorize=vectorize, num_trials=28)
    assert lowering.lower.cache_info().misses - before == 1  # the last batch is smaller
    assert len(set(seen)) > 1 and len(seen) == 4  # other labels came first
    assert study.best_params["kind"] == "b" and study.best_value < 1
    assert {type(trial.params["n"]) for trial in study.trials} == {float}


def test_a_point_that_is_not_finite_is_a_failed_trial():
    def objective(result):
        return mean(result).where(result.x < 0, np.nan).where(result.x > -1, np.inf)

    study = run(seeded(), objective=objective, num_trials=32)
    for trial in study.trials:
        assert trial.state == (TrialState.COMPLETE if -1 < trial.params["x"] < 0 else TrialState.FAIL)
    assert len(study.trials) == 32 and -1 < study.best_params["x"] < 0


def test_several_objectives():
    def objective(result):
        return np.stack([result.x.values**2, (result.x.values - 1) ** 2], axis=1)

    study = run(seeded(directions=["minimize", "minimize"]), objective=objective, num_trials=16)
    assert all(
        trial.values == pytest.approx([trial.params["x"] ** 2, (trial.params["x"] - 1) ** 2]) for trial in study.trials
    )


def test_a_first_batch_that_is_half_told_is_told(tmp_path, monkeypatch):
    original, told = optuna.Study.tell, []

    def tell(*arguments, **more):
        if len(told) == 3:
            raise Killed
        told.append(original(*arguments, **more))

    arguments = {"checkpoint": tmp_path / "chunks", "num_trials": 8, "chunk": "auto"}
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", tell)
        with pytest.raises(Killed):
            run(stored(tmp_path), **arguments)
    monkeypatch.setattr(programs.Program, "run", None)  # everything is there
    study = run(stored(tmp_path), **arguments)
    assert len(values(study)) == 8 and None not in values(study)


class Killed(BaseException):
    pass


def stored(path, seed=0):
    return seeded(seed, storage=f"sqlite:///{path}/study.db", study_name="s", load_if_exists=True)


@pytest.mark.parametrize(("place", "chunk"), [("asking", 8), ("sweep", 8), ("telling", 8), ("telling", "auto")])
def test_a_killed_search_goes_on_with_the_batch_it_was_at(tmp_path, monkeypatch, place, chunk, save_always):
    expected = run(seeded(), num_trials=24)
    calls = {"asking": 0, "sweep": 0, "telling": 0}

    def counted(name, function, at):
        def call(*arguments, **more):
            calls[name] += 1
            if place == name and calls[name] == at:
                raise Killed
            return function(*arguments, **more)

        return call

    folder = tmp_path / "chunks"
    with monkeypatch.context() as patch:  # in the second batch, trials 8 to 15
        patch.setattr(optuna.Trial, "set_user_attr", counted("asking", optuna.Trial.set_user_attr, 8 + 6))
        patch.setattr(programs.Program, "run", counted("sweep", programs.Program.run, 2 + 2))
        patch.setattr(optuna.Study, "tell", counted("telling", optuna.Study.tell, 8 + 4))
        with pytest.raises(Killed):
            run(stored(tmp_path), checkpoint=folder, num_trials=24, chunk=chunk)
    before = stored(tmp_path).trials
    assert len(before) == 16 and before[-1].state == TrialState.RUNNING

    runs = []
    original = programs.Program.run
    monkeypatch.setattr(programs.Program, "run", lambda *arguments: runs.append(1) or original(*arguments))
    study = run(stored(tmp_path, seed=1), checkpoint=folder, num_trials=24, chunk=chunk)
    failed = 3 if place == "asking" else 0  # those not asked for completely
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == failed
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) == 24 - failed
    missing = {"asking": 4, "sweep": 3, "telling": 2}[place]  # chunks; what was computed is not computed again
    assert len(runs) == (missing if chunk == 8 else 1)
    assert values(study)[: 16 - failed] == values(expected)[: 16 - failed]
    assert list(folder.iterdir()) == []


def test_trials_that_the_user_put_first_come_first_and_a_full_study_stays(studies):
    study = seeded()
    study.enqueue_trial({"x": 1.0, "rate": 0.01})
    assert run(study, num_trials=8).trials[0].params == {"x": 1.0, "rate": 0.01}
    assert len(run(study, num_trials=8).trials) == 8
    assert len(search(Sweep(bowl, seeds=1, data=jnp.float32(1.0)), SPACE, mean, num_trials=2).trials) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 0}, "num_trials and batch must be at least 1"),
        ({"batch": 0}, "num_trials and batch must be at least 1"),
        ({"points": {"x": [1.0]}}, r"the search chooses the points; .* \['x'\]"),
        ({"space": {"x": ("log", 0.0, 1.0)}}, "x: needs low <= high"),
        ({"space": {"x": []}}, "x: no values to choose from"),
        ({"space": {"x": ["a", 1]}}, "x: needs strings or numbers only"),
        ({"objective": lambda result: result.error}, r"objective must return 8 values, one a point .*\(8, 2\)"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        run(seeded(), **changes)


def test_one_host_only(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match="a search needs one host, got 2"):
        run(None)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="pip install optuna"):
        run(None)


def test_an_unfinished_trial_of_another_space_is_a_failed_one():
    study = seeded()
    study.ask({"other": optuna.distributions.FloatDistribution(0.0, 1.0)}).set_user_attr("batch", 0)
    states = [trial.state for trial in run(study, num_trials=9).trials]
    assert states == [TrialState.FAIL] + 8 * [TrialState.COMPLETE]

"""Tests batches for loaders of PyTorch's shape: with any number read ahead, on any rank, and after a resumption."""

import collections
import io
import itertools
import pickle
import warnings

import numpy as np
import pytest

from mixjax.samplers import HostBatchSampler, HostIndexSampler, HostSampler

N, BATCH = 60, 6


def history(n=N, **changes):
    return HostSampler(n, 1.0, **({"beta": 2.0, "replacement": False} | changes))


def losses_of(step, indices):
    """Losses that depend on the step and the example, so that a batch drawn by other losses is another batch."""
    return np.sin(step + np.asarray(indices)) * 3


def loaded(batches, ahead):
    """Hands out lists of indices as PyTorch's DataLoader does, which asks for some before it hands out the first."""
    indices, waiting = iter(batches), collections.deque()
    waiting.extend(itertools.islice(indices, ahead))
    for found in indices:
        waiting.append(found)
        yield waiting.popleft()
    yield from waiting


def train(batches, ahead, steps):
    """Takes steps as a training loop does, over as many epochs as it needs; returns the batches."""
    taken = []
    while len(taken) < steps:
        for indices in loaded(batches, ahead):
            batch = batches.batch()
            assert indices == batch.indices.tolist()
            taken.append(batch)
            batches.update(batch.step, losses_of(batch.step, batch.indices))
            if len(taken) == steps:
                break
    return taken


def assert_same(got, want):
    assert [batch.step for batch in got] == [batch.step for batch in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.weights, b.weights)


def by_hand(lag, steps):
    """The batches as the class defines them: batch t from the losses of the batches before t - lag."""
    host, drawn = history(), []
    for step in range(steps):
        if step > lag:
            early = drawn[step - lag - 1]
            host.update(early, losses_of(step - lag - 1, early))
        key = np.random.SeedSequence([5, step]).generate_state(2)
        drawn.append(host.sample(key, BATCH)[0])
    return drawn


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_batches_are_those_of_the_definition_whatever_is_read_ahead(lag):
    want = by_hand(lag, 25)
    assert len({indices.tobytes() for indices in want}) == 25
    for ahead in range(lag + 1):
        got = train(HostBatchSampler(history(), BATCH, 8, seed=5, lag=lag), ahead, 25)
        np.testing.assert_array_equal([batch.indices for batch in got], want)


@pytest.mark.parametrize("lag", [0, 3])
def test_a_run_resumes_to_the_bit_from_any_step_with_any_reading_ahead(lag):
    want = train(HostBatchSampler(history(), BATCH, 7, seed=5, lag=lag), lag, 20)
    for stop in range(1, 20):
        first = HostBatchSampler(history(), BATCH, 7, seed=5, lag=lag)
        train(first, lag, stop)
        state = pickle.loads(pickle.dumps(first.state_dict()))
        for ahead in {0, lag}:
            second = HostBatchSampler(history(), BATCH, 7, lag=lag)
            second.load_state_dict(state)
            assert_same(train(second, ahead, 20 - stop), want[stop:])
    # The state of a state is the state.
    assert second.state_dict().keys() == state.keys() and first.state_dict() == state


def test_the_first_loop_after_a_resumption_takes_the_rest_of_the_epoch():
    batches = HostBatchSampler(history(), BATCH, 7)
    assert len(batches) == 7
    train(batches, 0, 10)
    again = HostBatchSampler(history(), BATCH, 7)
    again.load_state_dict(batches.state_dict())
    epochs = []
    for _ in range(3):
        epochs.append(0)
        for _ in again:
            epochs[-1] += 1
            again.keep(again.batch().step)
    assert epochs == [4, 7, 7]
    # At the end of an epoch nothing is left of it, and the next one is whole.
    batches.load_state_dict(again.state_dict())
    assert len(list(loaded(HostBatchSampler(history(), BATCH, 7, lag=6), 6))) == 7
    assert len(train(batches, 0, 7)) == 7 and batches.state_dict()["left_of_epoch"] == 0


def test_a_new_loop_goes_on_after_the_last_batch_that_was_taken_with_a_whole_epoch():
    want = train(HostBatchSampler(history(), BATCH, 7, lag=3), 0, 17)
    batches, got = HostBatchSampler(history(), BATCH, 7, lag=3), []
    for stop in (3, 10):
        for _ in loaded(batches, 3):
            got.append(batches.batch())
            batches.update(got[-1].step, losses_of(got[-1].step, got[-1].indices))
            if len(got) == stop:
                break
    assert_same(got + train(batches, 2, 7), want)


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
@pytest.mark.parametrize("shape", ["flat", "by rank"])
def test_ranks_share_the_draw_of_one_process(num_replicas, shape):
    want = train(HostBatchSampler(history(), BATCH, 5, seed=3, lag=1), 1, 8)
    ranks = [
        HostBatchSampler(history(), BATCH // num_replicas, 5, seed=3, lag=1, rank=rank, num_replicas=num_replicas)
        for rank in range(num_replicas)
    ]
    for _ in range(2):
        for parts in zip(*(loaded(rank, rank_number % 2) for rank_number, rank in enumerate(ranks)), strict=True):
            mine = [rank.batch() for rank in ranks]
            assert [list(part) for part in parts] == [batch.indices.tolist() for batch in mine]
            together = np.stack([batch.indices for batch in mine], 1).reshape(-1)
            step = mine[0].step
            if step < 8:
                np.testing.assert_array_equal(together, want[step].indices)
                np.testing.assert_array_equal(np.stack([b.weights for b in mine], 1).reshape(-1), want[step].weights)
            gathered = np.stack([losses_of(step, batch.indices) for batch in mine])
            for rank in ranks:
                rank.update(step, gathered if shape == "by rank" else gathered.reshape(-1))
    states = [rank.state_dict() for rank in ranks]
    assert all(state == states[0] for state in states)
    # One rank's state, on another number of ranks.
    alone = HostBatchSampler(history(), BATCH, 5, lag=1)
    alone.load_state_dict(states[-1])
    whole = HostBatchSampler(history(), BATCH, 5, seed=3, lag=1)
    train(whole, 0, 10)
    assert_same(train(alone, 1, 3), train(whole, 1, 3))


def test_indices_one_by_one_make_the_same_batches():
    batches, others = (HostBatchSampler(history(), BATCH, 4, lag=1) for _ in range(2))
    indices = HostIndexSampler(batches)
    assert len(indices) == 24
    got, one_by_one = [], iter(indices)
    # As torch.utils.data.BatchSampler cuts them.
    while part := list(itertools.islice(one_by_one, BATCH)):
        got.append(batches.batch())
        assert part == got[-1].indices.tolist()
        batches.update(got[-1].step, losses_of(got[-1].step, part))
    assert_same(got, train(others, 0, 4))


def test_kept_losses_and_losses_that_are_not_finite_change_nothing():
    host = history(replacement=True)
    batches = HostBatchSampler(host, BATCH, 4)
    for step, _ in enumerate(batches):
        batch = batches.batch()
        if step == 0:
            batches.keep(0)
        elif step == 1:
            batches.update(1, [np.nan, np.inf, 7.0, np.nan, -np.inf, np.nan])
            seven = batch.indices[2]
        else:
            batches.keep(step)
    assert host.values[seven] == 7.0 and (np.delete(host.values, seven) == 1.0).all()


def test_the_length_is_that_of_an_epoch_over_all_ranks():
    assert len(HostBatchSampler(history(), 7)) == 9
    assert len(HostBatchSampler(history(), 7, rank=1, num_replicas=2)) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 61}, r"batch_size must be in \[1, 60\], got 61"),
        ({"batch_size": 31, "num_replicas": 2}, r"batch_size must be in \[1, 60\], got 62"),
        ({"num_batches": 0}, r"num_batches must be an integer of at least 1, got 0"),
        ({"num_replicas": 0}, r"num_replicas must be an integer of at least 1, got 0"),
        ({"seed": -1}, r"seed must be an integer of at least 0, got -1"),
        ({"lag": -1}, r"lag must be an integer of at least 0, got -1"),
        ({"rank": 2, "num_replicas": 2}, r"rank must be in \[0, 2\), got 2"),
    ],
)
def test_numbers_out_of_range_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        HostBatchSampler(history(), **({"batch_size": BATCH} | changes))


def test_other_types_are_errors():
    with pytest.raises(TypeError, match="sampler must be a HostSampler, got ndarray"):
        HostBatchSampler(np.ones(3), 2)
    with pytest.raises(TypeError, match=r"lag must be an integer .* got 0\.5"):
        HostBatchSampler(history(), 2, lag=0.5)
    # Python takes True for 1.
    for name in ("batch_size", "num_batches", "seed", "lag", "rank", "num_replicas"):
        with pytest.raises(TypeError, match=f"{name} must be an integer .* got True"):
            HostBatchSampler(history(), **({"batch_size": BATCH} | {name: True}))


def test_calls_out_of_order_are_errors_and_change_nothing():
    batches = HostBatchSampler(history(), BATCH, lag=1)
    with pytest.raises(RuntimeError, match="no batch was drawn that was not returned yet"):
        batches.batch()
    with pytest.raises(RuntimeError, match="batch 2 needs the losses of batch 0, as lag is 1: call update or keep"):
        list(itertools.islice(batches, 3))
    with pytest.raises(RuntimeError, match=r"step 0 cannot be updated: batch\(\) has returned the steps before 0"):
        batches.keep(0)
    first = batches.batch()
    for step in (1, -1):
        with pytest.raises(RuntimeError, match=f"step {step} cannot be updated: .* next one to update is 0"):
            batches.keep(step)
    with pytest.raises(ValueError, match=r"losses must be those of all 1 ranks, of shape \(6,\) or \(1, 6\), got \(5"):
        batches.update(0, np.ones(5))
    with pytest.raises(ValueError, match=r"got \(\)"):
        batches.update(0, 0.5)
    batches.update(0, losses_of(0, first.indices))
    with pytest.raises(RuntimeError, match="step 0 cannot be updated"):
        batches.keep(0)
    want = train(HostBatchSampler(history(), BATCH, lag=1), 0, 5)
    assert_same([first, *train(batches, 1, 4)], want)


def test_states_that_do_not_fit_are_errors():
    state = HostBatchSampler(history(), BATCH).state_dict()
    with pytest.raises(ValueError, match=r"batches of 6 examples on all ranks together, .* batch_size is 4"):
        HostBatchSampler(history(), 4).load_state_dict(state)
    with pytest.raises(ValueError, match="state must have the shapes"):
        HostBatchSampler(history(N + 1), BATCH).load_state_dict(state)
    with pytest.raises(ValueError, match="state must have the shapes"):
        HostBatchSampler(history(prior=np.ones(N), floor=0.1), BATCH).load_state_dict(state)


def test_dictionaries_of_another_kind_are_errors_and_change_nothing():
    batches = HostBatchSampler(history(), BATCH)
    state = batches.state_dict()
    for name in state:
        short = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=f"state must be a dictionary .* got one without {name}"):
            batches.load_state_dict(short)
    with pytest.raises(TypeError, match=r"state must be a dictionary .* got list"):
        batches.load_state_dict([state])
    of_other_arrays = io.BytesIO()
    np.savez(of_other_arrays, np.ones(3))
    for arrays in (None, b"", b"no arrays", state["arrays"][:-100], of_other_arrays.getvalue()):
        with pytest.raises(ValueError, match=r"state must hold (the )?arrays"):
            batches.load_state_dict(state | {"arrays": arrays})
    assert batches.state_dict() == state


def test_a_sampler_of_another_number_of_examples_is_an_error():
    host = history()
    batches = HostBatchSampler(host, BATCH)
    host.remove([0])
    with pytest.raises(RuntimeError, match="made for 60 examples and has 59: make a HostBatchSampler anew"):
        next(iter(batches))


def test_the_state_holds_integers_and_bytes_only():
    batches = HostBatchSampler(history(), BATCH, lag=2)
    train(batches, 2, 4)
    kinds = {name: type(value) for name, value in batches.state_dict().items()}
    assert kinds == {"seed": int, "step": int, "left_of_epoch": int, "arrays": bytes}


def test_pytorchs_own_loader_gives_the_same_batches_with_and_without_workers():
    data = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed")
    want = train(HostBatchSampler(history(), BATCH, 7, seed=5, lag=4), 0, 20)
    workers = {"num_workers": 2, "prefetch_factor": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
    for one_by_one, settings in ((False, {}), (True, {}), (False, workers)):
        batches, got = HostBatchSampler(history(), BATCH, 7, seed=5, lag=4), []
        shape = {"batch_sampler": batches}
        if one_by_one:
            shape = {"sampler": HostIndexSampler(batches), "batch_size": BATCH}
        loader = data.DataLoader(range(N), **shape, **settings)
        while len(got) < 20:
            for examples in loader:
                got.append(batches.batch())
                assert examples.tolist() == got[-1].indices.tolist()
                batches.update(got[-1].step, losses_of(got[-1].step, got[-1].indices))
                if len(got) == 20:
                    break
        assert_same(got, want)


@pytest.mark.parametrize("between", ["another loop", "a loaded state"])
def test_a_loop_that_was_left_cannot_go_on(between):
    batches = HostBatchSampler(HostSampler(100, 1.0, beta=2.0, compiled=False), 4, 6, lag=3)
    left = iter(batches)
    next(left)
    batches.keep(batches.batch().step)
    if between == "another loop":
        next(iter(batches))
    else:
        batches.load_state_dict(batches.state_dict())
    # It would hand out a batch that batch() does not return.
    with pytest.raises(RuntimeError, match="this loop cannot go on"):
        next(left)


def test_a_loss_that_is_not_finite_is_told_at_once_and_a_batch_that_is_kept_is_not():
    batches = HostBatchSampler(HostSampler(50, 1.0, beta=1.0), 4, num_batches=9, lag=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in itertools.islice(batches, 6):
            batches.keep(batches.batch().step)
    next(iter(batches))
    batch = batches.batch()
    with pytest.warns(RuntimeWarning, match=f"1 of 4 losses .* nan of example {batch.indices[2]}:") as told:
        batches.update(batch.step, [0.1, 0.2, np.nan, 0.4])
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The batch after the lag stores them: once told is enough.
        for _ in itertools.islice(batches, 6):
            batches.update(batches.batch().step, [np.nan] * 4)

"""Tests that packing after the mix loses and repeats no row, whatever stops it, and says which token is whose."""

import collections
import json
import pickle

import grain
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.live import Feedback, Ledger, PackedMix, Plan, read_ledger

LENGTH = 32


def documents(domain, number):
    """Makes documents that tell in every token which one they are."""
    lengths = np.random.default_rng(domain).integers(1, 30, number)
    return [np.full(length, 1000 * domain + row) for row, length in enumerate(lengths.tolist())]


DATASETS = {"a": documents(1, 40), "b": documents(2, 15)}


def packed_of(plan_arguments=None, **changes):
    plan = Plan({"a": 40, "b": 15}, **({"batch_size": 6, "weights": [0.6, 0.4], "lag": 12} | (plan_arguments or {})))
    return PackedMix(DATASETS, plan, **({"row_length": LENGTH, "batch_size": 3, "open_rows": 8} | changes))


def weights(step):
    return np.random.default_rng(step).dirichlet(np.ones(2))


def take(packed, number, iterator=None):
    """Trains a number of batches: takes and publishes them."""
    iterator, batches = iterator or iter(packed), []
    for _ in range(number):
        batches.append(next(iterator))
        packed.publish(batches[-1]["step"], weights(batches[-1]["step"]))
    return batches


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        assert [each.step for each in a["planned"]] == [each.step for each in b["planned"]]
        for name in ("tokens", "tokens_segment_ids", "tokens_positions", "domain_ids", "token_weights"):
            np.testing.assert_array_equal(a[name], b[name])


def rows_in(batches):
    """Counts the documents in packed rows, by their first token, which a segment's first place has."""
    found = collections.Counter()
    for batch in batches:
        is_first = (batch["tokens_segment_ids"] > 0) & (batch["tokens_positions"] == 0)
        found.update(batch["tokens"][is_first].tolist())
    return found


WANT = take(packed_of(), 24)


def test_tokens_segments_domains_and_weights_belong_together():
    for batch in WANT:
        assert batch["tokens"].shape == (3, LENGTH) and batch["domain_ids"].dtype == np.int32
        is_padding = batch["tokens_segment_ids"] == 0
        assert (batch["domain_ids"][is_padding] == -1).all()
        assert (batch["token_weights"][is_padding] == 0).all() and (batch["tokens"][is_padding] == 0).all()
        for row in range(3):
            for segment in range(1, batch["tokens_segment_ids"][row].max() + 1):
                here = batch["tokens_segment_ids"][row] == segment
                (token,) = set(batch["tokens"][row][here].tolist())
                domain, document = divmod(token, 1000)
                assert here.sum() == len(DATASETS["ab"[domain - 1]][document])
                assert set(batch["domain_ids"][row][here].tolist()) == {domain - 1}
                np.testing.assert_array_equal(batch["tokens_positions"][row][here], np.arange(here.sum()))
                # The tokens of a document share its weight, one of six in the plan's batch.
                np.testing.assert_allclose(batch["token_weights"][row][here].sum(), 1 / 6, rtol=1e-6)


def test_every_row_of_a_planned_step_is_handed_out_once():
    planned = [each for batch in WANT for each in batch["planned"]]
    assert [each.step for each in planned] == list(range(len(planned))) and len(planned) > 10
    asked = collections.Counter()
    for each in planned:
        asked.update((1000 * (each.domain_ids + 1) + each.rows).tolist())
    handed = rows_in(WANT)
    # Nothing planned is missing; what is handed out beyond that is of the group that is not done.
    assert not asked - handed
    last = WANT[-1]["plan_step"]
    assert sum((handed - asked).values()) <= 6 * (last + 1 - len(planned))


def test_plan_steps_are_those_that_had_to_be_drawn():
    steps = [batch["plan_step"] for batch in WANT]
    assert steps == sorted(steps)
    for batch in WANT:
        assert all(each.step <= batch["plan_step"] for each in batch["planned"])


def test_weights_come_into_force_lag_steps_after_the_step_that_was_published():
    force = {}
    for batch in WANT:
        for each in batch["planned"]:
            force[each.step] = (batch["step"], each.weights)
    plan = Plan({"a": 40, "b": 15}, batch_size=6, weights=[0.6, 0.4], lag=12)
    for step, (published_after, in_force) in force.items():
        np.testing.assert_array_equal(next(plan).weights, in_force)
        plan.publish(step, weights(published_after))


@pytest.mark.parametrize("stops", [[1], [2, 3], [5, 6, 7, 13], list(range(1, 24))])
def test_a_new_process_goes_on_with_the_same_batches(stops):
    got, state = [], None
    for start, stop in zip([0, *stops], [*stops, 24], strict=True):
        packed = packed_of()
        if state is not None:
            packed.set_state(json.loads(state))
        iterator = iter(packed)
        got += take(packed, stop - start, iterator)
        # Batches that were read ahead and not trained are no part of the state.
        for _ in range(start % 3):
            next(iterator)
        state = json.dumps(packed.get_state())
        iterator.close()
    assert_same(got, WANT)


def test_workers_and_read_ahead_change_no_batch():
    packed = packed_of(workers=1, prefetch=3)
    iterator = iter(packed)
    assert_same(take(packed, 8, iterator), WANT[:8])
    iterator.close()


def test_a_loop_that_is_begun_anew_goes_on_after_the_last_published_batch():
    packed = packed_of()
    got = take(packed, 4)
    for batch in packed:  # handed out and not published
        assert batch["step"] == 4
        break
    got += take(packed, 9)
    assert_same(got, WANT[:13])


def test_a_user_goes_on_with_map_and_restores_through_it():
    packed = packed_of()
    mapped = packed.map(lambda batch: batch["tokens"].sum())
    iterator = iter(mapped)
    for step in range(4):
        assert next(iterator) == WANT[step]["tokens"].sum()
        packed.publish(step, weights(step))
    state = iterator.get_state()
    for step in range(4, 7):
        assert next(iterator) == WANT[step]["tokens"].sum()
        packed.publish(step, weights(step))
    iterator.set_state(state)
    assert next(iterator) == WANT[4]["tokens"].sum()


def ahead_of(packed):
    """Reads packed batches ahead in a thread."""
    return iter(grain.experimental.ThreadPrefetchIterDataset(packed, prefetch_buffer_size=2))


def test_threads_that_read_ahead_change_no_batch_and_go_on_after_the_last_published_one():
    packed, got = packed_of({"lag": 20}), []
    want = take(packed_of({"lag": 20}), 16)
    for stop in (5, 6, 16):
        ahead = ahead_of(packed)
        got += take(packed, stop - len(got), ahead)
        del ahead
    assert_same(got, want)


def test_a_publication_that_is_forgotten_is_named_to_a_thread_too():
    packed = packed_of()
    ahead = ahead_of(packed)
    with pytest.raises(RuntimeError, match=r"needs weights: call publish\(0, weights\) or keep\(0\) of the packed mix"):
        for _ in range(20):
            next(ahead)


def test_a_plan_has_one_live_iterator():
    packed = packed_of()
    first = iter(packed)
    got = take(packed, 4, first)
    next(first)
    with pytest.raises(RuntimeError, match="the plan has a live iterator"):
        iter(packed)
    # The first one was not disturbed.
    next(first)
    first.close()
    assert_same(got + take(packed, 4), WANT[:8])


def test_feedback_publishes_to_a_packed_mix():
    packed, plain = packed_of({"lag": 20}), packed_of({"lag": 20})
    feedback = Feedback(packed, delay=0)
    for batch, want in zip(packed, take(plain, 9), strict=False):
        np.testing.assert_array_equal(batch["tokens"], want["tokens"])
        feedback.send(batch["step"], jnp.asarray(weights(batch["step"]), jnp.float32))
        if batch["step"] == 8:
            break
    state = feedback.get_state()
    assert state["step"] == 9 and state["plan"]["step"] == plain.get_state()["plan"]["step"]


def test_the_ledger_gets_what_was_planned(tmp_path):
    packed = packed_of()
    with Ledger(tmp_path / "ledger.jsonl", packed._plan) as ledger:
        for batch in packed:
            for planned in batch["planned"]:
                ledger.write(planned)
            packed.keep(batch["step"])
            if batch["step"] == 9:
                break
    ledger = read_ledger(tmp_path / "ledger.jsonl")
    assert (ledger.counts.sum("domain") == 6).all()
    assert ledger.step.values[-1] == packed.get_state()["plan"]["step"] - 1


def test_a_plan_that_counts_tokens_gives_shares_of_tokens():
    lengths = {name: np.array([len(each) for each in dataset]) for name, dataset in DATASETS.items()}
    packed = packed_of({"lengths": lengths, "weights": [0.5, 0.5]})
    tokens, mass = np.zeros(2), 0.0
    for batch in packed:
        packed.keep(batch["step"])
        tokens += [(batch["domain_ids"] == domain).sum() for domain in range(2)]
        mass += batch["token_weights"].sum()
        if batch["step"] == 59:
            break
    assert abs(tokens[0] / tokens.sum() - 0.5) < 0.03
    # A step of the plan weighs 1, and the batches of the group that is not done weigh less than one group.
    done = packed.get_state()["plan"]["step"]
    assert done - 1 <= mass <= batch["plan_step"] + 1


@pytest.mark.parametrize("counts_tokens", [False, True])
def test_loss_weights_apart_from_sampling_weights_reach_the_tokens(counts_tokens):
    lengths = {name: np.array([len(each) for each in dataset]) for name, dataset in DATASETS.items()}
    packed = packed_of(
        {"lengths": lengths if counts_tokens else None, "weights": [0.9, 0.1], "loss_weights": [0.3, 0.7]}
    )
    mass, planned = np.zeros(2), np.zeros(2)
    for batch in packed:
        # Loss weights that move, with the sampling weights as they are.
        shift = 0.2 * (-1) ** batch["step"]
        packed.publish(batch["step"], [0.9, 0.1], [0.3 + shift, 0.7 - shift])
        mass += [batch["token_weights"][batch["domain_ids"] == domain].sum() for domain in range(2)]
        for each in batch["planned"]:
            planned += np.bincount(each.domain_ids, each.row_weights, minlength=2)
        if batch["step"] == 99:
            break
    # What was handed out is what the finished steps of the plan weigh, and a part of the group that is not done.
    done = packed.get_state()["plan"]["step"]
    assert done > 30 and (mass > planned - 1e-4).all()
    assert (mass - planned).sum() <= batch["plan_step"] + 1 - done + 0.5
    # The loss weights, and not the sampling weights, are the domains' shares.
    assert 0.2 < planned[0] / planned.sum() < 0.4


def test_padding_is_the_token_that_was_asked_for():
    for batch in take(packed_of(padding=7), 3):
        assert (batch["tokens"][batch["domain_ids"] < 0] == 7).all()


def test_the_end_of_the_plan_is_the_end_of_the_batches():
    packed = packed_of({"budget": 60})
    batches = []
    for batch in packed:
        batches.append(batch)
        packed.keep(batch["step"])
    assert 0 < sum(rows_in(batches).values()) <= 60


def test_a_forgotten_publication_is_named_and_costs_no_row():
    packed = packed_of()
    iterator, got = iter(packed), []
    with pytest.raises(RuntimeError, match=r"needs weights: call publish\(0, weights\) or keep\(0\) of the packed mix"):
        for _ in range(20):
            got.append(next(iterator))
    for batch in got:
        packed.publish(batch["step"], weights(batch["step"]))
    got += take(packed, 24 - len(got), iterator)
    assert_same(got, WANT)


def test_a_lag_that_is_shorter_than_a_group_is_named():
    message = r"a group of open_rows = 64 packed rows takes more than 3 steps of the plan, .* raise the plan's lag"
    with pytest.raises(RuntimeError, match=message):
        next(iter(packed_of({"lag": 3}, open_rows=64)))


def test_batches_are_published_once_and_in_order():
    packed = packed_of()
    with pytest.raises(ValueError, match="in order: none was handed out since, got batch 0"):
        packed.publish(0, [0.5, 0.5])
    iterator = iter(packed)
    next(iterator), next(iterator)
    with pytest.raises(ValueError, match="in order: the next is batch 0, got batch 1"):
        packed.publish(1, [0.5, 0.5])
    packed.keep(0)
    packed.keep(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"open_rows": 9}, "the state was saved with open_rows = 9, and this packed mix has 8"),
        ({"row_length": 64}, "the state was saved with row_length = 64, and this packed mix has 32"),
        ({"version": 2}, "the state has version 2, and this mixjax reads up to 1"),
        (
            {"start": {"step": 1, "row": 0}},
            "the plan was saved at step 0, and its packed rows start in step 1",
        ),
        ({"plan": None}, "the state is not a packed mix's: it lacks plan"),
        ({"plan": 3}, "the state is damaged: plan cannot be '3'"),
        ({"start": {"step": 0}}, "the state is damaged: row cannot be 'None'"),
        ({"start": []}, r"the state is damaged: start cannot be '\[\]'"),
        ({"next_row": -1}, "the state is damaged: next_row cannot be '-1'"),
        ({"step": 1.5}, "the state is damaged: step cannot be '1.5'"),
        ({"counter": True}, "the state is damaged: counter cannot be 'True'"),
    ],
)
def test_a_state_that_does_not_fit_is_named(change, message):
    packed = packed_of()
    state = {name: value for name, value in (packed.get_state() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        packed.set_state(state)


def test_what_is_no_state_is_named():
    with pytest.raises(ValueError, match="the state is not a packed mix's: it is a list, and not a dictionary"):
        packed_of().set_state([])
    with pytest.raises(ValueError, match=r"the state is not a packed mix's: it lacks batch_size, .*, version"):
        packed_of().set_state({})


def test_a_plan_that_was_moved_without_its_packing_is_refused():
    packed = packed_of()
    iterator = iter(packed)
    take(packed, 6, iterator)
    state = packed._plan.get_state()
    take(packed, 6, iterator)
    packed._plan.set_state(state)
    with pytest.raises(RuntimeError, match="set the state of the packed mix, and not of its plan"):
        next(iterator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plan_arguments": {"host": (0, 2)}}, r"make the plan with host=\(0, 1\), got \(0, 2\)"),
        ({"row_length": 0}, "row_length must be an integer from 1 to"),
        ({"batch_size": 1.5}, "batch_size must be an integer from 1 to"),
        ({"open_rows": None}, "open_rows must be an integer from 1 to"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        packed_of(**arguments)


@pytest.mark.parametrize("document", [np.zeros(0, int), np.zeros(33, int), np.zeros((2, 2), int), np.zeros(3)])
def test_examples_that_are_no_document_of_a_row_are_named(document):
    plan = Plan([1], batch_size=1, weights=[1.0])
    with pytest.raises(ValueError, match="example 0 of domain '0' must be integers"):
        next(iter(PackedMix([[document]], plan, row_length=32, batch_size=1, open_rows=1)))


def test_a_packed_mix_is_not_sent_to_another_process():
    with pytest.raises(TypeError, match=r"in place of .mp_prefetch after the mix"):
        pickle.dumps(packed_of())
    with pytest.raises(TypeError, match=r"in place of .mp_prefetch after the mix"):
        packed_of().mp_prefetch(grain.MultiprocessingOptions(num_workers=1))

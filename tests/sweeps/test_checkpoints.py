"""Finished chunks on disk: what comes back, what damage does, and what counts as another sweep."""

import errno
import logging
import os

import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps.checkpoints import ChangedError, Chunks, remove_chunks

IDENTITY = {"seeds": 4, "config": {"steps": 3, "rate": 0.5}}
METRICS = {
    "error": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array([1, 2], np.int32),
    "flag": np.array([True, False]),
    "nothing": np.zeros((2, 0), np.float32),
    "odd": np.array([np.nan, -np.inf]),
    "half": np.asarray(jnp.array([1.5, -2.0], jnp.bfloat16)),
}


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


def test_what_was_written_comes_back_with_its_types(tmp_path):
    store = Chunks(tmp_path / "a" / "b", IDENTITY)
    store.write({0: METRICS, 1: METRICS})
    store.write({7: METRICS})
    store.write({})
    store.chunk_size = 3
    again = Chunks(tmp_path / "a" / "b", IDENTITY).read()
    assert sorted(again) == [0, 1, 7]
    for chunk in again.values():
        same(chunk, METRICS)
    assert Chunks(tmp_path / "a" / "b", IDENTITY).chunk_size == 3


def test_the_last_carry_comes_back_and_goes_when_its_chunk_is_done(tmp_path):
    store = Chunks(tmp_path, IDENTITY)
    assert store.read_carry(4) is None
    store.write_carry(4, 1, METRICS)
    store.write_carry(4, 2, {"x": np.ones(2)})
    segments, arrays = store.read_carry(4)
    assert segments == 2 and arrays["x"].tolist() == [1.0, 1.0] and len(list(tmp_path.glob("carry_*"))) == 1
    damage(next(tmp_path.glob("carry_*")), "cut")
    assert store.read_carry(4) is None
    store.write_carry(4, 3, METRICS)
    store.write({4: METRICS})
    assert not list(tmp_path.glob("carry_*"))


def damage(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "deleted"])
def test_a_damaged_checkpoint_is_reported_and_dropped_alone(tmp_path, caplog, how):
    store = Chunks(tmp_path, IDENTITY)
    store.write({0: METRICS})
    store.write({1: METRICS})
    damage(tmp_path / "chunk_000000000.npz", how)
    with caplog.at_level(logging.WARNING):
        chunks = Chunks(tmp_path, IDENTITY).read()
    assert list(chunks) == [1] and ("chunk_000000000.npz is damaged" in caplog.text) == (how != "deleted")
    store.write({0: METRICS})  # takes its place
    assert list(store.read()) == [0, 1]


def test_a_checkpoint_that_cannot_be_read_now_stays(tmp_path, monkeypatch):
    store = Chunks(tmp_path, IDENTITY)
    store.write({0: METRICS})

    def full(*args, **kwargs):
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("numpy.load", full)
        assert store.read() == {}
    same(store.read()[0], METRICS)


def test_a_checkpoint_may_be_cut_or_altered_anywhere_without_wrong_results(tmp_path):
    store = Chunks(tmp_path, IDENTITY)
    store.write({0: METRICS})
    block = tmp_path / "chunk_000000000.npz"
    pristine = block.read_bytes()
    noticed = 0
    for place in range(0, len(pristine), 37):
        for damaged in (pristine[:place], pristine[:place] + bytes([pristine[place] ^ 4]) + pristine[place + 1 :]):
            block.write_bytes(damaged)
            chunks = store.read()
            noticed += not chunks
            for chunk in chunks.values():  # a byte that no number depends on may have changed
                same(chunk, METRICS)
    assert noticed > len(pristine) // 37


def test_half_written_checkpoints_are_not_seen(tmp_path):
    store = Chunks(tmp_path, IDENTITY)
    store.write({0: METRICS})
    partial = tmp_path / ".chunk_000000001.npz.0a.partial"
    partial.write_bytes(b"half")
    assert list(store.read()) == [0] and partial.exists()
    assert list(Chunks(tmp_path, IDENTITY).read()) == [0] and not partial.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 5}, "seeds: 4, now 5"),
        ({"config": {"steps": 3, "rate": 0.25}}, r"config\.rate: 0\.5, now 0\.25"),
        ({"config": {"steps": 3}}, r"config\.rate: 0\.5, now null"),
        ({"more": "x" * 100}, r"more: null, now \"xxx.*\.\.\."),
    ],
)
def test_another_identity_is_refused_and_named(tmp_path, change, message):
    Chunks(tmp_path, IDENTITY).write({0: METRICS})
    with pytest.raises(ChangedError, match=message):
        Chunks(tmp_path, IDENTITY | change)
    assert list(Chunks(tmp_path, IDENTITY).read()) == [0]


def test_chunks_whose_identity_is_damaged_are_not_trusted(tmp_path, caplog):
    store = Chunks(tmp_path, IDENTITY)
    store.write({0: METRICS})
    store.write_carry(1, 1, METRICS)
    store.chunk_size = 3
    (tmp_path / "identity.json").write_text("{")
    again = Chunks(tmp_path, IDENTITY)
    assert again.read() == {} and again.read_carry(1) is None and again.chunk_size is None
    assert "identity.json is damaged" in caplog.text


@pytest.mark.parametrize("name", ["chunk_0", "carry_data", "chunk_1/data.bin"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(ChangedError, match=r"has no identity\.json beside it"):
        Chunks(tmp_path, IDENTITY)
    assert (tmp_path / name).read_bytes() == b"precious" and not (tmp_path / "identity.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Chunks(tmp_path / "file" / "chunks", IDENTITY)


def test_one_lock_a_folder_and_process(tmp_path):
    first, second = Chunks(tmp_path, IDENTITY), Chunks(tmp_path, IDENTITY)
    assert first._lock is second._lock
    del first
    assert second._lock.is_locked


@pytest.mark.parametrize("text", ["null", "[]", "7", '"x"', "\udcff"])
def test_an_identity_that_is_no_object_is_damaged(tmp_path, caplog, text):
    Chunks(tmp_path, IDENTITY).write({0: METRICS})
    (tmp_path / "identity.json").write_bytes(text.encode(errors="surrogateescape"))
    assert Chunks(tmp_path, IDENTITY).read() == {} and "identity.json is damaged" in caplog.text
    assert Chunks(tmp_path, IDENTITY).read() == {}


@pytest.mark.parametrize("text", ["null", "", "0", "[]", '"x"'])
def test_a_size_that_is_none_is_chosen_anew(tmp_path, text):
    store = Chunks(tmp_path, IDENTITY)
    (tmp_path / "size.json").write_text(text)
    assert store.chunk_size is None


def test_the_identities_go_last_and_nothing_stays(tmp_path, monkeypatch):
    for name in ("run_0", "run_1"):
        store = Chunks(tmp_path / "chunks" / name, IDENTITY)
        store.write({0: METRICS})
        store.write_carry(7, 1, METRICS)
        store.chunk_size = 3
    gone, unlink = [], os.unlink

    def watched(path, *args, **kwargs):
        gone.append(os.path.basename(path))
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", watched)
    remove_chunks(tmp_path / "chunks")
    assert gone[-2:] == ["identity.json"] * 2 and gone.count("identity.json") == 2 and len(gone) > 8
    assert not os.listdir(tmp_path)
    remove_chunks(tmp_path / "chunks")  # nothing is there

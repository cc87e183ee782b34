"""What a command left on disk."""

import numpy as np

from experiments.faults.command import arrays, chunks, finish, same


def test_equal_is_equal_bit_by_bit():
    a = {"x": np.array([0.0, np.nan], np.float32)}
    assert same(a, {"x": np.array([0.0, np.nan], np.float32)})
    assert not same(a, {"x": np.array([-0.0, np.nan], np.float32)})
    assert not same(a, {"x": np.array([0.0, np.nan])}) and not same(a, {})


def test_arrays_and_chunks_are_read_from_a_result(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    np.savez(out / "metrics.npz", x=np.arange(3))
    assert arrays(out)["x"].tolist() == [0, 1, 2] and chunks(out) == {}
    (tmp_path / "out.chunks/run_000").mkdir(parents=True)
    for name in ("chunk_000000004.npz", ".chunk_000000008.npz.0a.partial"):
        (tmp_path / "out.chunks/run_000" / name).touch()
    assert list(chunks(out)) == ["chunk_000000004"]  # unfinished ones do not count


class Ended:
    """Stands in for a process that has ended."""

    returncode = 2

    def communicate(self, timeout):
        return "", "first\nmixjax: the last line\n\n"


def test_the_last_line_is_what_a_command_said():
    assert finish(Ended()) == (2, "mixjax: the last line")

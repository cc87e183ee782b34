"""What a start learns from the note of an attempt that was killed."""

import signal

import pytest

from mixjax.sweeps.attempts import Attempts


class Machine:
    """Fakes the kernel's counters, and attempts at one sweep on it."""

    def __init__(self, folder):
        self.root, self.folder = folder / "root", folder / "chunks"
        self.folder.mkdir()
        self.boot(1, 0)

    def boot(self, number, kills):
        (self.root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
        (self.root / "proc/self").mkdir(exist_ok=True)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{number}\n")
        (self.root / "proc/vmstat").write_text(f"nr_free_pages 3\noom_kill {kills}\n")

    def enter(self, group, kills):
        (self.root / "proc/self/cgroup").write_text(f"0::/{group}\n")
        folder = self.root / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.events").write_text(f"low 0\noom 9\noom_kill {kills}\n")

    def start(self):
        return Attempts(self.folder, root=self.root)

    def killed(self, slots=16):
        """Attempts the sweep, and leaves the note as a killed process does."""
        note = self.folder / "attempt_0.json"
        with self.start().noted(slots):
            content = note.read_text()
        note.write_text(content)

    def saves(self, name):
        (self.folder / name).write_text("")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_the_kernels_counter_tells_a_kill_for_memory_from_others(machine):
    assert machine.start().died_at is None
    machine.killed()
    assert machine.start().died_at is None
    machine.boot(1, 1)
    assert machine.start().died_at == 16
    # Others, however many, are none.
    for _ in range(5):
        machine.killed(8)
        assert machine.start().died_at is None


def test_the_processs_own_group_counts_before_the_machine(machine):
    machine.enter("job", 2)
    machine.killed()
    machine.boot(1, 7)
    assert machine.start().died_at is None
    machine.enter("job", 3)
    assert machine.start().died_at == 16


def test_in_a_new_group_the_machines_counter_is_asked(machine):
    machine.enter("job", 0)
    machine.killed()
    machine.enter("again", 0)
    assert machine.start().died_at is None
    machine.boot(1, 1)
    assert machine.start().died_at == 16


def test_after_a_restart_two_deaths_at_which_nothing_was_saved_are_taken_for_it(machine):
    for boot in (2, 3):
        assert machine.start().died_at is None
        machine.killed(4)
        machine.boot(boot, 0)
    assert machine.start().died_at == 4
    # The smaller size is given two tries as well.
    machine.killed(2)
    machine.boot(4, 0)
    assert machine.start().died_at is None


def test_after_a_restart_who_saves_was_not_killed_for_memory(machine):
    for boot, name in ((2, "chunk_000000000.npz"), (3, "carry_000000016_000000001.npz"), (4, "chunk_000000016.npz")):
        machine.killed()
        machine.saves(name)
        machine.boot(boot, 0)
        assert machine.start().died_at is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(128 + signal.SIGTERM), ValueError, MemoryError])
def test_an_attempt_that_can_end_itself_leaves_no_note(machine, error):
    with pytest.raises(type(error) if isinstance(error, BaseException) else error), machine.start().noted(16):
        raise error
    machine.boot(1, 1)
    assert machine.start().died_at is None and not list(machine.folder.iterdir())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"slots": "many", "kills": {}}', "\0", '{"kills": 3}'])
def test_a_damaged_note_is_none(machine, content):
    (machine.folder / "attempt_0.json").write_text(content)
    assert machine.start().died_at is None

"""Does faults from outside the process: signals, damaged files, bad disks, lost hosts."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.faults.command import COMMAND, ROOT, Row, arrays, chunks, finish, same, start

HOST = """
import sys
import jax
rank, port, out, pause = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)
import time
from mixjax.runner import configs, experiment
from mixjax.sweeps.saving import pauses
with pauses(longest=0.0):
    experiment.run(configs.load(*sys.argv[5:6], sys.argv[6:]), out=out, callback=lambda *args: time.sleep(pause))
"""


class Judge:
    """Disturbs the command in every way, and compares each result with that of an undisturbed run.

    Attributes:
        folder: the folder that all runs write below.
        seconds: the time of the undisturbed run.
        whole: the arrays of the undisturbed run.
    """

    def __init__(self, folder: Path):
        """Runs the command undisturbed, below ``folder``."""
        self.folder, begin = folder, time.perf_counter()
        code, said = finish(start(folder / "undisturbed"))
        if code:
            raise RuntimeError(f"the undisturbed run failed: {said}")
        self.seconds, self.whole = time.perf_counter() - begin, arrays(folder / "undisturbed")

    def ends_well(self, out: Path) -> str:
        """Gives the command again; returns "nothing", or a sentence that says what was lost."""
        code, said = finish(start(out))
        if code:
            return f"the same command failed: {said}"
        return "nothing" if same(arrays(out), self.whole) else "the result differs"

    def killed(self, times: int, number: signal.Signals, seed: int) -> Row:
        """Sends signals at random moments, until the command has been stopped ``times`` times."""
        # Moments are drawn up to a little more than a run's time, so that some runs end before the signal.
        draw, codes, kept, lost, results = random.Random(seed), Counter(), [], [], 0
        out = self.folder / f"signal_{number}"
        while sum(codes.values()) < times:
            process = start(out)
            try:
                process.wait(draw.uniform(0, 1.1 * self.seconds))
            except subprocess.TimeoutExpired:
                before = chunks(out)
                process.send_signal(number)
                code = finish(process)[0]
                codes[code] += 1
                kept.append(len(before))
                after = chunks(out)
                # A command that ended well in spite of the signal has put its chunks into the result.
                if code != 0 and any(after.get(name) != when for name, when in before.items()):
                    lost.append("a chunk on disk was lost")
            else:
                finish(process)
            if (out / "report.md").exists():
                results += 1
                if not same(arrays(out), self.whole):
                    lost.append("a result differs")
                # Without the result the next command starts from nothing.
                subprocess.run(["rm", "-r", str(out)], check=True)
        at_the_end = self.ends_well(out)
        if at_the_end != "nothing":
            lost.append(at_the_end)
        ended = ", ".join(f"{count} with exit code {code}" for code, count in sorted(codes.items()))
        some = f"{sum(count > 0 for count in kept)} with chunks on disk ({max(kept)} at most)"
        said = f"stopped {times} times, {ended}; {some}; went on each time, to {results + 1} whole results"
        return Row(f"{number.name} at random moments", times, said, "; ".join(sorted(set(lost))) or "nothing")

    def stopped_once(self, out: Path) -> None:
        """Kills the command in the middle, so that an unfinished run with chunks on disk is left."""
        process = start(out)
        while len(chunks(out)) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        finish(process)
        if not chunks(out):
            raise RuntimeError("no chunk was kept")

    def damaged(self) -> Row:
        """Cuts, alters, empties or deletes every file of a checkpoint, and gives the command again."""
        count, warned, lost = 0, 0, []
        for how in ("cut", "altered", "emptied", "deleted"):
            out = self.folder / f"damaged_{how}"
            self.stopped_once(out)
            for path in sorted(out.with_name(f"{out.name}.chunks").rglob("*")):
                if path.is_file() and path.suffix == ".npz":
                    damage(path, how)
                    count += 1
            process = start(out)
            _, err = process.communicate(timeout=300)
            warned += err.count("is damaged and computed again")
            if process.returncode or not same(arrays(out), self.whole):
                lost.append(f"{how}: {err[-200:]}")
        said = f"{count} files damaged in 4 unfinished runs; {warned} chunks reported as damaged and computed again"
        return Row("checkpoint cut, altered, emptied, deleted", count, said, "; ".join(lost) or "nothing")

    def given_twice(self, times: int) -> Row:
        """Gives the command again in the middle of a run, which stands still meanwhile."""
        said, lost = Counter(), []
        for trial in range(times):
            out = self.folder / f"twice_{trial}"
            first = start(out)
            while len(chunks(out)) < 1 + trial and first.poll() is None:
                time.sleep(0.005)
            first.send_signal(signal.SIGSTOP)
            before = chunks(out)
            code, line = finish(start(out))
            said[f'exit code {code}, "{line.replace(str(out), "DIR/out")}"'] += 1
            if not code or chunks(out) != before:
                lost.append("the second process went on")
            first.send_signal(signal.SIGCONT)
            if finish(first)[0] or not same(arrays(out), self.whole):
                lost.append("the first result differs")
        listed = "; ".join(f"{text}, {count} times" for text, count in said.items())
        return Row("the command given twice", times, f"the second one: {listed}; the first went on", worst(lost))

    def full_disk(self) -> Row:
        """Runs on a disk that gets full, then gives the command again when there is room."""
        said, lost = [], []
        for size in (40, 120):
            with mounted(f"size={size}k") as disk:
                code, line = finish(start(disk / "out"))
                said.append(f'{size} kB: exit code {code}, "{line.replace(str(disk), "DIR")}"')
                subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
                lost.append(self.ends_well(disk / "out"))
        return Row("full disk", 2, "; ".join(said), worst(lost))

    def read_only(self) -> Row:
        """Runs in a folder that cannot be written, from the start and from the middle of the run."""
        # Root writes through permissions, so the folder is read-only by its mount.
        with mounted("size=100m,ro") as disk:
            code, line = finish(start(disk / "out"))
            said = [f'from the start: exit code {code}, "{line.replace(str(disk), "DIR")}", nothing was computed']
        out = self.folder / "read_only"
        process = start(out)
        while not chunks(out) and process.poll() is None:
            time.sleep(0.005)
        # The mount hides the chunks that are there; they come back when it ends.
        with mounted("ro", out.with_name(f"{out.name}.chunks") / "run_000"):
            code, line = finish(process)
        said.append(f'in the middle: exit code {code}, "{line.replace(str(self.folder), "DIR")}"')
        lost = self.ends_well(out) if code else "the command did not notice"
        return Row("read-only folder", 2, "; ".join(said), lost)

    def host_dies(self, times: int) -> Row:
        """Kills one of two hosts in the middle, then starts both again."""
        config, *overrides = COMMAND[1], *COMMAND[3::2]
        alone = self.folder / "two_undisturbed"
        self._hosts(alone, 0.0, config, overrides)
        whole, lost, kept, waited = arrays(alone), [], [], []
        for trial in range(times):
            out = self.folder / f"two_{trial}"
            hosts = self._start_hosts(out, 0.2, config, overrides)
            while len(chunks(out)) < 3 + trial and hosts[0].poll() is None:
                time.sleep(0.01)
            hosts[1 - trial % 2].kill()
            begin = time.perf_counter()
            left = hosts[trial % 2].wait(timeout=300)
            waited.append(time.perf_counter() - begin)
            before = chunks(out)
            kept.append(len(before))
            if not left:
                lost.append("the other host did not notice")
            self._hosts(out, 0.0, config, overrides)
            if not same(arrays(out), whole):
                lost.append("the result differs")
        said = f"the other host ended {min(waited):.0f} to {max(waited):.0f} s later with an error, "
        said += f"{kept} chunks on disk; both started again, and only missing chunks were computed"
        return Row("one host of two killed", times, said, "; ".join(lost) or "nothing")

    def _start_hosts(self, out, pause, config, overrides):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = str(listener.getsockname()[1])
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        environment, quiet = {**os.environ, "PYTHONPATH": paths}, subprocess.DEVNULL
        return [
            subprocess.Popen(
                [sys.executable, "-c", HOST, str(rank), port, str(out), str(pause), config, *overrides],
                env=environment,
                stdout=quiet,
                stderr=quiet,
            )
            for rank in range(2)
        ]

    def _hosts(self, out, pause, config, overrides):
        for process in self._start_hosts(out, pause, config, overrides):
            if process.wait(timeout=300):
                raise RuntimeError("two hosts without a fault failed")


def damage(path: Path, how: str) -> None:
    """Cuts, alters, empties or deletes a file."""
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "altered":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")


def worst(lost: list[str]) -> str:
    """Joins the losses of several trials, each once; "nothing" where no trial lost anything."""
    return "; ".join(sorted({said for said in lost if said != "nothing"})) or "nothing"


@contextmanager
def mounted(options: str, over: Path | None = None) -> Iterator[Path]:
    """Mounts a file system in memory over a folder, or over a temporary one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(over or temporary)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

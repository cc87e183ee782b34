"""What faults do to a sweep: kills, Ctrl-C, full and read-only disks, damaged files, lost hosts, NaN, no memory.

``python -m experiments.faults`` runs the quickstart's sweep under each of them, by the command `mixjax run` in a
process of its own, and writes the table ``experiments/FAULTS.md``. A fault is survived if the same command, given
again, ends with arrays that equal those of an undisturbed run bit by bit, and no chunk that was on disk was computed
again. Disks are small or read-only file systems in memory, which only root may mount.
"""

import argparse
import dataclasses
import os
import platform
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import mixjax
from mixjax import programs

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "experiments" / "FAULTS.md"
COMMAND = ["run", str(ROOT / "configs/quickstart.toml"), "--set", "sweep.chunk=4", "--set", "num_steps=400"]
CHILD = """
import sys
from mixjax import cli, sweeps
sweeps.SAVE_EVERY = 0.1
cli.main()
"""
HOST = """
import sys
import jax
rank, port, out, pause = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)
import time
from mixjax import configs, experiment, sweeps
sweeps.SAVE_EVERY = 0.0
experiment.run(configs.load(*sys.argv[5:6], sys.argv[6:]), out=out, callback=lambda *args: time.sleep(pause))
"""


@dataclasses.dataclass
class Row:
    """A line of the table."""

    fault: str
    times: int
    happened: str
    lost: str


def start(out: Path, *, limit: Callable[[], None] | None = None) -> subprocess.Popen:
    """The command, writing to ``out``."""
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-c", CHILD, *COMMAND, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": limit}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and the last line that it had to say."""
    _, err = process.communicate(timeout=300)
    lines = [line for line in err.splitlines() if line.strip()]
    return process.returncode, lines[-1] if lines else ""


def arrays(out: Path) -> dict[str, np.ndarray]:
    """Those of a result."""
    with np.load(out / "metrics.npz") as file:
        return {name: file[name] for name in file}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Equal names, types and bits."""
    return set(a) == set(b) and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def chunks(out: Path) -> dict[str, int]:
    """The checkpoints of an unfinished run, and when each was written."""
    found = out.with_name(f"{out.name}.chunks").glob("*/chunk_*")
    return {path.name: path.stat().st_mtime_ns for path in found if path.name[6:].isdigit()}


class Judge:
    """Compares results with the undisturbed one and keeps count."""

    def __init__(self, folder: Path):
        """Runs it undisturbed."""
        self.folder, begin = folder, time.perf_counter()
        code, said = finish(start(folder / "undisturbed"))
        if code:
            raise RuntimeError(f"the undisturbed run failed: {said}")
        self.seconds, self.whole = time.perf_counter() - begin, arrays(folder / "undisturbed")

    def ends_well(self, out: Path) -> str:
        """Gives the command again, and says what is not as it should be."""
        code, said = finish(start(out))
        if code:
            return f"the same command failed: {said}"
        return "nothing" if same(arrays(out), self.whole) else "the result differs"

    def killed(self, times: int, number: signal.Signals, seed: int) -> Row:
        """Signals at random moments, until the command has been stopped ``times`` times."""
        draw, codes, kept, lost, results = random.Random(seed), Counter(), [], [], 0
        out = self.folder / f"signal_{number}"
        while sum(codes.values()) < times:
            process = start(out)
            try:
                process.wait(draw.uniform(0, 1.1 * self.seconds))
            except subprocess.TimeoutExpired:
                before = chunks(out)
                process.send_signal(number)
                codes[finish(process)[0]] += 1
                kept.append(len(before))
                if any(chunks(out).get(name) != when for name, when in before.items()):
                    lost.append("a chunk on disk was lost")
            else:
                finish(process)
            if (out / "report.md").exists():
                results += 1
                lost += [] if same(arrays(out), self.whole) else ["a result differs"]
                subprocess.run(["rm", "-r", str(out)], check=True)
        lost += [said] if (said := self.ends_well(out)) != "nothing" else []
        ended = ", ".join(f"{count} with exit code {code}" for code, count in sorted(codes.items()))
        some = f"{sum(count > 0 for count in kept)} with chunks on disk ({max(kept)} at most)"
        said = f"stopped {times} times, {ended}; {some}; went on each time, to {results + 1} whole results"
        return Row(f"{number.name} at random moments", times, said, "; ".join(sorted(set(lost))) or "nothing")

    def stopped_once(self, out: Path) -> None:
        """Leaves an unfinished run with chunks on disk."""
        process = start(out)
        while len(chunks(out)) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        finish(process)
        if not chunks(out):
            raise RuntimeError("no chunk was kept")

    def damaged(self) -> Row:
        """Every file of a checkpoint cut, altered, emptied or deleted in turn."""
        count, warned, lost = 0, 0, []
        for how in ("cut", "altered", "emptied", "deleted"):
            out = self.folder / f"damaged_{how}"
            self.stopped_once(out)
            for path in sorted(out.with_name(f"{out.name}.chunks").rglob("*")):
                if path.is_file() and path.name in ("arrays.npz", "digest.json"):
                    damage(path, how)
                    count += 1
            process = start(out)
            _, err = process.communicate(timeout=300)
            warned += err.count("is damaged and computed again")
            lost += [] if process.returncode == 0 and same(arrays(out), self.whole) else [f"{how}: {err[-200:]}"]
        said = f"{count} files damaged in 4 unfinished runs; {warned} chunks reported as damaged and computed again"
        return Row("checkpoint cut, altered, emptied, deleted", count, said, "; ".join(lost) or "nothing")

    def full_disk(self) -> Row:
        """A disk that is full while the run goes on, and then has room again."""
        said, lost = [], []
        for size in (40, 120):
            with mounted(f"size={size}k") as disk:
                code, line = finish(start(disk / "out"))
                said.append(f'{size} kB: exit code {code}, "{line.replace(str(disk), "DIR")}"')
                subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
                lost.append(self.ends_well(disk / "out"))
        return Row("full disk", 2, "; ".join(said), worst(lost))

    def read_only(self) -> Row:
        """A folder that cannot be written, from the start and from the middle of the run."""
        with mounted("size=100m,ro") as disk:
            code, line = finish(start(disk / "out"))
            said = [f'from the start: exit code {code}, "{line.replace(str(disk), "DIR")}", nothing was computed']
        with mounted("size=100m") as disk:
            process = start(disk / "out")
            while not chunks(disk / "out") and process.poll() is None:
                time.sleep(0.005)
            while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
                time.sleep(0.005)  # busy while a file is open for writing
            code, line = finish(process)
            said.append(f'in the middle: exit code {code}, "{line.replace(str(disk), "DIR")}"')
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            lost = self.ends_well(disk / "out")
        return Row("read-only folder", 2, "; ".join(said), lost)

    def host_dies(self, times: int) -> Row:
        """One of two hosts is killed in the middle; both start again."""
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
            lost += [] if left else ["the other host did not notice"]
            self._hosts(out, 0.0, config, overrides)
            lost += [] if same(arrays(out), whole) else ["the result differs"]
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
    """What was lost in any of the trials."""
    return "; ".join(sorted({said for said in lost if said != "nothing"})) or "nothing"


@contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A file system in memory."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def _descent(key, hparams, data):
    """Gradient descent on a quadratic of curvature 1: diverges for rates above 2."""
    start = jax.random.normal(key, (8,))
    x = jax.lax.fori_loop(0, 4000, lambda _, x: x - hparams["rate"] * x, start)
    return {"x": x}


def nan_runs() -> Row:
    """Runs that diverge beside others that do not."""
    rates, alone = [0.5, 3.0, 1.5, 40.0], [0.5, 1.5]
    lost, diverged = [], 0
    for vectorize in ("map", "vmap"):
        arguments = {"seeds": 50, "vectorize": vectorize, "chunk": 16}
        mixed = mixjax.sweep(_descent, axes={"rate": rates}, **arguments)
        clean = mixjax.sweep(_descent, axes={"rate": alone}, **arguments)
        lost += [] if mixed.x.sel(rate=alone).equals(clean.x) else [f"{vectorize}: neighbours changed"]
        diverged += int((~np.isfinite(mixed.x)).all("x_0").sum())
    said = f"{diverged} of 400 runs diverged; the others equal, bit by bit, those of a sweep without them"
    return Row("NaN runs", diverged, said, "; ".join(lost) or "nothing")


def _large(key, hparams, data):
    x = jnp.cumsum(jax.random.normal(key, (10_000_000,)))  # 40 MB, twice
    return {"x": x[::1_000_000] * hparams["scale"]}


def no_memory() -> Row:
    """A process that may not have the memory that the analysis promised."""
    small = mixjax.sweep(_large, seeds=32, axes={"scale": [1.0]}, vectorize="vmap", chunk=2)
    sizes, build = [], programs.Program.__init__

    def counted(self, train, rows, *arguments):
        sizes.append(rows)
        build(self, train, rows, *arguments)

    free, used = programs.free_bytes, int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    programs.Program.__init__, programs.free_bytes = counted, lambda devices: 1e13
    resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000, before[1]))
    try:
        result = mixjax.sweep(_large, seeds=32, axes={"scale": [1.0]}, vectorize="vmap")
    finally:
        programs.Program.__init__, programs.free_bytes = build, free
        resource.setrlimit(resource.RLIMIT_AS, before)
    said = f"1.5 GB for 32 runs in one chunk: halved, {' → '.join(map(str, dict.fromkeys(sizes)))}, and finished"
    close = np.allclose(result.x, small.x, rtol=1e-6)
    return Row("out of memory", len(dict.fromkeys(sizes)) - 1, said, "nothing" if close else "the result differs")


def main() -> None:
    """Runs all of them and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of the command, by SIGKILL [40]")
    arguments = parser.parse_args()
    rows = [nan_runs(), no_memory()]
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        trials = [
            lambda: judge.killed(arguments.kills, signal.SIGKILL, seed=0),
            lambda: judge.killed(10, signal.SIGINT, seed=1),
            judge.damaged,
            lambda: judge.host_dies(3),
        ]
        if os.geteuid() == 0:
            trials += [judge.full_disk, judge.read_only]
        else:
            rows += [
                Row(name, 0, "not run: mounting needs root", "unknown") for name in ("full disk", "read-only folder")
            ]
        for trial in trials:
            rows.append(trial())
            print(rows[-1], flush=True)
    write(rows)
    if any(row.lost != "nothing" for row in rows):
        sys.exit("something was lost: see the table")


def write(rows: list[Row]) -> None:
    """The table, as Markdown."""
    head = (__doc__ or "").partition("\n\n")
    lines = ["# Faults", "", f"{head[0].splitlines()[0]}", "", *head[2].rstrip().splitlines(), ""]
    lines += ["| fault | times | what happened | lost |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.fault} | {row.times} | {row.happened.replace('|', '/')} | {row.lost} |" for row in rows]
    versions = f"Python {platform.python_version()}, JAX {jax.__version__}"
    lines += ["", f"{versions}, {os.cpu_count()} cores; chunks of 4 runs, written every 0.1 s in place of every 5 s."]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

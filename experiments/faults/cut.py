"""Kills commands whose runs are cut in time, in the middle of a run, and measures what saving costs."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.faults.command import ROOT, Row
from experiments.faults.text import TextJudge

__all__ = ["MnistJudge", "SegmentationJudge", "make_cases"]

_DIGITS = ["source=digits", "batch_size=4", "num_steps=150", "run.0.record_every=5", "run.1.record_every=5"]
_SMALL_NET = ["grid=16", "patch=8", "num_levels=2", "width=2", "num_heads=1", "test_share=0.34"]


class _CutJudge(TextJudge):
    """Disturbs a command whose runs are cut in time."""

    traces = "**/carry_*"
    said = "metrics"
    name = ""

    @staticmethod
    def command(arguments: list[str], cache: str) -> None:
        """Saves after every segment, so that short runs are killed between many saves."""
        from mixjax.sweeps.saving import pauses

        with pauses(longest=0.0):
            TextJudge.command(arguments, cache)

    def row(self, times: int) -> Row:
        """Kills the command so many times; the row says too what saving costs where nothing is killed."""
        row = self.kill(times)
        share, seconds = self.cost()
        cost = f"saved as often as a sweep does by itself, saving took {100 * share:.2g} % of {seconds:.3g} s"
        return dataclasses.replace(row, fault=f"SIGKILL of {self.name}", happened=f"{row.happened}; {cost}")

    def cost(self) -> tuple[float, float]:
        """Measures an undisturbed command: the share of the time that saving takes, and the time, in seconds."""
        out, told = self.folder / "timed", self.folder / "timed.json"
        arguments = [*self._arguments, "--out", str(out)]
        process = self._processes.Process(target=_timed, args=(arguments, str(self.folder / "compiled"), str(told)))
        process.start()
        process.join(1200)
        found = json.loads(told.read_text())
        return found["saving"] / found["whole"], found["whole"]


class MnistJudge(_CutJudge):
    """Disturbs the experiment on noisy images, on the digits that scikit-learn brings."""

    config = ROOT / "configs" / "loss_and_sampling_weights" / "mnist.toml"
    imports = "experiments.loss_and_sampling_weights.mnist"
    name = "`mnist.toml`, on small digits"

    def __init__(self, folder: Path, settings: Sequence[str] = ()):
        """Runs the command undisturbed."""
        super().__init__(folder, [*_DIGITS, "sweep.seeds=4", *settings])


class SegmentationJudge(_CutJudge):
    """Disturbs the segmentation of brain tumours, on tiny volumes in the layout of BraTS."""

    config = ROOT / "configs" / "hardness_sampling" / "brats.toml"
    imports = "experiments.hardness_sampling.segmentation"
    name = "`brats.toml`, on tiny volumes"

    def __init__(self, folder: Path, settings: Sequence[str] = ()):
        """Writes the volumes, and runs the command undisturbed."""
        make_cases(folder / "cases")
        cases = f"folder={json.dumps(str(folder / 'cases'))}"
        super().__init__(folder, [cases, *_SMALL_NET, "num_epochs=40", "batches=4", *settings])


def make_cases(folder: Path) -> None:
    """Writes six cases of two centres as the challenge hands them out, with a box for a tumour."""
    import nibabel

    rng = np.random.default_rng(0)
    for name in ("TCIA01_1", "TCIA02_2", "TCIA02_3", "CBICA_A", "CBICA_B", "CBICA_C"):
        case = folder / "HGG" / f"BraTS19_{name}_1"
        case.mkdir(parents=True, exist_ok=True)
        seg = np.zeros((20, 24, 18), np.uint8)
        seg[4:13, 5:16, 6:14], seg[5:11, 7:14, 7:13], seg[6:9, 8:12, 8:12] = 2, 1, 4
        for kind in ("t1", "t1ce", "t2", "flair", "seg"):
            values = np.zeros(seg.shape, np.int16)
            values[2:18, 2:22, 2:16] = rng.integers(100, 900, (16, 20, 14))
            volume = nibabel.Nifti1Image(seg if kind == "seg" else values, np.eye(4))
            nibabel.save(volume, case / f"{case.name}_{kind}.nii.gz")


def _timed(arguments: list[str], cache: str, told: str) -> None:
    """Runs a command as it is, and writes how long its sweeps took and how long they were saving."""
    from mixjax.runner import experiment
    from mixjax.sweeps import checkpoints

    seconds = {"saving": 0.0, "whole": 0.0}

    def clocked(function, name):
        def call(*positional, **named):
            start = time.perf_counter()
            try:
                return function(*positional, **named)
            finally:
                seconds[name] += time.perf_counter() - start

        return call

    for method in ("write", "write_carry"):
        setattr(checkpoints.Chunks, method, clocked(getattr(checkpoints.Chunks, method), "saving"))
    experiment.loop.run = clocked(experiment.loop.run, "whole")
    try:
        TextJudge.command(arguments, cache)
    finally:
        Path(told).write_text(json.dumps(seconds))
        os.sync()

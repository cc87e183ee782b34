"""Writes the tables, the figure and the targets of the benchmark ``throughput``."""

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import roofline, short_runs, timing

__all__ = ["CHECKED", "MODES", "report", "roof", "targets"]

SPEEDUP, SHARE, SAVING, GPU_SPEEDUP = 50, 0.6, 1.03, 500
MODES = ("map", "vmap")
# runs compared with the loop's and PyTorch's: no multiple of the values of gamma1, and so all of the last value
CHECKED = 10


def _summary(measured, unit: float = 1.0) -> timing.Summary:
    made = timing.Summary(**measured)
    return timing.Summary(made.median / unit, made.low / unit, made.high / unit, made.repeats)


def _at_least(statement: str, measured: dict, limit: float, unit: str = " times") -> timing.Target:
    summary = _summary(measured)
    return timing.Target(statement, f"{summary}{unit}", summary.median >= limit)


def peak_of(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the largest rate of products."""
    return max(found["peaks"]["products"].values(), key=lambda rate: rate["median"])


def roof(found: dict[str, Any], share: dict[str, Any]) -> float:
    """Returns the attainable rate, as a part of the products': ``min(1, intensity times bandwidth / rate)``."""
    speed = roofline.bandwidth(found["peaks"]["triad"], share["working_set"])
    return min(1.0, share["intensity"] * speed / peak_of(found)["median"])


def targets(found: dict[str, Any], names: list[str], on_cpu: bool) -> list[timing.Target]:
    """Compares what was asked for with what was measured, one row for each problem and rival."""
    rows = []
    for name in names:
        runs = found[name]["runs"]
        if name.startswith("linear"):
            torch = {side: rival for side, rival in runs["rivals"].items() if "PyTorch" in side}
            for kind in ("autograd", "gradient by hand"):
                side = min((s for s in torch if kind in s), key=lambda s: torch[s]["ms_per_run"]["median"])
                statement = f"{name}: a run of {runs['runs']} ({runs['mode']}) at least {SPEEDUP} times as fast as"
                rows.append(_at_least(f"{statement} {side}", torch[side]["times"], SPEEDUP))
    for name in names:
        mode = max(MODES, key=lambda mode: found[name]["shares"][mode]["rate"]["median"])
        share = found[name]["shares"][mode]
        part = roof(found, share)
        of_roof = {k: v / part if k != "repeats" else v for k, v in share["of_peak"].items()}
        where = f"{name} ({mode}): matrix products at least {SHARE} of"
        rows.append(_at_least(f"{where} the attainable rate, the roofline", of_roof, SHARE, ""))
        rows.append(_at_least(f"{where} the same products in a sweep of nothing else", share["of_alone"], SHARE, ""))
    saving = _summary(found["saving"]["ratio"])
    rows.append(
        timing.Target(f"checkpoints: at most {SAVING} times as long", f"{saving} times", saving.median <= SAVING)
    )
    if not on_cpu:
        for name in names:
            rival = found[name]["runs"]["rivals"]["loop of jitted runs"]["times"]
            statement = f"{name} on {found['device']}: at least {GPU_SPEEDUP} times the loop of jitted runs there"
            rows.append(_at_least(statement, rival, GPU_SPEEDUP))
    else:
        statement = f"on a GPU: at least {GPU_SPEEDUP} times the loop of jitted runs there"
        rows.append(timing.Target(statement, "not run on a GPU", None))
    return rows


def _figure(found, names):
    points = [
        roofline.Point(f"{name}, {mode}", share["intensity"], share["rate"]["median"])
        for name in names
        for mode, share in found[name]["shares"].items()
    ]
    ceilings = {"products, all cores": peak_of(found)["median"]}
    if found["one core"]:
        ceilings["products, one core"] = peak_of({"peaks": found["one core"]})["median"]
    triads = found["peaks"]["triad"]
    shown = sorted(space for space in {max(triads), 2**18, 2**22} if space in triads)
    speeds = {f"triad, {_bytes(space)}": triads[space]["median"] for space in shown}
    return roofline.figure(points, ceilings, speeds, f"{found['devices']} x {found['device']}")


def _bytes(number):
    return f"{number >> 20} MiB" if number >= 2**20 else f"{number >> 10} KiB"


def report(found: dict[str, Any], quick: bool, on_cpu: bool) -> timing.Report:
    """Writes the report, with its figure."""
    problems = short_runs.problems(quick)
    names = [problem.name for problem in problems]
    parts = [_introduction(found, problems), *_chunks(found, names), *_runs(found, names), *_shares(found, names)]
    parts.append(_machine(found))
    if found["by devices"]:
        parts += _devices(found["by devices"])
    saving = found["saving"]
    parts.append(
        f"**Checkpoints.** {names[0]}, {saving['runs']} runs, {_summary(saving['seconds'])} s without: with a folder "
        f"for the chunks, {_summary(saving['ratio'])} times as long; {saving['ratio']['repeats']} turns."
    )
    figures = {"roofline": _figure(found, names)}
    return timing.Report("Throughput", "\n\n".join(parts), found, targets(found, names, on_cpu), figures)


def _introduction(found: dict[str, Any], problems: Sequence[short_runs.Problem]) -> str:
    described = "; ".join(
        f"**{p.name}**, layers {'-'.join(map(str, p.widths))}, {p.domains} domains of {p.examples} examples, "
        f"{p.num_steps} steps of {p.rows}"
        for p in problems
    )
    largest = {side: max(found[p.name]["difference"][side] for p in problems) for side in ("loop", "PyTorch")}
    differences = ", ".join(f"{difference:.0e} ({side})" for side, difference in largest.items())
    return (
        "A run-step is one step of one run. Every step measures the batch's losses by domain, moves ERMA's weights and "
        "takes a step of SGD; the sweep is `mixjax.sweep` over seeds and four values of gamma1. The problems: "
        f"{described}. Run in a process of {found['devices']} devices, as many as cores, unless it says otherwise. "
        "PyTorch runs on the CPU, its random numbers are drawn beforehand, and it is timed with one thread and with "
        f"one a core; the faster counts. On {CHECKED} runs, losses and weights at the end differ from the sweep's by "
        f"at most {differences}, relative to the largest."
    )


def _chunks(found: dict[str, Any], names: Sequence[str]) -> list[str]:
    rows = [
        (name, mode, chunk, _summary(cell["rate"], 1e3), f"{cell['compile_seconds']:.2f}")
        for name in names
        for mode in MODES
        for chunk, cell in found[name]["chunks"][mode].items()
    ]
    header = ["problem", "mode", "chunk", "thousand run-steps a second", "compiling, s"]
    return ["**By chunk.**", timing.table(header, rows, 2)]


def _runs(found: dict[str, Any], names: Sequence[str]) -> list[str]:
    rows = []
    for name in names:
        runs = found[name]["runs"]
        for mode in MODES:
            rows += [(name, f"sweep, {mode}", n, _summary(cell), "") for n, cell in runs["ms_per_run"][mode].items()]
        for side, rival in runs["rivals"].items():
            rows.append((name, side, "", _summary(rival["ms_per_run"]), _summary(rival["times"])))
    return [
        "**By number of runs**, with the fastest chunk or that of all runs; rivals beside the faster mode's most runs.",
        timing.table(["problem", "side", "runs", "ms a run", "times the sweep's"], rows, 2),
    ]


def _shares(found: dict[str, Any], names: Sequence[str]) -> list[str]:
    columns = {
        "chunk": lambda share: share["chunk"],
        "products, GFLOP/s": lambda share: _summary(share["rate"], 1e9),
        "of the peak": lambda share: _summary(share["of_peak"]),
        "of the same alone": lambda share: _summary(share["of_alone"]),
        "FLOP/byte": lambda share: timing.number(share["intensity"]),
        "roofline": lambda share: timing.number(roof(found, share) * peak_of(found)["median"] / 1e9),
    }
    rows = [
        (name, mode, *(column(share) for column in columns.values()))
        for name in names
        for mode, share in found[name]["shares"].items()
    ]
    return [
        "**Of the machine.** The operation that dominates is the steps' matrix products, the only one counted. The "
        "peak is that of float32 square products, all devices at once, in turns with the sweep. *The same alone*: a "
        "sweep that does these products, of these shapes, and nothing else. FLOP/byte: the products' operations over "
        "the bytes that a step's operations read and write by XLA's analysis of one step outside its loop, from "
        "whatever cache they come. The attainable rate, the roofline (GFLOP/s), is the least of the peak and of "
        "FLOP/byte times the bandwidth of a triad in as much memory as a device's step holds.",
        timing.table(["problem", "mode", *columns], rows, 2),
        "![roofline](roofline.png)",
    ]


def _machine(found: dict[str, Any]) -> str:
    rows = []
    for where, measured in (("all cores", found["peaks"]), ("one core", found["one core"])):
        if measured:
            rows += [(where, f"product of size {n}", _summary(v, 1e9)) for n, v in measured["products"].items()]
            rows += [(where, f"triad, {_bytes(n)} a device", _summary(v, 1e9)) for n, v in measured["triad"].items()]
    return timing.table(["on", "operation", "GFLOP/s or GB/s"], rows, 2)


def _devices(by_devices: dict[str, Any]) -> list[str]:
    rows = [
        (name, cell["mode"], cell["chunk"], n, _summary(cell["rate"], 1e3), _summary(cell["times"]))
        for name, counts in by_devices.items()
        for n, cell in counts.items()
    ]
    header = ["problem", "mode", "chunk", "devices", "thousand run-steps a second", "times one device's"]
    return ["**By simulated devices**, each number in a process of its own.", timing.table(header, rows, 2)]

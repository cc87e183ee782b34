"""Random commands for the fuzz test: runs with odd options, changed configs, damaged results."""

import json
import shutil

import numpy as np

MODULE = """
import dataclasses
from typing import Literal
import jax, jax.numpy as jnp
from mixjax import rules
from mixjax.runner import configs
from mixjax.runner.claims import versus
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Rule:
    gamma: float = 0.5
    kind: Literal["fgls", "dro"] = "fgls"

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 3
    rate: float = 0.1
    beta: float | None = None
    shares: tuple[float, ...] = (0.5, 0.5)
    method: str = "sgd"
    flag: bool = False
    rule: Rule = Rule()

def toy(config: Toy) -> Experiment:
    def train(key, hparams, data):
        cfg = configs.replace(config, hparams)
        rule = rules.erma(gamma1=cfg.rule.gamma) if cfg.rule.kind == "fgls" else rules.dro(beta=cfg.beta or 1.0)
        state = rule.init(jnp.asarray(cfg.shares) / jnp.sum(jnp.asarray(cfg.shares)))
        error = cfg.rate * jax.random.normal(key, (2, config.steps))
        return {"error": error, "weights": state.weights, "last": error[0, -1]}

    def claims(results):
        last = next(iter(results.values()))["last"]
        last = last.isel({dim: 0 for dim in last.dims if dim != "seed"})
        return [versus("last", last, ">=", -9.0, statement="s", source="o")]

    return Experiment(train, jnp.float32(0), {"error": ("method_name", "step")}, {"method_name": ["a", "b"]},
                      {"error": "nats"}, claims=claims)
"""
CONFIG = """# A toy.
experiment = "{module}:toy"
steps = 2
[[run]]
name = "narrow"
[[run]]
name = "wide, too"
shares = [0.2, 0.3, 0.5]
[sweep]
seeds = 4
rate = [0.1, 1.0]
rule.gamma = {{start = 0.1, stop = 1.0, num = 2, scale = "log"}}
"""
JUNK = [
    "", "0", "-1", "1", "3.5", "nan", "inf", "-inf", "1e300", "1e-400", "3000000000", "5000000000", "2.0e18",
    "9" * 30, "true", "[]", "[[]]", "[1]", "[nan]", "[1, 1]", "[0.5, 0.5]", "[[0.5, 0.5], [0.9, 0.1]]",
    "[[1], [1, 2]]", "['a', 'b']", "[true]", "{}", "{start = 1, stop = 2, num = 3}",
    "{start = 0, stop = 1, num = 2, scale = 'log'}", "{num = 3}", "'x'", "auto", "sgd", "erma,fgls", "fgls", "\xe9",
    "\udcff", "\x01", "1979-05-27", "a=b", "log:1:2:3", "linear:0:1:4", "[1e300]", "[4294967296]", "log:0:1:2",
    "linear:1:nan:3", "[[nan, 1.0]]", "0x10", "1_000", "[" * 200, "-0.0", "map", "lower", "higher",
]  # fmt: skip
KEYS = [
    "steps", "rate", "beta", "shares", "method", "flag", "rule", "rule.gamma", "rule.kind", "gamma", "stpes", "seeds",
    "sweep", "sweep.seeds", "sweep.first_seed", "sweep.chunk", "sweep.vectorize", "sweep.rate", "sweep.method",
    "sweep.shares", "sweep.rule.gamma", "sweep.rule.kind", "sweep.rule", "sweep.points", "sweep.points.rate",
    "sweep.points.method", "sweep.points.shares", "sweep.random.num", "sweep.random.rate", "sweep.random.method",
    "sweep.random.seed", "sweep.beta", "run", "run.0.steps", "run.1.shares", "run.7.steps", "run.-1.steps", "run.x",
    "run.0.name", "experiment", "", ".", "a.b.c", "0", "sweep.rate.num", "sweep.steps", "sweep.flag", "rule.gamma.x",
]  # fmt: skip


FOLDERS = ["new", "", ".", "~", "gs://b/x", "s3://b", "toy.toml", "caf\udce9", "a\0b", "x" * 300, "~nobody/x"]
GOOD = [
    "steps=3", "beta=2", "flag=true", "sweep.seeds=2", "sweep.first_seed=9", "sweep.rate=[0.5]",
    "sweep.rate=[0.5, 1]", "sweep.method=['a', 'b']", "sweep.rule.kind=['dro', 'fgls']", "sweep.points.rate=[1, 2]",
    "run.1.shares=[1.0, 1.0, 2.0]", "sweep.chunk=3", "sweep.vectorize=map", "sweep.beta=[1, inf]", "method=sgd",
    "sweep.random={num = 2, beta = [1, 2]}",
]  # fmt: skip


def override(rng):
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(GOOD)
    return f"{rng.choice(KEYS)}={rng.choice(JUNK)}" if kind < 0.97 else rng.choice(JUNK)


def fuzzed_runs(rng, num):
    """Yields commands `run` and `sweep` with random overrides and options; all of them dry."""
    for _ in range(num):
        command = rng.choice(["run", "sweep"])
        argv = [
            command,
            "toy.toml" if rng.random() < 0.97 else rng.choice(["none.toml", ".", "\udcff.toml", "pyproject.toml"]),
        ]
        for _ in range(rng.randint(0, 2)):
            argv += ["--set", override(rng)]
        if rng.random() < 0.2:
            argv += ["--out", rng.choice(FOLDERS)]
        if command == "sweep":
            for _ in range(rng.randint(0, 2)):
                argv += ["--vary", rng.choice(["rate=0.1,0.2", "rate=log:0.1:1:3", "method=a,b", "beta=1,2"])]
                if rng.random() < 0.3:
                    argv[-1] = f"{rng.choice(KEYS)}={rng.choice(JUNK)}"
            for option in ("--seeds", "--first-seed", "--random", "--chunk"):
                if rng.random() < 0.2:
                    argv += [option, rng.choice([*JUNK[:14], "2", "auto"])]
        if rng.random() < 0.05:
            argv += ["--track", rng.choice(["tensorboard", "tb", ""])]
        yield [*argv, "--dry-run"]


def fuzzed_configs(rng, num, folder):
    """Yields dry runs of configs with random lines, cut or changed."""
    text = (folder / "toy.toml").read_text()
    for _ in range(num):
        changed = text
        for _ in range(rng.randint(1, 2)):
            kind = rng.random()
            lines = changed.splitlines()
            number = rng.randrange(len(lines))
            if kind < 0.4:  # one of the values
                lines[number] = f"{lines[number].partition('=')[0]}= {rng.choice(JUNK)}"
            elif kind < 0.7:  # a line more
                more = ["", "# words", "beta = 2.0", "flag = true", f"{rng.choice(KEYS)} = {rng.choice(JUNK)}"]
                lines.insert(number, rng.choice(more))
            elif kind < 0.8:  # a line less
                del lines[number]
            changed = "\n".join(lines) + "\n"
            if kind >= 0.8:  # anywhere
                start, length = rng.randrange(len(changed)), rng.randint(0, 9)
                piece = rng.choice([*JUNK, "\n", "[run]\n", "[sweep]\n"])
                changed = changed[:start] + piece + changed[start + length :]
        (folder / "changed.toml").write_bytes(changed.encode(errors="surrogateescape"))
        yield ["run", "changed.toml", "--dry-run"]


def places(node):
    """Yields every ``(container, key)`` of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from places(value)


VALUES = [
    None, True, 0, -1, 7, 1.5, 1e308, 2**70, "", "x", "seed", "str", "float32", "object", "datetime64[s]", "complex64",
    [], [[]], ["x"], [None], [1, 2, 3, 4], {}, {"name": "a"}, "error", "step",
]  # fmt: skip
CONTENTS = [
    b"", b"[]", b"{}", b"null", b'[{"a"', b'{"runs": []}', b'{"runs": {}}', b"experiment", b"\xff\xfe",
    b"x = 1", b"[1, 2]", b"[" * 5000, b"9" * 5000, b"run = [{name = [1]}]\n",
]  # fmt: skip
DAMAGED = ["metrics.npz", "metrics.json", "metrics.json", "config.toml", "claims.json", "report.md", "figure.png"]


def other_arrays(array):
    """Returns arrays of other shapes, types and values."""
    shape = array.shape
    cut = [array[..., :0], array[:1], np.zeros(3), np.zeros(())]
    typed = [np.zeros(shape, kind) for kind in (complex, bool, "datetime64[s]", "U3", "S3", [("a", int)], np.float16)]
    return [*cut, *typed, np.array([None]), np.full(shape, np.nan), np.full(shape, 3e38)]


def damage(rng, folder):
    """Damages one file of a result, or two, in one of many ways."""
    name = rng.choice(
        ["metrics.npz", "metrics.json", "metrics.json", "config.toml", "claims.json", "report.md", "figure.png"]
    )
    path = folder / name
    kind = rng.choice(["cut", "replace", "flip", "remove", "folder", "value", "value", "value", "arrays"])
    data = path.read_bytes()
    if kind == "value" and name.endswith(".json"):
        document = json.loads(data)
        for _ in range(rng.randint(1, 2)):
            found = list(places(document))
            if not found:
                break
            container, key = rng.choice(found)
            if rng.random() < 0.2:
                del container[key]
            elif isinstance(container, dict) and rng.random() < 0.1:
                container[rng.choice(["x", "seed", "error", ""])] = container.pop(key)
            else:
                container[key] = rng.choice(VALUES)
        path.write_text(json.dumps(document))
    elif kind == "arrays" and name == "metrics.npz":
        with np.load(path) as read:
            arrays = dict(read)
        key = rng.choice(sorted(arrays))
        arrays[key] = rng.choice(other_arrays(arrays[key]))
        np.savez(path, **arrays)
    elif kind == "remove":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "flip":
        changed = bytearray(data)
        for _ in range(rng.randint(1, 5)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed)
    elif kind == "replace":
        path.write_bytes(rng.choice(CONTENTS))
    else:
        path.write_bytes(data[: rng.randrange(len(data))])


def fuzzed_results(rng, num, folder):
    """Yields `show` and `compare` of damaged results, and `compare` with random options."""
    options = {
        "--metric": ["error", "last", "weights", "lsat", "seed", ""],
        "--better": ["lower", "higher", "best", ""],
        "--along": ["run", "result", "rate", "rule.gamma", "method_name", "step", "weights_0", "seed", "point", ""],
        "--baseline": ["narrow", "0.1", "1", "a", "nan", "", "x"],
        "--select": ["run=narrow", "rate=0.1", "rate=1", "step=0", "step=9", "x=1", "=", "method_name=a", "seed=1"],
        "--mean": ["step", "rate", "method_name", "x", "seed", ""],
        "--best": ["last", "error", "weights", "x", ""],
        "--out": ["f.png", "f.svg", "f", "gs://x/f.png", "x/../f.pdf", "toy.toml/f.png", "~nobody/f.png", "\udcff.png"],
    }
    for _ in range(num):
        target = "result"
        if rng.random() < 0.6:
            target = "damaged"
            shutil.rmtree(folder / target, ignore_errors=True)
            shutil.copytree(folder / "result", folder / target)
            damage(rng, folder / target)
        if rng.random() < 0.45:
            yield ["show", target]
            continue
        argv = ["compare", target, *(["other"] if rng.random() < 0.4 else [])]
        argv += ["--metric", rng.choice(["error", "last"]), "--better", "lower", "--along", rng.choice(["run", "rate"])]
        for option, values in options.items():
            if rng.random() < (0.05 if option == "--out" else 0.2):
                argv += [option, rng.choice(values)]
        yield argv

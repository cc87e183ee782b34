"""An experiment for the tests of configs, as the text of its module."""

MODULE = """
import dataclasses
from pathlib import Path
from typing import Literal

@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    names: tuple[str, ...] = ()

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int
    gamma: float = 0.1
    beta: float | None = None
    kind: Literal["a", "b"] = "a"
    scales: tuple[float, ...] = (1.0, 2.0)
    inner: Inner = Inner()
    layers: tuple[Inner, ...] = ()
    folder: Path = Path("data")
    flag: bool = False

    def __post_init__(self):
        if self.gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma}")

def toy(config: Toy):
    return config

def future(config: "Toy") -> int: ...
def bare(config): ...
def wrong(config: int): ...
def missing_name(config: "Nope"): ...

@dataclasses.dataclass
class Thawed:
    steps: int = 1
def thawed(config: Thawed): ...

@dataclasses.dataclass(frozen=True)
class Clash:
    name: str = ""
def clash(config: Clash): ...

@dataclasses.dataclass(frozen=True)
class Odd:
    thing: __import__("threading").Thread = None
def odd(config: Odd): ...
"""

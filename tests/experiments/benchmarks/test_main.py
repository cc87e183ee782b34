"""Tests the command: the files it writes and the names it refuses."""

import json
import re

import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import timing


def test_result_files(tmp_path):
    summary = timing.summarize([1.0, 2.0, 4.0])
    targets = [
        timing.Target("at least 10 times", f"{summary} times", False),
        timing.Target("at most 2 %", "+1 %", None),
    ]
    report = timing.Report("A title", timing.table(["side", "ms"], [("one", summary)]), {"ms": summary}, targets)
    session = command.Session(["seeds", "floor"], {"CPU": "a CPU"}, seconds=90.0, quick=False)
    command.write(tmp_path, "seeds", session, report)
    text = (tmp_path / "seeds" / "RESULTS.md").read_text()
    assert "| at least 10 times | 2 (1 to 4) times | **missed** |\n| at most 2 % | +1 % | undecided |" in text
    assert text.startswith("# A title\n") and "- CPU: a CPU" in text
    assert "\n\n| side | ms |\n| --- | ---: |\n| one | 2 (1 to 4) |" in text
    assert "`python -m experiments.benchmarks seeds floor` in 1.5 minutes" in text
    stored = json.loads((tmp_path / "seeds" / "results.json").read_text())
    assert stored["targets"][0]["holds"] is False and stored["data"] == {"ms": [2.0, 1.0, 4.0, 3]}
    assert stored["benchmark"] == "seeds"
    command.write(tmp_path, "seeds", session._replace(quick=True), report)
    text = (tmp_path / "seeds" / "RESULTS.md").read_text()
    assert "its numbers mean nothing" in text and "missed" not in text


def test_every_benchmark_has_its_results():
    """The kept files are whole, and their report names the benchmark's command."""
    for name in command.BENCHMARKS:
        stored = json.loads((command.RESULTS / name / "results.json").read_text())
        text = (command.RESULTS / name / "RESULTS.md").read_text()
        assert stored["benchmark"] == name and not stored["quick"]
        assert re.search(rf"`python -m experiments\.benchmarks [a-z0-9_ ]*\b{name}\b", text)
        for target in stored["targets"]:
            assert f"| {target['statement']} | {target['measured']} | {command.VERDICTS[target['holds']]} |" in text


@pytest.mark.parametrize(("asked", "ran"), [([], list(command.BENCHMARKS)), (["floor", "seeds"], ["seeds", "floor"])])
def test_the_command_writes_a_folder_for_each_name(asked, ran, tmp_path, monkeypatch):
    report = timing.Report("A title", "", {}, [])
    monkeypatch.setattr(command, "BENCHMARKS", dict.fromkeys(command.BENCHMARKS, lambda quick: report))
    command.main(["--quick", "--out", str(tmp_path), *asked])
    assert {folder.name for folder in tmp_path.iterdir()} == set(ran)
    text = (tmp_path / ran[0] / "RESULTS.md").read_text()
    assert f"`python -m experiments.benchmarks --quick {' '.join(ran)}`" in text


def test_unknown_benchmarks_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["z"])
    assert "no benchmark z; choose from figure_1, seeds, overhead, floor, samplers" in capsys.readouterr().err

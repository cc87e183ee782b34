"""The command as a whole: its help, its version, and extras that are missing."""

import subprocess
import sys

import mixjax
import mixjax.data
from mixjax import live


def test_help_teaches(mixjax_command):
    code, out, _ = mixjax_command("--help")
    assert code == 0
    for part in ("mixjax run quickstart", "mixjax list", "Examples:", "run ", "list ", "data "):
        assert part in out
    out = mixjax_command("run", "--help")[1]
    for part in ("--set sweep.seeds=100", "--out", "config.toml", "report.md", "run.0.KEY", "results.read("):
        assert part in out
    assert "--from" in mixjax_command("data", "--help")[1]
    assert mixjax_command("--version") == (0, f"mixjax {mixjax.__version__}\n", "")


def test_a_missing_extra_is_named():
    hide = (
        "import sys; sys.modules['typer'] = sys.modules['xarray'] = None; import mixjax.cli; mixjax.cli.main(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    message = "mixjax: the command needs typer, xarray: pip install typer xarray\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


HIDE = """
import sys
for name in ("sklearn", "tomli_w", "tqdm"):
    sys.modules[name] = None
import mixjax.cli
mixjax.cli.main(sys.argv[1:])
"""


def test_the_ledger_of_a_live_mix_is_shown_without_what_experiments_need(tmp_path):
    plan = live.Plan([10, 10], batch_size=2, weights=[0.5, 0.5], lag=1)
    with live.Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        ledger.write(next(plan))
    command = [sys.executable, "-c", HIDE, "live", "show", str(tmp_path / "ledger.jsonl")]
    done = subprocess.run([*command, "--figure", str(tmp_path / "it.png")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 rows in the steps 0 to 0\n") and (tmp_path / "it.png").stat().st_size
    done = subprocess.run([*command[:3], "watch", str(tmp_path), "--once"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "step 0, 2 rows" in done.stdout
    done = subprocess.run([*command[:-1], "missing"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("mixjax: ") and done.stderr.count("\n") == 1


def test_the_extra_of_the_live_mix_is_named():
    hide = "import sys; sys.modules['typer'] = None; import mixjax.cli; mixjax.cli.main(['live', 'show', 'x'])"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True)
    message = "mixjax: the command needs typer: pip install typer\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_help_of_the_live_mix_is_the_same_in_both_ways(mixjax_command):
    done = subprocess.run([sys.executable, "-c", HIDE, "live", "show", "--help"], capture_output=True, text=True)
    out = mixjax_command("live", "show", "--help")[1]
    assert done.stdout.split() == out.split() != []

"""The command as a whole: its help, its version, and extras that are missing."""

import subprocess
import sys

import mixjax
import mixjax.data


def test_help_teaches(mixjax_command):
    code, out, _ = mixjax_command("--help")
    assert code == 0
    for part in ("mixjax run configs/quickstart.toml", "mixjax list", "Examples:", "run ", "list ", "data "):
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
    message = "mixjax: the command needs typer, xarray: pip install 'mixjax[experiments]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)

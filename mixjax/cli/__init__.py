"""The command ``mixjax``: it runs configs, sweeps over them, shows and compares results, and fetches data.

Progress and errors go to stderr, results to stdout. Exit codes: 0 done; 1 the experiment's code failed, or stdout
cannot be written; 2 a mistake in the command, the config or the data at hand; 130 Ctrl-C; 143 SIGTERM and 138 SIGUSR1,
after which the same command goes on.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from mixjax.cli.streams import OutputError, guarded_streams
from mixjax.extras import install_command

__all__ = ["main"]

_PACKAGES = ("markdown_it", "matplotlib", "pydantic", "rich", "scipy", "sklearn", "tomli_w", "tqdm", "typer", "xarray")
_PACKAGES_OF_LIVE = ("matplotlib", "rich", "typer", "xarray")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        argv: the arguments after ``mixjax``; by default those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Who trains with a live mix needs none of what the experiments need, and still wants to see what was drawn.
    is_live = arguments[:1] in (["live"], ["watch"])
    extra, packages = ("live", _PACKAGES_OF_LIVE) if is_live else ("experiments", _PACKAGES)
    # One message names all packages that are missing. Without it, each import would fail in its turn.
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"mixjax: the command needs {', '.join(missing)}: {install_command(extra, *missing)}")
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files: no display needed
    try:
        with guarded_streams():
            if is_live:
                from mixjax.cli.live import make_live_only as make_app
            else:
                from mixjax.cli.commands import make_app

            try:
                make_app()(args=arguments, prog_name="mixjax")
            except SystemExit as exit_:
                # After a signal, JAX's threads may still be at work, and an orderly end of the process could crash.
                if argv is None and isinstance(exit_.code, int) and exit_.code > 128:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(exit_.code)
                # Not when Python ends, which would tell of a full disk by a traceback.
                sys.stdout.flush()
                raise
    except OutputError as error:
        if argv is None and sys.stdout is not None:
            # What waits would be written when Python ends, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):
            print(f"mixjax: {error}", file=sys.stderr)
        sys.exit(1)

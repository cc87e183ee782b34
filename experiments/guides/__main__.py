"""Builds the site of the guides, serves it while its pages are written, or looks at it in a browser.

``python -m experiments.guides build`` writes ``build/site``, and fails where a link leads nowhere, a public name has no
docstring or a page needs another host. It needs the extras ``docs``, ``experiments`` and ``test``, since it imports all
of mixjax. ``python -m experiments.guides look`` then opens every page in Chromium, with the network off.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.guides.site import browser, checking
from mixjax.checks import requires

with requires("docs", "the site of the guides"):
    from mkdocs.commands.build import build
    from mkdocs.commands.serve import serve
    from mkdocs.config import load_config
    from mkdocs.exceptions import MkDocsException

CONFIG = Path(__file__).with_name("mkdocs.yml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the site, serves it, or looks at it.

    Args:
        arguments: of the command line; those of the process when None.

    Raises:
        SystemExit: the site has a mistake.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.guides", description="Makes the site of the guides.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="write the site, or fail where a link or a docstring is missing")
    building.add_argument("--out", type=Path, help="the folder to write; default build/site")
    serving = commands.add_parser("serve", help="serve the site, and build it again whenever a page changes")
    serving.add_argument("--address", default="127.0.0.1:8000", help="host and port")
    looking = commands.add_parser("look", help="open the pages that were built in Chromium, and list their faults")
    looking.add_argument("pages", nargs="*", help="such as start/index.html; default all")
    looking.add_argument("--site", type=Path, default=Path("build/site"), help="the folder that was built")
    looking.add_argument("--pictures", type=Path, metavar="DIR", help="also keep pictures of the pages")
    chosen = parser.parse_args(arguments)
    if chosen.command == "look":
        _end(browser.check(chosen.site, pages=chosen.pages, pictures=chosen.pictures))
        return
    try:
        if chosen.command == "serve":
            serve(str(CONFIG), dev_addr=chosen.address, strict=False)
        else:
            settings = {} if chosen.out is None else {"site_dir": str(chosen.out.absolute())}
            config = load_config(str(CONFIG), **settings)
            config.plugins.on_startup(command="build", dirty=False)
            build(config)
            site = Path(config.site_dir)
            missing = [f"{name} has no docstring on the site" for name in checking.undocumented(site)]
            _end([*missing, *checking.foreign(site)])
            print(site)
    except MkDocsException as error:
        parser.exit(1, f"{error}\n")


def _end(faults: Sequence[str]) -> None:
    """Ends the process where there are faults, and names them."""
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

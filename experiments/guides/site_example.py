"""Writes the example of the guide to scores by site anew, from the guide's own code: its figure and its table.

python -m experiments.guides.site_example
"""

import re
import tempfile
from pathlib import Path

from mixjax.runner.site_page import site_figure, site_markdown
from mixjax.runner.sites import SiteReport, read_scores, site_report

__all__ = ["example_report", "main", "table"]

PAGE = Path(__file__).with_name("sites.md")
FIGURE = PAGE.parent / "figures" / "sites.png"


def example_report() -> SiteReport:
    """Runs the guide's code in a folder that is then removed, and reports its scores as the guide's command does."""
    code = re.search(r"<!-- scores -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.csv"
        exec(code.group(1).replace('"scores.csv"', repr(str(file))), {})
        return site_report(read_scores(file), ["volume", "uniform"])


def table(report: SiteReport) -> str:
    """Returns the lines of the guide's table below its header: how each site would do under another weighting."""
    lines = site_markdown(report)
    header = next(number for number, line in enumerate(lines) if line.startswith("| site | under |"))
    return "\n".join(lines[header + 2 :])


def main() -> None:
    """Writes the figure, and the table into the guide."""
    report = example_report()
    site_figure(report, "Dice score by site, %").savefig(FIGURE, dpi=110)
    text = re.sub(
        r"(\| site \| under .*?\n\| --- .*?\n).*?(?=\n\n- \*\*Support)", r"\1ROWS", PAGE.read_text(), flags=re.DOTALL
    )
    PAGE.write_text(text.replace("ROWS", table(report)))


if __name__ == "__main__":
    main()

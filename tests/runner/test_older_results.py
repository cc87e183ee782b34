"""Results that older versions wrote are read, shown and drawn as a page."""

import json
import shutil
from pathlib import Path

import pytest

from mixjax.cli.html import report_page
from mixjax.cli.summary import summary
from mixjax.runner import results

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(path.parent for path in (ROOT / "experiments").rglob("metrics.json"))


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_every_result_of_this_repository_is_shown(folder, tmp_path):
    text = "\n".join(summary(folder))
    meta, claims = results.read_meta(folder), results.read_claims(folder)
    assert meta.num_runs == sum(run.num_runs for run in meta.runs.values()) >= meta.num_computed > 0
    assert claims and all(claim["name"] in text for claim in claims if claim["holds"] is not True)
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / "report.html").unlink(missing_ok=True)
    page = report_page(copy).read_text()
    assert all(claim["statement"] in page for claim in claims)


def test_runs_that_were_not_counted_were_computed_by_the_command(tmp_path):
    copy = shutil.copytree(COMMITTED[0], tmp_path / "copy")
    path = copy / "metrics.json"
    meta = json.loads(path.read_text()) | {"num_runs": 7}
    meta.pop("num_computed", None)
    path.write_text(json.dumps(meta))
    assert results.read_meta(copy).num_computed == 7
    path.write_text(json.dumps(meta | {"num_computed": 3}))
    assert results.read_meta(copy).num_computed == 3
    # A file that is damaged is still told from one that is old.
    path.write_text(json.dumps(meta | {"num_computed": "3"}))
    with pytest.raises(OSError, match=r"metrics\.json: is damaged; run it again \(num_computed: "):
        results.read_meta(copy)

"""``mixjax list``."""

import re

import mixjax
import mixjax.data
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

import json
import re

import matplotlib.pyplot as plt
import pytest

from experiments.guides import gallery

CLAIM = {
    "name": "sgd_leaves",
    "statement": "SGD leaves | the basin",
    "source": "paper 003, figure 1",
    "value": 0.951,
    "stderr": 0.007,
    "threshold": 0.5,
    "num_seeds": 1000,
    "holds": True,
    "note": "",
}


def written(folder, name, experiment, claim):
    """Writes the files of a result that a page shows."""
    result = folder / name
    result.mkdir()
    (result / "config.toml").write_text(f'experiment = "{experiment}"\n')
    meta = {"num_runs": 1, "num_computed": 1, "compile_seconds": 1.0, "run_seconds": 1.0, "device": "cpu", "runs": {}}
    (result / "metrics.json").write_text(json.dumps(meta | {"versions": {"mixjax": "0.1.0", "jax": "0.10.2"}}))
    (result / "claims.json").write_text(json.dumps([claim]))
    figure = plt.figure(figsize=(20, 5))
    figure.savefig(result / "figure.png", dpi=100)
    plt.close(figure)
    return result


@pytest.fixture
def pages(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for name in gallery.PAGES.values():
        (folder / name).write_text("# A paper\n\nWritten by hand.\n")
    return folder


def test_a_result_is_shown_on_the_page_of_its_paper_only(tmp_path, pages):
    result = written(tmp_path, "piecewise", "experiments.resampling_reweighting.piecewise:piecewise", CLAIM)
    gallery.main([str(result), "--folder", str(pages)])
    text = (pages / "resampling_and_reweighting.md").read_text()
    assert text.startswith("# A paper\n\nWritten by hand.\n\n<!-- figures and claims: generated -->")
    assert r"| SGD leaves \| the basin (paper 003, figure 1) | 0.951 ± 0.007 | 0.5 | yes |  |" in text
    assert "`mixjax run configs/resampling_reweighting/piecewise.toml`, with mixjax 0.1.0, jax 0.10.2." in text
    assert "](figures/resampling_and_reweighting/piecewise.png)" in text
    width, height = plt.imread(pages / "figures" / "resampling_and_reweighting" / "piecewise.png").shape[1::-1]
    assert (width, height) == (1600, 400)
    assert (pages / "fewer_weight_updates.md").read_text() == "# A paper\n\nWritten by hand.\n"


def test_a_new_result_takes_the_place_of_the_old_one_and_others_stay(tmp_path, pages):
    package = "experiments.resampling_reweighting"
    first = written(tmp_path, "piecewise", f"{package}.piecewise:piecewise", CLAIM)
    gallery.main([str(first), "--folder", str(pages)])
    (tmp_path / "again").mkdir()
    undecided = CLAIM | {"holds": None, "value": 0.6, "note": "undecided: three finite seeds are needed"}
    for name, claim in (("piecewise", undecided), ("theory", CLAIM)):
        result = written(tmp_path / "again", name, f"{package}.{name}:{name}", claim)
        gallery.main([str(result), "--folder", str(pages)])
    text = (pages / "resampling_and_reweighting.md").read_text()
    assert text.count("### piecewise\n") == text.count("### theory\n") == 1
    assert "| 0.6 ± 0.007 | 0.5 | undecided | undecided: three finite seeds are needed |" in text


def test_a_long_note_is_cut_between_clauses(tmp_path, pages):
    claim = CLAIM | {"note": "share of runs; 959 of 1000; " + "0.04: 0.1, " * 40}
    result = written(tmp_path, "theory", "experiments.resampling_reweighting.theory:theory", claim)
    gallery.main([str(result), "--folder", str(pages)])
    assert "| share of runs; 959 of 1000 ... |" in (pages / "resampling_and_reweighting.md").read_text()


def test_a_caption_says_what_the_paper_shows_and_the_verdicts_are_counted(tmp_path, pages):
    package = "experiments.resampling_reweighting"
    result = written(tmp_path, "piecewise", f"{package}.piecewise:piecewise", CLAIM | {"holds": False})
    gallery.main([str(result), "--folder", str(pages)])
    text = (pages / "resampling_and_reweighting.md").read_text()
    section = text[text.index("### piecewise") :]
    assert section.index("*In the paper.* Figures 1 and 5") < section.index("*Here.* ") < section.index("![piecewise]")
    assert "Of 1 claim 0 hold, 1 does not, and 0 are undecided." in section


def test_verdicts_are_counted_in_the_singular_where_there_is_one():
    texts = [(gallery.FOLDER / name).read_text() for name in gallery.PAGES.values()]
    counted = re.findall(r"^Of \d+ claims? .* undecided\.$", "\n".join(texts), re.MULTILINE)
    assert len(counted) >= 15
    for line in counted:
        assert not re.search(r"\b1 (claims|hold|do not|are)\b", line), line


def test_every_result_in_the_gallery_has_a_caption_and_every_caption_a_config():
    kept = [json.loads(path.read_text())["config"] for path in (gallery.FOLDER / "figures").rglob("*.json")]
    assert len(kept) >= 15
    configs = {str(path.relative_to(gallery.ROOT)) for path in (gallery.ROOT / "configs").rglob("*.toml")}
    captions = {f"configs/{name}.toml" for name in gallery.CAPTIONS}
    assert set(kept) == captions <= configs
    assert all(set(caption) == {"paper", "ours"} for caption in gallery.CAPTIONS.values())


def test_every_config_of_a_paper_is_in_the_gallery_or_has_a_reason():
    folders = [gallery.ROOT / "configs" / package.rpartition(".")[2] for package in gallery.PAGES]
    configs = {f"{folder.name}/{path.stem}" for folder in folders for path in folder.glob("*.toml")}
    assert not set(gallery.CAPTIONS) & set(gallery.ABSENT)
    assert configs == (set(gallery.CAPTIONS) | set(gallery.ABSENT)) - {"quickstart"}
    for config, reason in gallery.ABSENT.items():
        (page,) = (page for package, page in gallery.PAGES.items() if package.endswith(config.partition("/")[0]))
        said = " ".join((gallery.FOLDER / page).read_text().split())
        assert reason.endswith(".") and f"- `{config.partition('/')[2]}.toml`: {reason}" in said


def test_a_config_without_a_result_is_listed_until_it_has_one(tmp_path, pages):
    package = "experiments.hardness_sampling"
    result = written(tmp_path, "wide_relu", f"{package}.wide_relu:wide_relu", CLAIM)
    gallery.main([str(result), "--folder", str(pages)])
    page = pages / "hardness_weighted_sampling.md"
    assert "- `brats.toml`: " in page.read_text() and "- `table.toml`: " not in page.read_text()
    brats = written(tmp_path, "brats", f"{package}.brats:brats", CLAIM)
    gallery.main([str(brats), "--folder", str(pages)])
    assert "### brats" in page.read_text() and "- `brats.toml`: " not in page.read_text()


def test_a_result_that_no_page_is_about_is_refused(tmp_path, pages):
    result = written(tmp_path, "toy", "experiments.toys.toy:toy", CLAIM)
    with pytest.raises(ValueError, match=r"no page is about experiments\.toys\.toy:toy; pages are about experiments\."):
        gallery.main([str(result), "--folder", str(pages)])


def test_the_committed_pages_are_what_the_kept_results_say():
    for name in gallery.PAGES.values():
        if (gallery.FOLDER / "figures" / name.removesuffix(".md")).is_dir():
            assert gallery.section(name, gallery.FOLDER).strip() in (gallery.FOLDER / name).read_text(), name

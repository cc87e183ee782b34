"""Pages of results of all kinds: one file that loads nothing, whole HTML, texts escaped, and small enough."""

import base64
import html.parser
import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from mixjax.runner import results
from mixjax.runner.pages import curves, embedding
from mixjax.runner.pages.result import ResultPage
from tests.runner.written import ROW, write

ATTRS = {"num_runs": 4, "num_computed": 4, "compile_seconds": 1.0, "run_seconds": 2.0}
META = {**ATTRS, "device": "cpu", "versions": {"jax": "1"}}
HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "</title><b>&amp;", "ünï 🦊"]
VOID = {"meta", "br", "img", "hr"}


class Reader(html.parser.HTMLParser):
    """Reads a page, and raises where elements do not close each other."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        # A link of a summary may lead elsewhere; it loads nothing.
        loading = ("src", "action", "data") if tag == "a" else ("src", "href", "action", "data")
        self.loads += [value for name, value in attrs if name in loading]
        self.texts += [value for _, value in attrs if value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(runs, claims=(), **kwargs):
    """Writes a page, checks what holds for every page, and returns its reader."""
    text = ResultPage(
        "toy", "m:toy", [["mixjax", "run", "a b.toml"]], "/", "a = 1", runs, claims, META, **kwargs
    ).text()
    assert len(text.encode()) < 3e6
    read = Reader(text)
    assert all(each.startswith("data:") for each in read.loads)
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in read.tags for name in attrs)
    # A path with a number that is not finite is not drawn.
    assert not any(word in attrs["d"] for tag, attrs in read.tags if tag == "path" for word in ("nan", "inf"))
    return read


def weights(seeds=3, times=5, domains=("web", "code"), value=None, dims=("rule", "seed", "step", "domain")):
    shape = 2, seeds, times, len(domains)
    values = (
        np.random.default_rng(0).dirichlet(np.ones(len(domains)), shape[:3]) if value is None else np.full(shape, value)
    )
    coords = {"rule": ["erma", "dro"], "seed": np.arange(seeds), "step": 10 * np.arange(times), "domain": list(domains)}
    names = "loss_weights", "sampling_weights", "loss"
    return xr.Dataset({name: (dims, values.astype(np.float32)) for name in names}, coords, ATTRS)


def series(read):
    return [attrs["data-name"] for tag, attrs in read.tags if tag == "g" and "data-name" in attrs]


def test_weights_come_first_with_a_chart_for_each_rule_and_a_band_for_each_domain():
    read = page({"run": weights()}, [ROW])
    found = curves.all_curves({"run": weights()})
    assert [(each.metric, each.kind) for each in found] == [
        ("loss_weights", "c"), ("sampling_weights", "q"), ("loss", "domain")
    ]  # fmt: skip
    assert [chart.title for chart in found[0].charts] == ["erma", "dro"]
    assert series(read) == ["web", "code"] * 6
    assert [attrs.get("class") for _, attrs in read.tags].count("band") == 12


def test_a_curve_is_the_mean_over_the_finite_seeds_and_its_band_the_interval_that_judges_claims():
    data = weights(value=0.25)
    data.loss[0, :, 1, 0] = [1.0, 3.0, math.nan]
    data.loss[0, :, 2, 0] = math.inf
    curve = curves.all_curves({"run": data})[2].charts[0].series[0]
    assert curve.mean[:2].tolist() == [0.25, 2.0] and np.isnan(curve.mean[2])
    assert curve.high[1] == pytest.approx(2.0 + 13.97, abs=0.01) and curve.low[0] == curve.high[0] == 0.25


KINDS = {
    "no domain": xr.Dataset({"x": ("seed", [1.0, 2.0])}, {"seed": [0, 1]}, ATTRS),
    "one run": weights(seeds=1),
    "one time": weights(times=1),
    "no time": weights(times=0),
    "all nan": weights(value=math.nan),
    "all inf": weights(value=math.inf),
    "huge": weights(value=3e38),
    "tiny": weights(value=1e-45),
    "zero": weights(value=0.0),
    "integers": weights().round().astype(int),
    "booleans": weights() > 0.5,
    "complex": weights().astype(complex),
    "unlabelled": weights().drop_vars(["rule", "step", "domain"]),
    "texts for steps": weights().assign_coords(step=list("abcde")),
    "hostile": weights(domains=HOSTILE).assign_coords(rule=HOSTILE[:2]).rename(loss=HOSTILE[1]),
    "hostile dims": weights().rename(rule=HOSTILE[0], step=HOSTILE[1]),
    "many domains": weights(domains=[f"d{i}" for i in range(300)]),
    "many points": xr.Dataset(
        {"loss_weights": (("point", "seed", "step", "domain"), np.ones((500, 1, 300, 20), np.float32))},
        {"seed": [0], "rate": ("point", np.linspace(0, 1, 500)), "domain": [f"d{i}" for i in range(20)]},
    ),
    "many metrics": xr.Dataset({f"m{i}": (("seed", "step"), np.ones((2, 900))) for i in range(200)}, {"seed": [0, 1]}),
    "many runs": xr.Dataset({"x": ("seed", np.full(5000, np.nan))}, {"seed": np.arange(5000)}),
    "without seeds": xr.Dataset({"x": ("step", np.arange(3.0))}),
    "nothing": xr.Dataset(),
}  # fmt: skip


# What a page must say where it does not show all.
SAID = {
    "many domains": ["20 of 300 curves are shown", "40 of 600 rows are shown"],
    "many points": ["24 of 500 charts are shown", "Of longer curves"],
    "many metrics": ["12 of 200 metrics are shown"],
    "many runs": ["5,000 runs have a value that is not finite; 200 of them are listed"],
    "all nan": ["6 runs have a value that is not finite."],
    "hostile": HOSTILE,
    "hostile dims": HOSTILE[:2],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_any_result_has_a_page(kind):
    told = "\n".join(page({"run": KINDS[kind]}).texts)
    assert all(text in told for text in SAID.get(kind, []))


def test_runs_may_differ_in_their_metrics_and_labels():
    read = page({"a": weights(), "b": KINDS["no domain"], HOSTILE[0]: weights(domains=("web", "law", "code"))})
    assert "law" in series(read)


CHANGES = (
    {},
    {"value": None, "stderr": None},
    {"stderr": None},
    {"value": 1e308, "stderr": 1e308},
    {"threshold": None},
    {"threshold": -1e308},
    {"num_seeds": 1},
    {"num_seeds": 0},
    {"stderr": 0.0, "value": 0.0},
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("holds", [True, False, None])
def test_any_claim_has_a_row(change, holds):
    row = ROW | change | {"holds": holds, "statement": HOSTILE[0], "note": HOSTILE[1], "source": HOSTILE[2]}
    told = "\n".join(page({"run": KINDS["no domain"]}, [row, ROW]).texts)
    assert all(text in told for text in HOSTILE[:2]) and {True: "yes", False: "no", None: "undecided"}[holds] in told


def test_all_that_is_large_fits_together():
    rows = [ROW | {"name": f"claim_{i}", "statement": "long " * 60, "note": "long " * 40} for i in range(3000)]
    shape = 30, 2, 120, 30
    dims = "rule", "seed", "step", "domain"
    values = np.random.default_rng(0).random(shape, np.float32)
    coords = {
        "rule": [f"some rule {i}" for i in range(30)],
        "domain": [f"a domain with a long name {i}" for i in range(30)],
    }
    metrics = {f"loss_weights_{i}": (dims, values) for i in range(20)}
    figure = io.BytesIO()
    plt.imsave(figure, np.random.default_rng(0).random((280, 600, 3)), format="png")
    assert figure.tell() < embedding._MAX_BYTES
    read = page({"run": xr.Dataset(metrics, coords, ATTRS)}, rows, figure=figure.getvalue(), summary="long " * 20_000)
    assert "400 of 3000 claims are shown" in "".join(read.texts)


def test_a_summary_is_rendered_and_loads_nothing():
    summary = f"| a | b |\n| - | - |\n| **1** | {HOSTILE[0]} |\n\n![x](http://example.com/x.png) <img src=x>\n"
    read = page({"run": KINDS["no domain"]}, summary=summary)
    assert "strong" in [tag for tag, _ in read.tags] and HOSTILE[0] in "".join(read.texts)


def test_a_large_figure_is_made_smaller(monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_BYTES", 50_000)
    buffer = io.BytesIO()
    plt.imsave(buffer, np.random.default_rng(0).random((300, 400, 3)), format="png")
    read = page({"run": KINDS["no domain"]}, figure=buffer.getvalue())
    (source,) = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert buffer.tell() > 300_000 and 20_000 < len(source) < 70_000 and "made smaller" in "".join(read.texts)
    assert plt.imread(io.BytesIO(base64.b64decode(source.partition(",")[2]))).shape[1] < 400


def test_a_result_has_its_page_and_one_that_fails_is_named_in_the_report(config, monkeypatch):
    path = write(config, {"run": weights()})
    read = Reader((path / "report.html").read_text())
    assert "mixjax run toy.toml --set steps=2 --out out" in read.texts and any("steps = 2" in t for t in read.texts)
    monkeypatch.setattr(curves, "_kind", None)
    path = write(config, {"run": weights()})
    report = (path / "report.md").read_text()
    assert not (path / "report.html").exists() and "**The page failed**" in report
    assert results.read(path)["run"].loss.shape == (2, 3, 5, 2)

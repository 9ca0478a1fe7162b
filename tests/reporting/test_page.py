"""The page of a report, in a real browser: it says what was found, answers to the mouse, and asks nobody else."""

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import brdyn
from brdyn.data import load_images
from brdyn.phases import segment
from brdyn.raptor import BlockConfig, Raptor, evaluate
from brdyn.reporting.assemble import assemble
from brdyn.reporting.charts import curve_chart
from brdyn.reporting.found import Found
from brdyn.reporting.page import _embedded, guide_page, render_page
from brdyn.reporting.specs import Specs
from brdyn.reporting.stills import still
from tests.reporting.conftest import SETTINGS, STREAM, named

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    if find_spec("playwright") is None:
        pytest.skip("needs the package playwright: pip install 'brdyn[dev]'")
    if BROWSER is None:
        pytest.skip("needs a browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def seen(browser, made):
    """The page, opened from disk, with what it asked for and what it complained of."""
    page, asked, complaints = browser.new_page(viewport={"width": 1400, "height": 900}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((made[2] / "report.html").as_uri(), timeout=120_000)
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    page.asked, page.complaints = asked, complaints
    return page


def test_it_asks_for_nothing_but_itself(seen, made):
    assert seen.asked == [(made[2] / "report.html").as_uri()]
    assert seen.complaints == []
    size = (made[2] / "report.html").stat().st_size
    assert 500_000 < size < 3_000_000


def test_a_request_would_be_refused(seen):
    """By the policy in the page, whatever its scripts do."""
    refused = seen.evaluate("fetch('https://example.org').then(() => 'let out', () => 'refused')")
    assert refused == "refused"
    assert any("Content Security Policy" in said for said in seen.complaints)
    seen.complaints.clear()


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(seen, width, scheme):
    """No scrolling sideways; and text stands out from the paper, in charts too."""
    seen.set_viewport_size({"width": width, "height": 900})
    seen.emulate_media(color_scheme=scheme)
    assert seen.evaluate("document.documentElement.scrollWidth") == width
    paper, ink, label = seen.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
        getComputedStyle(document.querySelector('.at svg text')).fill]"""
    )
    assert label == ink
    assert (brightness(paper) > 240) == (scheme == "light")
    assert abs(brightness(paper) - brightness(ink)) > 150


def brightness(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_a_cell_says_its_value(seen, made):
    seen.set_viewport_size({"width": 1400, "height": 900})
    matrix = json.loads((made[2] / "little" / "phases" / "phases.json").read_text())["similarity"]["matrix"]
    cells = seen.locator("figure.matrix").first.locator(".mark-rect path")
    cells.nth(6 * 1 + 4).hover()  # row by row: layer 2 and layer 5
    told = seen.locator("#vg-tooltip-element.visible").inner_text()
    assert re.sub(r"\s+", " ", told) == f"layer 2 and layer 5 similarity {matrix[1][4]:.3f}"


def test_boxes_choose_models_and_tokens(seen):
    """By the keyboard."""
    curves = seen.locator("#converge figure.curve").first.locator(".mark-line path")
    assert curves.count() == 6  # two models, three groups
    seen.locator("input[data-of=models][value=deeper]").focus()
    seen.keyboard.press("Space")
    seen.wait_for_function("document.querySelectorAll('figure.matrix:not([hidden])').length == 2")
    assert curves.count() == 3
    seen.locator("input[data-of=groups][value=cls]").focus()
    seen.keyboard.press("Space")
    seen.wait_for_function("!document.querySelector('input[data-of=groups][value=cls]').checked")
    assert curves.count() == 2
    for value in ("deeper", "cls"):
        seen.locator(f"input[value={value}]").check()


def test_it_says_the_verdicts_and_where_the_numbers_are(seen, made):
    _, found, out = made
    text = seen.locator("#verdict").inner_text()
    for model in found.models:
        assert model.verdict[1:] in text
    links = seen.eval_on_selector_all("a[href*='.json']", "all => all.map(one => one.getAttribute('href'))")
    assert "little/phases/phases.json" in links
    assert all((out / link).is_file() for link in links)


def test_it_says_which_layers_to_read(seen, made):
    """A row for each choice of layers, and by how much it is better than regular spacing."""
    probe = brdyn.read(made[2] / "little" / "probe")
    table = seen.get_by_label("Layers to read, little")
    rows = [row.split("\t") for row in table.locator("tbody").inner_text().splitlines()]
    assert {row[1]: row[2].split(" ")[0] for row in rows} == {
        place: f"{probe.value('accuracy', place):.1%}" for place in probe.sets.values()
    }
    assert "was not measured" not in seen.locator("#use").inner_text()  # there are labels


def test_guide_pages_are_a_click_away(seen, made):
    """Of a checkout; the site where it was built, else its text."""
    links = seen.eval_on_selector_all("a[href*='guide/']", "all => all.map(one => one.getAttribute('href'))")
    assert len(links) == 8
    pages = [(made[2] / link).resolve() for link in links]
    assert [page.stem for page in pages] == [
        "phases", "raptor", "splice", "spectra", "dynamics", "perturbation", "dynamics", "interventions",
    ]  # fmt: skip
    assert all(page.is_file() for page in pages)


def test_a_package_without_documents_names_its_guide(monkeypatch, tmp_path):
    monkeypatch.setattr(brdyn, "__file__", str(tmp_path / "site-packages" / "brdyn" / "__init__.py"))
    assert guide_page("phases", tmp_path) == ""


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")])
def test_a_chart_is_a_picture_too(kind, start):
    """That says on what it is, and of which models."""
    rows = [
        {"model": "vit", "group": "cls", "layer": layer, "depth": layer, "mean": layer, "low": 0, "high": 4}
        for layer in (1, 2, 3)
    ]
    spec = curve_chart(rows, words="speed", y="angle (rad)", x="update")
    drawn = still(spec, "How fast", ["vit: 12 images of 32 × 32 pixels"], kind)
    assert drawn.startswith(start)
    if kind == "svg":
        texts = re.findall(r">([^<>]+)</text>", drawn.decode())
        assert {"How fast", "vit: 12 images of 32 × 32 pixels", "angle (rad)", "update", "vit", "cls"} <= {*texts}
    assert spec["width"] == "container"  # that of the page is as it was


def test_every_chart_has_its_pictures(made, monkeypatch):
    monkeypatch.setattr("brdyn.reporting.specs.still", lambda spec, title, of, kind: f"{title} {of} {kind}".encode())
    _, report, out = made
    folders = {one.folder: [brdyn.read(out / one.folder / name) for name in one.sections] for one in report.models}
    found = [
        Found(one.name, one.folder, False, dict(zip(one.sections, folders[one.folder], strict=True)), {}, None)
        for one in report.models
    ]
    files = render_page(report, found, out, ("svg", "pdf"))
    page = files.pop("report.html").decode()
    assert {*files} == {
        f"{name}.{kind}"
        for kind in ("svg", "pdf")
        for name in (
            "similarity_little", "similarity_deeper", "exchange_little", "exchange_deeper", "speed", "convergence",
            "growth", "twins", "reading", "deletion",
        )
    }  # fmt: skip
    assert files["growth.pdf"].decode() == (
        "Growth of noise from the state that gets it to the end ('little: 8 images of 32 × 32 pixels', 'deeper: 8 "
        "images of 32 × 32 pixels') pdf"
    )
    assert (
        files["similarity_little.svg"].decode()
        == "Similarity between layers ('little: 12 images of 32 × 32 pixels',) svg"
    )
    assert all(f'href="{file}"' in page for file in files)
    assert '<noscript><img src="growth.svg" alt="' in page


def test_every_chart_says_what_it_shows(seen):
    charts = seen.locator("[data-chart]")
    assert charts.count() == seen.locator("[data-chart] svg").count() > 5
    words = [charts.nth(number).get_attribute("aria-label") for number in range(charts.count())]
    assert all(len(said) > 20 for said in words)
    assert words[0].startswith("Similarity between the 6 layers of little: ")


@pytest.fixture(scope="module")
def shown(browser, photos, tmp_path_factory):
    """The page of a network whose blocks hide their branches, with maps in the place of whole phases."""
    model, out = named("little"), tmp_path_factory.mktemp("shown")
    images, two = load_images(photos, model), segment(np.kron(np.eye(2), np.ones((3, 3))), 2)
    spliced = brdyn.splice_skill(
        model,
        images,
        two,
        surrogates=["mean", "exchange"],
        spans=[(0, 3), (3, 6)],
        within=True,
        stream=STREAM,
    )
    motion = brdyn.token_dynamics(model, images, two, measures=["speed"], stream=STREAM)
    motion = replace(motion, left_out={"branches": "block 1 of 'little' hides its branches", "basins": "no labels"})
    stretched = brdyn.token_dynamics(
        model, images, two, measures=["spectra"], tangents=2, krylov_steps=1, stream=STREAM
    )
    raptor = Raptor(model, [0] * 3 + [1] * 3, BlockConfig(width=16, heads=2))
    results = {
        "splice": spliced,
        "dynamics": motion,
        "spectra": stretched,
        "raptor-eval": evaluate(raptor, images, stream=STREAM, beyond=2),
    }
    found = Found("little", "little", False, results, {}, None)
    for name, content in render_page(assemble([found], SETTINGS, "cpu"), [found], out).items():
        (out / name).write_bytes(content)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto((out / "report.html").as_uri(), timeout=120_000)
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    page.results = results
    return page, spliced


def test_whose_work_a_block_does(shown):
    """A cell for each exchange that was tried, with its value; and what stands in for whole phases."""
    page, spliced = shown
    cells = page.locator("#work figure.matrix .mark-rect.role-mark path")
    assert cells.count() == 1 + 12 + 2  # what lies behind, pairs within two phases of three layers, frames
    cells.nth(1 + 2).hover()  # row by row: layer 2, by the block of layer 1
    told = re.sub(r"\s+", " ", page.locator("#vg-tooltip-element.visible").inner_text())
    error = f"{spliced.exchanged()[1, 0]:.3f}"
    assert told == f"replaced layer 2 by the block of layer 1 error over doing nothing {error}"
    table = page.get_by_label("In the place of whole phases, little").locator("tbody").inner_text()
    rows = [re.split(r"\t", row) for row in table.splitlines()]
    assert [row[0] for row in rows] == ["blocks 1–3", "blocks 4–6"]
    whole = spliced.whole_phases()
    whole = whole[whole["calibration"].isin(spliced.full["calibration"])]
    for number, row in enumerate(rows, 1):
        of = whole[whole["phase"] == number].set_index("surrogate")["mean"]
        assert [value.split(" ")[0] for value in row[1:]] == [f"{of['identity']:.2f}", f"{of['mean']:.2f}"]


def test_what_a_section_lacks_is_said(shown):
    notes = shown[0].locator("#converge ul.soft").inner_text()
    assert notes == "no branches: block 1 of 'little' hides its branches"
    assert "no agreement: the model has no classification head" in shown[0].locator("#work ul.soft").inner_text()


def test_which_directions_layers_stretch(shown):
    """Both sides on one scale, without what a layer has with itself; and growth block by block."""
    page = shown[0]
    spectra = page.results["spectra"].spectra
    matrices = page.locator("#stretch figure.matrix")
    assert matrices.locator("figcaption").all_inner_texts() == ["little, entering", "little, leaving"]
    for number, side in enumerate(("entering", "leaving")):
        cells = matrices.nth(number).locator(".mark-rect.role-mark path")
        assert cells.count() == 1 + 30 + 2  # what lies behind, pairs of six layers, frames
        cells.nth(1 + 1).hover()  # layer 1 and layer 3, as there is no cell for 1 and 1
        told = re.sub(r"\s+", " ", page.locator("#vg-tooltip-element.visible").inner_text())
        assert told == f"layer 1 and layer 3 squared cosine {spectra.coupling(side)[0, 2]:.3f}"
    assert page.locator("#stretch ul.soft li").all_inner_texts() == [spectra.describe()[-1]]
    specs = json.loads(page.locator("#specs").text_content())
    scales = [
        spec["layer"][1]["encoding"]["color"]["scale"] for spec in specs if "leading directions" in spec["description"]
    ]
    most = max(np.max(spectra.coupling(side) - np.eye(6)) for side in ("entering", "leaving"))
    assert [scale["domain"] for scale in scales] == [[0, pytest.approx(most, abs=1e-3)]] * 2
    growth = next(spec for spec in specs if spec["description"].startswith("Growth of a small change"))
    rows = [row["mean"] for row in growth["datasets"]["rows"] if row["group"] == "a small change"]
    np.testing.assert_allclose(rows, spectra.by_block("growth")[0], rtol=1e-4)


def test_what_a_raptors_blocks_come_to(shown):
    """Steps by how often the phase's length a block was applied, and which contract."""
    page = shown[0]
    past = page.results["raptor-eval"].beyond
    assert page.locator("#block ul.soft li").all_inner_texts() == past.remarks()
    specs = json.loads(page.locator("#specs").text_content())
    rows = next(spec for spec in specs if "past its phase" in spec["description"])["datasets"]["rows"]
    assert {(row["group"], row["depth"]) for row in rows} == {
        (f"block {block}", round(times / 3, 4)) for block in (1, 2) for times in range(1, 7)
    }
    first = past.curve("block 2, layers 4 to 6", "step")["mean"]
    np.testing.assert_allclose([row["mean"] for row in rows if row["group"] == "block 2"], first, rtol=1e-4)


def test_paper_has_no_boxes_and_nothing_beyond_its_edge(seen):
    seen.emulate_media(media="print")
    seen.set_viewport_size({"width": 700, "height": 900})
    assert not seen.locator("#boxes").is_visible()
    wide = seen.eval_on_selector_all("table", "all => Math.max(...all.map(one => one.getBoundingClientRect().right))")
    assert wide <= 700
    seen.emulate_media(media="screen")


def test_models_of_other_depth_share_an_axis(seen):
    assert seen.locator("#repair .role-axis-title text").first.text_content() == "depth (% of its blocks)"


def test_models_whose_colour_comes_again_have_another_mark():
    rows = [
        {"model": f"vit {number}", "group": "cls", "layer": 1, "depth": 1, "mean": 1, "low": 0, "high": 2}
        for number in range(8)
    ]
    near = curve_chart(rows, words="speed", y="angle (rad)", x="update")["layer"][-1]["encoding"]
    colours, shapes = (near[name]["scale"]["range"] for name in ("color", "shape"))
    assert colours[0] == colours[6]
    assert len({*zip(colours, shapes, strict=True)}) == 8


def test_a_number_that_json_has_not_is_null():
    specs = [{"domain": (0.0, float("nan"))}, {"rows": [{"mean": float("inf")}], "words": "<b>"}]
    assert json.loads(_embedded(specs)) == [{"domain": [0, None]}, {"rows": [{"mean": None}], "words": "<b>"}]


def test_a_chart_names_the_models_that_it_shows():
    """A model that has the results and no curve, such as one without a head in the read-out's, is not among them."""
    caption = SimpleNamespace(caption="8 images")
    found = [SimpleNamespace(label=label, results={"dynamics": caption}) for label in ("headed", "headless")]
    rows = [
        {
            "model": "headed",
            "group": "head",
            "layer": layer,
            "depth": layer,
            "of": 1,
            "mean": 0.5,
            "low": 0.4,
            "high": 0.6,
        }
        for layer in (0, 1)
    ]
    specs = Specs(found, ())
    (chart,) = specs.curves(rows, "Read-out", "readout", "dynamics", y="share", x="state")
    assert chart.of == ("headed: 8 images",)
    (both,) = specs.add({"description": ""}, "Both", "both", "dynamics")
    assert both.of == ("headed: 8 images", "headless: 8 images")

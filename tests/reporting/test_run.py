"""What a report does: each section once, again only where something differs, and the rest where one fails."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import brdyn
from brdyn.data import load_images
from brdyn.errors import BrdynError, UsageError
from brdyn.models import untrained_twins
from brdyn.phases import segment
from brdyn.reporting import ReportSettings, run
from brdyn.reporting.found import Found
from brdyn.reporting.plan import SECTIONS as ALL
from brdyn.reporting.plan import SIZES, Subject, options_of, said_duration, subjects
from brdyn.reporting.splicing import images_to_fit, splicing
from tests.measures.test_spectra import Opaque
from tests.models.own_vit import adapted
from tests.reporting.conftest import SETTINGS, STREAM, named

SECTIONS = ("phases", "dynamics", "perturb", "interventions", "splice", "probe")


def test_every_section_is_a_result_of_its_own(made):
    _, found, out = made
    for one in found.models:
        assert one.sections == SECTIONS
        kinds = [type(brdyn.read(out / one.folder / section)).__name__ for section in SECTIONS]
        assert kinds == ["Phases", "Dynamics", "Repair", "Surgery", "Splice", "LayerProbe"]
    dynamics, phases = (brdyn.read(out / "little" / name) for name in ("dynamics", "phases"))
    assert dynamics.phases.boundaries == phases.boundaries  # of one pass
    assert dynamics.null.twins == 1
    assert phases.provenance.n_images == 12
    assert brdyn.read(out) == found
    assert brdyn.read(out).summary() == found.summary()


def test_the_plan_is_said_before_all_else(made):
    said = made[0]
    assert said[:2] == ["little: loading …", "deeper: loading …"]
    assert said[2].startswith("report on 2 models: about ")
    assert "phases and dynamics: 12 images, about " in said[3]
    assert said[5] == "  models of different families or sizes: compared over relative depth"
    assert said[6] == "little: dynamics …"


def test_what_is_there_is_used_again(again):
    found, written, said = again()
    assert not written
    assert "phases and dynamics: there already" in said[3]
    assert [one.sections for one in found.models] == [SECTIONS, SECTIONS]


@pytest.mark.parametrize("lost", ["phases", "dynamics", "splice"])
def test_a_report_that_was_killed_goes_on(lost, again):
    """What was whole stays; phases and dynamics are of one pass."""
    shutil.rmtree(again.out / "deeper" / lost)
    (again.out / "report.json").unlink()
    expected = {f"deeper/{name}" for name in (("phases", "dynamics") if lost != "splice" else ("splice",))}
    assert again()[1] == expected


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_section_that_lacks_a_file_is_measured_anew(overwrite, again):
    (again.out / "deeper" / "dynamics" / "dynamics.parquet").unlink()
    found, written, _ = again(overwrite=overwrite)
    assert written == {"deeper/phases", "deeper/dynamics"}
    assert [one.sections for one in found.models] == [SECTIONS, SECTIONS]


@pytest.mark.parametrize("moment", ["render_page", "layer_surgery"])
def test_one_that_is_stopped_says_how_to_go_on(moment, again, monkeypatch):
    """While it draws, too."""

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"brdyn.reporting.run.{moment}", stopped)
    shutil.rmtree(again.out / "little" / "interventions")
    with pytest.raises(KeyboardInterrupt) as caught:
        again()
    assert caught.value.__notes__ == [f"results that are whole stay in {str(again.out)!r}; the same command goes on"]


def test_one_that_is_stopped_before_it_has_anything_promises_nothing(photos, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("brdyn.reporting.run.token_dynamics", stopped)
    with pytest.raises(KeyboardInterrupt) as caught:
        brdyn.report([named("little")], photos, tmp_path / "new", SETTINGS, stream=STREAM, formats=())
    assert not (tmp_path / "new").exists()
    assert not getattr(caught.value, "__notes__", [])


def test_results_of_something_else_are_listed_and_refused(again, photos, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(photos / "cat", other / "cat")
    with pytest.raises(UsageError, match=r"little/phases \(other images\).* and 6 more; choose another `out`"):
        again(images=other)
    with pytest.raises(UsageError, match=r"little/phases \(other settings\)"):
        again(settings=ReportSettings(size="fast", n=12, null=2))
    with pytest.raises(UsageError, match=r"little/phases \(another model or precision\)"):
        again([named("little", seed=5), named("deeper", 8, 1)])
    (again.out / "little" / "perturb" / "perturb.json").write_text("{}")
    with pytest.raises(UsageError, match=r"not of this report: little/perturb \(not of a report\); choose"):
        again()
    assert again(overwrite=True)[1] == {"little/perturb"}


def test_a_folder_with_something_else_is_refused(photos, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is not empty"):
        brdyn.report([named("little")], photos, tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_settings_are_noted_as_in_the_reports_that_are_kept():
    """By other names or values, their results would be of other settings."""
    noted = {one.name: options_of(one, ReportSettings(null=3, seed=7, fit_raptor=11)) for one in ALL}
    twins, motion = {"null": 3, "seed": 7}, {"leave_out": [], "measures": ["all", "branches"]}
    assert json.loads(json.dumps(noted)) == {
        "phases": {**motion, **twins},
        "dynamics": {**motion, **twins},
        "perturb": {"eps": [0.02, 0.2], "together": True, **twins},
        "interventions": {"kinds": ["swap", "delete"], **twins},
        "splice": {
            "surrogates": ["mean", "affine", "exchange"], "within": False, "every_span": False, "fitted": 256,
            **twins,
        },
        "spectra": {"tangents": 8, "krylov_steps": 2, **twins},
        "probe": {"probed": 1000, "probes": 1, "seed": 7},
        "raptor": {"fit_raptor": 11, "seed": 7},
        "raptor-eval": {"fit_raptor": 11, "beyond": 8, "seed": 7},
    }  # fmt: skip


def test_one_model_that_fails_leaves_the_others(again, monkeypatch):
    broken = named("broken", seed=3)
    broken.blocks[2].mlp.fc2.bias.data.fill_(float("nan"))
    found, _, said = again([named("little"), named("deeper", 8, 1), broken])
    little, _, other = found.models
    assert not little.failures
    assert "layer 3 of 'broken' is not finite" in other.failures["dynamics"]
    assert {one.answer for one in other.findings} == {"not measured"}
    assert "it failed: the output of layer 3" in other.findings[0].sentence
    assert found.failed == [f"broken ({other.failures['dynamics']})"]
    assert said[-2].startswith("broken: dynamics failed")
    with pytest.raises(BrdynError, match="layer 3"):  # nothing to report on
        again([broken], overwrite=True)


def test_an_untrained_network_is_marked(plain, tmp_path, pageless):
    model = named("little")
    settings = ReportSettings(size="fast", n=4, twin=True)
    found = brdyn.report([model], plain, tmp_path / "out", settings, stream=STREAM, formats=())
    trained, untrained = found.models
    assert (untrained.folder, untrained.label) == ("little-untrained", "little (untrained)")
    assert "was not measured: it needs labels" in trained.advice[0]
    assert untrained.verdict.startswith("untrained network (nothing of this was learnt): ")
    assert trained.findings[6].sentence.startswith("beside one untrained twin: ")
    own = brdyn.read(tmp_path / "out" / "little-untrained" / "phases")
    assert own.provenance.weights == next(iter(untrained_twins(model, 1))).info.weights


def test_a_twin_that_fails_keeps_its_mark(plain, tmp_path, pageless, monkeypatch):
    """Whether it cannot be drawn, or not be timed."""
    measure_speed = run.measure_speed

    def failing(model, images):
        if model.info.is_random:
            raise BrdynError("out of memory; use fewer images")
        return measure_speed(model, images)

    def undrawn(model, n, seed):
        raise BrdynError("it is not built as the model is")

    settings = ReportSettings(size="fast", n=4, twin=True)
    for place, replaced in (("run.measure_speed", failing), ("api.untrained_twins", undrawn)):
        out = tmp_path / place
        with monkeypatch.context() as patch:
            patch.setattr(f"brdyn.reporting.{place}", replaced)
            found = brdyn.report([named("little")], plain, out, settings, stream=STREAM, formats=())
        assert [(one.label, one.untrained) for one in found.models] == [
            ("little", False), ("little (untrained)", True),
        ]  # fmt: skip


def test_twins_of_a_module_that_nobody_can_draw_are_refused(plain, tmp_path):
    """By the option that asks for them."""
    for options in ({"twin": True}, {"null": 2}):
        with pytest.raises(UsageError, match=f"no untrained twins of it; drop `{next(iter(options))}`, or"):
            brdyn.report([adapted()], plain, tmp_path / "out", ReportSettings(size="fast", **options))


def test_an_untrained_model_has_no_twin(plain, tmp_path):
    model = next(iter(untrained_twins(named("little"), 1)))
    model.redraw = named("little").redraw
    with pytest.raises(UsageError, match="'little' is untrained, as its `twin` would be; drop `twin`"):
        brdyn.report([model], plain, tmp_path / "out", ReportSettings(size="fast", twin=True))


def test_no_two_models_share_a_folder_or_a_label():
    """Nor one and the twin of another, whichever of those that are given is untrained."""
    names = ["vit-untrained", "vit"]
    with_twins = [one.folder for one in subjects(names, "pretrained", twin=True)]
    assert with_twins == ["vit-untrained", "vit-untrained-untrained", "vit-2", "vit-2-untrained"]
    alone = subjects(names, "pretrained", twin=False)
    labels = [Found(one.name, one.folder, True, {}, {}, None).label for one in alone]
    assert labels == ["vit (untrained)", "vit-2 (untrained)"]


def test_a_trained_model_may_have_any_name():
    found = Found("vit-untrained", "vit-untrained", False, {}, {}, None)
    assert found.label == "vit-untrained"


def test_probes_of_elsewhere_are_told_of_their_model(photos, plain, tmp_path):
    """With a chart, a table and a sentence, whatever their task."""
    model, other = named("little"), named("deeper", 8, 1)
    probe = brdyn.probe_layers(other, load_images(photos, other), layers="2,5,7", seeds=1, stream=STREAM)
    probe.save(tmp_path / "probe")
    settings = ReportSettings(size="fast", n=4, probes=(str(tmp_path / "probe"),))
    out = tmp_path / "out"
    found = brdyn.report([model, other], plain, out, settings, stream=STREAM, formats=())
    without, told = (one.advice for one in found.models)
    best = probe.runs.query("probe == 'linear'").sort_values("held_out", kind="stable")["place"].iloc[-1]
    of = "13 images to fit and 3 to test (intervals are rough)"
    assert f"a linear probe of layers side by side, {of}: the best alone by held-out images {best}: " in told[1]
    assert len([line for line in without if line.startswith("To read features")]) == 1
    page = (out / "report.html").read_text()
    specs = json.loads(page.partition('id="specs">')[2].partition("</script>")[0])
    chart = next(
        spec for spec in specs if spec["description"] == "accuracy, classification by a linear head on a layer"
    )
    assert [row["layer"] for row in chart["datasets"]["rows"]] == [2, 5, 7]
    assert "../probe" in page
    with pytest.raises(UsageError, match=r"are of 'deeper', which is none of the models of the report"):
        brdyn.report([model], plain, tmp_path / "other", settings, stream=STREAM)
    wrong = replace(settings, probes=(str(out / "little" / "phases"),))
    with pytest.raises(UsageError, match=r"is no result of probes of layers; give the folder of `brdyn probe"):
        brdyn.report([model], plain, tmp_path / "other", wrong, stream=STREAM)


@pytest.fixture
def stretching(monkeypatch):
    """The quick size, with spectra of five images, and Raptors past their phases."""
    monkeypatch.setitem(SIZES, "fast", SIZES["fast"]._replace(stretched=5, krylov_steps=1, beyond=2))


def test_spectra_are_measured_beside_twins(plain, tmp_path, pageless, stretching):
    found = brdyn.report([named("little")], plain, tmp_path / "out", SETTINGS, stream=STREAM, formats=())
    (one,) = found.models
    assert one.sections == (*SECTIONS[:-1], "spectra"), one.failures
    stretched, phases = (brdyn.read(tmp_path / "out" / "little" / name) for name in ("spectra", "phases"))
    assert (stretched.provenance.n_images, stretched.spectra.krylov_steps, stretched.null.twins) == (5, 1, 1)
    assert stretched.phases.boundaries == phases.boundaries
    assert one.findings[3].answer != "not measured"


def test_blocks_without_derivatives_leave_the_rest(plain, tmp_path, pageless, stretching):
    """They are said, and nothing has failed."""
    model = named("little")
    model.blocks[1] = Opaque()
    settings = ReportSettings(size="fast", n=12)
    found = brdyn.report([model], plain, tmp_path / "out", settings, stream=STREAM, formats=())
    (one,) = found.models
    assert one.sections == SECTIONS[:-1]
    assert not one.failures
    assert "block 2 of 'little' cannot" in one.findings[3].sentence


def test_a_model_of_one_block_is_reported_on(photos, tmp_path, stretching):
    """What it cannot have is left out, and nothing has failed; the numbers of the page are JSON."""
    settings = ReportSettings(size="fast", n=12)
    found = brdyn.report([named("single", 1)], photos, tmp_path / "out", settings, stream=STREAM, formats=())
    (one,) = found.models
    assert not one.failures
    assert one.sections == ("phases", "dynamics", "perturb", "splice", "spectra")
    assert "a single layer leaves nothing to change" in one.advice[1]
    assert "of a single layer there is nothing to choose" in one.advice[0]
    page = (tmp_path / "out" / "report.html").read_text()
    text = page.partition('id="specs">')[2].partition("</script>")[0]
    specs = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert not [spec for spec in specs if "leading directions" in spec["description"]]


def test_a_raptor_is_fitted_and_judged_on_other_images(plain, tmp_path, pageless, monkeypatch):
    monkeypatch.setitem(SIZES, "fast", SIZES["fast"]._replace(beyond=2))
    settings = ReportSettings(size="fast", fit_raptor=2)
    model = brdyn.load_model("vit_tiny_patch16_224", init="random", image_size=32)
    found = brdyn.report([model], plain, tmp_path / "out", settings, init="random", stream=STREAM, formats=())
    (one,) = found.models
    assert one.sections == (*SECTIONS[:-1], "raptor", "raptor-eval"), one.failures
    fit, judged = (brdyn.read(tmp_path / "out" / one.folder / name) for name in ("raptor", "raptor-eval"))
    assert (fit.options["images"]["chosen"], judged.provenance.n_images) == (13, 3)
    assert judged.beyond.factor == 2
    assert not (tmp_path / "out" / one.folder / "raptor" / "checkpoints").exists()
    block = one.findings[1]
    assert block.answer in ("unclear", "yes")
    assert f"R² {judged.fidelity.curve('r2').min():.2f} at least" in block.sentence
    again = ReportSettings(size="fast", raptors=(str(tmp_path / "out" / one.folder / "raptor"),))
    with pytest.raises(UsageError, match="none of the models of the report"):
        brdyn.report([named("little")], plain, tmp_path / "other", again, stream=STREAM)


@pytest.mark.parametrize(
    ("size", "n", "able", "fitted", "note"),
    [
        ("fast", 40, ["exchange"], None, ""),
        ("default", 40, ["mean", "exchange"], 8, "left out: affine (8 images of "),
        ("default", 32, ["exchange"], None, "left out: mean and affine (there are no images besides"),
        ("default", 80, ["mean", "affine", "exchange"], 48, ""),
    ],
)
def test_what_stands_in_is_what_the_images_allow(size, n, able, fitted, note, many):
    """Maps are fitted to images that nothing is judged by."""
    model, phases = named("little"), segment(np.eye(6), k=3)
    model.info = replace(model.info, width=200)
    images, settings = load_images(many, model, n=n), ReportSettings(size=size)
    options, notes = splicing(model, images, phases, settings)
    assert options["surrogates"] == able
    assert (options["within"], options["spans"]) == (
        size == "fast",
        [(a - 1, b) for a, b in phases.intervals],
    )
    assert [said for said in notes if not said.startswith(note)] == ([] if note else notes)
    assert bool(notes) == bool(note)
    fit = options.get("fit_images")
    assert (None if fit is None else len(fit)) == fitted == (images_to_fit(images, settings) or None)
    if fit is not None:
        assert not fit.shared_with(images.some(settings.of_size.spliced, settings.seed))


def test_every_span_where_memory_allows(many, monkeypatch):
    model, phases = named("little"), segment(np.eye(6), k=3)
    images, settings = load_images(many, model, n=300), ReportSettings(size="thorough")
    options, notes = splicing(model, images, phases, settings)
    assert (len(options["spans"]), notes) == (21, [])
    monkeypatch.setattr("brdyn.interventions.span_maps.available_memory", lambda device: 0)
    options, notes = splicing(model, images, phases, settings)
    assert (len(options["spans"]), notes[0][:53]) == (
        3,
        "of whole phases alone: maps of 21 spans of width 16 w",
    )


def test_it_is_made_by_one_process(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"made by one process; drop torchrun, or run its commands one by one"):
        brdyn.report([named("little")], photos, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_folders_of_models():
    assert subjects(["facebook/dino-vits16", "a b"], "pretrained", twin=True) == [
        Subject("facebook/dino-vits16", "pretrained", "facebook--dino-vits16"),
        Subject("facebook/dino-vits16", "random", "facebook--dino-vits16-untrained"),
        Subject("a b", "pretrained", "a-b"),
        Subject("a b", "random", "a-b-untrained"),
    ]
    assert [one.folder for one in subjects(["/x/run", "/y/run"], "pretrained", False)] == ["run", "run-2"]
    for names, init, twin, words in (
        ([], "pretrained", False, "at least one `model`"),
        (["a", "a"], "pretrained", False, "'a' is named twice"),
        (["a"], "random", True, "are the same networks"),
    ):
        with pytest.raises(UsageError, match=words):
            subjects(names, init, twin)


def test_what_makes_no_sense_is_refused():
    for options, words in (
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"n": 0}, "at least one image"),
        ({"null": -1}, "not a number of untrained twins"),
        ({"fit_raptor": -1}, "less than none"),
    ):
        with pytest.raises(UsageError, match=words):
            ReportSettings(**options)


def test_the_result_reads_whatever_else_is_in_the_file(made, tmp_path):
    content = json.loads((made[2] / "report.json").read_text())
    assert content["models"][0]["changes"][0]["kind"] == "delete"
    del content["models"][0]["verdict"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"models\[0\] has no 'verdict'"):
        brdyn.read(tmp_path)


def test_durations():
    assert [said_duration(seconds) for seconds in (0, 89, 100, 5399, 5400)] == [
        "1 s", "89 s", "2 min", "90 min", "1.5 h",
    ]  # fmt: skip

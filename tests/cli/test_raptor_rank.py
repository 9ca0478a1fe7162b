"""`brdyn raptor-rank` as a user meets it."""

import json
import shutil
from dataclasses import replace
from math import nan

import pytest

import brdyn
from brdyn.raptor.ranks import fit_raptor
from tests.cli.commands import assert_one_line_error
from tests.conftest import tiny_vit


def test_it_writes_what_it_says(run, tiny_options, tmp_path):
    options = [*tiny_options, "--image-size", "32", "--k", "2", "--draws", "1"]
    done = run("raptor-rank", *options, "--ranks", "full,0", "--partitions", "maxcut,random-shuffle")
    assert done.returncode == 0, done.stderr
    assert "maxcut: with corrections of rank 0" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"raptor_rank.json", "ranks.png"}
    content = json.loads((tmp_path / "out" / "raptor_rank.json").read_text())
    assert [(row["partition"], row["rank"]) for row in content["table"]] == [
        ("maxcut", 0), ("maxcut", 192), ("random-shuffle 1", 0), ("random-shuffle 1", 192)
    ]  # fmt: skip
    assert content["table"][1]["skill"] == pytest.approx(1, abs=1e-4)
    assert content["table"][0]["n_images"] == content["n_images"] == 8  # a fifth of 40
    assert_one_line_error(run("raptor-rank", *options), 2, "--overwrite")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranks", "0,big"], ["--ranks '0,big'", "'big' is neither a rank"]),
        (["--ranks", "193"], ["--ranks 193", "192", "full"]),
        (["--start", "random"], ["start", "layer, mean"]),
        (["--partitions", "halves"], ["halves", "maxcut, random-contiguous, random-shuffle"]),
        (["--lr", "0.1"], ["--lr", "--steps"]),
        (["--k", "13"], ["13", "12"]),
        (["--k", "1"], ["--draws 3", "1 phase of 12 layers there are 0 of random-contiguous", "--partitions"]),
        (["--k", "2", "--draws", "11"], ["there are 10 of random-contiguous", "give --draws 10"]),
        (["--k", "12", "--partitions", "maxcut,random-shuffle"], ["there are 0 of random-shuffle"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(run, tiny_options, tmp_path, options, words):
    assert_one_line_error(run("raptor-rank", *tiny_options, *options), 2, *words)
    assert not (tmp_path / "out").exists()


def test_the_batch_of_its_fits(run, tiny_options, tmp_path, monkeypatch):
    """As asked for; at most all images where it is not; one that they do not fill is refused before all else."""
    asked, fit = [], fit_raptor

    def spy(teacher, learning, assignment, settings, **options):
        asked.append(settings.batch_size)
        return fit(teacher, learning, assignment, settings, **options)

    monkeypatch.setattr("brdyn.raptor.ranks.fit_raptor", spy)
    options = ["raptor-rank", *tiny_options, "--image-size", "32", "--k", "2", "--partitions", "maxcut"]
    options += ["--ranks", "0", "--steps", "2", "--overwrite"]
    for n, batch in ((10, "3"), (10, "auto")):
        done = run(*options, "-n", n, "--batch-size", batch, drawn=False)
        assert done.returncode == 0, done.stderr
    assert asked == [3, 8]
    monkeypatch.setattr("brdyn.measures.found_phases.find_phases", None)  # nothing is measured before
    refused = run(*options, "-n", "10", "--batch-size", "9", drawn=False)
    assert_one_line_error(refused, 2, "8 images are too few for a batch of 9", "--batch-size 8")


def test_fits_that_contradict_themselves_are_refused(run, tiny_options):
    fit = ["raptor-fit", *tiny_options, "--boundaries", "5"]
    assert_one_line_error(run(*fit, "--relax", "4"), 2, "relax 4", "--start layer")
    assert_one_line_error(run(*fit, "--recipe", "fast", "--mlp", "gelu"), 2, "mlp gelu", "start at random")
    assert_one_line_error(run(*fit, "--recipe", "fast", "--relax", "193"), 2, "rank 193", "192")


def test_what_it_judges_by_chose_nothing(run, tiny_options, monkeypatch):
    """Layers are chosen, and fits made, by four fifths of the images; the others judge."""
    asked = {}
    ranks = brdyn.raptor_ranks

    def spy(model, images, *arguments, **options):
        asked.update(judged=set(images.indices()), learnt=set(options["fit_images"].indices()))
        return ranks(model, images, *arguments, **options)

    monkeypatch.setattr("brdyn.raptor_ranks", spy, raising=False)
    options = [*tiny_options, "--image-size", "32", "--k", "2", "--ranks", "0", "--partitions", "maxcut"]
    assert run("raptor-rank", *options).returncode == 0
    assert (len(asked["judged"]), len(asked["learnt"])) == (8, 32)
    assert not asked["judged"] & asked["learnt"]


def test_images_that_chose_and_were_skipped_are_told(run, tiny_options, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(tiny_options[tiny_options.index("--images") + 1], images)
    for broken in sorted(images.rglob("*.png"))[:10]:
        broken.write_bytes(broken.read_bytes()[:40])
    options = [*tiny_options, "--images", images, "--image-size", "32", "--k", "2", "--partitions", "maxcut"]
    done = run("raptor-rank", *options, "--ranks", "0,192")
    assert done.returncode == 0, done.stderr
    curve = brdyn.read(tmp_path / "out")
    judging = int(curve.table["n_images"].iloc[0])
    skipped = [one["name"] for one in curve.fit_images["skipped"]]
    assert len(skipped) == 10 - (8 - judging)  # a fifth of 40 judge
    assert f"32 images to choose the shared weights by, {judging} other images to judge by" in done.stdout
    assert f"skipped {skipped[0]}" in done.stdout
    assert "rank 192, with " in curve.answer()

    content = json.loads((tmp_path / "out" / "raptor_rank.json").read_text())
    del content["fit_images"]  # as earlier versions wrote it
    (tmp_path / "out" / "raptor_rank.json").write_text(json.dumps(content))
    assert "to judge by" not in brdyn.read(tmp_path / "out").summary()


def test_images_that_chose_alone_are_told_too(noise_folder, monkeypatch):
    monkeypatch.setattr("brdyn.raptor.ranks.START_IMAGES", 20)
    for broken in sorted(noise_folder.iterdir())[:10]:
        broken.write_bytes(broken.read_bytes()[:40])
    model = tiny_vit()
    learning, judging = brdyn.load_images(str(noise_folder), model).split(8, seed=0)
    alone = brdyn.Stream(workers=0)
    curve = brdyn.raptor_ranks(model, judging, {"one": [0] * model.depth}, [0], fit_images=learning, stream=alone)
    assert (curve.fit_images["choose"], curve.fit_images["fit"]) == (20, 0)
    assert "[nan" not in replace(curve, table=curve.table.assign(low=nan, high=nan)).answer()  # of one image
    chosen = learning.some(20, judging.seed).indices()
    assert len(curve.fit_images["skipped"]) == sum(index < 10 for index in chosen) > 0

"""`brdyn splice` as a user meets it."""

import json
from dataclasses import replace

import pytest

import brdyn
from brdyn.raptor import BlockConfig, Raptor
from tests.cli.commands import assert_one_line_error
from tests.conftest import tiny_vit


def test_it_writes_what_it_says(run, tiny_options, tmp_path):
    options = [*tiny_options, "--image-size", "32", "-n", "10", "--k", "2"]
    asked = ["--surrogates", "mean,exchange,repeat", "--spans", "0-3,9-12", "--json", "--quiet"]
    done = run("splice", *options, *asked, rendered=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert sorted(said["files"]) == [
        "calibration.png", "exchange.png", "fidelity.png", "skill.png", "splice.json", "splice.parquet", "work.parquet",
    ]  # fmt: skip
    assert "within a phase another layer's block makes" in said["answer"]
    assert "no agreement: the model has no classification head" in said["notes"]
    assert "maps fitted to 5 other images (25 tokens for 192 directions, ridge 0.001)" in said["notes"]
    found = brdyn.read(tmp_path / "out")
    assert {(0, 3), (9, 12)} < set(zip(found.rows("mean")["start"], found.rows("mean")["end"], strict=True))
    assert len(found.rows("repeat")) == 2
    assert found.provenance.n_images == 5


def test_maps_fitted_to_other_images(run, tiny_options, tmp_path, noise_folder):
    options = [*tiny_options, "-n", "4", "--k", "2", "--surrogates", "mean", "--spans", "9-12"]
    overlapping = run("splice", *options, "--fit-images", noise_folder)
    assert_one_line_error(overlapping, 2, "4 images are both to fit to and to judge by", "--fit-images")
    (tmp_path / "others").mkdir()
    for path in sorted(noise_folder.iterdir())[:6]:
        (tmp_path / "others" / path.name).write_bytes(path.read_bytes())
    done = run("splice", *options, "--fit-images", tmp_path / "others", "--fit-n", "3", drawn=False)
    assert done.returncode == 0, done.stderr
    found = brdyn.read(tmp_path / "out")
    assert (found.calibration.images, found.provenance.n_images) == (3, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spans", "0-13"], ["span 0-13", "0 to 12"]),
        (["--k", "13"], ["13", "12"]),
        (["-n", "20", "--image-size", "32"], ["10 images", "50 rows", "193", "at least 39 images", "--fit-images"]),
        (["-n", "1"], ["1 image", "--fit-images"]),
        (["--raptor", "nowhere"], ["nowhere"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(run, tiny_options, tmp_path, options, words):
    assert_one_line_error(run("splice", *tiny_options, *options), 2, *words)
    assert not (tmp_path / "out").exists()


def test_a_raptor_of_another_teacher_is_refused(run, tiny_options, tmp_path):
    teacher = tiny_vit(depth=12)
    teacher.info = replace(teacher.info, name="another")
    config = BlockConfig(width=16, heads=2, mlp="gelu", mlp_ratio=1.0)
    Raptor(teacher, [0] * 12, config).save_pretrained(tmp_path / "raptor")
    done = run("splice", *tiny_options, "-n", "2", "--raptor", tmp_path / "raptor")
    assert_one_line_error(done, 2, "was fitted to 'another'", "vit_tiny_patch16_224")

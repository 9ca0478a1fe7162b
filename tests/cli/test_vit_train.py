"""`brdyn vit-train` as a user meets it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brdyn.training import Checkpoints
from tests.cli.commands import assert_one_line_error

SMALL = ["--width", "8", "--heads", "1", "--hidden", "8", "--depth", "3"]


@pytest.fixture
def options(labelled, tmp_path):
    return [
        "--data", labelled, "--test", labelled, "--image-size", "8", "--epochs", "2", "--batch-size", "10",
        "--workers", "0", "--log-every", "1", "--validate-every", "1", *SMALL, "--out", tmp_path / "out",
    ]  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_it_keeps_what_it_is_asked_for_and_other_commands_load_it(run, options, labelled, tmp_path):
    done = run("vit-train", *options, "--drop-path", "0.5", "--keep", "0,1,best")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "train.json", "train.png", "epoch0", "epoch1", "best"
    }  # fmt: skip
    content = json.loads((out / "train.json").read_text())
    assert content["options"]["built"]["drop_path"] == 0.5
    assert content["options"]["held_out"] == 4  # a tenth
    assert content["history"]["images"] == 2 * 36 // 10 * 10
    best = next(line for line in done.stdout.splitlines() if line.startswith("best "))
    assert best.split()[1] == f"{content['kept']['best']['epoch']:.3g}"
    assert "epoch0/, epoch1/, best/" in done.stdout
    matrices = []
    for name in ("epoch0", "best", "."):
        model = ["--model", out / name, "--images", labelled, "--workers", "0"]
        done = run("phases", *model, "--out", tmp_path / f"phases-{name}")
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / f"phases-{name}" / "phases.json").read_text())
        matrices.append(found["similarity"]["matrix"])
    assert matrices[0] != matrices[1]
    fit = ["--k", "2", "--steps", "2", "--batch-size", "4", "--out", tmp_path / "raptor"]
    assert run("raptor-fit", *model, *fit).returncode == 0
    done = run("raptor-eval", tmp_path / "raptor", "--images", labelled, "--workers", "0", "--out", tmp_path / "e")
    assert done.returncode == 0, done.stderr
    assert "accuracy by that head" in done.stdout
    assert_one_line_error(run("vit-train", *options), 2, "--overwrite")


@pytest.mark.usefixtures("undrawn")
def test_without_keep_nothing_is_held_out(run, options, tmp_path):
    assert run("vit-train", *options, "--test-n", "7").returncode == 0
    content = json.loads((tmp_path / "out" / "train.json").read_text())
    assert content["test"]["images"] == 7
    assert (content["options"]["held_out"], content["kept"], content["history"]["images"]) == (0, {}, 80)
    assert content["provenance"]["command"].startswith("brdyn vit-train")


@pytest.mark.usefixtures("undrawn")
def test_held_out_images_are_what_it_is_judged_by_without_a_test(run, labelled, tmp_path):
    sizes = ["--image-size", "8", "--epochs", "2", "--workers", "0", *SMALL]
    options = ["--data", labelled, "--out", tmp_path / "out", *sizes]
    done = run("vit-train", *options, "--held-out", "50")  # of 40
    assert_one_line_error(done, 2, "50 of 40 images cannot be held out")
    assert "batch size" not in done.stdout
    assert_one_line_error(run("vit-train", *options, "--test-n", "5"), 2, "--test-n goes with --test")
    done = run("vit-train", *options, "--held-out", "10")
    content = json.loads((tmp_path / "out" / "train.json").read_text())
    last = content["history"]["validation"][-1]["accuracy"]
    assert f"accuracy {last:.2%} on 10 held-out images; there are no test images" in done.stdout


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--model", "resnet18"], "unknown ViT 'resnet18'; choose one of vit-small"),
        (["--drop-path", "1"], "drop-path 1.0 is not from 0 to below 1"),
        (["--keep", "last"], "'last' is neither an epoch"),
        (["--keep", "5"], "--keep 5: the run ends at epoch 2"),
        (["--keep", "best", "--ema", "0.9"], "drop --ema or --keep"),
        (["--held-out", "40"], "40 of 40 images cannot be held out"),
        (["--depth", "0"], "--depth"),
        (
            ["--shared-blocks", "2"],
            "2 shared blocks do not divide 3 layers, as the partition 'sequence' needs",
        ),
        (["--shared-blocks", "4"], "4 shared blocks for 3 layers: there are 1 to 3, or 0"),
        (["--shared-blocks", "-1"], "'--shared-blocks'"),
        (["--partition", "0,1"], "is of 2 layers, and the network has 3; give the block of each"),
        (["--shared-blocks", "1", "--partition", "0,1,1"], "has 2 blocks, and 1 are asked for; drop either"),
        (
            ["--shared-blocks", "3", "--drop-path", "0,0.1,0.2"],
            "'--drop-path': Input should be a valid number",
        ),
        (["--shared-blocks", "1", "--image-size", "10"], "10x10 is not a multiple of the 4-pixel patch"),
        (["--shared-blocks", "1", "--depth-scaling", "layer"], "choose one of index, constant, none"),
    ],
)
def test_training_that_cannot_be(run, options, tmp_path, extra, words):
    assert_one_line_error(run("vit-train", *options, *extra), 2, words)
    assert not (tmp_path / "out").exists()


def test_the_packaged_network_is_evaluated_by_name(run, labelled, cifar10_test, tmp_path):
    options = ["-n", "200", "--workers", "0", "--out", tmp_path / "eval"]
    done = run("vitrm-eval", "cifar_vit12", "--data", cifar10_test, *options)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "eval" / "vitrm_eval.json").read_text())
    assert 0.65 < content["accuracy"] < 0.79
    other = run("vitrm-eval", "cifar_vit12", "--data", labelled, "--workers", "0", "--out", tmp_path / "other")
    assert_one_line_error(other, 2, "and the classifier 10 (airplane")


@pytest.mark.usefixtures("undrawn")
def test_blocks_are_shared_and_the_network_takes_images_of_its_size_alone(run, options, labelled, tmp_path):
    shared = [*options, "--depth", "4", "--shared-blocks", "2", "--partition", "cycle"]
    done = run("vit-train", *shared)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["options"]["shared_blocks"] == 2
    assert config["options"]["partition"] == "cycle"
    model = [
        "--model",
        tmp_path / "out",
        "--images",
        labelled,
        "--workers",
        "0",
        "--out",
        tmp_path / "phases",
    ]
    assert run("phases", *model).returncode == 0
    found = json.loads((tmp_path / "phases" / "phases.json").read_text())
    assert len(found["similarity"]["matrix"]) == 4
    model[-1] = tmp_path / "other"
    assert_one_line_error(
        run("phases", *model, "--image-size", "16"), 2, "trained on images of 8x8 pixels", "drop --image-size"
    )


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_shared_blocks_is_resumed_with_the_same_ones_alone(run, options, labelled, tmp_path, monkeypatch):
    """What else is asked for is told by name, and the checkpoint stays for the run that it is of."""
    five = pq.read_table(labelled)
    five = five.set_column(1, "label", pa.array([number % 5 for number in range(len(five))]))
    pq.write_table(five, tmp_path / "five.parquet")
    options = [*options, "--depth", "4"]
    save = Checkpoints.save

    def killed(self, stage, step, *state):
        save(self, stage, step, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        assert run("vit-train", *options, "--shared-blocks", "2").returncode == 130
    for other, words in (
        (["--shared-blocks", "4"], "built.shared_blocks: 2 before, 4 now"),
        ([], "built.shared_blocks: 2 before, None now"),
        (["--shared-blocks", "2", "--partition", "cycle"], "built.partition: sequence before, cycle now"),
        (["--shared-blocks", "2", "--depth-scaling", "index"], "built.depth_scaling: None before, index now"),
        (["--shared-blocks", "2", "--image-size", "16"], "image_size: 8 before, 16 now"),
        (
            ["--shared-blocks", "2", "--test", tmp_path / "five.parquet"],
            "has 5 classes (0, …), and the training",
        ),
    ):
        assert_one_line_error(run("vit-train", *options, *other, "--resume"), 2, words)
    done = run("vit-train", *options, "--shared-blocks", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming from stage1-00000001" in done.stdout

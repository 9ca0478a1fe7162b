"""Classifiers kept on the way: the right weights at the right moments, also after a kill."""

import hashlib

import pytest
import torch

from brdyn.classifiers.kept import describe_kept, kept_folders
from brdyn.classifiers.recipe import parse_keep
from brdyn.classifiers.saved import Classifier
from brdyn.classifiers.tasks import Classification
from brdyn.classifiers.training import ClassifierRun
from brdyn.errors import DivergedError, UsageError
from brdyn.models import load_model
from brdyn.store import OutputFolder, read_json
from brdyn.training import Checkpoints, Session
from tests.classifiers.small import NETWORKS, Killed, pictures, recipe

KEEP = ("0", "1", "2.5", "best")


def run(**changes):
    made = {"network": "vit-tiny12", "recipe": recipe(validate_every=1, operations=0, mixup=0.0, cutmix=0.0),
            "image_size": 8, "built": {**NETWORKS["vit-tiny12"], "drop_path": 0.3}, "keep": KEEP}  # fmt: skip
    return ClassifierRun(**{**made, **changes})


def train(folder, one=None, images=None, test=None, resume=False, report=None):
    one, images, test = one or run(), images or pictures(), test or pictures(30)
    checkpoints = Checkpoints(folder / "checkpoints", one.options(images, test), anew=not resume)
    with OutputFolder(folder, overwrite=True) as out:
        session = Session(checkpoints=checkpoints, resume=checkpoints.latest() if resume else None, report=report)
        training = one.train(images, test, folder=out, session=session)
        training.write(out)
        checkpoints.remove()
        return training


def weights(folder):
    return Classifier.from_pretrained(folder).network.state_dict()


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_epochs_asked_for_and_the_best_are_kept(tmp_path):
    training = train(tmp_path)
    assert list(kept_folders(tmp_path)) == list(training.kept) == ["epoch0", "epoch1", "epoch2.5", "best"]
    assert [training.kept[name]["step"] for name in training.kept][:3] == [0, 3, 8]
    assert training.kept["epoch1"]["epoch"] == 1
    assert same(weights(tmp_path / "epoch0"), run().untrained(pictures()).network.state_dict())
    watched = [row["accuracy"] for row in training.history.validation]
    best = training.kept["best"]
    assert best["watched"] == max(watched) == best["accuracy"]
    assert best["step"] == watched.index(max(watched)) + 1  # the earliest of equals
    assert load_model(str(tmp_path / "best")).info.digest != load_model(str(tmp_path)).info.digest
    assert read_json(tmp_path / "best" / "config.json", "it")["at"]["step"] == best["step"]


def test_a_run_is_told_by_its_images():
    """What a checkpoint remembers: other training or test images are another run."""
    options = run().options(pictures(), pictures(30))
    for name, images in {"data": pictures(), "test": pictures(30)}.items():
        classes = "\0".join(images.names).encode() + images.labels.numpy().astype("<i8").tobytes()
        assert options[name] == {
            "source": "made up",
            "images": len(images),
            "digest": hashlib.sha256(images.pixels.numpy().tobytes()).hexdigest(),
            "labels": hashlib.sha256(classes).hexdigest(),
        }
    assert run().options(pictures(), None)["test"] is None


def test_checkpoints_of_another_run_are_refused(tmp_path):
    session = Session(checkpoints=Checkpoints(tmp_path, run(keep=()).options(pictures(30), None)))
    with pytest.raises(UsageError, match=r"these are others \(.*data.images: 30 before, 90 now"):
        run(keep=()).train(pictures(), session=session)


def test_kept_classifiers_survive_a_kill(tmp_path):
    train(tmp_path / "whole")

    def kill(_, step, __):
        if step == 9:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "killed", report=kill)
    saved = Checkpoints(tmp_path / "killed" / "checkpoints", run().options(pictures(), pictures(30)))
    third = saved.read(saved.folder / "stage1-00000003").tensors
    kept = weights(tmp_path / "killed" / "epoch1")
    assert all(torch.equal(value, third[f"model/network.{name}"]) for name, value in kept.items())
    train(tmp_path / "killed", resume=True)
    for name in ("epoch0", "epoch1", "epoch2.5", "best"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "killed" / name))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_resumed_run_remembers_the_best(tmp_path, monkeypatch):
    """The best was before the checkpoint, and nothing after it is better."""
    accuracies = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, *[0.8] * 20])

    def validate(self):
        return {"accuracy": next(accuracies)}

    monkeypatch.setattr(Classification, "validate", validate)

    def kill(_, step, __):
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, run(keep=("best",)), report=kill)
    before = weights(tmp_path / "best")
    training = train(tmp_path, run(keep=("best",)), resume=True)
    assert training.kept["best"]["step"] == 2
    assert training.kept["best"]["watched"] == 0.9
    assert same(before, weights(tmp_path / "best"))


def test_those_of_another_run_go(tmp_path):
    train(tmp_path)
    (tmp_path / "best" / "notes.txt").write_text("mine")
    train(tmp_path, run(keep=("0",)))
    assert list(kept_folders(tmp_path)) == ["epoch0"]


def test_those_of_another_run_stay_where_this_one_cannot_be(tmp_path):
    train(tmp_path)
    with pytest.raises(UsageError, match="too few for a batch"):
        train(tmp_path, run(recipe=recipe(batch_size=1000)))
    assert list(kept_folders(tmp_path)) == ["epoch0", "epoch1", "epoch2.5", "best"]
    train(tmp_path, run(keep=()))
    assert kept_folders(tmp_path) == {}


def test_held_out_images_choose_the_best(tmp_path):
    training = train(tmp_path, run(held_out=18))
    assert training.options["held_out"] == 18
    assert training.history.images == 300  # ten batches of 72 images; of all 90 they would be twelve
    watched = max(row["accuracy"] for row in training.history.validation)
    assert training.kept["best"]["watched"] == watched
    assert watched * 18 == pytest.approx(round(watched * 18))
    learning, held = pictures().split(18, seed=0)
    assert len(learning) + len(held) == 90
    joined = torch.cat([learning.pixels, held.pixels]).flatten(1).tolist()
    assert sorted(map(tuple, joined)) == sorted(map(tuple, pictures().pixels.flatten(1).tolist()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep": ("9",)}, "`keep=9`: the run ends at epoch 4"),
        ({"recipe": recipe(ema=0.9)}, "drop `ema` or `keep`"),
        ({"held_out": 90}, "90 of 90 images cannot be held out"),
    ],
)
def test_what_cannot_be_kept(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        train(tmp_path / "out", run(**changes))
    assert not (tmp_path / "out").exists()


def test_the_best_needs_images_to_choose_by(tmp_path):
    with OutputFolder(tmp_path / "out") as out, pytest.raises(UsageError, match="there are none"):
        run().train(pictures(), folder=out)


def test_classifiers_are_kept_in_a_folder():
    with pytest.raises(UsageError, match="kept in a folder; give `folder`, or drop `keep`"):
        run().train(pictures(), pictures(30))


@pytest.mark.parametrize(("text", "parts"), [("", ()), ("0, 10,best,0", ("0", "10", "best")), ("2.5", ("2.5",))])
def test_keep_is_read(text, parts):
    assert parse_keep(text) == parts


@pytest.mark.parametrize("text", ["last", "-1", "best,x", "1e3"])
def test_keep_that_makes_no_sense(text):
    with pytest.raises(UsageError, match="is neither an epoch"):
        parse_keep(text)


def test_a_kept_vitrm_answers_in_as_many_steps_as_the_run_asks_for(tmp_path):
    built = {**NETWORKS["vitrm"], "dropout": 0.0}
    training = train(tmp_path, run(network="vitrm", built=built, steps=8, keep=("4",)))
    assert training.kept["epoch4"]["accuracy"] == training.kept["epoch4"]["watched"] == training.accuracy
    others = describe_kept(tmp_path, pictures(30), steps=1)
    assert others["epoch4"]["accuracy"] != training.accuracy


def test_weights_that_are_no_numbers_are_not_kept(tmp_path):
    """Though an accuracy by chance is better than none; training stops when it looks at its losses."""
    quick = recipe(
        lr=1e30, log_every=1000, checkpoint_every=1000, validate_every=1, operations=0, mixup=0.0, cutmix=0.0
    )
    with pytest.raises(DivergedError):
        train(tmp_path, run(recipe=quick))
    kept = kept_folders(tmp_path)
    assert "epoch0" in kept
    for folder in kept.values():
        assert all(value.isfinite().all() for value in weights(folder).values())

"""What is given as a model and is none: the message says what it is, and what to give instead."""

import json

import pytest
import transformers as hf

from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model
from tests.models.test_towers import VISION


def make(root, name):
    """A path that is no model."""
    path = root / "runs" / name
    path.parent.mkdir(exist_ok=True)
    files = {
        "empty": (),
        "results": ("phases.json", "phases.png"),
        "unfinished": ("checkpoints-x/readme", "stage1-00010/state.json"),
        "weights": ("model.safetensors",),
        "pictures": ("a.png", "b.JPG"),
        "table": ("train.parquet",),
        "odd": ("a.txt", "b.txt"),
    }
    if name in files:
        path.mkdir()
        for file in files[name]:
            (path / file).parent.mkdir(exist_ok=True)
            (path / file).touch()
    elif "." in name:
        path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "is an empty folder"),
        ("results", r"holds results of brdyn \(phases.json\), not a model; give the model that they are of"),
        ("unfinished", "holds checkpoints of a run that is not finished; go on with it by `resume`"),
        ("weights", r"holds weights \(model.safetensors\) and no config.json; .*`weights`"),
        ("pictures", r"holds images \(a.png, b.JPG\), not a model; give it with `images`"),
        ("table", r"holds images \(train.parquet\)"),
        ("odd", "is a folder without a model: there is no config.json in it, but a.txt, b.txt"),
        ("x.pth", "is a file of weights; name its architecture with `model`"),
        ("x.png", "is a file of images, not a model; give it with `images`"),
        ("config.json", "is a file; give its folder"),
        ("x.txt", "is a file, not a model"),
        ("gone", "there is no folder '.*gone'"),
        ("gone@8", "there is no folder '.*gone', so no trained ViTRM to take 8 steps of"),
    ],
)
def test_a_path_that_is_no_model(tmp_path, monkeypatch, name, words):
    path = make(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = [str(path), f"~/runs/{name}"]
    given += [] if name == "gone" else [f"runs/{name}"]  # which may be on the hub
    for text in given:
        for load in (load_model, describe_model):
            with pytest.raises(UsageError, match=words) as caught:
                load(text)
            assert "network" not in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["~no such person/x", "~no such person/x@8", "~no such person/x.py:make"])
def test_a_home_folder_that_is_not_there(name):
    with pytest.raises(UsageError, match=r"(there is no folder|no file) '~no such person/x"):
        load_model(name, allow_code=True)


def test_a_results_folder_with_steps(tmp_path):
    with pytest.raises(UsageError, match=r"holds results of brdyn .*only a trained ViTRM takes steps"):
        load_model(f"{make(tmp_path, 'results')}@8")


def test_a_name_that_may_be_of_the_hub_or_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brdyn.hub.is_reachable", lambda: False)
    with pytest.raises(BrdynError, match="not in the local cache; 'runs' is a folder here, without a 'gone'"):
        load_model("runs/gone")
    with pytest.raises(BrdynError, match=r"no network, and it is not in the local cache\)"):
        load_model("nobody/nothing")


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    hf.ViTModel(hf.ViTConfig(**VISION), add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_model("~/vit").depth == 3
    assert load_model("facebook/any", weights="~/vit").depth == 3


def test_a_config_of_something_else(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "odd", "lr": 3}))
    with pytest.raises(UsageError, match=r"config.json' has no model_type .*it is not of a transformers model"):
        load_model(str(tmp_path))

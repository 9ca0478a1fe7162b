"""Folders that brdyn saved and somebody changed: one line, whatever the change, and no memory taken on its word."""

import copy
import hashlib
import json
import resource
import shutil
from collections.abc import Iterator

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from brdyn.classifiers.saved import Classifier
from brdyn.errors import BrdynError, UsageError
from brdyn.models import describe_model, load_model
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.model import untrained

BAD = ("odd", -1, 1.5, 10**9, 10**400, float("nan"), True, None, [], {}, [10**9])
GROWTH = 300 * 2**10  # KiB
VIT = {"width": 16, "depth": 2, "heads": 2, "hidden": 32, "patch": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    mean = (0.5, 0.5, 0.5)
    names = ("cat", "dog")
    Classifier.new("vit-small", names, 8, mean, mean, **VIT).save_pretrained(root / "vit", trained={"epochs": 1})
    vitrm = Classifier.new("vitrm", names, 8, mean, mean, width=12, heads=2, hidden=16, depth=1)
    vitrm.save_pretrained(root / "vitrm", trained={"steps": 2, "n_sup": 1})
    teacher = load_model(str(root / "vit"))
    raptor = untrained(teacher, [0, 1], BlockConfig(width=16, heads=2), seed=0)
    raptor.save_pretrained(root / "raptor", settings={"steps": 3})
    return root


def places(content, path=()) -> Iterator[tuple]:
    """Every entry of a JSON, objects and lists included, down to the first two of a list."""
    entries = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(content, path, value):
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize("kind", ["vit", "vitrm", "raptor"])
def test_no_entry_of_a_config_can_be_wrong_without_a_word(folders, tmp_path, kind):
    folder = tmp_path / "folder"
    shutil.copytree(folders / kind, folder)
    config = json.loads((folder / "config.json").read_text())
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_model(str(folder))(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for path in places(config):
        for value in (..., *BAD):
            (folder / "config.json").write_text(json.dumps(changed(config, path, value)))
            for load in (load_model, describe_model) if value in (..., 10**9) else (load_model,):
                model, error = attempt(load, folder)
                if model is None:
                    refused += 1
                    assert "\n" not in error, (path, value, error)
                    assert len(error) < 600, (path, value, error)
                if model is None or load is describe_model:
                    continue
                with torch.no_grad():  # what was let through changes no number
                    assert model(images).shape[2] == expected.shape[2], (path, value)
                    if path[0] not in ("mean", "std"):
                        assert torch.equal(model(images)[:, : expected.shape[1]], expected) or _says(model, path), path
    assert refused > 150
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


def attempt(load, folder):
    """The model, or the words of the error that brdyn makes of it."""
    try:
        return load(str(folder)), ""
    except BrdynError as error:
        return None, str(error)


def _says(model, path) -> bool:
    """What may change numbers, and is seen in the model: heads, steps, whether updates see the image, factors, and the
    epsilon of norms, which older configs lack."""
    named = ("heads", "trained", "steps", "n_sup", "latent_steps", "sees_image", "depth_scaling", "norm_eps")
    return path[-1] in named


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"assignment": [10**9, 0]}, r"assignment\[0\] is 1000000000 instead of a number from 0 to 1000"),
        ({"assignment": [0, 2]}, "does not number its blocks"),
        ({"assignment": [0, 0]}, r"1\.\S+ is \(.*\) where the config makes it missing"),
        ({"block": {"width": 32, "heads": 2}}, "blocks of width 32, and its teacher .* has width 16"),
        (
            {"block": {"width": 16, "heads": 2, "mlp_ratio": 1e3}},
            r"is \(.*64.*\) where the config makes it \(.*16000",
        ),
        (
            {"block": {"width": 16, "heads": 2, "mlp_ratio": 9e5}},
            "MLP ratio 900000.0 is not a number above 0",
        ),
        (
            {"block": {"width": 16, "heads": 2, "hidden": 3}},
            "block has an entry 'hidden' that brdyn does not know",
        ),
    ],
)
def test_a_raptor_takes_no_memory_on_a_configs_word(folders, tmp_path, change, words):
    folder = tmp_path / "raptor"
    shutil.copytree(folders / "raptor", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BrdynError, match=words):
        load_model(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("vit", {"width": 65536}, r"bias is \(16,\) where the config makes it \(65536,\), and 28 more"),
        ("vit", {"depth": 10**6}, "depth 1000000 is more than 1000"),
        ("vit", {"depth": 3}, r"blocks\.2\.\S+ is missing where the config makes it"),
        ("vit", {"hidden": 10**6}, "where the config makes it"),
        ("vit", {"heads": 0}, "heads 0 is not positive"),
        ("vitrm", {"latent_steps": 10**6}, "latent-steps 1000000 is more than 1000"),
        ("vitrm", {"width": 12.0}, "options.width is 12.0 instead of a whole number"),
    ],
)
def test_a_classifier_takes_no_memory_on_a_configs_word(folders, tmp_path, kind, change, words):
    folder = tmp_path / kind
    shutil.copytree(folders / kind, folder)
    config = json.loads((folder / "config.json").read_text())
    config["options"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BrdynError, match=words):
        load_model(str(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


def test_classes_are_counted_against_the_weights(folders, tmp_path):
    shutil.copytree(folders / "vit", tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config | {"classes": ["a", "b", "c"]}))
    with pytest.raises(BrdynError, match=r"head\.bias is \(2,\) where the config makes it \(3,\), and 1 more"):
        load_model(str(tmp_path / "vit"))


def test_a_checksum_is_checked_and_a_truncated_file_named(folders, tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(folders / "vit", folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    state = load_file(weights)
    state["head.bias"] += 1
    save_file(state, weights)
    with pytest.raises(BrdynError, match="checksum"):
        load_model(str(folder))
    weights.write_bytes(whole[:-10])
    config = json.loads((folder / "config.json").read_text())
    config["digest"] = hashlib.sha256(whole[:-10]).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BrdynError, match=f"truncated: {len(whole) - 10:,} of {len(whole):,} bytes"):
        load_model(str(folder))


def retaught(folders, folder, teacher):
    """A copy of the Raptor with another teacher's name."""
    shutil.copytree(folders / "raptor", folder)
    config = json.loads((folder / "config.json").read_text())
    config["teacher"]["name"] = str(teacher)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_raptor_is_not_among_its_teachers(folders, tmp_path):
    own = retaught(folders, tmp_path / "own", tmp_path / "own")
    with pytest.raises(UsageError, match="has itself for a teacher"):
        load_model(str(own))
    first = retaught(folders, tmp_path / "first", tmp_path / "second")
    retaught(folders, tmp_path / "second", tmp_path / "x" / ".." / "first")
    for load in (load_model, describe_model):
        with pytest.raises(UsageError, match=r"'\S*first' has itself for a teacher: \S*first of \S*second of \S*first"):
            load(str(first))
    for number in range(12):
        retaught(folders, tmp_path / f"chain{number}", tmp_path / f"chain{number + 1}")
    with pytest.raises(UsageError, match="a Raptor of a Raptor, 9 in a row; brdyn follows 8"):
        load_model(str(tmp_path / "chain0"))


@pytest.mark.parametrize("kind", ["gone.pth", "gone", "empty"])
def test_a_teacher_that_is_gone(folders, tmp_path, kind):
    (tmp_path / "empty").mkdir()
    raptor = retaught(folders, tmp_path / "raptor", tmp_path / kind)
    with pytest.raises(UsageError, match=f"the teacher of .* cannot be loaded: .*{kind}"):
        load_model(str(raptor))


def test_a_teacher_whose_weights_file_is_gone_or_a_folder(tmp_path):
    raptor = tmp_path / "raptor"
    teacher = load_model("vit_tiny_patch16_224", init="random")
    untrained(teacher, [0] * 12, BlockConfig(width=192, heads=2), seed=0).save_pretrained(raptor)
    for where in (tmp_path / "gone.pth", tmp_path):
        config = json.loads((raptor / "config.json").read_text())
        config["teacher"] |= {"weights": f"file {where}"}
        (raptor / "config.json").write_text(json.dumps(config))
        with pytest.raises(UsageError, match=f"the teacher of .* cannot be loaded: .*{where}"):
            load_model(str(raptor))


def test_a_raptor_of_a_raptor_loads(folders, tmp_path):
    teacher = load_model(str(folders / "raptor"))
    student = untrained(teacher, [0, 0], BlockConfig(width=16, heads=2), seed=1)
    student.save_pretrained(tmp_path / "student")
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(load_model(str(tmp_path / "student"))(images), student.eval()(images))


def test_a_teacher_that_cannot_be_it_is_refused_before_it_is_built(folders, tmp_path, monkeypatch):
    """A config that names a giant: its architecture is looked at without memory, and never built or downloaded."""
    built = []
    create = timm.create_model

    def watched(name, *arguments, **options):
        made = create(name, *arguments, **options)
        built.append((name, next(made.parameters()).device.type))
        return made

    monkeypatch.setattr(timm, "create_model", watched)
    for name, words in (
        ("vit_giant_patch14_224", "layers, and its teacher 'vit_giant_patch14_224' has 40"),
        ("vit_base_patch16_224", "and its teacher 'vit_base_patch16_224' has"),
    ):
        raptor = retaught(folders, tmp_path / name, name)
        config = json.loads((raptor / "config.json").read_text())
        config["teacher"] |= {"weights": "random (untrained, seed 0)", "image_size": [224, 224]}
        (raptor / "config.json").write_text(json.dumps(config))
        with pytest.raises(UsageError, match=words):
            load_model(str(raptor))
    assert built
    assert {device for _, device in built} == {"meta"}


def test_class_names_that_come_twice(folders, tmp_path):
    shutil.copytree(folders / "vit", tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    config["classes"] = ["cat", "cat"]
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="class 'cat' comes twice"):
        load_model(str(tmp_path / "vit"))

"""The examples of the documentation: every public function and class has one, and each shows what it says."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from PIL import Image

import brdyn
from brdyn.data import loading
from brdyn.trajectory import Stream
from tests.conftest import needs_offline

ROOMS = (
    "classifiers",
    "data",
    "interventions",
    "measures",
    "models",
    "phases",
    "plots",
    "probes",
    "raptor",
    "reporting",
    "training",
)


class Examples(doctest.DocTestFinder):
    """Finds those of decorated functions, too."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


def documented(module):
    """The docstrings of a module that hold examples."""
    found = Examples(exclude_empty=True).find(importlib.import_module(module), module, globs={})
    return [one for one in found if one.examples]


EXAMPLES = {
    one.name: one
    for module in pkgutil.walk_packages(brdyn.__path__, "brdyn.")
    if not module.name.endswith("__main__")
    for one in documented(module.name)
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with eight small pictures in two classes, at `photos`."""
    folder, rng = tmp_path_factory.mktemp("examples"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(4):
            low = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            low.resize((40, 36), Image.Resampling.BICUBIC).save(folder / "photos" / name / f"{number}.png")
    streets(folder / "streets", rng)
    return folder


def streets(folder, rng):
    """Four pictures that are dark above and bright below, with masks that say so."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(4):
        mask = np.arange(40)[:, None] // int(rng.integers(12, 20)) > 0
        mask = np.broadcast_to(mask, (40, 48)).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        shade = (mask * 150 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
        Image.fromarray(shade).convert("RGB").save(folder / "images" / f"{number}.png")


@pytest.fixture(scope="module")
def started(photos):
    """What the first example of the package has made, from a small untrained model and those pictures."""
    model = brdyn.load_model("vit_tiny_patch16_224", init="random", image_size=32)
    images = brdyn.load_images(photos / "photos", model)
    similarity = brdyn.layer_similarity(model, images, stream=Stream(workers=0))
    phases = brdyn.segment(similarity, k=2)
    return {"model": model, "images": images, "similarity": similarity, "phases": phases}


@pytest.fixture(autouse=True)
def here(monkeypatch, photos):
    """Examples write where they may, and decode in this process."""
    monkeypatch.chdir(photos)
    monkeypatch.setattr(loading, "default_workers", lambda: 0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_what_it_says(name, started):
    run(EXAMPLES[name], {"brdyn": brdyn, "np": np, "torch": torch, **started})


@needs_offline
def test_the_first_example_runs_by_itself():
    (first,) = [one for one in documented("brdyn") if one.name == "brdyn"]
    run(first, {})


def run(example, names):
    example.globs = dict(names)
    said = []
    torch.manual_seed(0)
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("room", [brdyn.__name__, *(f"brdyn.{room}" for room in ROOMS)])
def test_every_public_name_has_an_example(room):
    module = importlib.import_module(room)
    public = {name: getattr(module, name) for name in module.__all__}
    without = [
        name
        for name, thing in public.items()
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert not without

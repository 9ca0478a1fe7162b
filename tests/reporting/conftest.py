"""Two small models and pictures in two classes, and one report on them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import brdyn
from brdyn.reporting import ReportSettings
from brdyn.trajectory import Stream
from tests.conftest import tiny_vit

STREAM = Stream(workers=0)
SETTINGS = ReportSettings(size="fast", n=12, null=1)


def named(name, depth=6, seed=0):
    """A small ViT under a name."""
    model = tiny_vit(depth, seed)
    model.info = replace(model.info, name=name, digest=f"{seed:064d}")
    model.redraw = lambda seed: _untrained(name, depth, seed)
    return model


def _untrained(name, depth, seed):
    twin = tiny_vit(depth, seed + 100)
    twin.info = replace(twin.info, name=name, weights=f"random (untrained, seed {seed})")
    return twin


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two classes of eight pictures."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("report") / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            low = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            low.resize((40, 36), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def plain(photos, tmp_path_factory):
    """The same sixteen without classes: nothing is probed."""
    folder = tmp_path_factory.mktemp("report") / "plain"
    folder.mkdir()
    for path in sorted(photos.rglob("*.png")):
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return folder


@pytest.fixture(scope="session")
def many(photos, tmp_path_factory):
    """Three hundred names of one picture, for what reads none of them."""
    folder, picture = tmp_path_factory.mktemp("report") / "many", next(photos.rglob("*.png"))
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03}.png").symlink_to(picture)
    return folder


@pytest.fixture
def pageless(monkeypatch):
    """The page takes most of the time of a report whose results are there; what it shows is tested on one."""
    monkeypatch.setattr("brdyn.reporting.run.render_page", lambda *args: {})


@pytest.fixture(scope="session")
def made(photos, tmp_path_factory):
    """A report on a model with twins and on a deeper one: what was said, the result, and its folder."""
    out, said = tmp_path_factory.mktemp("made") / "out", []
    found = brdyn.report(
        [named("little"), named("deeper", 8, 1)],
        photos,
        out,
        SETTINGS,
        stream=STREAM,
        formats=(),
        say=said.append,
    )
    return said, found, out


@pytest.fixture
def again(made, photos, tmp_path, pageless):
    """Make the report once more over a copy, and tell which files changed."""
    out = tmp_path / "out"
    shutil.copytree(made[2], out)

    def call(models=None, settings=SETTINGS, images=photos, **options):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
        said = []
        found = brdyn.report(
            models or [named("little"), named("deeper", 8, 1)],
            images, out, settings, stream=STREAM, formats=(), say=said.append, **options,
        )  # fmt: skip
        written = {
            str(path.relative_to(out).parent)
            for path in out.rglob("*.json")
            if path.stat().st_mtime_ns != before.get(path)
        }
        return found, written - {"."}, said

    call.out = out
    return call

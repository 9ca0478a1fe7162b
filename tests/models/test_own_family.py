"""Models from a file: what is run, what is refused, and what stays behind."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

import brdyn
from brdyn.raptor.block import BlockConfig
from brdyn.raptor.model import untrained
from tests.models.own_vit import adapted

SOURCE = Path(__file__).with_name("own_vit.py")


@pytest.fixture
def folder(tmp_path):
    """A file that imports its neighbour."""
    (tmp_path / "somebodys_blocks.py").write_text(SOURCE.read_text())
    (tmp_path / "mine.py").write_text(
        "import sys\n"
        "from somebodys_blocks import adapted, my_vit\n"
        "def build(): return adapted()\n"
        "def other(): return adapted(my_vit(seed=1))\n"
        "def sized(image_size=(16, 24), weights=None): return adapted(image_size=image_size, name=str(weights))\n"
        "def raises(): raise ValueError('no such layer\\nand more')\n"
        "def leaves(): sys.exit('usage: mine')\n"
        "def wrong(): return my_vit()\n"
        "def needs(width): return adapted()\n"
        "number = 3\n"
    )
    yield tmp_path
    sys.modules.pop("somebodys_blocks", None)


def test_a_file_gives_the_module_that_its_function_makes(folder):
    path = list(sys.path)
    name = f"{folder}/mine.py:build"
    model = brdyn.load_model(name, allow_code=True)
    images = torch.randn(2, 3, 16, 24)
    assert torch.equal(model(images), adapted()(images))
    assert model.info.name == name
    assert model.info.digest == adapted().info.digest
    sha = hashlib.sha256((folder / "mine.py").read_bytes()).hexdigest()
    assert model.info.notes == (f"made by build of mine.py (SHA-256 {sha})",)
    assert sys.path == path
    assert brdyn.describe_model(name, allow_code=True).tokens == model.tokens


def test_a_home_folder_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert brdyn.load_model("~/mine.py:build", allow_code=True).info.name == f"{folder}/mine.py:build"


def test_options_go_to_a_function_that_takes_them(folder):
    name = f"{folder}/mine.py:sized"
    model = brdyn.load_model(name, weights="some/file.pth", image_size=(16, 24), allow_code=True)
    assert model.info.image_size == (16, 24)
    with pytest.raises(brdyn.UsageError, match="embed of 'None' fails"):  # 2x3 positions for 2x4 patches
        brdyn.load_model(name, image_size=(16, 32), allow_code=True)
    with pytest.raises(brdyn.UsageError, match="16x24 pixels, not 32x32; let the function take image_size"):
        brdyn.load_model(f"{folder}/mine.py:build", image_size=32, allow_code=True)
    with pytest.raises(brdyn.UsageError, match="takes no weights; drop `weights`"):
        brdyn.load_model(f"{folder}/mine.py:build", weights="some.pth", allow_code=True)
    with pytest.raises(brdyn.UsageError, match="drop `weights_key`, and let the function choose"):
        brdyn.load_model(name, weights="some.pth", weights_key="ema", allow_code=True)
    with pytest.raises(brdyn.UsageError, match="drop `init=random`"):
        brdyn.load_model(f"{folder}/mine.py:build", init="random", allow_code=True)


def test_no_code_is_run_without_leave(folder):
    (folder / "mine.py").write_text("open('ran', 'w')\n")
    with pytest.raises(brdyn.UsageError, match="`allow_code=True`"):
        brdyn.load_model(f"{folder}/mine.py:build")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("mine.py", brdyn.UsageError, "which function makes the model; give file.py:function"),
        ("mine.py:", brdyn.UsageError, "which function makes the model"),
        ("none.py:build", brdyn.UsageError, "no file"),
        ("mine.py:nothing", brdyn.UsageError, "no function 'nothing'.*it defines build, other, sized"),
        ("mine.py:number", brdyn.UsageError, "no function 'number'"),
        ("mine.py:needs", brdyn.UsageError, "needs width"),
        ("mine.py:wrong", brdyn.UsageError, r"is of type MyViT.*brdyn\.adapt\("),
        ("mine.py:raises", brdyn.BrdynError, r"fails in line 6 \(ValueError: no such layer\)$"),
        ("mine.py:leaves", brdyn.BrdynError, r"fails in line 7 \(SystemExit: usage: mine\)$"),
        ("syntax.py:build", brdyn.BrdynError, r"fails when it is imported \(SyntaxError"),
        ("zero.py:build", brdyn.BrdynError, r"imported in line 2 \(ZeroDivisionError: division by zero\)$"),
    ],
)
def test_each_mistake_has_one_clear_error(folder, name, kind, words):
    (folder / "syntax.py").write_text("def build(:\n")
    (folder / "zero.py").write_text("\n1 / 0\n")
    path = list(sys.path)
    with pytest.raises(kind, match=words) as caught:
        brdyn.load_model(f"{folder}/{name}", allow_code=True)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert sys.path == path


def test_the_innermost_teacher_of_a_raptor_of_a_raptor_is_given_again(folder, tmp_path):
    """Where its file has moved, as a name or as a module; the Raptor between stays what the config says."""
    block = BlockConfig(width=8, heads=2)
    teacher = brdyn.load_model(f"{folder}/mine.py:build", allow_code=True)
    layers = teacher.depth
    inner = untrained(teacher, [0] * layers, block, seed=0)
    inner.save_pretrained(tmp_path / "inner")
    middle = brdyn.load_model(str(tmp_path / "inner"), allow_code=True)
    untrained(middle, [0] * (layers - 1) + [1], block, seed=1).save_pretrained(tmp_path / "outer")
    outer = brdyn.load_model(str(tmp_path / "outer"), allow_code=True)
    (folder / "mine.py").rename(folder / "moved.py")
    name = f"{folder}/moved.py:build"
    with pytest.raises(brdyn.UsageError, match=r"give it again|no file"):
        brdyn.load_model(str(tmp_path / "outer"), allow_code=True)
    images = torch.randn(2, 3, 16, 24)
    for given in (name, adapted(), middle, str(tmp_path / "inner")):
        if given == str(tmp_path / "inner"):
            (folder / "moved.py").rename(folder / "mine.py")
        found = brdyn.load_model(str(tmp_path / "outer"), teacher=given, allow_code=True)
        assert torch.equal(found(images), outer(images))
        assert found.teacher.info.name in (str(tmp_path / "inner"), middle.info.name)
    with pytest.raises(brdyn.UsageError, match=r"inner' was fitted to .*give the same weights"):
        brdyn.load_model(str(tmp_path / "outer"), teacher=f"{folder}/mine.py:other", allow_code=True)

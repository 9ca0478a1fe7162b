"""What a file or folder is that somebody gave as a model and that is none, and what to give instead."""

from __future__ import annotations

import re
from pathlib import Path

from brdyn.checked_json import expanded
from brdyn.choices import check_named
from brdyn.errors import UsageError
from brdyn.store.result_files import KINDS

SHOWN = 3
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".h5")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic")
TABLES = (".parquet", ".arrow", ".csv", ".tar")
CHECKPOINTS = "stage*-*"
CHECKPOINT = "state.json"


def refuse(name: str) -> None:
    """Say what a name is that no family serves, where it is a path.

    Raises
    ------
    UsageError
        If there is such a file or folder, or the name can only be meant for one.
    """
    check_named(name)
    path = expanded(name)
    if path.is_dir():
        raise UsageError(f"{name!r} {_folder(path)}")
    if path.exists():
        raise UsageError(f"{name!r} {_file(path)}")
    steps = re.fullmatch(r"(.+)@(\d+)", name)
    if steps is not None and not expanded(steps[1]).is_dir():
        raise UsageError(f"there is no folder {steps[1]!r}, so no trained ViTRM to take {steps[2]} steps of")
    if steps is not None:
        raise UsageError(
            f"{steps[1]!r} {_folder(expanded(steps[1]))}; only a trained ViTRM takes steps, as in {name!r}"
        )
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise UsageError(f"there is no folder {name!r}")


def hint(name: str) -> str:
    """What to add where a name of the form `owner/name` is not on the hub: it may be a folder that is not there."""
    owner = expanded(name).parent
    if owner != Path() and owner.is_dir():
        return f"; {str(owner)!r} is a folder here, without a {Path(name).name!r}"
    return ""


def _folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "is an empty folder"
    results = [name for name in KINDS if name in names]
    if any(path.glob(f"{CHECKPOINTS}/{CHECKPOINT}")) or (path / CHECKPOINT).is_file():
        return "holds checkpoints of a run that is not finished; go on with it by `resume`, and give its folder then"
    if results:
        return f"holds results of brdyn ({', '.join(results[:SHOWN])}), not a model; give the model that they are of"
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if weights:
        return (
            f"holds weights ({weights[0]}) and no config.json; name their architecture with `model` and give the file "
            "with `weights`"
        )
    images = [name for name in names if name.lower().endswith((*PICTURES, *TABLES))]
    if images:
        return f"holds images ({', '.join(images[:SHOWN])}), not a model; give it with `images`"
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"is a folder without a model: there is no config.json in it, but {shown}"


def _file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in WEIGHTS:
        return "is a file of weights; name its architecture with `model` and give the file with `weights`"
    if suffix in (*PICTURES, *TABLES):
        return "is a file of images, not a model; give it with `images`"
    if path.name == "config.json":
        return f"is a file; give its folder, {str(path.parent)!r}"
    return "is a file, not a model; `brdyn models` lists the names"

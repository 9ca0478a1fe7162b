"""Folders of images and their masks or maps of depth, in the layouts that people have.

`images/` beside `masks/`, `annotations/`, `labels/`, `depth/` …, with splits above or below (ADE20k:
`images/training`,
`annotations/training`); VOC's `JPEGImages` and `SegmentationClass`; NYUv2's `rgb_1.jpg` beside `sync_depth_1.png`,
`1.jpg` beside `1.png`, and `1_colors.png` beside `1_depth.png`. Pairs are those of one stem.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from brdyn.data.files import Names, read_regular, shown
from brdyn.data.folders import EXTENSIONS, walk
from brdyn.data.sources import ImageSource, RawImage
from brdyn.data.splits import choose_split, split_of
from brdyn.data.targets import DEPTH, MASK
from brdyn.errors import UsageError

IMAGE_FOLDERS = ("images", "image", "img", "imgs", "rgb", "jpegimages", "leftimg8bit")
TARGET_FOLDERS = {
    MASK: (
        "masks",
        "mask",
        "annotations",
        "annotation",
        "labels",
        "label",
        "segmentation",
        "segmentationclass",
    ),
    DEPTH: ("depth", "depths", "depth_map", "depth_maps"),
}
PARTIAL = ("jpegimages",)
"""Of a data set in which most images have no mask."""
VOC_LISTS = "ImageSets/Segmentation"
BESIDE = (
    (re.compile(r"rgb_(.+)"), re.compile(r"sync_depth_(.+)")),
    (re.compile(r"(.+)_colors"), re.compile(r"(.+)_depth")),
)
JPEG = (".jpg", ".jpeg")
Key = Callable[[str], str | None]


class PairedSource(ImageSource):
    """Images as files, each with the file of its mask or depth.

    Parameters
    ----------
    root : Path
    kind : {"mask", "depth"}
    split : str, optional

    Raises
    ------
    UsageError
        If there are no pairs, an image without its target, or two images or targets of one stem.
    """

    files: Names

    def __init__(self, root: Path, kind: str, split: str | None = None) -> None:
        self.description = shown(root)
        every, unlisted, _ = walk(root)
        self.unlisted = tuple(unlisted)
        names = [name for name in every if Path(name).suffix.lower() in EXTENSIONS]
        images, targets, partial = _by_layout(names, kind)
        if not images or not targets:
            raise UsageError(
                f"{self.description!r} holds no images with a {kind} each: give images/ beside "
                f"{'masks/ or annotations/' if kind == MASK else 'depth/'}, or a parquet file with a {kind} column"
            )
        listed = _listed(root, every, split) if partial and split is not None else None
        if listed is not None:
            images, targets = (
                {key: name for key, name in part.items() if key.rpartition("/")[2] in listed}
                for part in (images, targets)
            )
            split = None
        places = {key: _split(key) for key in images}
        self.split = choose_split(set(places.values()), split, repr(self.description))
        chosen = [key for key in images if self.split is None or places[key] == self.split]
        self._check(chosen, images, targets, partial, kind)
        self.pairs = sorted((images[key], targets[key]) for key in chosen if key in targets)
        self.files = Names(root, [name for pair in self.pairs for name in pair])

    def _check(
        self, keys: list[str], images: dict[str, str], targets: dict[str, str], partial: bool, kind: str
    ) -> None:
        alone = [key for key in keys if key not in targets]
        mates = [key for key in targets if self.split is None or _split(key) == self.split]
        left = [key for key in mates if key not in images]
        if alone and len(alone) < len(keys) and partial:
            return
        if alone or left:
            which = f"{images[alone[0]]!r} has no {kind}" if alone else f"{targets[left[0]]!r} has no image"
            raise UsageError(
                f"{self.description!r} holds {len(keys)} images and {len(mates)} of their targets; "
                f"{shown(which)}: give "
                "each image one of its stem"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> RawImage:
        """Read both files."""
        data, target = (read_regular(self.files.root / name) for name in self.pairs[index])
        return RawImage(self.name(index), data, target=target)

    def name(self, index: int) -> str:
        """The path of the image, relative to the folder."""
        return shown(self.pairs[index][0])


def _listed(root: Path, names: list[str], split: str) -> set[str] | None:
    """Stems that a list of VOC names for a split; None where there is no such list."""
    lists = [name for name in names if name.endswith(f"{VOC_LISTS}/{split}.txt")]
    return set((root / lists[0]).read_text().split()) if lists else None


def _by_layout(names: list[str], kind: str) -> tuple[dict[str, str], dict[str, str], bool]:
    """Images and targets by what they have in common, and whether images may lack theirs."""
    images = _keyed(names, lambda name: _without(name, IMAGE_FOLDERS))
    targets = _keyed(names, lambda name: _without(name, TARGET_FOLDERS[kind]))
    if images or targets:
        partial = any(part.lower() in PARTIAL for name in images.values() for part in name.split("/"))
        return images, targets, partial
    if kind == MASK:
        return {}, {}, False
    for image, target in BESIDE:
        images, targets = (_keyed(names, _matching(pattern)) for pattern in (image, target))
        if images and targets:
            return images, targets, False
    jpegs = [name for name in names if Path(name).suffix.lower() in JPEG]
    pngs = [name for name in names if Path(name).suffix.lower() == ".png"]
    return _keyed(jpegs, _stem), _keyed(pngs, _stem), False


def _split(key: str) -> str | None:
    """By its folders alone: a picture may well be called `test_1`."""
    return split_of(key.rpartition("/")[0] + "/")


def _keyed(names: list[str], key: Key) -> dict[str, str]:
    """Names by what they have in common with their mates.

    Raises
    ------
    UsageError
        If two have it, so that it is open which one is meant.
    """
    found: dict[str, str] = {}
    for name in names:
        own = key(name)
        if own is not None and found.setdefault(own, name) != name:
            raise UsageError(
                f"{shown(found[own])!r} and {shown(name)!r} are of one stem; give each its own, or move one elsewhere"
            )
    return found


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _without(name: str, folders: tuple[str, ...]) -> str | None:
    """The path without the last folder of these names and without its ending; None where there is no such folder."""
    parts = _stem(name).split("/")
    at = [place for place, part in enumerate(parts[:-1]) if part.lower() in folders]
    return "/".join(parts[: at[-1]] + parts[at[-1] + 1 :]) if at else None


def _matching(pattern: re.Pattern[str]) -> Key:
    def key(name: str) -> str | None:
        folder, _, stem = _stem(name).rpartition("/")
        found = pattern.fullmatch(stem)
        return None if found is None else f"{folder}/{found[1]}"

    return key

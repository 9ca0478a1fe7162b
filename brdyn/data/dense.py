"""Images with a mask or a map of depth each: read together, and turned by one geometric transform."""

from __future__ import annotations

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brdyn.arguments import checked
from brdyn.choices import TASKS, one_of
from brdyn.data.augment import PairTransform
from brdyn.data.decode import decode
from brdyn.data.find import find_source
from brdyn.data.image_set import HasTransform, ImageSet
from brdyn.data.loading import is_of_the_file
from brdyn.data.reader import Paired, Reading
from brdyn.data.targets import DEPTH, DepthTargets, MaskTargets, Targets, check_turned, numbers_of_depth
from brdyn.errors import UsageError

LOOKED_AT = 8
"""Targets that are read before anything is run, to find what is wrong with all of them."""


class DenseSet(ImageSet):
    """Images with a mask or a map of depth each.

    Attributes
    ----------
    targets : MaskTargets or DepthTargets
        How those are read.
    turn : PairTransform
        What is done to both.

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> pairs = load_dense("streets", model, "segmentation")
    >>> batch = next(pairs.batches(2))
    >>> batch.images.shape, batch.targets.shape, batch.targets.unique().tolist()
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 32, 32]), [0, 1])
    """

    targets: Targets
    turn: PairTransform

    @property
    def label_names(self) -> list[str] | None:
        """Names of the classes of masks, where they are known."""
        names = self.targets.names if isinstance(self.targets, MaskTargets) else None
        return None if names is None else list(names)

    def settings(self) -> dict[str, Any]:
        """How targets were read, with what the file's metadata said."""
        return {"targets": asdict(self.targets)}

    def reading(self) -> Reading:
        """The image and its target, turned alike."""
        return Paired(self.targets, self.turn)

    def pixels(self, position: int) -> np.ndarray:
        """An image as it is seen by the model, `(H, W, 3)`, uint8."""
        batch = next(self.take(np.array([position])).batches(1, workers=0))
        mean, std = (torch.tensor(one)[:, None, None] for one in (self.turn.mean, self.turn.std))
        found = (batch.images[0].float() * std + mean).clamp(0, 1) * 255
        return found.round().to(torch.uint8).permute(1, 2, 0).numpy()


@checked
def load_dense(
    images: str | Path,
    model: HasTransform,
    task: str,
    *,
    targets: Targets | None = None,
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    strict: bool = False,
    image_column: str | None = None,
    target_column: str | None = None,
) -> DenseSet:
    """Find images with masks or maps of depth, and prepare both for a model.

    Parameters
    ----------
    images : str or path
        A parquet file, a hub data set or a folder; see :mod:`brdyn.data.pairs` for the layouts of folders.
    model : VisionTransformer
    task : {"segmentation", "depth"}
    targets : MaskTargets or DepthTargets, optional
        How the targets are read; what it leaves open is taken from the file's metadata, and else asked for.
    n, seed, split, strict, image_column
        As of :func:`brdyn.load_images`.
    target_column : str, optional
        Of masks or depth.

    Returns
    -------
    DenseSet

    Raises
    ------
    UsageError
        If there is no such task, or `targets` are of another, there are no such pairs, or the first of them cannot be
        read as asked: masks in colour without a palette, depth without a unit, or in another one than was said.

    Examples
    --------
    >>> from brdyn.data import load_dense
    >>> pairs = load_dense("streets", model, "segmentation", n=2)
    >>> len(pairs), pairs.targets.ignore
    (2, None)
    """
    how: Targets = DepthTargets() if one_of("task", task, TASKS[1:]) == DEPTH else MaskTargets()
    if targets is not None and targets.kind != how.kind:
        raise UsageError(
            f"the targets given say how a {targets.kind} is read, and {task} has a {how.kind} for each image"
        )
    how = targets or how
    source = find_source(images, split, image_column=image_column, target=how.kind, target_column=target_column)
    how = how.completed(source.metadata, repr(source.description))
    if not (hasattr(model, "preprocessing") and hasattr(model, "info")):
        raise UsageError("targets are cut as images of a model are; give what `brdyn.load_model` returns")
    preprocessing, info = model.preprocessing, model.info
    found = DenseSet(
        source,
        model.transform,
        n=n,
        seed=seed,
        strict=strict,
        smallest=info.patch,
        image_bytes=4 * 4 * prod(info.image_size),
    )
    found.targets = how
    found.turn = PairTransform(info.image_size, preprocessing.mean, preprocessing.std)
    _look_at(found)
    return found


def _look_at(images: DenseSet) -> None:
    """Read the first few pairs, to refuse at once what all of them would be refused for."""
    seen, where = [], repr(images.source.description)
    for index in images.indices()[:LOOKED_AT]:
        try:
            raw = images.source.read(int(index))
            image, data = decode(raw.data), raw.target or b""
            check_turned(image, data, raw.name)
            if isinstance(images.targets, DepthTargets):
                images.targets.check_crop(image.size, raw.name)
                seen.append(numbers_of_depth(data, image.size, raw.name))
            else:
                images.targets.read(data, image.size, raw.name)
        except UsageError:
            raise
        except Exception as error:  # one bad pair is skipped when its turn comes
            if not is_of_the_file(error):
                raise
    if isinstance(images.targets, DepthTargets):
        images.targets.check(seen, where)

"""Classifiers trained from scratch as models: `--model runs/vitrm`, or `runs/vitrm@8` for eight recursion steps."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from brdyn.checked_json import expanded
from brdyn.classifiers.architectures import architecture_of
from brdyn.classifiers.config import MOST_STEPS
from brdyn.classifiers.saved import Classifier, is_classifier, read_config, read_trained
from brdyn.classifiers.unrolled import UnrolledViTRM
from brdyn.classifiers.vitrm import ViTRM
from brdyn.errors import UsageError
from brdyn.models import timm_family
from brdyn.models.base import ModelInfo, VisionTransformer
from brdyn.models.loaded import Loaded
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest
from brdyn.words import counted

FAMILY = "classifier"
POSITION_RULE = "learned at this size"


def names() -> tuple[str, ...]:
    """None: a trained classifier is a folder."""
    return ()


def matches(name: str) -> bool:
    """Whether this is a folder with a trained classifier, with or without a number of steps."""
    return is_classifier(_folder_and_steps(name)[0])


def load(request: ModelRequest) -> VisionTransformer:
    """Load a ViTRM, unrolled, or a ViT. A ViTRM takes as many steps as it was trained for unless the name says.

    Raises
    ------
    UsageError
        If the classifier is no transformer, or something is asked for that a trained folder cannot have.
    BrdynError
        If the weights are damaged.
    """
    folder, steps = _folder_and_steps(request.name)
    if request.random:
        raise UsageError(f"{request.name!r} is a trained classifier; `init=random` makes no sense with it")
    source = f"folder {folder} (trained from scratch)"
    model = from_folder(request, FAMILY, folder, source, steps=steps)
    model.redraw = partial(_untrained, request, folder, source, steps)
    return model


def _untrained(request: ModelRequest, folder: Path, source: str, steps: int | None, seed: int) -> VisionTransformer:
    """Its like, drawn by the seed: unrolled for as many steps, whatever it was trained for."""
    asked = replace(request, random=True, seed=seed, describe_only=False)
    return from_folder(asked, FAMILY, folder, source, steps=steps)


def from_folder(
    request: ModelRequest,
    family: str,
    folder: Path,
    source: str,
    *,
    steps: int | None = None,
    notes: tuple[str, ...] = (),
) -> VisionTransformer:
    """Load the classifier in a folder, or its untrained twin, for a family; errors as of :func:`load`.

    `source` says where its weights come from, `steps` are the recursion steps of a ViTRM.
    """
    if request.weights is not None:
        raise UsageError(f"{request.name!r} is a trained classifier; `weights` makes no sense with it")
    architecture = architecture_of(read_config(folder)["network"])
    if not architecture.is_transformer:
        raise UsageError(
            f"{request.name!r} is a {architecture.name}: it has no tokens to follow; give a vitrm or a ViT"
        )
    if steps is not None and not (architecture.is_recursive and 1 <= steps <= MOST_STEPS):
        what = f"takes 1 to {MOST_STEPS} steps" if architecture.is_recursive else "has no recursion steps"
        raise UsageError(f"{str(folder)!r} {what}; drop '@{steps}'")
    classifier = Classifier.from_pretrained(folder)
    if request.random:
        classifier = classifier.untrained(request.seed)
    size = (classifier.image_size,) * 2
    if request.image_size not in (None, size):
        raise UsageError(
            f"{request.name!r} was trained on images of {size[0]}x{size[1]} pixels and takes no others; drop "
            "`image_size`"
        )
    preprocessing = Preprocessing(
        image_size=size, crop_pct=1.0, crop_mode="squash", interpolation="bilinear", mean=classifier.mean,
        std=classifier.std,
    )  # fmt: skip
    if architecture.is_recursive:
        trained = read_trained(folder)
        steps = steps or max(trained.steps, trained.n_sup)
        return _unrolled(request, classifier, steps, source, preprocessing)
    loaded = Loaded(classifier.network, classifier.digest, notes)
    model = timm_family.adapt(request, family, loaded, source, POSITION_RULE, preprocessing)
    model.class_names = classifier.names
    return model


def _unrolled(
    request: ModelRequest, classifier: Classifier, steps: int, source: str, preprocessing: Preprocessing
) -> VisionTransformer:
    vitrm = classifier.network
    assert isinstance(vitrm, ViTRM)
    config = vitrm.config
    info = ModelInfo(
        name=request.name,
        family=FAMILY,
        layers=steps * (config.latent_steps + 1),
        width=config.width,
        heads=config.heads,
        patch=config.patch,
        image_size=preprocessing.image_size,
        parameters=_trunk_parameters(vitrm),
        position_rule=POSITION_RULE,
        weights=request.source(source),
        digest=classifier.digest,
        notes=(
            f"ViTRM: {counted(steps, 'recursion step')} of {config.latent_steps} updates of z and one of y; every "
            f"layer is an application of the same {config.depth}-layer network",
        ),
    )
    return UnrolledViTRM(vitrm, steps, info, preprocessing, classifier.names)


def _trunk_parameters(vitrm: ViTRM) -> int:
    heads = (vitrm.classifier, vitrm.halting)
    in_heads = sum(parameter.numel() for head in heads for parameter in head.parameters())
    return sum(parameter.numel() for parameter in vitrm.parameters()) - in_heads


def _folder_and_steps(name: str) -> tuple[Path, int | None]:
    """`runs/vitrm@8` in its parts, unless there is a folder of that name."""
    found = re.fullmatch(r"(.+)@(\d+)", name)
    if found is None or expanded(name).is_dir():
        return expanded(name), None
    return expanded(found[1]), int(found[2])

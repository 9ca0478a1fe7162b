"""What the models under Facebook's torch-hub names have in common: their files, their trunks, their positions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import torch

from brdyn.errors import BrdynError, UsageError
from brdyn.models import positions, timm_family, timm_trunks, weights
from brdyn.models.base import Size, VisionTransformer, check_image_size
from brdyn.models.checkpoints import StateDict
from brdyn.models.loaded import Loaded
from brdyn.models.preprocessing import Preprocessing
from brdyn.models.request import ModelRequest


@dataclass(frozen=True)
class Variant:
    """One published backbone.

    Attributes
    ----------
    name : str
        Its torch-hub name.
    arch : str
        timm's name of its architecture.
    url : str
        Where its weights are; empty where they are given out on request only.
    patch : int
        Side of a patch in pixels.
    native : int
        Side of the image in pixels that its positions are of.
    rule : PositionRule or None
        Facebook's way to resample them; None for rotary positions.
    preprocessing : Preprocessing
        As in its repository, with the size that is used by default.
    layer_scale : float or None
        Where LayerScale starts in Facebook's hub configuration, of an untrained trunk.
    on_request : str
        How the weights are had where there is no `url`.
    read : callable, optional
        Gives the weights in timm's layout, where they are in no checkpoint.
    notes : tuple of str
        What there is to say of it, whatever its weights.
    """

    name: str
    arch: str
    url: str
    patch: int
    native: int
    rule: positions.PositionRule | None
    preprocessing: Preprocessing
    layer_scale: float | None = None
    on_request: str = ""
    read: Callable[[], StateDict] | None = None
    notes: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Of :func:`timm.create_model`: no head."""
        return {"num_classes": 0} | ({} if self.layer_scale is None else {"init_values": self.layer_scale})


def load(request: ModelRequest, variant: Variant, family: str) -> VisionTransformer:
    """Load a backbone from Facebook's checkpoint, a file in its layout or timm's, or untrained.

    Raises
    ------
    UsageError
        If the image size does not fit the patches or memory.
    BrdynError
        If the weights are not to be had or do not fit.
    """
    size = request.image_size or variant.preprocessing.image_size
    check_image_size(request.name, size, (variant.patch, variant.patch))
    loaded = trained(request, variant, size) if request.needs_weights else Loaded(untrained(request, variant, size))
    loaded = replace(loaded, notes=(*variant.notes, *loaded.notes))
    rule = timm_family.position_rule(loaded.backbone, variant.rule)
    source = variant.url or variant.on_request
    return timm_family.adapt(request, family, loaded, source, rule, variant.preprocessing.at(size))


def trained(request: ModelRequest, variant: Variant, size: Size) -> Loaded:
    """Build the trunk from the file asked for, from what the variant reads itself, or from the torch hub's copy."""
    if request.weights is None and variant.read is not None:
        state = variant.read()
        backbone = timm_trunks.create(variant.arch, img_size=variant.native, **variant.options)
        weights.check_fit(request.name, backbone.state_dict(), state, variant.name)
        backbone.load_state_dict(state, assign=True)
        timm_trunks.set_image_size(backbone, size, variant.rule)
        return Loaded(backbone, weights.digest(state))
    path = request.weights or _own_weights(request, variant)
    try:
        return timm_trunks.from_file(
            request, variant.arch, path, size=size, rule=variant.rule, headless=True, **variant.options
        )
    except BrdynError as error:
        if request.weights is not None or isinstance(error, UsageError):
            raise
        raise BrdynError(f"{error}; delete that file to download it again") from error


def untrained(request: ModelRequest, variant: Variant, size: Size) -> Any:
    """An untrained trunk, or one on the meta device, at the native grid and then resampled like a trained one."""
    native = (variant.native, variant.native)
    options = {"img_size": native, **variant.options, **dict(request.arguments)}
    if request.describe_only:
        options["img_size"] = size
    backbone = timm_trunks.untrained(request, variant.arch, **options)
    timm_trunks.set_image_size(backbone, size, variant.rule)
    return backbone


def _own_weights(request: ModelRequest, variant: Variant) -> Path:
    if not variant.url:
        raise weights.no_weights(request.name, variant.on_request, "no address is public")
    return cached(request.name, variant.url)


def cached(name: str, url: str) -> Path:
    """The torch hub's copy of a file, downloaded if there is none.

    Raises
    ------
    BrdynError
        If it cannot be had, with the `name` of the model and where the file would be kept.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    copy = folder / url.rsplit("/", 1)[1]
    if copy.is_file():
        return copy
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(copy), progress=sys.stderr.isatty())
    except HTTPError as error:
        raise weights.no_weights(name, f"{url}: {error}", f"kept as {copy}") from error
    except (OSError, HTTPException) as error:
        reason = f"no network: {error.reason}" if isinstance(error, URLError) else f"no download: {error}"
        raise weights.no_weights(name, reason, f"the file is then kept as {copy}") from error
    return copy

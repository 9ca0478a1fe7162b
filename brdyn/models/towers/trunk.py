"""A trunk from a config and the tensors of a file: each in its place, none drawn, none left out unsaid."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brdyn import hub
from brdyn.blank import on_meta
from brdyn.errors import BrdynError, UsageError
from brdyn.models.request import ModelRequest
from brdyn.models.towers.config import ATTENTION, Described
from brdyn.models.towers.heads import drawn
from brdyn.models.weights import SHOWN_KEYS
from brdyn.words import first_line

TOWERS = re.compile(r"^(?:.*\.)?(?:vision_tower|vision_model|vision_encoder)\.")
LAYER = re.compile(r"^encoder\.layer\.")
POOLERS = ("pooler", "head")
# Of training, or computed anew.
UNUSED = re.compile(r"mask_token$|position_ids$|relative_position_index$|(^|\.)(pooler|head)\.")
MOST_UNTRAINED = 20_000_000_000  # parameters; the largest public ViTs have 22 billion
MOST_TIMES = 2
DEVIATION = 0.02  # of untrained weights, where a config of transformers does not say it
SHOWN_GROUPS = 6


def tower_of(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the vision tower of a model of images and text, and the names of what is left out."""
    if not any(TOWERS.match(key) for key in state):
        return dict(state), ()
    tower = {TOWERS.sub("", key): value for key, value in state.items() if TOWERS.match(key)}
    return tower, groups(key for key in state if not TOWERS.match(key))


def groups(keys: Any) -> tuple[str, ...]:
    """The modules that keys belong to, each once."""
    return tuple(dict.fromkeys(key.removeprefix("model.").split(".")[0] for key in keys))


def untrained(request: ModelRequest, described: Described) -> tuple[nn.Module, dict[str, Tensor]]:
    """The trunk without weights, drawn by the seed or on the meta device, and the tensors of a head.

    Those are of the shapes in `request.arguments`; there are none for a model that is not the twin of another.

    Raises
    ------
    UsageError
        If the config describes more than a computer holds.
    """
    model_class = _class_of(described)
    if request.random:
        size = _size(_blank(model_class, described, {}))
        if size > MOST_UNTRAINED:
            raise UsageError(f"the config.json of {request.name!r} describes {size:.1e} parameters; check its sizes")
    with request.construction():
        trunk = model_class(described.config)
        return trunk, drawn(dict(request.arguments), getattr(described.config, "initializer_range", DEVIATION))


def load(name: str, described: Described, state: Mapping[str, Tensor]) -> tuple[nn.Module, tuple[str, ...]]:
    """The trunk with its weights, and the names of what the file has besides.

    Raises
    ------
    BrdynError
        If the weights do not fit the config: it describes more than they hold, or tensors are missing, of another
        shape or too many.
    """
    model_class = _class_of(described)
    pooler = any(key.split(".")[-3:-1] == ["pooler", "layernorm"] for key in state)
    for entry in ("vision_use_head", "use_head"):
        if hasattr(described.config, entry) and not any(key.startswith("head.") for key in state):
            setattr(described.config, entry, False)
    extra = {"add_pooling_layer": pooler} if _pools(model_class) else {}
    blank = _blank(model_class, described, extra)
    _check_size(name, blank, state)
    state = _as_named(blank, state)
    with hub.hub_access(), _no_progress():
        try:
            backbone, report = model_class.from_pretrained(
                None,
                config=described.config,
                state_dict=dict(state),
                attn_implementation=ATTENTION,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **extra,
            )
        except Exception as error:  # a foreign file can break transformers' conversion anywhere
            raise BrdynError(
                f"the weights of {name!r} cannot be put into {model_class.__name__} ({first_line(error)})"
            ) from error
    _check_report(name, backbone, report)
    left = [key for key in report["unexpected_keys"] if not UNUSED.search(key)]
    return backbone, groups(left)


def _as_named(trunk: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the trunk names them: transformers saves the layers of an AltCLIP under the text's name."""
    plural = any(key.startswith("encoder.layers.") for key in trunk.state_dict())
    return {LAYER.sub("encoder.layers.", key) if plural else key: value for key, value in state.items()}


def _class_of(described: Described) -> Any:
    import transformers

    return getattr(transformers, described.kind.model_class)


def _pools(model_class: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def _blank(model_class: Any, described: Described, extra: Mapping[str, Any]) -> nn.Module:
    with on_meta():
        try:
            return model_class(described.config, **extra)
        except (RuntimeError, ValueError, OverflowError) as error:
            raise UsageError(f"its config.json describes what cannot be built ({first_line(error)})") from error


def _size(trunk: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trunk.parameters())


def _check_size(name: str, trunk: Any, state: Mapping[str, Tensor]) -> None:
    described, held = _size(trunk), sum(tensor.numel() for tensor in state.values())
    if described > MOST_TIMES * held:  # what is between is told key by key
        config = trunk.config
        raise BrdynError(
            f"the weights of {name!r} hold {held:,} numbers, and its config.json describes {described:,} "
            f"(layers: {config.num_hidden_layers}, width: {config.hidden_size}, image: {config.image_size}); check its "
            "config.json"
        )


def _check_report(name: str, backbone: nn.Module, report: Mapping[str, Any]) -> None:
    inside = {key for key, _ in backbone.named_children()} | {"encoder", "layers", "layer"}
    base = f"{backbone.base_model_prefix}."
    problems = {
        "missing": _of_trunk(report["missing_keys"]),
        "of another shape": sorted(_mismatch(entry) for entry in report.get("mismatched_keys") or ()),
        "more than its config.json describes": [
            key for key in _of_trunk(report["unexpected_keys"]) if key.removeprefix(base).split(".")[0] in inside
        ],
    }
    words = [
        f"{len(keys)} {label} ({', '.join(keys[:SHOWN_KEYS])}{', …' if len(keys) > SHOWN_KEYS else ''})"
        for label, keys in problems.items()
        if keys
    ]
    if words:
        raise BrdynError(
            f"the weights of {name!r} do not fit {type(backbone).__name__}: {'; '.join(words)}; check its config.json"
        )


def _of_trunk(keys: Collection[str]) -> list[str]:
    return sorted(key for key in keys if not UNUSED.search(key))


def _mismatch(entry: Any) -> str:
    key, found, expected = entry
    return f"{key} is {tuple(found)} instead of {tuple(expected)}"


@contextmanager
def _no_progress() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def parameters(backbone: Any) -> int:
    """Parameters of the trunk, without pooler and head."""
    return sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith(POOLERS))

"""Names and numbers that options choose from, where they can be checked before torch is imported (seconds)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias

from brdyn.arguments import shown
from brdyn.errors import UsageError
from brdyn.whole import whole
from brdyn.words import are, shortened

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
INITS = ("pretrained", "random")
THEMES = ("light", "dark", "paper")  # of pictures
SIMILARITIES = ("cosine", "token-cosine", "cka", "procrustes")
# How tokens move: each measure with the class that takes it, `module:class`.
MEASURES = {
    "norm": "brdyn.measures.norm:TokenNorm",
    "convergence": "brdyn.measures.convergence:DirectionalConvergence",
    "speed": "brdyn.measures.speed:AngularSpeed",
    "turning": "brdyn.measures.speed:TurningAngle",
    "update": "brdyn.measures.update_field:UpdateField",
    "estimation": "brdyn.measures.estimation:PhaseEstimation",
    "basins": "brdyn.measures.basins:AngularBasins",
    "modes": "brdyn.measures.modes:DynamicModes",
    "readout": "brdyn.measures.readout:HeadReadout",
    "branches": "brdyn.measures.branches:BranchUpdates",
    "spectra": "brdyn.measures.spectra:JacobianSpectra",
}
# Those that take more than a few per cent of a pass, and are taken only where they are named.
ONLY_NAMED = ("branches", "spectra")
# Defaults that commands and functions share.
SIMILARITY = "cosine"
METHOD = "contiguous"
EPS = (0.02, 0.2)  # of noise, relative to the token
SURGERY = ("swap", "delete", "shuffle")  # of `KINDS`
DRAWS = 5  # shuffles of a phase
SEEDS = 3  # linear probes
RECURSION_STEPS = 8  # of a ViTRM that is evaluated
RIDGE = 1e-3
TANGENTS, KRYLOV_STEPS = 8, 0  # of spectra
MOST_TANGENTS = 1_000
REPLICATES = 200  # of the bootstrap
MOST = 2**31 - 1
MOST_LAYERS, MOST_PIXELS = 1_000, 8_192  # of a network, and of a side of its images, in any config
LONGEST_SHOWN = 40
MLPS = ("swiglu", "gelu")  # of a Raptor's block
DEPTH_SCALINGS = ("index", "constant", "none")
MOST_RATIO = 1_000  # of hidden units over the width
MOST_TWINS = 1_000
MOST_BEYOND = 1_000  # times its phase that a map is applied
TASKS = ("classification", "segmentation", "depth")  # of probes
OWN_FILE = re.compile(r"(?P<file>.+\.py)(:(?P<function>[^:/\\]*))?")  # a model of one's own
LAYERS_CHOSEN = re.compile(r"choose:([0-9]{1,4})")
LAYERS_LISTED = re.compile(r"[0-9]{1,4}(,[0-9]{1,4})*")
KINDS = ("swap", "delete", "shuffle", "replace")
SURROGATES = ("identity", "mean", "affine", "power", "repeat", "exchange", "raptor")  # of a span of layers
SPLICED = SURROGATES[:-1]  # the last needs a Raptor


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """The name, if it is among the choices.

    Raises
    ------
    UsageError
        `unknown device 'gpu'; choose one of auto, cpu, cuda, mps`.
    """
    choices = tuple(choices)
    if not isinstance(name, str) or name not in choices:
        raise UsageError(f"unknown {what} {shown(name)}; choose one of {', '.join(choices)}")
    return name


Precision: TypeAlias = Any  # a name, or torch's own: what `dtype_name` takes


def dtype_name(value: object) -> str:
    """A precision by its name, of torch's own too: `bfloat16` for `torch.bfloat16`."""
    return str(value).removeprefix("torch.")


def some_of(what: str, names: Sequence[str], choices: Iterable[str]) -> tuple[str, ...]:
    """The names, each once and in the order of the choices.

    Raises
    ------
    UsageError
        If one is not among the choices, or there is none.
    """
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        named = ", ".join(map(repr, unknown)) or "none"
        raise UsageError(f"unknown {what} {named}; choose from {', '.join(choices)}")
    return tuple(name for name in choices if name in names)


def chosen_measures(names: Sequence[str] | None) -> tuple[str, ...]:
    """The measures that names mean, each once and in order; `all`, or None, is every one that is cheap.

    Raises
    ------
    UsageError
        If there is no such measure, or none is named.
    """
    named = some_of("measure", names, (*MEASURES, "all")) if names is not None else ("all",)
    cheap = [name for name in MEASURES if name not in ONLY_NAMED] if "all" in named else []
    return tuple(name for name in MEASURES if name in {*named, *cheap})


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse an option whose number is not finite, or so large that nothing can be counted in it.

    Raises
    ------
    UsageError
        ``min_gain=nan` is not a finite number`.
    """
    for name, value in values.items():
        said = f"`{name}={shortened(str(value), LONGEST_SHOWN)}`"
        if isinstance(value, float) and not isfinite(value):
            raise UsageError(f"{said} is not a finite number")
        if isinstance(value, int) and not -MOST <= value <= MOST:
            raise UsageError(f"{said} is more than {MOST}, the most that is taken")


def check_named(model: str) -> None:
    """Refuse a model without a name."""
    if not model.strip():
        raise UsageError("the name of the model is empty; `brdyn models` lists the names")


def check_code(model: str, allowed: bool) -> None:
    """Refuse to run the file of a `file.py:function` without leave.

    Raises
    ------
    UsageError
        `'mine.py:build' runs code from 'mine.py'; pass `allow_code=True` if you trust it`.
    """
    found = OWN_FILE.fullmatch(model)
    if found is not None and found["function"] and not allowed:
        raise UsageError(f"{model!r} runs code from {found['file']!r}; pass `allow_code=True` if you trust it")


def check_least(least: float, **values: float) -> None:
    """Refuse numbers below the least that makes sense.

    Raises
    ------
    UsageError
        ``neighbours=-1` is less than 1; give 1 or more`.
    """
    for name, value in values.items():
        if not value >= least:
            raise UsageError(f"`{name}={value}` is less than {least}; give {least} or more")


def check_spread(replicates: int) -> None:
    """Refuse a single bootstrap sample, by which every boundary would look certain."""
    if replicates < 0 or replicates == 1:
        raise UsageError(
            f"bootstrap={replicates} says nothing of a spread; use 0 for none, or for instance {REPLICATES}"
        )


def check_ridge(ridge: float) -> None:
    """Refuse a ridge that is negative or not finite."""
    if not 0 <= ridge < float("inf"):
        raise UsageError(f"ridge {ridge} is not a number from 0 up; use for instance {RIDGE:g}")


def check_spectra(tangents: int, krylov_steps: int) -> None:
    """Refuse to follow no vector, or a number of them or of steps that nothing holds."""
    if not 1 <= tangents <= MOST_TANGENTS:
        raise UsageError(
            f"`tangents={tangents}` is not a number of vectors from 1 to {MOST_TANGENTS}; use for instance {TANGENTS}"
        )
    if not 0 <= krylov_steps <= MOST_TANGENTS:
        raise UsageError(
            f"`krylov_steps={krylov_steps}` is not a number of steps from 0 to {MOST_TANGENTS}; use for instance 4"
        )


def check_source(random: bool, has_weights: bool, weights_key: str | None) -> None:
    """Refuse weights of a file for an untrained model, and a set of weights of no file."""
    if random and has_weights:
        raise UsageError("`weights` and `init=random` exclude each other; drop one of them")
    if weights_key is not None and not has_weights:
        raise UsageError(f"`weights_key={weights_key!r}` chooses in a file; give that file by `weights`")


def check_share(name: str, value: float) -> None:
    """Refuse a chance of leaving something out that leaves everything out, or is none."""
    if not isinstance(value, int | float):
        raise UsageError(f"{name} {value!r} is not one number, the same at every layer")
    if not 0 <= value < 1:
        raise UsageError(f"{name} {value} is not from 0 to below 1")


def check_heads(width: int, heads: int) -> None:
    """Refuse a number of attention heads that cannot share a width."""
    if heads < 1 or width % heads:
        raise UsageError(f"width {width} cannot be split among {heads} heads")


def check_norm_eps(eps: float) -> None:
    """Refuse an epsilon of a norm that is not a small number above 0."""
    if not 0 < eps <= 1:
        raise UsageError(f"`norm_eps={eps}` is not a number above 0, up to 1")


def check_block(mlp: str, mlp_ratio: float, depth_scaling: str) -> None:
    """Refuse parts that no block has."""
    one_of("MLP", mlp, MLPS)
    one_of("depth scaling", depth_scaling, DEPTH_SCALINGS)
    if not 0 < mlp_ratio <= MOST_RATIO:
        raise UsageError(f"MLP ratio {mlp_ratio} is not a number above 0, up to {MOST_RATIO}")


def check_patches(name: str, size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Refuse an image size that patches do not tile, and say which to use instead."""
    for side, step in zip(size, patch, strict=True):
        if side < step:
            raise UsageError(
                f"an image of {size[0]}x{size[1]} pixels is smaller than one {step}-pixel patch of {name!r}; "
                f"use at least `image_size={step}`"
            )
        if side % step:
            lower = side - side % step
            raise UsageError(
                f"image size {size[0]}x{size[1]} is not a multiple of the {step}-pixel patch of {name!r}; "
                f"use for instance {lower} or {lower + step}"
            )


def check_layers(text: str) -> tuple[tuple[int, ...] | None, int]:
    """The layers that `last`, `all`, `3,7,12` or `choose:4` means: numbers (None for all), and how many to choose.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text in ("last", "all"):
        return ((-1,) if text == "last" else None), 0
    if found := LAYERS_CHOSEN.fullmatch(text):
        if int(found[1]) < 2:
            raise UsageError(f"`layers={text}` chooses fewer than two; `layers=all` finds the best single one")
        return None, int(found[1])
    if LAYERS_LISTED.fullmatch(text):
        return tuple(dict.fromkeys(int(part) for part in text.split(","))), 0
    raise UsageError(
        f"`layers={shortened(text, LONGEST_SHOWN)}` is neither last, all, a list such as 3,7,12, nor choose:4"
    )


def check_twins(number: int) -> int:
    """A number of untrained twins as an int, if it is one.

    Raises
    ------
    UsageError
    """
    twins = whole(number)
    if twins is None or not 0 <= twins <= MOST_TWINS:
        raise UsageError(
            f"`null={number}` is not a number of untrained twins from 0 to {MOST_TWINS}; use for instance 5"
        )
    return twins


def check_beyond(factor: int | None) -> None:
    """Refuse a number of times that a map is applied past its phase by which it is not past it, or never ends.

    Raises
    ------
    UsageError
    """
    if factor is not None and not 2 <= factor <= MOST_BEYOND:
        raise UsageError(
            f"`beyond={factor}` times its length is not past a phase; use 2 to {MOST_BEYOND}, for instance 8"
        )


def check_eps(eps: Sequence[float]) -> None:
    """Refuse a size of the noise that is negative or not finite, or none at all."""
    bad = [value for value in eps if not 0 <= value < float("inf")]
    if bad or not len(eps):
        raise UsageError(f"eps {bad[0] if bad else 'is empty'}: the relative size of the noise is a number from 0 up")


def separated(text: str) -> list[str]:
    """`a, b` as its parts."""
    return [part.strip() for part in text.split(",")]


def check_batch(images: int, batch_size: int) -> None:
    """Refuse images that do not fill a batch.

    Raises
    ------
    UsageError
        With the largest batch that they fill.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive")
    if images < batch_size:
        raise UsageError(
            f"{are(images, 'image')} too few for a batch of {batch_size}; give more images, or `batch_size={images}` "
            "or less"
        )

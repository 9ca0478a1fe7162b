"""Options that several commands share, declared once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from brdyn.choices import LONGEST_SHOWN, MOST_BEYOND
from brdyn.cli.completion import complete_model
from brdyn.errors import UsageError
from brdyn.seeds import RANGE, check_seed
from brdyn.words import shortened

WHOLE = re.compile("[0-9]{1,10}")
MODEL = "Model"
IMAGES = "Images"
COMPUTE = "Computation"
OUTPUT = "Output"

Model = Annotated[
    str,
    typer.Option(
        help="Model name, transformers id or folder (see `brdyn models`); or file.py:function, which returns a module.",
        autocompletion=complete_model,
        rich_help_panel=MODEL,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Local checkpoint: a .pth or .safetensors file, or a transformers folder.", rich_help_panel=MODEL
    ),
]
WeightsKey = Annotated[
    str | None,
    typer.Option(
        help="Which of several sets of weights in that file, as teacher or model_ema (default: the average).",
        rich_help_panel=MODEL,
    ),
]
Init = Annotated[
    str, typer.Option(help="`pretrained`, or `random` for the untrained architecture.", rich_help_panel=MODEL)
]
ImageSize = Annotated[
    str | None,
    typer.Option(help="Input size in pixels, as 224 or 224x308 (height x width).", rich_help_panel=MODEL),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read checkpoints that can run code. Trust their author.",
        rich_help_panel=MODEL,
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run the code of --model file.py:function. Trust its author.",
        rich_help_panel=MODEL,
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="For a Raptor, this teacher instead of the one that its config names: file.py:function.",
        rich_help_panel=MODEL,
    ),
]
Images = Annotated[
    str,
    typer.Option(
        help="A folder (recursive), an image, a parquet or webdataset tar file, a data set saved to disk or of the hub "
        "(owner/name), or `samples`; @SPLIT may follow.",
        rich_help_panel=IMAGES,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="Split, where there are several (of a hub data set: train by default).", rich_help_panel=IMAGES),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the images in a table (default: image, img, or the only one).", rich_help_panel=IMAGES
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column of the labels in a table (default: the declared one, or label).", rich_help_panel=IMAGES),
]
Number = Annotated[
    int | None,
    typer.Option("--n", "-n", help="Use this many images, drawn with --seed.", min=1, rich_help_panel=IMAGES),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at an unreadable image instead of skipping it.", rich_help_panel=IMAGES),
]
Seed = Annotated[
    int,
    typer.Option(
        help=f"Seed of the subset, the bootstrap and random weights, {RANGE}.",
        callback=check_seed,
        rich_help_panel=COMPUTE,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=COMPUTE)]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=COMPUTE)]
TrainDtype = Annotated[str, typer.Option(help="float32, or bfloat16 by autocast.", rich_help_panel=COMPUTE)]
BatchSize = Annotated[
    str,
    typer.Option(help="A number, or `auto`: as memory allows, halved when it runs out.", rich_help_panel=COMPUTE),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Image loader processes (0: none; default: cores - 1).", min=0, max=1024, rich_help_panel=COMPUTE
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the results.", rich_help_panel=OUTPUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results already in --out.", rich_help_panel=OUTPUT)
]
Formats = Annotated[
    str,
    typer.Option("--format", help="Picture formats: png, svg, pdf, joined by commas.", rich_help_panel=OUTPUT),
]
Beyond = Annotated[
    int | None,
    typer.Option(
        help="Also apply every block (of a ViTRM: the recursion step) so many times its phase's length, as 8, and see "
        "whether it comes to a limit, a cycle or neither.",
        min=2,
        max=MOST_BEYOND,
    ),
]


class ImagesRequest:
    """What every request of a command that reads images says of them, and of where results go.

    No dataclass: the fields of one would come before a request's own, and `--help` has them in the order of those.
    """

    out: Path
    split: str | None
    image_column: str | None
    label_column: str | None
    n: int | None
    seed: int
    device: str
    workers: int | None
    overwrite: bool
    formats: str

    def images_options(self, **others: Any) -> dict[str, Any]:
        """Which images are read, as what loads them takes it by keyword; `others` count more than what was typed."""
        names = ("n", "seed", "split", "image_column", "label_column")
        return {name: getattr(self, name) for name in names} | others


def own_options(command: Callable[..., None]) -> list[Parameter]:
    """The parameters of a command, each to be given by its name."""
    return [
        one.replace(kind=Parameter.KEYWORD_ONLY)
        for one in signature(command, eval_str=True).parameters.values()
        if one.kind is not Parameter.VAR_KEYWORD
    ]


def with_options(
    run: Callable[..., None], command: Callable[..., None], options: Sequence[Parameter]
) -> Callable[..., None]:
    """A function that takes these options, under the name of a command and with its help."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in options}
    return run


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """`224` or `224x308` as (height, width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) in (1, 2) and all(WHOLE.fullmatch(part) and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(
        f"--image-size {shortened(text, LONGEST_SHOWN)!r} is neither a number of pixels such as 224 nor height x "
        "width such as 224x308"
    )


def parse_batch_size(text: str) -> int | str:
    """`auto` or a positive number."""
    if text == "auto":
        return text
    if WHOLE.fullmatch(text) and int(text) > 0:
        return int(text)
    raise UsageError(f"--batch-size {text!r} is neither a positive number nor 'auto'")


def parse_numbers(option: str, text: str, kind: type[int] | type[float]) -> list[float]:
    """`0.02,0.2` as numbers."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        wanted = "a list of layers such as 7,10" if kind is int else "a list of numbers such as 0.02,0.2"
        raise UsageError(f"{option} {text!r} is not {wanted}") from None

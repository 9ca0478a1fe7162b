"""`brdyn models`: list the models that brdyn loads, or describe one."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from brdyn import progress
from brdyn.choices import check_code
from brdyn.cli import output
from brdyn.cli.completion import complete_model
from brdyn.cli.options import AllowCode, ImageSize, parse_image_size
from brdyn.progress import stage
from brdyn.words import as_typed, counted


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Describe this model, or list the names that contain this.", autocompletion=complete_model),
    ] = None,
    image_size: ImageSize = None,
    allow_code: AllowCode = False,
) -> None:
    """List the models that brdyn loads, or describe one.

    A timm name may carry a tag of pretrained weights, as in vit_base_patch16_224.mae. Any transformers id
    or folder of a supported class loads as well.
    """
    size = parse_image_size(image_size)
    check_code(name or "", allow_code)
    with stage("loading the families of models"):
        from brdyn.models import list_models

        listed = list(list_models())
    part = (name or "").lower()
    chosen = [(family, one) for family, one in listed if part in one.lower()]
    is_part = size is None and bool(chosen) and all(one != name for _, one in chosen)
    if name is None or is_part:
        _list(chosen)
    else:
        _describe(name, size, allow_code)


def _list(chosen: list[tuple[str, str]]) -> None:
    if output.wants_json():
        output.print_json({"models": [{"name": name, "family": family} for family, name in chosen]})
        return
    from rich.columns import Columns
    from rich.console import Console

    progress.clear()
    console = Console()
    for family, group in groupby(chosen, key=lambda pair: pair[0]):
        names = [name for _, name in group]
        examples = " (examples: any id of these classes loads)" if family == "transformers" else ""
        console.print(f"[bold]{family}[/bold], {counted(len(names), 'name')}{examples}")
        if console.is_terminal:
            console.print(Columns(names, padding=(0, 2), equal=True))
        else:  # one name a line, for grep
            typer.echo("\n".join(names))


def _describe(name: str, image_size: tuple[int, int] | None, allow_code: bool) -> None:
    with stage(f"loading {name}"):
        from brdyn.models import describe_model

        model = describe_model(name, image_size, allow_code=allow_code)
    info = model.info
    preprocessing = model.preprocessing
    height, width = info.image_size
    grid = model.tokens.grid
    rows = {
        "family": info.family,
        "layers": info.layers,
        "width": info.width,
        "heads": info.heads,
        "patch": f"{info.patch} pixels",
        "parameters": f"{info.parameters / 1e6:.1f} M",
        "input": f"{height} x {width} pixels, {grid[0]} x {grid[1]} patches",
        "tokens": ", ".join(f"{size} {group}" for group, size in model.tokens.sizes().items()),
        "preprocessing": f"{preprocessing.crop_mode} crop {preprocessing.crop_pct:g}, {preprocessing.interpolation}, "
        f"mean {_numbers(preprocessing.mean)}, std {_numbers(preprocessing.std)}",
        "positions": info.position_rule,
        "weights": info.weights,
    }
    if output.wants_json():
        output.print_json({"name": name, **rows, "notes": [as_typed(note) for note in info.notes]})
        return
    lines = [*rows.items(), *(("note", as_typed(note)) for note in info.notes)]
    output.say("\n".join([name, *(f"  {key:<14} {value}" for key, value in lines)]))


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)

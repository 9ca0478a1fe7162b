"""`brdyn models`: list the models that brdyn loads, or describe one."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from brdyn.cli.options import AllowCode, ImageSize, parse_image_size
from brdyn.progress import stage
from brdyn.words import as_typed


def models(
    name: Annotated[str | None, typer.Argument(help="Describe this model.")] = None,
    match: Annotated[str | None, typer.Option("--filter", help="List only names that contain this.")] = None,
    image_size: ImageSize = None,
    allow_code: AllowCode = False,
) -> None:
    """List the models that brdyn loads, or describe one.

    A timm name may carry a tag of pretrained weights, as in vit_base_patch16_224.mae. Any transformers id
    or folder of a supported class loads as well.
    """
    if name is None:
        _list(match or "")
    else:
        _describe(name, parse_image_size(image_size), allow_code)


def _list(match: str) -> None:
    with stage("loading the families of models"):
        from rich.columns import Columns
        from rich.console import Console

        from brdyn.errors import UsageError
        from brdyn.models import list_models

        chosen = [(family, name) for family, name in list_models() if match.lower() in name.lower()]
    if not chosen:
        raise UsageError(
            f"no listed model name contains {match!r}; transformers ids load without being listed"
        )
    console = Console()
    for family, group in groupby(chosen, key=lambda pair: pair[0]):
        names = [name for _, name in group]
        examples = " (examples: any id of these classes loads)" if family == "transformers" else ""
        console.print(f"[bold]{family}[/bold], {len(names)} names{examples}")
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
    typer.echo(name)
    for key, value in rows.items():
        typer.echo(f"  {key:<14} {value}")
    for note in info.notes:
        typer.echo(f"  {'note':<14} {as_typed(note)}")


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)

"""The phases a command refers to: read from a phases.json, or found here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brdyn.cli.checks import check_file
from brdyn.errors import UsageError
from brdyn.phases import Phases, check_request
from brdyn.store import read_json, reading
from brdyn.words import shortened

if TYPE_CHECKING:
    from brdyn.models import VisionTransformer

PANEL = "Phases"
WHAT = "a phases.json"
SHAPE = {"model": str, "provenance": {"model": {"digest": str}}}  # besides the phases

PhasesFile = Annotated[
    Path | None,
    typer.Option(
        "--phases",
        help="phases.json of this model; phases are found here when not given.",
        rich_help_panel=PANEL,
    ),
]
MarkedPhases = Annotated[
    Path | None,
    typer.Option(
        "--phases",
        help="phases.json of this model: their ends are marked, and read by --layers choose:4.",
        rich_help_panel=PANEL,
    ),
]
NumberOfMarked = Annotated[
    int | None,
    typer.Option("--k", help="Number of those phases (default: as in --phases).", min=1, rich_help_panel=PANEL),
]
NumberOfPhases = Annotated[
    int | None,
    typer.Option("--k", help="Number of phases, with or without --phases.", min=1, rich_help_panel=PANEL),
]


@dataclass(frozen=True)
class GivenPhases:
    """What a command was told of phases, by --phases and --k; read and checked before torch and the model.

    Attributes
    ----------
    path : Path or None
        Of the phases.json.
    k : int or None
    phases : Phases or None
        Those in the file, k of them where k was given.
    model, digest : str
        What they were found in.
    """

    path: Path | None
    k: int | None
    phases: Phases | None = None
    model: str = ""
    digest: str = ""

    @classmethod
    def read(cls, path: Path | None, k: int | None) -> GivenPhases:
        """Read the options.

        Raises
        ------
        UsageError
            If the file is not a phases.json, or has not so many phases.
        """
        check_file("--phases", path)
        if path is None:
            return cls(path, k)
        content = read_json(path, WHAT, SHAPE)
        with reading(path, WHAT):
            found = Phases.from_dict(content)
        check_request(k, found.layers, found.min_size, name=repr(str(path)))
        digest = content["provenance"]["model"]["digest"]
        return cls(path, k, found if k is None else found.with_k(k), content["model"], digest)

    def check(self, model: VisionTransformer) -> None:
        """Refuse phases that are not of a model, of which only the description need be there.

        Raises
        ------
        UsageError
            If it has too few layers, or the file is of another model or other weights.
        """
        info = model.info
        check_request(self.k, info.layers, name=repr(info.name))
        if self.phases is None:
            return
        if self.model != info.name or self.phases.layers != info.layers:
            raise UsageError(
                f"{str(self.path)!r} is of {shortened(self.model)!r} with {self.phases.layers} layers, and this is "
                f"{info.name!r} with {info.layers}; give the phases.json of this model, or none"
            )
        if info.digest and self.digest != info.digest:
            raise UsageError(f"{str(self.path)!r} is of other weights of {info.name!r}; run `brdyn phases` with these")

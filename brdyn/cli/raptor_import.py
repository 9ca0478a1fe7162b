"""`brdyn raptor-import`: a checkpoint of the papers' own code as a Raptor of brdyn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brdyn.cli import options as opt
from brdyn.cli import output
from brdyn.cli.checks import check_file
from brdyn.cli.options import parse_image_size, parse_numbers
from brdyn.errors import UsageError
from brdyn.words import counted

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Checkpoint of KempnerInstitute/raptor: final_raptor3_….pt.")
]
TeacherModel = Annotated[str, typer.Option("--teacher-model", help="The model that it was fitted to.")]
Ends = Annotated[
    str | None,
    typer.Option("--boundaries", help="Last layer of each phase but the last, where the file holds tensors alone."),
]


def raptor_import(
    file: File,
    out: Annotated[Path, typer.Option(help="Folder for the Raptor.", rich_help_panel=opt.OUTPUT)],
    teacher_model: TeacherModel = "dinov2_vitb14_reg",
    weights: opt.Weights = None,
    weights_key: opt.WeightsKey = None,
    image_size: opt.ImageSize = None,
    boundaries: Ends = None,
) -> None:
    """Read a checkpoint of the papers' own training code and write it as a Raptor: `--model OUT` then loads it.

    Nothing that is in the file is run. --weights are the teacher's, where it needs them from a file.
    """
    check_file("FILE", file)
    check_file("--weights", weights, folder=True)
    size = parse_image_size(image_size)
    ends = None if boundaries is None else [int(end) for end in parse_numbers("--boundaries", boundaries, int)]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} holds something already; choose another --out")

    from brdyn.models import load_model
    from brdyn.raptor import read_official
    from brdyn.raptor.model import KIND
    from brdyn.raptor.official import read_blocks
    from brdyn.store.pretrained import CONFIG, WEIGHTS

    read_blocks(file, ends)  # a teacher may have to be fetched: a file that is none is refused first
    teacher = load_model(teacher_model, weights=weights, weights_key=weights_key, image_size=size)
    raptor = read_official(file, teacher, ends)
    raptor.save_pretrained(out, read_from=file.name)
    spans = ", ".join(f"{span.start + 1}-{span.end}" for span in raptor.spans)
    answer, files = (
        f"{counted(raptor.k, 'block')} for layers {spans} of {teacher.info.name}",
        [CONFIG, WEIGHTS],
    )
    if output.wants_json():
        output.print_json({"kind": KIND, "folder": str(out), "files": files, "answer": answer})
    else:
        output.say(f"{answer}\n\nwritten to {out}: {', '.join(files)}")

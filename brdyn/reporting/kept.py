"""What a report finds in its folder: results that are its own, to be used again, and those of something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from brdyn import checked_json, plots
from brdyn.data import ImageSet
from brdyn.errors import BrdynError
from brdyn.models import VisionTransformer
from brdyn.reporting.plan import ReportSettings, Section, options_of
from brdyn.result import Result, is_newer, result_class
from brdyn.store import OutputFolder, to_json
from brdyn.store.result_files import missing, read_plain

ORIGIN = "report"  # in the provenance of a result: what it was made for
WORDS = {"images": "other images", "model": "another model or precision", "asked": "other settings"}


def origin_of(section: Section, model: VisionTransformer, images: ImageSet, settings: ReportSettings) -> dict[str, Any]:
    """What makes a result the one that is asked for: the weights, the images, and the settings; ready for JSON."""
    info = model.info
    of = {name: value for name, value in images.identity().items() if name != "source"}  # wherever they lie
    found = {
        "model": {
            "weights": info.digest or info.weights,
            "image_size": info.image_size,
            "dtype": model.precision,
        },
        "images": of,
        "asked": options_of(section, settings),
    }
    return json.loads(to_json(found))


def is_there(folder: Path, section: Section) -> bool:
    """Whether a model's folder has a result of this section, with all of its files."""
    path = folder / section.name / section.file
    return path.is_file() and not missing(path, read_plain(path))


def differs(folder: Path, section: Section, origin: Mapping[str, Any]) -> str:
    """In what the result that is there is not the one asked for; empty where it is, or there is none, or no JSON."""
    if not is_there(folder, section):
        return ""
    try:
        content = checked_json.read(folder / section.name / section.file)
    except checked_json.JsonError:
        return ""
    content = content if isinstance(content, dict) else {}
    if is_newer(content, result_class(section.file).SCHEMA):
        return "of a newer brdyn"
    provenance = content.get("provenance")
    kept = provenance.get(ORIGIN) if isinstance(provenance, dict) else None
    if not isinstance(kept, dict):
        return "not of a report"
    return next((said for name, said in WORDS.items() if kept.get(name) != origin[name]), "")


def read_kept(folder: Path, section: Section) -> Result | None:
    """The result of a section; None where there is none."""
    return result_class(section.file).read(folder / section.name / section.file) if is_there(folder, section) else None


def damage(folder: Path, section: Section) -> str:
    """Why the result that is there cannot be read; empty where it can, or there is none."""
    try:
        read_kept(folder, section)
    except BrdynError as error:
        return str(error)
    return ""


def keep(result: Result, folder: Path, section: Section, origin: Mapping[str, Any], formats: tuple[str, ...]) -> None:
    """Write the result of a section with its pictures, all of it or nothing."""
    assert result.provenance is not None
    details = {**result.provenance.details, ORIGIN: dict(origin)}
    result = replace(result, provenance=replace(result.provenance, details=details))
    with OutputFolder(folder / section.name, True, result=section.file) as out:
        result.write(out, plots.draw(result) if formats else {}, formats)

"""What can be told of a command before torch is imported and a model read, which takes seconds: its plain mistakes."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from brdyn.checked_json import expanded
from brdyn.choices import DEVICES, one_of
from brdyn.cli.options import ImagesRequest
from brdyn.errors import UsageError, permitted
from brdyn.store import check_empty, check_formats
from brdyn.store.result_files import check_own

NAMED = ("samples", "cifar10", "cifar100")  # images that are no path and no hub data set
LIKE_A_FILE = (".jpg", ".jpeg", ".png", ".webp", ".parquet", ".tar")
NO_IMAGES = "no images at {!r}: no such file or folder (a hub data set is owner/name)"


def check_written(request: ImagesRequest, result: str, *, go_on: bool = False) -> tuple[str, ...]:
    """Refuse pictures, a device or an output folder that cannot be; the formats of pictures.

    Parameters
    ----------
    request : ImagesRequest
    result : str
        The JSON file that it writes.
    go_on : bool
        Whether an output folder that holds something is to be gone on with.
    """
    formats = check_formats(request.formats)
    one_of("device", request.device, DEVICES)
    if os.environ.get("RANK", "0") == "0":  # the process that writes
        check_out(request.out, result, request.overwrite or go_on)
    return formats


@permitted()
def check_out(out: Path, result: str, used: bool) -> None:
    """Refuse an output folder that cannot be made or is another's, or holds files and is not to be `used` again."""
    there = next(one for one in (out, *out.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        what = "a link to nothing" if there.is_symlink() and not there.exists() else "not a folder"
        raise UsageError(f"cannot make the output folder {str(out)!r}: {str(there)!r} is {what}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {str(there)!r}; choose another --out")
    if there == out and not used:
        check_empty(out)
    check_own(out, result)


def check_images(*sources: str | None) -> None:
    """Refuse images that are said by a path, where there is none."""
    for text in sources:
        if text is None or text in NAMED:
            continue
        base, at, split = text.rpartition("@")
        paths = [at_home(text), *([at_home(base)] if at and split else [])]
        named = base if at and split else text
        a_path = named.endswith("/") or text[:1] in "./~" or text.lower().endswith(LIKE_A_FILE)
        hub_id = text.count("/") == 1 and not a_path
        if not text or not (hub_id or any(os.path.lexists(path) for path in paths)):
            raise UsageError(NO_IMAGES.format(text))


def check_file(option: str, path: Path | None, *, folder: bool = False) -> None:
    """Refuse a file that is not there."""
    if path is None:
        return
    if not (path.is_file() or (folder and path.is_dir())):
        what = "no such file" if not os.path.lexists(path) else "not a file" + (" or folder" if folder else "")
        raise UsageError(f"{option} {str(path)!r}: {what}")


def check_serves(option: str, given: bool, of: Collection[str], chosen: Collection[str], where: str) -> None:
    """Refuse an option that was given, of something that was not chosen."""
    if given and not {*of} & {*chosen}:
        raise UsageError(
            f"{option} applies to {' and '.join(of)}, which {where} does not include; add it there, or drop {option}"
        )


def at_home(path: str | Path) -> Path:
    """A path with `~` as the home folder.

    Raises
    ------
    UsageError
        If there is no such home folder.
    """
    place = expanded(path)
    if str(place).startswith("~"):
        raise UsageError(f"{str(path)!r}: there is no such home folder; write the path out")
    return place

"""Files of a run in a few parts of bounded size, so that it can go on where it was not begun.

A pack is `state.000`, `state.001`, … (one tar archive, cut) and `state.json`, written last, which has their checksums:
a pack that was cut short is refused. Results are a small archive of their own.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brdyn.errors import BrdynError, UsageError
from brdyn.results import read_json, to_json
from brdyn.store import write_atomically

MANIFEST, RESULTS = "state.json", "results.tar.gz"
PART, MOST = 15 * 2**20, 60 * 2**20
BLOCK = 512  # of a tar archive
END = 20 * BLOCK  # which it is filled up to


class Packed(NamedTuple):
    """What was packed: names of files, those for which there was no room, and bytes in all."""

    names: list[str]
    left_out: list[str]
    size: int


def pack(
    home: Path, wanted: Sequence[Path], out: Path, run: str, *, part: int = PART, most: int = MOST
) -> Packed:
    """Pack files and folders in `home`, the first the most wanted, as many as there is room for.

    Parameters
    ----------
    home : Path
        Names are relative to it.
    wanted : sequence of Path
        A folder is packed whole or not at all.
    out : Path
    run : str
        Whose they are.
    part, most : int
        Bytes of a part, and of all.
    """
    chosen: list[Path] = []
    left_out: list[str] = []
    size = END
    for one in wanted:
        files = sorted(path for path in one.rglob("*") if path.is_file()) if one.is_dir() else [one]
        needed = sum(_room(path, home) for path in files)
        if size + needed > most:
            left_out.append(str(one.relative_to(home)))
            continue
        size += needed
        chosen += files
    archive = _archive(home, chosen, "w")
    parts = []
    for number, start in enumerate(range(0, len(archive), part)):
        piece = archive[start : start + part]
        name = f"state.{number:03d}"
        write_atomically(out / name, piece)
        parts.append({"name": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    names = [str(path.relative_to(home)) for path in chosen]
    content = {"run": run, "parts": parts, "names": names, "left_out": left_out}
    write_atomically(out / MANIFEST, to_json(content))
    return Packed(names, left_out, len(archive))


def pack_results(home: Path, patterns: Sequence[str], out: Path) -> Packed:
    """Pack the small files that match."""
    files = sorted({path for pattern in patterns for path in home.glob(pattern) if path.is_file()})
    archive = _archive(home, files, "w:gz")
    write_atomically(out / RESULTS, archive)
    return Packed([str(path.relative_to(home)) for path in files], [], len(archive))


def unpack(folder: Path, home: Path, run: str) -> list[str]:
    """Put what :func:`pack` packed into `home`, but for files that are there; their names.

    Raises
    ------
    UsageError
        If the folder has no pack, or one of another run.
    BrdynError
        If a part is missing or damaged.
    """
    content = read_json(folder / MANIFEST, "the state of a run", ("run", "parts", "names"))
    if content["run"] != run:
        raise UsageError(f"{str(folder)!r} is the state of {content['run']}, and this is {run}")
    whole = io.BytesIO()
    for part in content["parts"]:
        path = folder / part["name"]
        try:
            piece = path.read_bytes()
        except OSError as error:
            raise BrdynError(f"cannot read {str(path)!r} ({error.strerror}); bring all parts") from error
        if hashlib.sha256(piece).hexdigest() != part["sha256"]:
            raise BrdynError(f"{str(path)!r} is not what {MANIFEST} says (checksum); is the copy complete?")
        whole.write(piece)
    whole.seek(0)
    return list(_extract(whole, home, replace=False))


def unpack_results(folder: Path, home: Path, *, replace: bool) -> list[str]:
    """Put results into `home`; their names. Files that are there stay, or with `replace` go.

    Raises
    ------
    BrdynError
        If there are none, or they are damaged.
    """
    path = folder / RESULTS
    try:
        return list(_extract(io.BytesIO(path.read_bytes()), home, replace=replace))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BrdynError(f"cannot read {str(path)!r} ({error}); is the copy complete?") from error


def _room(path: Path, home: Path) -> int:
    """Bytes of a file in an archive, a long name's among them."""
    long_name = 2 * BLOCK if len(str(path.relative_to(home))) > 99 else 0
    return BLOCK + long_name + -(-path.stat().st_size // BLOCK) * BLOCK


def _archive(home: Path, files: Sequence[Path], mode: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for path in files:
            archive.add(path, str(path.relative_to(home)))
    return whole.getvalue()


def _extract(whole: io.BytesIO, home: Path, *, replace: bool) -> Iterator[str]:
    with tarfile.open(fileobj=whole) as archive:
        for member in archive:
            if replace or not (home / member.name).exists():
                archive.extract(member, home, filter="data")
                yield member.name

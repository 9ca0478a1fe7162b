"""Files of a run in a few parts of bounded size, so that it can go on where it was not begun.

A pack is `state.000`, `state.001`, … (one tar archive, cut) and `state.json`, written last, which has their checksums:
a pack that was cut short is refused. Results are a small archive of their own.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from brdyn.errors import BrdynError
from brdyn.store import read_json, to_json, write_atomically

MANIFEST, RESULTS = "state.json", "results.tar.gz"
PART, MOST = 15 * 2**20, 60 * 2**20
BLOCK = 512  # of a tar archive
END = 20 * BLOCK  # which it is filled up to


class Packed(NamedTuple):
    """What was packed: names of files, those for which there was no room, and bytes in all."""

    names: list[str]
    left_out: list[str]
    size: int


def pack(home: Path, wanted: Sequence[Path], out: Path, *, part: int = PART, most: int = MOST) -> Packed:
    """Pack files and folders of `home`, the first the most wanted, as many as there is room for.

    A folder is packed whole or not at all. `part` and `most` are bytes of a part, and of all. A pack that is there
    already is replaced.
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
    archive, parts = _archive(home, chosen, "w"), []
    (out / MANIFEST).unlink(missing_ok=True)
    for path in out.glob("state.[0-9]*"):
        path.unlink()
    for number, start in enumerate(range(0, len(archive), part)):
        piece, name = archive[start : start + part], f"state.{number:03d}"
        write_atomically(out / name, piece)
        parts.append({"name": name, "bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()})
    names = [str(path.relative_to(home)) for path in chosen]
    write_atomically(out / MANIFEST, to_json({"parts": parts, "names": names, "left_out": left_out}))
    return Packed(names, left_out, len(archive))


def pack_results(home: Path, patterns: Sequence[str], out: Path) -> None:
    """Pack the small files that match."""
    files = sorted({path for pattern in patterns for path in home.glob(pattern) if path.is_file()})
    write_atomically(out / RESULTS, _archive(home, files, "w:gz"))


def unpack(folder: Path, home: Path) -> list[str]:
    """Put what :func:`pack` packed into `home`, but for files that are there; their names.

    Raises
    ------
    UsageError
        If the folder has no pack.
    BrdynError
        If a part is missing or damaged.
    """
    whole = b""
    for part in read_json(folder / MANIFEST, "the state of a run", ("parts", "names"))["parts"]:
        path = folder / part["name"]
        try:
            piece = path.read_bytes()
        except OSError as error:
            raise BrdynError(f"cannot read {str(path)!r} ({error.strerror}); bring all parts") from error
        if hashlib.sha256(piece).hexdigest() != part["sha256"]:
            raise BrdynError(f"{str(path)!r} is not what {MANIFEST} says (checksum); is the copy complete?")
        whole += piece
    return _extract(whole, home, replace=False)


def unpack_results(folder: Path, home: Path, *, replace: bool) -> list[str]:
    """Put results into `home`; their names. Files that are there stay, or with `replace` go.

    Raises
    ------
    BrdynError
        If there are none, or they are damaged.
    """
    path = folder / RESULTS
    try:
        return _extract(path.read_bytes(), home, replace=replace)
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


def _extract(content: bytes, home: Path, *, replace: bool) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [one for one in archive.getmembers() if replace or not (home / one.name).exists()]
        for member in members:
            archive.extract(member, home, filter="data")
    return [member.name for member in members]

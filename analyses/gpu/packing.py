"""Files of a run in a few parts of bounded size, so that it can go on where it was not begun.

The state is `state.000`, `state.001`, …: one tar archive in gzip's frame, whose checksum and length tell a part that is
damaged or missing, cut; the first is written last. Results are a small archive of their own, which is never in parts.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from brdyn import BrdynError
from brdyn.store import write_atomically

STATE, RESULTS = "state.000", "results.tar.gz"
PART, MOST = 15 * 2**20, 60 * 2**20
AROUND = 2048  # bytes of a file in an archive beside its own: header, long name, filling
END = 10240  # of the archive


def pack(home: Path, wanted: Sequence[Path], out: Path, *, part: int = PART, most: int = MOST) -> tuple[int, list[str]]:
    """Pack files and folders of `home`, the first the most wanted, as many as there is room for; bytes of all parts,
    and what was left out.

    A folder is packed whole or not at all. `part` and `most` are bytes of a part, and of all. A pack that is there
    already is replaced.
    """
    chosen: list[Path] = []
    left_out, size = [], END
    for one in wanted:
        files = sorted(path for path in one.rglob("*") if path.is_file()) if one.is_dir() else [one]
        needed = sum(path.stat().st_size + AROUND for path in files)
        if size + needed > most:
            left_out.append(str(one.relative_to(home)))
        else:
            size, chosen = size + needed, chosen + files
    whole = _archive(home, chosen, level=0)  # weights do not shrink
    for path in sorted(out.glob("state.[0-9]*")):
        path.unlink()
    for start in reversed(range(0, len(whole), part)):
        write_atomically(out / f"state.{start // part:03d}", whole[start : start + part])
    return len(whole), left_out


def pack_results(home: Path, patterns: Iterable[str], out: Path) -> None:
    """Pack the small files that match."""
    files = sorted({path for pattern in patterns for path in home.glob(pattern) if path.is_file()})
    write_atomically(out / RESULTS, _archive(home, files, level=9))


def unpack(folder: Path, home: Path) -> list[str]:
    """Put a folder's state into `home`, but for files that are there; their names. Raises BrdynError if there is none,
    or it is not whole."""
    return _extract(sorted(folder.glob("state.[0-9]*")) or [folder / STATE], home, replace=False)


def unpack_results(folder: Path, home: Path, *, replace: bool) -> list[str]:
    """Put results into `home`; their names. Files that are there stay, or with `replace` go. Raises BrdynError if
    there are none, or they are damaged."""
    return _extract([folder / RESULTS], home, replace=replace)


def _archive(home: Path, files: Iterable[Path], level: int) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", compresslevel=level) as archive:
        for path in files:
            archive.add(path, str(path.relative_to(home)))
    return whole.getvalue()


def _extract(parts: Sequence[Path], home: Path, *, replace: bool) -> list[str]:
    try:
        frame = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip's; parts of an older pack after its end say nothing
        whole = frame.decompress(b"".join(path.read_bytes() for path in parts))
        if not frame.eof:
            raise EOFError("its end is missing")
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            members = [one for one in archive.getmembers() if replace or not (home / one.name).exists()]
            for member in members:
                archive.extract(member, home, filter="data")
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise BrdynError(f"cannot read {str(parts[0])!r} ({error}); is the copy complete?") from error
    return [member.name for member in members]

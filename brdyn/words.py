"""Text for people: messages of other libraries on one line, numbers with their noun, names that cannot be printed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

MOST = 160
PARAMETER = re.compile(r"`(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>[^`]*))?`")
ADDRESS = re.compile(r"(?: object)? at 0x[0-9a-fA-F]{4,}")


def first_line(error: BaseException, most: int = MOST) -> str:
    """The first line of an error's message, shortened, without addresses in memory; its kind where it says nothing."""
    lines = (line.strip() for line in ADDRESS.sub("", str(error)).splitlines())
    return shortened(next((line for line in lines if line), type(error).__name__).rstrip("."), most)


def shortened(text: str, most: int = MOST) -> str:
    """Text of at most `most` characters, cut between words where one is near, with a mark where it is cut."""
    if len(text) <= most:
        return text
    end = max((place for place, character in enumerate(text[:most]) if character.isspace()), default=0)
    return text[: end if end >= most // 2 else most - 1].rstrip(" ,;:.([{'\"") + "…"


def as_typed(text: str) -> str:
    """A message of the library for the command line: what it calls `image_size=224` is `--image-size 224` there.

    >>> from brdyn.words import as_typed
    >>> as_typed("use a smaller `batch_size`, or `allow_pickle=True`, or see `brdyn models`")
    'use a smaller --batch-size, or --allow-pickle, or see `brdyn models`'
    """
    return PARAMETER.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    value = "" if found["value"] in (None, "True") else f" {found['value']}"
    return f"--{found['name'].replace('_', '-')}{value}"


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    plural = noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")
    return f"{number} {noun if number == 1 else plural}"


def are(number: int, noun: str) -> str:
    """`1 image is`, `2 images are`."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def interval(low: float, high: float, form: str = ".2f") -> str:
    """`[0.10, 0.20]`, or nothing where there is no interval, as of one image.

    >>> from brdyn.words import interval
    >>> interval(0.1, 0.2), interval(float("nan"), float("nan"))
    ('[0.10, 0.20]', '')
    """
    return "" if isnan(low) else f"[{low:{form}}, {high:{form}}]"


def with_interval(mean: float, low: float, high: float, form: str = ".2f") -> str:
    """A value, and its interval where there is one.

    >>> from brdyn.words import with_interval
    >>> with_interval(0.15, 0.1, 0.2), with_interval(float("nan"), float("nan"), float("nan"))
    ('0.15 [0.10, 0.20]', 'not known')
    """
    return "not known" if isnan(mean) else f"{mean:{form}} {interval(low, high, form)}".rstrip()


def bytes_in_words(count: int) -> str:
    """To three digits, in the largest unit that they fill.

    >>> from brdyn.words import bytes_in_words
    >>> bytes_in_words(4_600), bytes_in_words(999_900), bytes_in_words(2_340_000_000_000), bytes_in_words(12)
    ('4.6 kB', '1 MB', '2.34 TB', '12 bytes')
    """
    for unit, size in {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}.items():
        if count >= 0.9995 * size:  # three digits of less would be rounded to 1000 of the next unit
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def size_in_words(parameters: int, flops: int | None = None) -> str:
    """`2.69 M parameters, 0.372 GFLOP an image`; the latter where it was counted."""
    said = f"{parameters / 1e6:.2f} M parameters"
    return said if flops is None else f"{said}, {flops / 1e9:.3g} GFLOP an image"


def printable(text: str) -> str:
    """Text that any UTF-8 file takes: a byte of a file name that is no UTF-8 becomes `\\udcff`, as Python shows it."""
    return text.encode("utf-8", "backslashreplace").decode()


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of the same columns as lines of text: words to the left, numbers to the right, `–` for what is not known.

    >>> from brdyn.words import table_lines
    >>> print(*table_lines([{"group": "cls", "speed": 0.25}, {"group": "patches", "speed": None}]), sep="\\n")
    group    speed
    cls       0.25
    patches      –
    """
    if not rows:
        return []
    columns = []
    for name in rows[0]:
        cells = [str(name), *(cell(row[name]) for row in rows)]
        width = max(map(len, cells))
        of_words = all(isinstance(row[name], str) for row in rows)
        columns.append([one.ljust(width) if of_words else one.rjust(width) for one in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def cell(value: Any) -> str:
    """A value of a table: a number to three digits, `–` where it is not known."""
    if value is None or value != value:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""Which spans of layers are replaced by what, and how many block applications that takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from brdyn.errors import UsageError
from brdyn.interventions.span_maps import FITTED, Span
from brdyn.models import VisionTransformer

IDENTITY, REPEAT, EXCHANGE, RAPTOR = "identity", "repeat", "exchange", "raptor"


class Stretch(Protocol):
    """Consecutive layers of one block, from state `start` to state `end`."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


@runtime_checkable
class SharedBlocks(Protocol):
    """Of a :class:`brdyn.raptor.Raptor`: its teacher, its block at every layer, and where each is applied."""

    teacher: VisionTransformer
    blocks: nn.ModuleList

    @property
    def spans(self) -> Sequence[Stretch]: ...


class Cell(NamedTuple):
    """A span of layers and what stands in for it.

    Attributes
    ----------
    surrogate : str
    start, end : int
        The states before and after: blocks start + 1 to end are replaced.
    block : int
        The layer whose block stands in, of `repeat` and `exchange`; else 0.
    calibration : int
        How many images a map was fitted to; else 0.
    """

    surrogate: str
    start: int
    end: int
    block: int = 0
    calibration: int = 0

    @property
    def span(self) -> Span:
        """Start and end."""
        return self.start, self.end

    @property
    def words(self) -> str:
        """For an error."""
        place = f"block {self.end}" if self.end == self.start + 1 else f"blocks {self.start + 1} to {self.end}"
        return f"{self.surrogate} in the place of {place}"


def every_span(depth: int) -> list[Span]:
    """All spans of blocks s + 1 to e, by start.

    >>> from brdyn.interventions.splice_cells import every_span
    >>> every_span(2)
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(combinations(range(depth + 1), 2))


def check_spans(spans: Iterable[Sequence[int]] | None, model: VisionTransformer) -> list[Span]:
    """The spans in order, each once; all where none are named.

    Raises
    ------
    UsageError
        If one is not of two states s < e from 0 to L.
    """
    depth = model.info.layers
    if spans is None:
        return every_span(depth)
    wanted = sorted({tuple(span) for span in spans})
    for span in wanted:
        if len(span) != 2 or not 0 <= span[0] < span[1] <= depth:
            raise UsageError(
                f"span {'-'.join(map(str, span))} is not of two states s < e from 0 to {depth}, those of "
                f"{model.info.name!r}; 0-{depth} are all of its blocks"
            )
    if not wanted:
        raise UsageError("no spans to replace; name some as 0-4 (blocks 1 to 4), or none for all")
    return [(start, end) for start, end in wanted]


def cells_of(
    surrogates: Collection[str],
    spans: Sequence[Span],
    depth: int,
    calibration: int = 0,
    stretches: Sequence[Stretch] = (),
    phase: Sequence[int] | None = None,
) -> Iterator[Cell]:
    """Everything that is run, by surrogate and start.

    The identity is always among it, of all spans that anything replaces. A block repeated once is the block itself, and
    left out. A Raptor's block replaces spans of its own stretch alone.

    Parameters
    ----------
    surrogates : collection of str
    spans : sequence of (int, int)
    depth : int
    calibration : int
        Images that maps are fitted to.
    stretches : sequence of Stretch
        Of a Raptor.
    phase : sequence of int, optional
        Of each layer: blocks are exchanged within it alone.
    """
    pairs = _exchanges(depth, phase) if EXCHANGE in surrogates else []
    single = sorted({(layer - 1, layer) for layer, _ in pairs})
    for span in sorted({*spans, *single}):
        yield Cell(IDENTITY, *span)
    for name in FITTED:
        if name in surrogates:
            yield from (Cell(name, *span, calibration=calibration) for span in spans)
    if REPEAT in surrogates:
        yield from (Cell(REPEAT, start, end, block=start + 1) for start, end in spans if end > start + 1)
    yield from (Cell(EXCHANGE, layer - 1, layer, block=other) for layer, other in pairs)
    if RAPTOR in surrogates:
        yield from (
            Cell(RAPTOR, *span)
            for span in spans
            if any(one.start <= span[0] and span[1] <= one.end for one in stretches)
        )


def _exchanges(depth: int, phase: Sequence[int] | None) -> list[tuple[int, int]]:
    """Every layer with each other one whose block may stand in, by layer."""
    return [
        pair
        for pair in permutations(range(1, depth + 1), 2)
        if phase is None or phase[pair[0] - 1] == phase[pair[1] - 1]
    ]

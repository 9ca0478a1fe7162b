"""Phases as a caller gives them: found ones, their boundaries, or the block of each layer. One rule for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from brdyn.arguments import checked
from brdyn.errors import UsageError
from brdyn.phases.phases import Phases, segment

GIVEN = "given by the user"


@checked
def as_assignment(phases: Phases | Sequence[int], layers: int, name: str = "this model") -> list[int]:
    """The block of each layer from phases, their boundaries, or an assignment of L blocks.

    Parameters
    ----------
    phases : Phases, or sequence of int
        A sequence of L numbers has the block of each layer; a shorter one the last layer of each phase but the last.
    layers : int
        L.
    name : str
        What to call the model in an error.

    Raises
    ------
    UsageError
        If the phases are of another number of layers, or boundaries do not increase from 1 to L - 1.

    Examples
    --------
    >>> from brdyn.phases import as_assignment
    >>> as_assignment([2], layers=3), as_assignment([0, 1, 0], layers=3)
    ([0, 0, 1], [0, 1, 0])
    """
    if isinstance(phases, Phases):
        if phases.layers != layers:
            raise UsageError(
                f"the phases are of {phases.layers} layers, and {name} has {layers}; find those of this model by "
                "`brdyn.segment`"
            )
        return contiguous(phases.boundaries, layers)
    return [int(each) for each in phases] if len(phases) >= layers else contiguous(phases, layers)


@checked
def as_phases(phases: Phases | Sequence[int], layers: int, name: str = "this model") -> Phases:
    """Phases from what :func:`as_assignment` takes; those of boundaries alone have no evidence and no stability.

    Their cuts are of layers that are equal within a phase, and differ by 1 across.

    Raises
    ------
    UsageError
        As of :func:`as_assignment`, or if layers that share a block are not neighbours.

    Examples
    --------
    >>> from brdyn.phases import as_phases
    >>> as_phases([4, 8], layers=12)
    Phases(layers=12, k=3, boundaries=[4, 8])
    """
    blocks = as_assignment(phases, layers, name)
    if isinstance(phases, Phases):
        return phases
    k = len(set(blocks))
    if len(list(groupby(blocks))) != k or len(blocks) != layers:
        raise UsageError(
            f"the assignment {blocks} does not cut {layers} layers into phases of neighbours; give the last layer of "
            "each phase but the last, as [4, 8]"
        )
    found = segment(np.equal.outer(blocks, blocks).astype(float), k)
    return replace(found, k_rule=GIVEN, evidence=None, similarity=None)


def contiguous(boundaries: Sequence[int], layers: int) -> list[int]:
    """The block of each layer for phases that end at `boundaries`.

    Raises
    ------
    UsageError
        If the boundaries do not increase from 1 to L - 1.
    """
    edges = [0, *boundaries, layers]
    if any(later <= earlier for earlier, later in pairwise(edges)):
        raise UsageError(
            f"boundaries {', '.join(map(str, boundaries))} do not increase from 1 to {layers - 1}; "
            "each is the last layer of a phase"
        )
    return [phase for phase, (start, end) in enumerate(pairwise(edges)) for _ in range(start, end)]

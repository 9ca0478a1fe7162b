"""Is this what :meth:`brdyn.phases.Phases.to_dict` writes? A phases.json may be edited, or anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any

from brdyn.checked_json import take
from brdyn.errors import UsageError
from brdyn.phases.evidence import check_test
from brdyn.phases.matrices import ROUNDING, check_total
from brdyn.words import shortened

SEGMENTATION = {
    "boundaries": [int],
    "cut": float,
    "cut_share": float,
    "gain": float,
    "drift_share": float,
    "stability": ([float], None),
    "alternatives": [{"boundaries": [int], "cut": float, "gap": float}],
    "z": (float, None),
}
STEP = {"layer": int, "t": float, "p": float, "ratio": float}
EVIDENCE = {
    "k": int,
    "alpha": float,
    "calibration": str,
    "boundaries": [STEP],
    "largest": (STEP, None),
    "steps": [float],
    "trend": [float],
    "limit": [float],
    "untested": str,
}
SHAPE = {
    "layers": int,
    "k": int,
    "k_rule": str,
    "total": float,
    "min_size": int,
    "segmentations": {str: SEGMENTATION},
    "boundary_frequency?": ([[float]], None),
    "recursive?": (
        {"clusters": [[int]], "eps": float, "min_size": int, "exact": bool, "seed?": (int, None)},
        None,
    ),
    "evidence?": (EVIDENCE, None),
}


def check_written(values: Mapping[str, Any]) -> None:
    """Refuse what cannot have been written.

    Raises
    ------
    UsageError
        Naming the place, and what is wrong with it.
    """
    try:
        take(values, SHAPE)
    except ValueError as error:
        raise UsageError(str(error)) from error
    layers, k, least = values["layers"], values["k"], values["min_size"]
    if not 1 <= least <= layers:
        raise UsageError(f"phases of at least {least} of {layers} layers make no sense")
    _check_signs(values)
    segmentations, most = values["segmentations"], layers // least
    if len(segmentations) != most or set(segmentations) != {str(number) for number in range(1, most + 1)}:
        raise UsageError(f"its segmentations are not one for each k from 1 to {most}")
    if not 1 <= k <= most:
        raise UsageError(f"k is {k}, and its segmentations are for 1 to {most}")
    for number, one in segmentations.items():
        _check_segmentation(int(number), one, layers, least)
    _check_beside(values, layers, most)


def _check_signs(values: Mapping[str, Any]) -> None:
    """Layers are no more alike than equal and no alternative is better than the best; shares are from 0 to 1."""
    check_total(values["total"], values["layers"])
    for k, one in values["segmentations"].items():
        for number, other in enumerate(one["alternatives"]):
            if other["gap"] < -ROUNDING * max(1.0, values["total"]):
                raise UsageError(f"segmentations.{k}.alternatives[{number}].gap is {other['gap']:g}: negative")
    shares = {f"segmentations.{k}.stability": one["stability"] or () for k, one in values["segmentations"].items()}
    shares |= {f"boundary_frequency[{k}]": row for k, row in enumerate(values.get("boundary_frequency") or ())}
    for place, row in shares.items():
        if not all(0 <= share <= 1 for share in row):
            raise UsageError(f"{place} has a share that is not from 0 to 1")


def _check_segmentation(k: int, values: Mapping[str, Any], layers: int, least: int) -> None:
    for boundaries in (values["boundaries"], *(other["boundaries"] for other in values["alternatives"])):
        sizes = [stop - start for start, stop in pairwise((0, *boundaries, layers))]
        if len(sizes) != k or min(sizes) < least:
            raise UsageError(
                f"boundaries {shortened(str(boundaries), 60)} for k={k} do not cut {layers} layers into {k} phases of "
                f"{least} or more"
            )
    if values["stability"] is not None and len(values["stability"]) != k - 1:
        raise UsageError(f"the stability for k={k} is not a number for each of its boundaries")


def _check_beside(values: Mapping[str, Any], layers: int, most: int) -> None:
    """The frequency of boundaries, the evidence, and the public notebook's clusters."""
    evidence = values.get("evidence")
    if evidence:
        tested = 0 if evidence["untested"] else layers - 1
        check_test(evidence["alpha"], evidence["calibration"])
        if evidence["k"] != len(evidence["boundaries"]) + 1:
            raise UsageError(f"evidence.k is {evidence['k']} with {len(evidence['boundaries'])} boundaries")
        if {len(evidence[name]) for name in ("steps", "trend", "limit")} != {tested}:
            raise UsageError(f"evidence.steps, trend and limit are not {tested} numbers each")
        if any(not value > 0 for name in ("steps", "trend", "limit") for value in evidence[name]):
            raise UsageError("evidence.steps, trend and limit are not all above 0")
        ends = [one["layer"] for one in evidence["boundaries"]]
        if any(not 1 <= layer <= tested for layer in ends):
            raise UsageError(f"evidence.boundaries are not of the layers 1 to {tested}")
        if ends != sorted(set(ends)):
            raise UsageError(
                f"evidence.boundaries are of the layers {shortened(str(ends), 60)}: not each once and in order"
            )
        if bool(tested) is not bool(evidence["largest"]):
            raise UsageError("evidence.largest is there where there was no test, or missing where there was one")
        if tested and not 1 <= evidence["largest"]["layer"] <= tested:
            raise UsageError(f"evidence.largest is not of one of the layers 1 to {tested}")
    frequency = values.get("boundary_frequency")
    if frequency is not None and [len(row) for row in frequency] != [layers - 1] * most:
        raise UsageError(f"boundary_frequency is not {layers - 1} numbers for each k")
    recursive = values.get("recursive")
    if recursive and sorted(chain(*recursive["clusters"])) != list(range(1, layers + 1)):
        raise UsageError(f"recursive.clusters are not of the layers 1 to {layers}, each once")
    if recursive and not all(recursive["clusters"]):
        raise UsageError("recursive.clusters has one without a layer")

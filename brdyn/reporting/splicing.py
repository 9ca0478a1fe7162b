"""What stands in for layers in a report: as much as its size pays for, and as its images allow."""

from __future__ import annotations

from typing import Any

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.interventions import Splice
from brdyn.interventions.span_maps import FITTED, LINEAR, check_memory, tokens_lacking
from brdyn.interventions.splice_cells import every_span
from brdyn.interventions.splice_result import WORDS
from brdyn.interventions.splice_sums import R2
from brdyn.models import VisionTransformer
from brdyn.phases import Phases
from brdyn.reporting.found import Found
from brdyn.reporting.plan import ReportSettings


def images_to_fit(images: ImageSet, settings: ReportSettings) -> int:
    """How many images are left to fit to, beside those that are judged by."""
    size = settings.of_size
    return max(0, min(size.fitted, len(images) - size.spliced))


def splicing(
    model: VisionTransformer, images: ImageSet, phases: Phases, settings: ReportSettings
) -> tuple[dict[str, Any], list[str]]:
    """The options of :func:`brdyn.splice_skill`, and what these images or this memory do not allow.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
        All of the report; those that are judged by are left out.
    phases : Phases
    settings : ReportSettings
    """
    size, count = settings.of_size, images_to_fit(images, settings)
    whole = [(first - 1, last) for first, last in phases.intervals]
    lacking = {
        name: why for name in size.surrogates if name in FITTED and (why := _lacking(name, count, model)) is not None
    }
    able = [name for name in size.surrogates if name not in lacking]
    notes = [f"left out: {' and '.join(lacking)} ({next(iter(lacking.values()))})"] if lacking else []
    spans = whole
    if size.every_span:
        try:
            check_memory(model, every_span(model.depth), able)
            spans = every_span(model.depth)
        except UsageError as error:
            notes.append(f"of whole phases alone: {error}")
    within = size.within and any(first < last for first, last in phases.intervals)
    options: dict[str, Any] = {"surrogates": able, "spans": spans, "within": within}
    if any(name in FITTED for name in able):
        others = images.split(size.spliced, settings.seed)[0]
        options["fit_images"] = others.some(count, settings.seed)
    return options, notes


def _lacking(name: str, count: int, model: VisionTransformer) -> str | None:
    """Why so many images do not do for a map; None where they do."""
    if not count:
        return "there are no images besides those that are judged by"
    return tokens_lacking(count, model) if name in LINEAR else None


def whole_phases(found: Found) -> list[tuple[str, dict[str, tuple[float, float, float]]]]:
    """R² at the last layer, with its interval, of what stands in for each whole phase; nothing where nothing does.

    Doing nothing stands first. Maps are those that were fitted to all the images there were.
    """
    splice = found.of("splice", Splice)
    if splice is None or len(splice.spanning) < 2:
        return []
    rows = splice.whole_phases(R2)
    rows = rows[rows["calibration"].isin(splice.full["calibration"])]
    return [
        (
            f"blocks {first}–{last}" if last > first else f"block {first}",
            {
                WORDS[str(row["surrogate"])]: (row["mean"], row["low"], row["high"])
                for _, row in rows[rows["phase"] == number].iterrows()
            },
        )
        for number, (first, last) in enumerate(splice.phases.intervals, 1)
    ]

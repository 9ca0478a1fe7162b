"""Where numbers come from: the command, the versions, the device, the model, the images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from brdyn.checked_json import take
from brdyn.compared import Compared
from brdyn.environment import command, device_name, options_used, versions
from brdyn.words import counted

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer
    from brdyn.runtime import Processes
SKIPPED_SHOWN = 5
SHORT = ("model", "weights", "n_images", "command", "date", "device", "seconds", "seed")
SHAPE = {  # of a result file
    "model": str,
    "weights?": str,
    "n_images?": int,
    "skipped?": [{"name": str, "reason": str}],
    "unlabelled?": {"count": int, "first": [{"name": str, "reason": str}]},
    "provenance": {
        "model": {"layers": int, "width": int, "position_rule": str, "notes?": [str], "image_size?": [int]},
        "images": dict,
        "seconds": float,
    },
}


class Stopwatch:
    """Wall-clock seconds since it was made.

    Attributes
    ----------
    earlier : float
        Seconds to count besides: those of the sessions that a resumed run goes on from.
    """

    def __init__(self) -> None:
        self.earlier = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.earlier + time.perf_counter() - self._start


def run_provenance(device: str) -> dict[str, Any]:
    """The command, its options, the date, the versions, the device."""
    options = options_used()
    return {
        "command": command(),
        **({} if options is None else {"options": dict(options)}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device_name(device),
    }


def image_provenance(images: ImageSet) -> dict[str, Any]:
    """Which images were read."""
    return {
        "source": images.source.description,
        "in_source": len(images.source),
        "chosen": len(images),
        "read": images.report.count,
        "digest": f"{images.report.digest:064x}",
        "seed": images.seed,
        **images.source.chosen(),
        **images.settings(),
    }


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RunProvenance(Compared):
    """Where the result of a run comes from, whatever was run.

    Attributes
    ----------
    details : mapping
        Command, date, versions, device; of some kinds of results more.

    Examples
    --------
    >>> from brdyn.provenance import RunProvenance, run_provenance
    >>> sorted(RunProvenance(details=run_provenance("cpu")).details)
    ['command', 'date', 'device', 'versions']
    """

    details: Mapping[str, Any]

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self | None:
        """That of a result file; None where it has none, as that of a similarity that was not measured here.

        Raises
        ------
        ValueError
            If it is not of that shape.
        """
        if "provenance" not in content:
            return None
        take(content, {"provenance": dict})
        return cls(details=content["provenance"])

    def header(self) -> dict[str, Any]:
        """The first entries of a result file."""
        return {}

    def lasting(self, watch: Stopwatch) -> Self:
        """The same, of a run that began when the watch was started."""
        return replace(self, details={**self.details, "seconds": round(watch.seconds, 3)})

    @property
    def title(self) -> str:
        """Heading of pictures."""
        return ""

    @property
    def caption(self) -> str:
        """How many images of which size, below the heading of pictures."""
        return ""

    def lines(self, timed: bool = True, images: str = "") -> list[str]:
        """What was run, to print, with the seconds where they are asked for."""
        del timed, images
        return []

    def warnings(self) -> list[str]:
        """What nobody may overlook."""
        return []

    def short(self) -> dict[str, Any]:
        """The few entries that tell one run from another."""
        found = {**self.details, **self.header()}
        return {name: found[name] for name in SHORT if name in found}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Provenance(RunProvenance):
    """Where what was measured on a model comes from: everything needed to repeat it.

    Attributes
    ----------
    model, weights : str
        Their names.
    n_images : int
        That were read.
    skipped : tuple of mapping
        `name` and `reason` of images that could not be read.
    unlabelled : mapping
        `count` of images without a usable label, and the `first` of them.
    details : mapping
        Versions, model, images, seed, command, device, date, seconds.

    Examples
    --------
    >>> found = brdyn.layer_similarity(model, images).provenance
    >>> found.model, found.n_images, found.details["images"]["in_source"], found.is_random
    ('vit_tiny_patch16_224', 8, 8, True)
    """

    model: str
    weights: str
    n_images: int
    skipped: tuple[Mapping[str, str], ...]
    unlabelled: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: VisionTransformer,
        images: ImageSet,
        watch: Stopwatch,
        processes: Processes | None = None,
        **settings: Any,
    ) -> Provenance:
        """Of what was measured on these images with this model since the watch was started."""
        report = images.report
        details = {
            **run_provenance(model.device.type if processes is None else processes.device.type),
            "model": {
                **model.info.to_dict(),
                "token_groups": model.tokens.sizes(),
                "preprocessing": (images.turn or model.preprocessing).to_dict(),
            },
            "images": image_provenance(images),
            "dtype": model.precision,
            "processes": 1 if processes is None else processes.world,
            "seconds": round(watch.seconds, 3),
            **settings,
        }
        skipped = tuple(one._asdict() for one in report.skipped)
        unlabelled = report.unlabelled.to_dict()
        return cls(
            model=model.info.name,
            weights=model.info.weights,
            n_images=report.count,
            skipped=skipped,
            unlabelled=unlabelled,
            details=details,
        )

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self | None:
        """That of a result file, with the model and the images that its first entries tell."""
        if "provenance" not in content:
            return None
        take(content, SHAPE)
        return cls(
            model=content["model"],
            weights=content.get("weights", ""),
            n_images=content.get("n_images", 0),
            skipped=tuple(content.get("skipped", ())),
            unlabelled=content.get("unlabelled", {"count": 0, "first": []}),
            details=content["provenance"],
        )

    def header(self) -> dict[str, Any]:
        """The first entries of a result file."""
        return {
            "model": self.model,
            "weights": self.weights,
            "n_images": self.n_images,
            "skipped": [dict(one) for one in self.skipped],
            "unlabelled": dict(self.unlabelled),
        }

    @property
    def title(self) -> str:
        """Heading of pictures; untrained networks are marked."""
        return self.model + (" (random weights)" if self.is_random else "")

    @property
    def caption(self) -> str:
        """How many images of which size.

        >>> brdyn.layer_similarity(model, images).provenance.caption
        '8 images of 32 × 32 pixels'
        """
        return images_of(self.n_images, self.details["model"].get("image_size"))

    @property
    def is_random(self) -> bool:
        """Whether the weights are untrained."""
        return self.weights.startswith("random")

    def warnings(self) -> list[str]:
        """That the weights are untrained."""
        return ["** RANDOM WEIGHTS: an untrained network **"] if self.is_random else []

    def lines(self, timed: bool = True, images: str = "") -> list[str]:
        """What was run, and what was skipped.

        Parameters
        ----------
        timed : bool
            Tell the seconds: not where more was done than to go through the images once.
        images : str
            Which they are, where there are others: "training".
        """
        info, seconds = self.details["model"], self.details["seconds"]
        speed = ""
        if timed and seconds:
            speed = f" in {seconds:.1f} s with loading ({self.n_images / seconds:.1f} images/s)"
        return [
            f"{self.model}: {info['layers']} layers, width {info['width']}, weights from {self.weights}",
            f"positions: {info['position_rule']}",
            *(f"note: {note}" for note in info.get("notes", ())),
            f"{counted(self.n_images, f'{images} image'.lstrip())}{speed}",
            *chosen_line(self.details["images"]),
            *skipped_lines(self.skipped, self.unlabelled, images),
        ]


def images_of(count: int, size: Sequence[int] | None) -> str:
    """So many images of `(height, width)` pixels, where that is known.

    >>> from brdyn.provenance import images_of
    >>> images_of(1, (32, 48)), images_of(1000, None)
    ('1 image of 32 × 48 pixels', '1,000 images')
    """
    pixels = "" if size is None else f" of {' × '.join(str(side) for side in size)} pixels"
    return f"{count:,} image{'' if count == 1 else 's'}{pixels}"


def one_set(images: Mapping[str, Any] | None) -> str | None:
    """What is the same of images with one content and one labelling, wherever they lie; None where it is not known.

    >>> from brdyn.provenance import one_set
    >>> one_set({"digest": "1f", "labels": "a2", "source": "a folder"}), one_set({"images": 8})
    ('1f a2', None)
    """
    return None if not images or "digest" not in images else f"{images['digest']} {images.get('labels', '')}"


def chosen_line(images: Mapping[str, Any]) -> Iterator[str]:
    """Which columns and split of several were taken, in a line if there is any."""
    words = {"image_column": "images from column", "label_column": "labels from column", "split": "split"}
    said = [f"{what} {images[name]!r}" for name, what in words.items() if images.get(name) is not None]
    if said:
        yield ", ".join(said)


def skipped_lines(skipped: Sequence[Mapping[str, str]], unlabelled: Mapping[str, Any], images: str = "") -> list[str]:
    """Names of images that could not be read, or have no label; which images, where there are others: "test".

    >>> from brdyn.provenance import skipped_lines
    >>> skipped_lines([{"name": "a.png", "reason": "truncated"}], {"count": 0}, "test")[1]
    '  1 unreadable test image skipped in all; the JSON names them'
    """
    lines, image = [], f"{images} image".lstrip()
    if unlabelled["count"]:
        first = unlabelled["first"][0]
        lines.append(
            f"  {counted(unlabelled['count'], image)} without a label (the first, {first['name']}: {first['reason']}): "
            "left out of all that needs labels; the JSON names them"
        )
    lines += [f"  skipped {one['name']}: {one['reason']}" for one in skipped[:SKIPPED_SHOWN]]
    if skipped:
        lines.append(f"  {counted(len(skipped), f'unreadable {image}')} skipped in all; the JSON names them")
    return lines


def skipped_of(part: Mapping[str, Any], images: str) -> list[str]:
    """The same of one of several sets, as a result tells of it; an earlier version may have left it out."""
    return skipped_lines(part.get("skipped", ()), part.get("unlabelled", {"count": 0}), images)

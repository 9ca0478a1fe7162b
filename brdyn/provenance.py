"""Where numbers come from: the command, the versions, the device, the model, the images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from brdyn.environment import command, device_name, versions

if TYPE_CHECKING:
    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer
    from brdyn.runtime import Processes


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


def run_provenance(device: str, program: Sequence[str] = ("brdyn",)) -> dict[str, Any]:
    """The command (`program` and what follows it in this process), the date, the versions and the device."""
    return {
        "command": command(program),
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
    }


def provenance(
    model: VisionTransformer,
    images: ImageSet,
    processes: Processes,
    seconds: float,
    **settings: Any,
) -> dict[str, Any]:
    """Everything needed to repeat a run: versions, model, weights, data, seed, command, device, date."""
    return {
        **run_provenance(processes.device.type),
        "model": {
            **model.info.to_dict(),
            "token_groups": model.tokens.sizes(),
            "preprocessing": model.preprocessing.to_dict(),
        },
        "images": image_provenance(images),
        "dtype": model.precision,
        "processes": processes.world,
        "seconds": round(seconds, 3),
        **settings,
    }

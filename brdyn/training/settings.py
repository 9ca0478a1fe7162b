"""How something is trained, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brdyn.arguments import checked
from brdyn.choices import Precision, dtype_name, one_of
from brdyn.errors import UsageError
from brdyn.words import printable, shortened

PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ADAMW, MUON = "adamw", "muon"
SHOWN = 60
MOST_STEPS = 2**31 - 1
DIGESTS = (
    "digest",
    "indices",
    "labels",
)  # of files beside their `source`: their contents, which of them, classes


@checked
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Steps, optimizer, schedule and upkeep of one stage of training.

    The learning rate rises linearly over `warmup` steps; from there it falls along a cosine, to `min_lr` at the last.

    Attributes
    ----------
    steps : int
        Optimizer steps.
    batch_size : int
        Images of a step over all processes.
    lr, min_lr, weight_decay : float
        Of the optimizer.
    optimizer : {"adamw", "muon"}
        Muon is for the weights of linear maps, at a rate that moves them as far as AdamW would; all else has AdamW.
    warmup : int
    clip : float
        Largest gradient norm of each part; 0 for no clipping.
    accumulate : int
        Pieces that a process's share of a batch goes through the model in.
    precision : {"float32", "bfloat16"}
        bfloat16 by autocast; weights stay float32.
    ema : float
        Decay of an exponential moving average of the weights, which begins with those of the start; 0 for none.
    ema_warmup : bool
        Let the decay rise to that (timm's warm-up, 1 - step^(-2/3)): a short run is not averaged with its start.
    compile : bool
        Compile the trained parts.
    seed : int
    log_every, validate_every, checkpoint_every : int
        Steps. A loss that is not finite is noticed when it is logged.

    Examples
    --------
    >>> from brdyn.training import TrainSettings
    >>> TrainSettings(steps=100, lr=1e-3).to_dict()["min_lr"]
    1e-06
    >>> TrainSettings(steps=0)
    Traceback (most recent call last):
    ...
    brdyn.errors.UsageError: steps 0 is not positive
    """

    steps: int
    batch_size: int = 64
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 1e-4
    warmup: int = 0
    clip: float = 1.0
    accumulate: int = 1
    precision: Precision = "float32"
    ema: float = 0.0
    ema_warmup: bool = False
    compile: bool = False
    seed: int = 0
    optimizer: str = ADAMW
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        positive = ("steps", "batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', '-')} {getattr(self, name)} is not positive")
        if self.steps > MOST_STEPS:
            raise UsageError(f"{self.steps:.3g} steps are more than {MOST_STEPS}; ask for fewer steps or epochs")
        for name in ("lr", "min_lr", "weight_decay", "warmup", "clip"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name.replace('_', '-')} {getattr(self, name)} is negative")
        object.__setattr__(self, "precision", dtype_name(self.precision))
        one_of("precision", self.precision, PRECISIONS)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema {self.ema} is not from 0 (none) to below 1")
        if self.batch_size < self.accumulate:
            raise UsageError(f"a batch of {self.batch_size} cannot be split into {self.accumulate} pieces")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two nested sets of options, as `lr: 0.001 before, 0.002 now`.

    Files that have a digest are the same where it is, wherever they lie. Earlier versions noted less of what has a
    `source` or a `digest`: what they did not note is not compared.
    """
    found = []
    unknown = {
        name
        for name in now
        if (name not in before and {"source", "digest"} & set(before))
        or ("source" in before and name in DIGESTS and not before[name])
    }
    moved = {"source"} if before.get("digest") and now.get("digest") else set()
    for name in sorted({*before, *now} - unknown - moved):
        first, second = before.get(name), now.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += differences(first, second, f"{prefix}{name}.")
        elif _as_read(first) != _as_read(second):
            was, is_now = (shortened(printable(_short(one)), SHOWN) for one in (first, second))
            found.append(f"{prefix}{shortened(name, SHOWN)}: {was} before, {is_now} now")
    return found


def lacks_digests(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether options are of an earlier version, that did not note which files it read."""
    return any(
        (name in DIGESTS and "source" in before and bool(value) and not before.get(name))
        or (isinstance(value, Mapping) and isinstance(before.get(name), Mapping) and lacks_digests(before[name], value))
        for name, value in now.items()
    )


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], place: str | Path) -> None:
    """Refuse to go on with a run of other options.

    Raises
    ------
    UsageError
        With the options that changed.
    """
    changed = differences(before, now)
    if changed:
        raise UsageError(
            f"{str(place)!r} is of a run with other options ({'; '.join(changed)}); resume with the same, or choose "
            "another `out`"
        )


def _short(value: Any) -> str:
    """A value in words, a SHA-256 by its beginning."""
    return f"{value[:12]}…" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else str(value)


def _as_read(value: Any) -> Any:
    """As JSON gives it back: a tuple is a list, and a name that is no UTF-8 is escaped."""
    if isinstance(value, list | tuple):
        return [_as_read(one) for one in value]
    return printable(value) if isinstance(value, str) else value

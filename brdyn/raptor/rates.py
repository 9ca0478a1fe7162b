"""Which learning rates a fit should have: short fits tell, before the long one. How large they may be is a matter of
the teacher, and the usual ones can be far from it (the guide's page of recorded Raptors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from brdyn.data import ImageSet
from brdyn.errors import DivergedError, UsageError
from brdyn.progress import tell
from brdyn.raptor.fidelity import fidelity
from brdyn.raptor.model import Raptor
from brdyn.raptor.recipe import FitSettings
from brdyn.trajectory import Stream

SHARE = 0.1  # of the steps of a fit that each trial takes
FEWEST = 20  # steps of a stage in a trial, of which longer ones have as many
FACTOR = 4.0  # from one trial to the next: finer steps gain little, and cost more trials
LEAST, MOST = 1 / 16, 64.0  # times the usual rates
TRIED = [{"times": float, "lr": float, "stage2_lr": float, "r2": (float, None)}]  # in fit.json and checkpoints

Fitted = Callable[[FitSettings], Raptor]


def tried_rates(settings: FitSettings, held_out: ImageSet | None, fit: Fitted) -> list[dict[str, Any]]:
    """Climb from the usual rates: up by factors of four while R² of the last layer rises, and down where it does not.

    Parameters
    ----------
    settings : FitSettings
        Of the long fit.
    held_out : ImageSet or None
        Images that no trial learns from.
    fit : callable
        Makes a Raptor by other settings, which are those of a trial.

    Returns
    -------
    list of dict
        `times` the usual rates, `lr` of stage 1, `stage2_lr`, and `r2` on the images kept out, None where the trial
        diverged; in the order in which they were tried.

    Raises
    ------
    UsageError
        If no images are kept out.
    DivergedError
        If every trial diverges.

    Examples
    --------
    >>> from brdyn.raptor import FitSettings
    >>> from brdyn.raptor.rates import trial
    >>> short = trial(FitSettings(stage1_steps=1000, stage2_steps=500, lr=1e-3, stage2_lr=3e-4), 4)
    >>> short.stage1_steps, short.stage2_steps, short.lr, short.stage2_lr
    (100, 50, 0.004, 0.0012)
    """
    if held_out is None:
        raise UsageError(
            "`try_rates` judges by images kept out, and of so few none are; give more, or `validation_images`"
        )

    def at(times: float) -> dict[str, Any]:
        short = trial(settings, times)
        try:
            found = float(fidelity(fit(short), held_out, Stream(workers=0)).curve("r2").iloc[-1])
            r2 = found if isfinite(found) else None
        except DivergedError:
            r2 = None
        said = "it diverges" if r2 is None else f"R² {r2:.3f} on images kept out"
        tell(f"{times:g} times the usual learning rates, {short.stage1_steps + short.stage2_steps} steps: {said}")
        return {"times": times, "lr": short.lr, "stage2_lr": short.stage2_lr, "r2": r2}

    rows = [at(1.0)]
    for factor in (FACTOR, 1 / FACTOR):
        times = factor
        while LEAST <= times <= MOST:
            before = max(map(_height, rows))
            rows.append(at(times))
            diverged = rows[-1]["r2"] is None
            if _height(rows[-1]) <= before and not (diverged and factor < 1):
                break
            times *= factor
        if best(rows)["times"] > 1:
            break
    if best(rows)["r2"] is None:
        raise DivergedError(
            f"all {len(rows)} short fits diverged; give a smaller learning rate (`lr`), or precision float32"
        )
    return rows


def _height(row: Mapping[str, Any]) -> float:
    return -float("inf") if row["r2"] is None else float(row["r2"])


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The trial that came nearest to the teacher, the first of equal ones."""
    return max(rows, key=_height)


def trial(settings: FitSettings, times: float) -> FitSettings:
    """A short fit by the recipe of a long one, at so many times its rates."""
    first, second = (_short(steps) for steps in (settings.stage1_steps, settings.stage2_steps))
    lr, stage2_lr = (times * settings.training(stage).lr for stage in (1, 2))
    return replace(settings, stage1_steps=first, stage2_steps=second, lr=lr, stage2_lr=stage2_lr, try_rates=False)


def _short(steps: int) -> int:
    return max(min(steps, FEWEST), round(SHARE * steps))


def with_rates(settings: FitSettings, rows: Sequence[Mapping[str, Any]]) -> FitSettings:
    """The long fit at the rates that did best."""
    found = best(rows)
    return replace(settings, lr=found["lr"], stage2_lr=found["stage2_lr"], try_rates=False)


def in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which rates were taken, and of which."""
    taken = best(rows)
    r2 = ("diverged" if row["r2"] is None else f"{row['r2']:.3f}" for row in rows)
    others = ", ".join(f"{row['times']:g} times {said}" for row, said in zip(rows, r2, strict=True))
    rates = f"{taken['lr']:.3g} and {taken['stage2_lr']:.3g}, {taken['times']:g} times the usual ones"
    return f"learning rates {rates}; R² of the short fits: {others}"

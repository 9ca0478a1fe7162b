"""Names and numbers that options choose from, where they can be checked before torch is imported (seconds)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brdyn.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
INITS = ("pretrained", "random")
SIMILARITIES = ("cosine", "token-cosine", "cka", "procrustes")
CURVES = ("norm", "convergence", "speed", "turning", "update", "estimation")
MEASURES = (*CURVES, "basins", "modes")
KINDS = ("swap", "delete", "shuffle", "replace")


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """The name, if it is among the choices.

    Raises
    ------
    UsageError
        `unknown device 'gpu'; choose one of auto, cpu, cuda, mps`.
    """
    choices = tuple(choices)
    if name not in choices:
        raise UsageError(f"unknown {what} {name!r}; choose one of {', '.join(choices)}")
    return name


def some_of(what: str, names: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """The names, each once and in the order of the choices.

    Raises
    ------
    UsageError
        If one is not among the choices, or there is none.
    """
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        named = ", ".join(map(repr, unknown)) or "none"
        raise UsageError(f"unknown {what} {named}; choose from {', '.join(choices)}")
    return tuple(name for name in choices if name in names)


def check_eps(eps: Sequence[float]) -> None:
    """Refuse a size of the noise that is negative or not finite, or none at all."""
    bad = [value for value in eps if not 0 <= value < float("inf")]
    if bad or not len(eps):
        raise UsageError(
            f"eps {bad[0] if bad else 'is empty'}: the relative size of the noise is a number from 0 up"
        )


def separated(text: str) -> list[str]:
    """`a, b` as its parts."""
    return [part.strip() for part in text.split(",")]

"""The questions of a report, and what an answer to one is made of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from brdyn.words import counted, with_interval

YES, NO, UNCLEAR, MISSING = "yes", "no", "unclear", "not measured"
NONE = "none found"  # by a test, which may have missed some
FAITHFUL = 0.9  # R² at every layer, from which a Raptor counts as a copy
HALF = 0.5
ALPHA = 0.05
MANY = 19  # twins, the fewest among which a model can be apart at that level
FEW = 30  # images, below which a normal interval of a mean is rough
QUESTIONS = {
    "phases": "Does its depth fall into phases?",
    "block": "Can one block do the work of a phase?",
    "work": "Does one layer do another's work?",
    "stretch": "Do the layers of a phase stretch the same directions?",
    "converge": "Do tokens come to rest?",
    "repair": "Are perturbations repaired?",
    "twins": "What is different from untrained twins?",
}
GUIDES = {
    "phases": "phases",
    "block": "raptor",
    "work": "splice",
    "stretch": "dynamics/spectra",
    "converge": "dynamics",
    "repair": "perturbation",
    "twins": "dynamics",
    "use": "interventions",
}


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes
    ----------
    question : str
        A key of :data:`QUESTIONS`.
    answer : {"yes", "no", "none found", "unclear", "not measured"}
    short : str
        The answer in a few words, for a table.
    sentence : str
        The evidence.
    change : str
        What would change the answer.

    Examples
    --------
    >>> from brdyn.reporting import Finding
    >>> Finding("phases", "no", "none", "a smooth drift explains all steps", "another similarity").answer
    'no'
    """

    question: str
    answer: str
    short: str
    sentence: str
    change: str


def few(images: int) -> str:
    """A warning where there are too few images for an interval of a mean."""
    return f" ({counted(images, 'image')}: {warning})" if (warning := roughness(images)) else ""


def of_row(row: pd.Series) -> str:
    """The value of a row of a table, and its interval where there is one."""
    return with_interval(row["mean"], row["low"], row["high"])


def roughness(images: int) -> str:
    """What is wrong with an interval of a mean over so many images; empty where nothing is."""
    if images == 1:
        return "there is no interval"
    return "intervals are rough" if images < FEW else ""

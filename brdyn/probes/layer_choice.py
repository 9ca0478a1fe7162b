"""Which layers to read: all of them, some, or the best few by score on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brdyn.arguments import checked
from brdyn.choices import check_layers
from brdyn.errors import UsageError

KEY = ["model", "place", "probe"]
Place = tuple[int, ...]
CHOSEN, SINGLE = "chosen", "best single"
REGULAR, PHASE_ENDS = "regular", "phase ends"


@dataclass(frozen=True)
class LayersAsked:
    """What `--layers` says.

    Attributes
    ----------
    numbers : tuple of int or None
        None for all.
    choose : int
        How many to choose; 0 for no choice.

    Examples
    --------
    >>> from brdyn.probes import LayersAsked
    >>> LayersAsked.parse("3,7,12").of(12), LayersAsked.parse("last").of(12), LayersAsked.parse("choose:4").choose
    ((3, 7, 12), (12,), 4)
    """

    numbers: Place | None
    choose: int = 0

    @classmethod
    @checked
    def parse(cls, layers: str | int | Sequence[int]) -> LayersAsked:
        """From an option, or numbers.

        Raises
        ------
        UsageError
            If it is none of the forms.
        """
        if not isinstance(layers, str):
            layers = ",".join(map(str, layers if isinstance(layers, Iterable) else [layers]))
        return cls(*check_layers(layers))

    def of(self, depth: int, name: str = "the model") -> Place:
        """The layers of a model with so many.

        Raises
        ------
        UsageError
            If it has not so many.
        """
        numbers = range(1, depth + 1) if self.numbers is None else self.numbers
        found = tuple(sorted(depth if number == -1 else number for number in numbers))
        if found[-1] > depth or self.choose > depth:
            wrong = f"layer {found[-1]}" if found[-1] > depth else f"{self.choose} layers to choose"
            raise UsageError(f"{name} has the layers 0 to {depth}, and not {wrong}; give other `layers`")
        return found


def called(place: Place) -> str:
    """`7`, or `4+8+12`."""
    return "+".join(map(str, place))


def greedy(layers: Sequence[int], most: int, scores: Callable[[list[Place]], np.ndarray]) -> list[Place]:
    """The best single layer, the best pair that has it, and so on, up to `most`.

    Parameters
    ----------
    layers : sequence of int
    most : int
    scores : callable
        Of places with as many layers each; more is better. Of two that are as good the deeper is kept.

    Examples
    --------
    >>> from brdyn.probes.layer_choice import greedy
    >>> greedy([1, 2, 3], 2, lambda places: np.array([{2, 3} >= set(one) for one in places], float))
    [(3,), (2, 3)]
    """
    found: list[Place] = []
    for _ in range(most):
        kept = found[-1] if found else ()
        candidates = [tuple(sorted((*kept, layer))) for layer in layers if layer not in kept]
        values = scores(candidates)
        found.append(candidates[len(candidates) - 1 - int(np.argmax(values[::-1]))])
    return found


def by_held_out(rows: pd.DataFrame, runs: pd.DataFrame, sign: int) -> pd.Series | None:
    """The row that held-out images choose, of equals the deepest; None where no held-out images chose.

    Parameters
    ----------
    rows : DataFrame
        Of :attr:`LayerProbe.scores`.
    runs : DataFrame
        With the score on held-out images of each seed, in `held_out`.
    sign : int
        1 where more of that is better, -1 where less is.

    Examples
    --------
    >>> import pandas as pd
    >>> from brdyn.probes.layer_choice import KEY, by_held_out
    >>> rows = pd.DataFrame([["a ViT", place, "linear"] for place in ("1", "2", "3")], columns=KEY)
    >>> runs = rows.assign(held_out=[0.7, 0.9, 0.9])
    >>> by_held_out(rows, runs, 1)["place"], by_held_out(rows, runs, -1)["place"]
    ('3', '1')
    """
    if len(rows) == 1:
        return rows.iloc[0]
    held_out = runs.dropna(subset="held_out").groupby(KEY)["held_out"].mean()
    known = rows.join(held_out, on=KEY).dropna(subset="held_out")
    deepest = known["place"].str.split("+").str[-1].astype(int)
    order = known.assign(deepest=deepest, good=sign * known["held_out"].astype(float))
    best = order.sort_values(["good", "deepest"], ascending=False, kind="stable").index
    return rows.loc[best[0]] if len(best) else None


def alternatives(depth: int, most: int, ends: Sequence[int] | None) -> dict[str, Place]:
    """What people read instead: the last layers, layers at regular distances, the ends of phases.

    >>> from brdyn.probes.layer_choice import alternatives
    >>> alternatives(12, 4, [3, 8])
    {'last 4': (9, 10, 11, 12), 'regular': (3, 6, 9, 12), 'phase ends': (3, 8, 12)}
    """
    found = {
        f"last {most}": tuple(range(depth - most + 1, depth + 1)),
        REGULAR: tuple(round(depth * (step + 1) / most) for step in range(most)),
    }
    if ends is not None:
        found[PHASE_ENDS] = (*ends, depth)
    return found

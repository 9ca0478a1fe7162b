"""What :func:`brdyn.measures.dynamics.token_dynamics` asks of a measure, and the measures there are.

A measure is one file with a class, and one line in :data:`brdyn.choices.MEASURES`. It says what it needs of images,
makes itself for a model, is fed with trajectories like every torchmetrics `Metric`, and gives rows for the table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from torchmetrics import Metric

from brdyn.choices import KRYLOV_STEPS, MEASURES, TANGENTS
from brdyn.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from brdyn.data import ImageSet
    from brdyn.models import VisionTransformer

COLUMNS = ("statistic", "unit", "group", "layer", "mean", "low", "high", "sd", "n_images")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a pass was asked for.

    Attributes
    ----------
    boundaries : tuple of int or None
        Of the phases; None where they are found in the same pass.
    seed : int
        Of samples and bootstraps.
    ridge : float
    rank : int or None
        Of linear fits.
    tangents, krylov_steps : int
        Of spectra.
    label_names : tuple of str or None
        Of the classes of the images, by label; None where they have no names.
    """

    boundaries: tuple[int, ...] | None
    seed: int
    ridge: float
    rank: int | None
    tangents: int = TANGENTS
    krylov_steps: int = KRYLOV_STEPS
    label_names: tuple[str, ...] | None = None


class Details(Protocol):
    """What a measure found besides rows of the table, with its place in dynamics.json and in files of its own."""

    @property
    def rows(self) -> pd.DataFrame:
        """For the table; it may have none."""

    def to_dict(self) -> dict[str, Any]:
        """For dynamics.json, under the name of the measure."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables in files of their own."""

    @classmethod
    def from_content(cls, content: Mapping[str, Any], table: pd.DataFrame, folder: Path) -> Self:
        """Back from what :meth:`to_dict` gave, the whole table and the files in a folder."""


class DepthMeasure(Metric):
    """Base of the measures over depth.

    Examples
    --------
    >>> from brdyn.measures.contract import measure_class
    >>> measure_class("basins").missing(images) is None  # these images have labels
    True
    """

    DETAILS: ClassVar[type[Details] | None] = None
    needs_branches: ClassVar[bool] = False  # whether trajectories have to say what attention and the MLP add

    @classmethod
    def missing(cls, images: ImageSet) -> str | None:
        """Why these images cannot give the measure, as far as is known before any is read; None if they can."""
        del images
        return None

    @classmethod
    @abstractmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        """One for a model.

        Raises
        ------
        UsageError
            If the model allows none, or memory.
        """

    def table(self, boundaries: Sequence[int] = ()) -> pd.DataFrame:
        """Rows with the columns `COLUMNS`, of all images that were seen, for these phases; those of the details."""
        details = self.details(boundaries)
        assert details is not None  # of a measure that makes no rows itself
        return details.rows

    def withheld(self) -> str | None:
        """Why the model gives none of it, before or after images were seen; None where it does.

        Such a measure is left out and the others go on, also where it was asked for by name.
        """
        return None

    def details(self, boundaries: Sequence[int]) -> Details | None:
        """What does not fit the table.

        Raises
        ------
        UsageError
            If the images that were seen do not allow it.
        """
        del boundaries
        return None


def updates_from_1(table: pd.DataFrame, layers: int) -> pd.DataFrame:
    """A table of a schema below 2, which counts the updates of so many layers from 0, with updates from 1 to L.

    >>> import pandas as pd
    >>> from brdyn.measures.contract import updates_from_1
    >>> rows = [("norm", 0), ("norm", 1), ("norm", 2), ("speed", 0), ("speed", 1), ("turning", 0)]
    >>> updates_from_1(pd.DataFrame(rows, columns=["statistic", "layer"]), 2)["layer"].tolist()
    [0, 1, 2, 1, 2, 1]
    """
    layer = table.groupby("statistic")["layer"]
    of_updates = (layer.transform("min") == 0) & (layer.transform("max") < layers)
    return table.assign(layer=table["layer"] + of_updates)


def measure_class(name: str) -> type[DepthMeasure]:
    """The class of a measure by its name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in MEASURES:
        raise UsageError(f"unknown measure {name!r}; choose from {', '.join(MEASURES)}")
    home, _, kind = MEASURES[name].partition(":")
    return getattr(import_module(home), kind)

"""The similarity between the layers of a network, which is all that phases are found from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from brdyn.arguments import checked
from brdyn.checked_json import JsonError
from brdyn.errors import UsageError
from brdyn.phases.matrices import of_layers
from brdyn.result import Result

GIVEN = "a matrix that was given"
NOT_KEPT = "none (samples are not kept in files)"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class LayerSimilarity(Result):
    """Similarity between the outputs of all pairs of blocks.

    Attributes
    ----------
    kind : str
        The measure.
    tokens : str
        Token groups it was taken on, joined by `+`.
    matrix : ndarray, shape (L, L)
        Mean over images; symmetric, ones on the diagonal.
    replicates : ndarray, shape (R, L, L), or None
        The same on R bootstrap samples of the units; None where the measure has none, or it was read from a file.
    unit : str
        What was resampled; begins with `none` where nothing was, and says why.
    n_images : int
        Images it was computed from.

    Examples
    --------
    >>> similarity = brdyn.layer_similarity(model, images)
    >>> similarity.kind, similarity.tokens, similarity.n_images
    ('cosine', 'cls+patches', 8)
    >>> bool((similarity.matrix.diagonal() == 1).all())
    True
    """

    FILE: ClassVar[str] = "similarity.json"
    SHAPE: ClassVar[Mapping[str, Any]] = {
        "similarity": {"kind": str, "tokens": str, "matrix": [[float]]},
        "n_images?": int,
    }

    kind: str
    tokens: str
    matrix: np.ndarray
    replicates: np.ndarray | None
    unit: str
    n_images: int

    def content(self) -> dict[str, Any]:
        """Kind, tokens and matrix; bootstrap samples are not kept."""
        return {"similarity": {"kind": self.kind, "tokens": self.tokens, "matrix": self.matrix}}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Back from a similarity.json or a phases.json."""
        found = content["similarity"]
        rows = found["matrix"]
        if not rows or {len(row) for row in rows} != {len(rows)}:
            raise JsonError("similarity.matrix is not square")
        resampled = content.get("provenance", {}).get("bootstrap", {})
        unit = resampled.get("unit", NOT_KEPT) if isinstance(resampled, Mapping) else NOT_KEPT
        return cls(found["kind"], found["tokens"], np.array(rows), None, str(unit), content.get("n_images", 0))

    @property
    def measured(self) -> str:
        """Which similarity of which tokens."""
        return f"{self.kind} of {self.tokens}"

    def answer(self) -> str:
        """How like neighbours and ends are."""
        near = np.diagonal(self.matrix, 1)
        if not len(near):
            return f"similarity ({self.kind} of {self.tokens}): one layer has no neighbour"
        return (
            f"similarity ({self.kind} of {self.tokens}): neighbouring layers {near.min():.3f} to {near.max():.3f}, the "
            f"first and the last {self.matrix[0, -1]:.3f}"
        )

    def overview(self) -> list[dict[str, Any]]:
        """The least and the most alike neighbours, and the ends."""
        near = np.diagonal(self.matrix, 1)
        if not len(near):
            return []
        pairs = {"least alike neighbours": int(near.argmin()), "most alike neighbours": int(near.argmax())}
        rows = [
            {"layers": f"{at + 1} and {at + 2}", "similarity": float(near[at]), "they are": what}
            for what, at in pairs.items()
        ]
        ends = {
            "layers": f"1 and {len(self.matrix)}",
            "similarity": float(self.matrix[0, -1]),
            "they are": "the ends",
        }
        return [*rows, ends]

    def brief(self) -> str:
        """Measure, size, images."""
        return f"{self.kind} of {self.tokens}, {len(self.matrix)} layers, {self.n_images} images"


def checked_similarity(similarity: LayerSimilarity | np.ndarray) -> LayerSimilarity:
    """A similarity of layers, or a matrix of them, in float64.

    Raises
    ------
    UsageError
        If it is no square, finite and symmetric matrix, or its replicates are not of its size.
    """
    if isinstance(similarity, np.ndarray):
        similarity = LayerSimilarity(GIVEN, "no tokens of a model", similarity, None, f"none ({GIVEN})", 0)
    matrix, replicates = of_layers(similarity.matrix, "similarity"), similarity.replicates
    if not np.allclose(matrix, matrix.T, atol=1e-6):
        raise UsageError("the similarity matrix is not symmetric; average it with its transpose")
    if replicates is not None and not len(replicates):
        replicates = None
    if replicates is not None:
        replicates = of_layers(replicates, "bootstrap replicates", leading=1)
        if replicates.shape[1:] != matrix.shape:
            raise UsageError(
                f"the bootstrap replicates are of {replicates.shape[-1]} layers, and the similarity of {len(matrix)}; "
                "give those of the same model, or none"
            )
    return replace(similarity, matrix=matrix, replicates=replicates)

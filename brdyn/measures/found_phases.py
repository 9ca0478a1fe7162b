"""The phases that a measurement refers to: given, or found in the same pass. One rule for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from brdyn.data import ImageSet
from brdyn.errors import UsageError
from brdyn.measures.engine import layer_similarity, similarity_metric
from brdyn.measures.similarity import SimilarityMetric
from brdyn.models import VisionTransformer
from brdyn.phases import Phases, as_phases, check_request, segment
from brdyn.trajectory import Stream
from brdyn.words import counted


class FoundPhases:
    """Phases that are given, or a measure to find them by in the pass that measures something else.

    Found ones are cut from the cosine similarity of cls and mean patch, with bootstrap samples for their stability.

    Parameters
    ----------
    model : VisionTransformer
    phases : Phases, sequence of int, or None
        As of :func:`brdyn.phases.as_phases`.
    k : int or None
        Their number.
    seed : int
        Of the bootstrap.

    Raises
    ------
    UsageError
        If k is impossible, or the phases are of another number of layers.
    """

    def __init__(
        self, model: VisionTransformer, phases: Phases | Sequence[int] | None, k: int | None, seed: int
    ) -> None:
        check_request(k, model.depth, name=repr(model.info.name))
        self.given = given_phases(model, phases, k)
        self._k = k
        self._metric = None if self.given is not None else similarity_metric("cosine", model, seed=seed)

    @property
    def metrics(self) -> dict[str, SimilarityMetric]:
        """What has to see the images, by name; nothing where phases are given."""
        return {} if self._metric is None else {"similarity": self._metric}

    def result(self) -> Phases:
        """The phases, once the images were seen."""
        if self.given is not None:
            return self.given
        assert self._metric is not None
        return segment(self._metric.result(), self._k)


def find_phases(
    model: VisionTransformer,
    images: ImageSet,
    phases: Phases | Sequence[int] | None = None,
    k: int | None = None,
    *,
    seed: int = 0,
    stream: Stream | None = None,
) -> Phases:
    """The phases that are given, or found in a pass over the images, where they are needed before all else.

    Parameters
    ----------
    model : VisionTransformer
    images : ImageSet
    phases : Phases or sequence of int, optional
        As of :func:`brdyn.phases.as_phases`.
    k : int, optional
        Their number.
    seed : int
        Of the bootstrap.
    stream : Stream, optional
        How to go through the images.

    Raises
    ------
    UsageError
        If k is impossible, or the phases are of another number of layers.
    """
    check_request(k, model.depth, name=repr(model.info.name))
    given = given_phases(model, phases, k)
    return given if given is not None else segment(layer_similarity(model, images, seed=seed, stream=stream), k)


def given_phases(
    model: VisionTransformer, phases: Phases | Sequence[int] | None, k: int | None = None
) -> Phases | None:
    """Those that are given, with `k` of them.

    Raises
    ------
    UsageError
        If they do not fit the model, or boundaries are given that cut it into another number of phases.
    """
    if phases is None:
        return None
    found = as_phases(phases, model.depth, repr(model.info.name))
    if k is None or isinstance(phases, Phases):
        return found if k is None else found.with_k(k)
    if k != found.k:
        raise UsageError(f"`k={k}` and boundaries of {counted(found.k, 'phase')} exclude each other; drop one of them")
    return found

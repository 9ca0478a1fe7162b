"""What a map does that is applied again and again: it comes to rest, to a cycle, or to neither.

Method notes, section 10. The map is a block beyond its phase, or a recursion step beyond those that were trained; it
is the same at every application past them, so that a fixed point is one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from brdyn.measures.kinematics import angles_of_steps
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.measures.sampling import normal_like
from brdyn.models import TokenLayout
from brdyn.trajectory import Trajectory

PERIODS = 4  # of the longest cycle that is looked for
STILL = 0.1  # of the mean step: what moves less in one period is at rest
PRODUCTS = 32  # of the Jacobian with a vector; the first half leads to its leading direction
ALL = "all"
RAN_AWAY = -1
ENDS = {
    "limit": 1,
    **{f"cycle_{period}": period for period in range(2, PERIODS + 1)},
    "neither": 0,
    "ran_away": RAN_AWAY,
}
SHARE = "share of images"
SHARES = ("agreement", "accuracy")  # of what is read: an image has 0 or 1 of each
MOVES = {
    "step": "step over the state's norm",
    "turn": "turning of a token (radians)",
    "distance": "distance to the end over its norm",
}
RADIUS = Statistic("radius", "spectral radius", 1, 1)


class Repeated(NamedTuple):
    """A map that is applied again and again to the states of a batch.

    Attributes
    ----------
    start : Tensor
        States `(B, N, D)` that it is applied to.
    apply : callable
        Takes a state and the number of the application, from 1.
    read : callable
        Takes the state after an application, and its number; gives one number per image `(B,)` by the name of what is
        read, NaN where there is none; nothing where it is not read.
    """

    start: Tensor
    apply: Callable[[Tensor, int], Tensor]
    read: Callable[[Tensor, int], Mapping[str, Tensor]]


class FixedPointMetric(PerImageMetric):
    """Follows a map for so many applications: how far each moves the states, where they end, and how it acts there.

    Two passes, so that two states and the last few are in memory, however many applications there are.

    Parameters
    ----------
    layout : TokenLayout
        Of the states.
    applications : int
        T, at least 2.
    readings : mapping of str to str
        What is read, and its unit.
    seed : int
        Of the vectors that the Jacobian is multiplied with.
    """

    def __init__(
        self,
        layout: TokenLayout,
        applications: int,
        readings: Mapping[str, str],
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.applications, self.readings = applications, dict(readings)
        super().__init__(layout, applications, **kwargs)
        self.seed = seed

    @abstractmethod
    def begin(self, trajectory: Trajectory) -> Repeated:
        """The map, and the states that it begins with."""

    def groups(self) -> tuple[str, ...]:
        """Each group, and all tokens together."""
        return (*self.layout.groups, ALL)

    def statistics(self) -> tuple[Statistic, ...]:
        """By application: `step`, `turn`, `distance`, what is read; once: the spectral radius, and shares of ends."""
        moving = {**MOVES, **self.readings}
        return (
            *(Statistic(name, unit, 1, self.applications, share=name in SHARES) for name, unit in moving.items()),
            RADIUS,
            *(Statistic(name, SHARE, 1, 1, share=True) for name in ENDS),
        )

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """Follow the states of a batch twice: to their ends, and by how far they are from them."""
        repeated = self.begin(trajectory)
        with torch.no_grad():
            periods, last = _ends(repeated, self.applications)
            values = self._moves(repeated, periods, last)
            radius = spectral_radius(
                lambda state: repeated.apply(state, self.applications),
                last[-1],
                normal_like(last[-1], trajectory.positions, self.seed),
            )
        once = {"radius": radius, **{name: (periods == number).double() for name, number in ENDS.items()}}
        return {**values, **{(name, ALL): value[None] for name, value in once.items()}}

    def _moves(self, repeated: Repeated, periods: Tensor, last: tuple[Tensor, ...]) -> dict[tuple[str, str], Tensor]:
        """Values `(T, B)` of what is known after each application."""
        rows: dict[tuple[str, str], list[Tensor]] = {}
        nothing = torch.full((len(periods),), torch.nan, device=periods.device)
        end, cycle = self._norms(_of_tokens(last[-1])), min(len(last), max(1, int(periods.max())))
        state = repeated.start
        for number in range(1, self.applications + 1):
            before, state = state, repeated.apply(state, number)
            size, long = _of_tokens(state - before), _of_tokens(before)
            turn = self._means(angles_of_steps(long, _of_tokens(state), size))
            step = self._norms(size) / self._norms(long)
            apart = [self._norms(_of_tokens(state - one)) for one in reversed(last[-cycle:])]
            distance = _nearest(torch.stack(apart), periods) / end
            for name, values in zip(MOVES, (step, turn, distance), strict=True):
                for group, value in zip(self.groups(), values, strict=True):
                    rows.setdefault((name, group), []).append(torch.where(value.isfinite(), value, torch.nan))
            read = repeated.read(state, number)
            for name in self.readings:
                rows.setdefault((name, ALL), []).append(read.get(name, nothing))
        return {key: torch.stack(values) for key, values in rows.items()}

    def _norms(self, tokens: Tensor) -> Tensor:
        """Frobenius norms `(groups and all, B)` of states whose tokens have these norms, `(B, N)`."""
        return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in self._parts(tokens)])

    def _means(self, tokens: Tensor) -> Tensor:
        """Means `(groups and all, B)` over the tokens that have a value."""
        return torch.stack([part.nanmean(1) for part in self._parts(tokens)])

    def _parts(self, tokens: Tensor) -> list[Tensor]:
        return [*(tokens[:, part] for part in self.layout.groups.values()), tokens]

    def table(self, boundaries: Any = ()) -> pd.DataFrame:
        """One row per statistic, group and application of which there is a value."""
        whole = super().table(boundaries).rename(columns={"layer": "application"})
        return whole[whole["n_images"] > 0].reset_index(drop=True)


def _nearest(apart: Tensor, periods: Tensor) -> Tensor:
    """Of distances `(periods, groups, B)` to the last state and those before, the least within an image's period."""
    numbers = torch.arange(1, len(apart) + 1, device=periods.device)[:, None, None]
    return apart.masked_fill(numbers > periods.clamp_min(1), torch.inf).amin(0)


def _of_tokens(states: Tensor) -> Tensor:
    """Norms `(B, N)` of the tokens of states."""
    return torch.linalg.vector_norm(states.float(), dim=-1)


def _size(states: Tensor) -> Tensor:
    """Norms `(B,)` of states."""
    precision = torch.promote_types(states.dtype, torch.float32)
    return torch.linalg.vector_norm(states.flatten(1), dim=1, dtype=precision)


def _ends(repeated: Repeated, applications: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The period `(B,)` that each image has come to, 1 for a limit, 0 for neither, and the last states.

    A period is one after which a state is where it was, to a tenth of a mean step; the mean step is at least the
    greatest distance from the start over the number of steps, so that what drifts on is not taken for a limit.
    """
    state = repeated.start
    last = deque([state], maxlen=PERIODS + 1)
    furthest = torch.zeros_like(_size(state))
    for number in range(1, applications + 1):
        state = repeated.apply(state, number)
        last.append(state)
        furthest = torch.maximum(furthest, _size(state - repeated.start))
    periods = torch.zeros(len(state), dtype=torch.long, device=state.device)
    for period in range(min(PERIODS, applications // 2), 0, -1):
        periods[_size(state - last[-1 - period]) <= STILL * furthest / applications] = period
    periods[~_size(state).isfinite()] = RAN_AWAY
    return periods, tuple(last)[1:]


def spectral_radius(
    apply: Callable[[Tensor], Tensor], state: Tensor, vectors: Tensor, products: int = PRODUCTS
) -> Tensor:
    """Of the Jacobian of a map of states at a state, image by image, by power iteration with forward-mode products.

    Parameters
    ----------
    apply : callable
        Takes states `(B, N, D)`; what it does with one image has to be independent of the others.
    state : Tensor
    vectors : Tensor
        To begin with, of the same shape.
    products : int
        The mean growth over the second half of them is the answer, so that also a pair of complex eigenvalues has one.

    Returns
    -------
    Tensor
        `(B,)`; NaN where the state is not finite.

    Examples
    --------
    >>> from brdyn.measures.fixed_points import spectral_radius
    >>> turned = torch.tensor([[0.0, -0.9], [0.9, 0.0]])  # eigenvalues 0.9 i and -0.9 i
    >>> states = torch.ones(1, 3, 2)
    >>> round(spectral_radius(lambda state: state @ turned, states, torch.randn(1, 3, 2)).item(), 4)
    0.9
    """
    growth = []
    vector = vectors.to(state.dtype)
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels have no forward-mode derivative
        for _ in range(products):
            size = _size(vector).clamp_min(torch.finfo(torch.float32).tiny)
            unit = (vector / size[:, None, None]).to(state.dtype)
            vector = torch.func.jvp(apply, (state,), (unit,))[1]
            growth.append(_size(vector))
    return torch.stack(growth[products // 2 :]).log().mean(0).exp()

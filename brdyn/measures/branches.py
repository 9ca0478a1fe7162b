"""Attention and MLP apart: how much of an update is of either, and where each pushes. Method notes, section 10.

Block l adds two updates to the state, `a_l - a_{l-1} = attention + mlp`, LayerScale and depth scaling included
(:mod:`brdyn.branches`); a Raptor's block also scales its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from brdyn.branches import HIDDEN, Branches
from brdyn.measures.contract import Asked
from brdyn.measures.kinematics import TINY, cosine
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.measures.update_field import ranks, singular_values
from brdyn.models import TokenLayout, VisionTransformer
from brdyn.trajectory import Trajectory

PARTS = {"attention": "attention", "mlp": "MLP"}
SHARE, RESCALING, BETWEEN = "attention_share", "rescaling_share", "branches_cosine"
OF_TOKENS = {
    SHARE: "|attention| / (|attention| + |MLP|)",
    RESCALING: "|rescaling| / (|attention| + |MLP| + |rescaling|)",
    **{f"{part}_cosine": f"cosine of {said} and state" for part, said in PARTS.items()},
    BETWEEN: "cosine of attention and MLP",
}
OF_FIELDS = {
    f"{part}_{name}": f"{said}: {name.replace('_', ' ')}"
    for part, said in PARTS.items()
    for name in ("effective_rank", "stable_rank", "coherence")
}


class BranchUpdates(PerImageMetric):
    """Norm share of attention, cosines of both updates with the state and with each other; coherence and rank of each.

    Rank and coherence are of the spatial tokens, as those of :class:`brdyn.measures.update_field.UpdateField`. What a
    block leaves as it is has none of these.

    Examples
    --------
    >>> from brdyn.measures.branches import BranchUpdates
    >>> metric = BranchUpdates(model.tokens, model.depth)
    >>> metric.update(brdyn.capture(model, next(images.batches(4)), branches=True))
    >>> rows = metric.table().query("statistic == 'attention_share'")
    >>> len(rows), bool(rows["mean"].between(0, 1).all())  # two token groups, twelve blocks
    (24, True)
    """

    needs_branches: ClassVar[bool] = True
    hidden: Tensor

    def __init__(self, layout: TokenLayout, depth: int, name: str = "the model", **kwargs: Any) -> None:
        super().__init__(layout, depth, **kwargs)
        self.name = name
        # The number in HIDDEN, from 1, of the reason of each block.
        self.add_state("hidden", torch.zeros(depth, dtype=torch.long), dist_reduce_fx="max")

    @classmethod
    def make(cls, model: VisionTransformer, asked: Asked) -> Self:
        del asked
        return cls(model.tokens, model.depth, repr(model.info.name))

    def statistics(self) -> tuple[Statistic, ...]:
        """Five curves of every token group, six of the spatial tokens, over the updates."""
        return (
            *(Statistic(name, unit, 1, self.depth) for name, unit in OF_TOKENS.items()),
            *(Statistic(name, unit, 1, self.depth, (self.layout.spatial,)) for name, unit in OF_FIELDS.items()),
        )

    def update(self, trajectory: Trajectory) -> None:
        """Add the images of a trajectory with branches."""
        for layer, found in enumerate(trajectory.branches):
            if isinstance(found, str):
                self.hidden[layer] = HIDDEN.index(found) + 1
        if not self.hidden.any():
            super().update(trajectory)

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """All of them, layer by layer."""
        rows: dict[str, list[Tensor]] = {name: [] for name in (*OF_TOKENS, *OF_FIELDS)}
        part = self.layout[self.layout.spatial]
        for state, found in zip(trajectory.states, trajectory.branches, strict=False):
            assert isinstance(found, Branches)
            of_tokens = _of_tokens(state.float(), found)
            of_fields = _of_fields(found.attention[:, part].float(), found.mlp[:, part].float())
            for name, values in {**of_tokens, **of_fields}.items():
                rows[name].append(values)
        found_rows = {name: torch.stack(values) for name, values in rows.items()}
        groups = {key: one for name in OF_TOKENS for key, one in self.by_group(name, found_rows[name]).items()}
        return {**groups, **{(name, self.layout.spatial): found_rows[name] for name in OF_FIELDS}}

    def compute(self) -> dict[str, Tensor]:
        """The curves, and which blocks hide their branches, `hidden`."""
        return {**super().compute(), "hidden": self.hidden}

    def withheld(self) -> str | None:
        """Blocks that do not show what their branches add."""
        if not self.update_called:
            return None
        hidden = self.compute()["hidden"].reshape(-1).tolist()  # torchmetrics makes a scalar of one
        if not any(hidden):
            return None
        layer, why = next((layer, why) for layer, why in enumerate(hidden, 1) if why)
        more = f", and {sum(map(bool, hidden)) - 1} more" if sum(map(bool, hidden)) > 1 else ""
        return f"block {layer}{more} of {self.name} hides its branches: {HIDDEN[why - 1]}"

    def table(self, boundaries: Sequence[int] = ()) -> pd.DataFrame:
        """One row per statistic, group and layer; without rescaling where no block scales its input."""
        table = super().table(boundaries)
        idle = table["statistic"].eq(RESCALING)
        return table[~idle].reset_index(drop=True) if not table.loc[idle, "mean"].gt(0).any() else table


def _of_tokens(state: Tensor, found: Branches) -> dict[str, Tensor]:
    """Values of every token, `(B, N)`; NaN where what they are of is zero."""
    attention, mlp = found.attention.float(), found.mlp.float()
    sizes = {name: torch.linalg.vector_norm(one, dim=-1) for name, one in (("attention", attention), ("mlp", mlp))}
    both = sizes["attention"] + sizes["mlp"]
    scaled = (
        torch.zeros_like(both) if found.rescaling is None
        else torch.linalg.vector_norm(found.rescaling.float(), dim=-1)
    )  # fmt: skip
    moves = {name: size > 0 for name, size in sizes.items()}
    stands = torch.linalg.vector_norm(state, dim=-1) > 0
    return {
        SHARE: _where(both > 0, sizes["attention"] / both.clamp_min(TINY)),
        RESCALING: _where(both + scaled > 0, scaled / (both + scaled).clamp_min(TINY)),
        "attention_cosine": _where(moves["attention"] & stands, cosine(attention, state)),
        "mlp_cosine": _where(moves["mlp"] & stands, cosine(mlp, state)),
        BETWEEN: _where(moves["attention"] & moves["mlp"], cosine(attention, mlp)),
    }


def _of_fields(attention: Tensor, mlp: Tensor) -> dict[str, Tensor]:
    """Values of the updates of all spatial tokens `(B, P, D)` together, `(B,)`; NaN where there is no update."""
    found = {}
    # Both at once: a GPU finds the eigenvalues of a few more matrices in the same time.
    of_both = [one.chunk(2) for one in ranks(singular_values(torch.cat([attention, mlp])))]
    for number, (part, field) in enumerate((("attention", attention), ("mlp", mlp))):
        moves = field.flatten(1).any(1)
        stable, effective = (one[number].to(field.device) for one in of_both)
        coherence = functional.normalize(field, dim=-1).mean(1).norm(dim=-1)
        for name, values in (
            ("effective_rank", effective),
            ("stable_rank", stable),
            ("coherence", coherence),
        ):
            found[f"{part}_{name}"] = _where(moves, values.float())
    return found


def _where(known: Tensor, values: Tensor) -> Tensor:
    return values.where(known, torch.nan)

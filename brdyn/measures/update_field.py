"""The update field of the spatial tokens: how many directions they are pushed in. Method notes, section 6.

At every layer the updates of an image's P patches form a matrix `(P, D)`. Its *stable rank* is
`|d|_F^2 / |d|_2^2`, its *effective rank* the exponential of the entropy of its normalised singular values. Both
are taken of the raw update `d_l = a_l - a_{l-1}` and of the tangent update, the part of d orthogonal to the token
over the token's norm, which moves its direction alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from brdyn.measures.eigenvalues import eigenvalues
from brdyn.measures.kinematics import TINY, cosine, dot, norms, update_norms, updates
from brdyn.measures.per_image import PerImageMetric, Statistic
from brdyn.trajectory import Trajectory

GRAM_ERROR = 3e-7
TOLERANCE = 1.5e-3


class UpdateField(PerImageMetric):
    """Stable and effective rank, raw and tangent, and coherence of the spatial tokens' updates of each image.

    Updates that move none of them (of a ViTRM, those of y) have none of these. Of an image with a token of norm 0,
    whose direction is not known, there are no tangent ranks.

    `coherence` is `|mean_p d_p / |d_p||`; `cosine_to_mean` the mean cosine between a patch's update and the mean
    update.
    """

    def groups(self) -> tuple[str, ...]:
        """The spatial tokens alone."""
        return (self.layout.spatial,)

    def statistics(self) -> tuple[Statistic, ...]:
        """Six curves over the updates."""
        return tuple(
            Statistic(name, unit, 1, self.depth)
            for name, unit in (
                ("stable_rank", "stable rank"),
                ("effective_rank", "effective rank"),
                ("tangent_stable_rank", "stable rank of the tangent update"),
                ("tangent_effective_rank", "effective rank of the tangent update"),
                ("coherence", "coherence of the updates"),
                ("cosine_to_mean", "cosine to the mean update"),
            )
        )

    def per_image(self, trajectory: Trajectory) -> Mapping[tuple[str, str], Tensor]:
        """All six, layer by layer."""
        part = self.layout[self.layout.spatial]
        size = norms(trajectory)[..., part]
        moves = update_norms(trajectory)[..., part].sum(-1) > 0
        rows: dict[str, list[Tensor]] = {statistic.name: [] for statistic in self.statistics()}
        for layer, step in enumerate(updates(trajectory)):
            raw = step[:, part]
            state = trajectory.states[layer][:, part].float()
            square = size[layer].square().clamp_min(TINY)
            length = size[layer, ..., None]
            tangent = (raw - (dot(raw, state) / square)[..., None] * state) / length.where(length > 0, torch.nan)
            # Both at once: a GPU finds the eigenvalues of a few more matrices in the same time.
            both = ranks(singular_values(torch.cat([raw, tangent])))
            for name, (of_raw, of_tangent) in zip(
                ("stable_rank", "effective_rank"), (rank.chunk(2) for rank in both), strict=True
            ):
                rows[name].append(of_raw)
                rows[f"tangent_{name}"].append(of_tangent)
            rows["coherence"].append(functional.normalize(raw, dim=-1).mean(1).norm(dim=-1))
            rows["cosine_to_mean"].append(cosine(raw, raw.mean(1, keepdim=True)).mean(1))
        return {
            (name, self.layout.spatial): torch.stack(values).where(moves.to(values[0].device), torch.nan)
            for name, values in rows.items()
        }


def singular_values(fields: Tensor) -> Tensor:
    """Singular values of matrices `(B, P, D)`, `(B, min(P, D))`, in float64, from the smaller Gram matrix.

    A float32 Gram matrix leaves eigenvalues wrong by about `GRAM_ERROR` times the largest. That moves a singular
    value either way where it stands out of the noise, and lifts it to the noise where it does not. Matrices
    whose sum of singular values is expected to be wrong by more than `TOLERANCE` get a float64 Gram matrix. NaN for a
    matrix with an entry that is not finite.
    """
    fields = fields.cpu() if fields.device.type == "mps" else fields  # which has no float64
    fields = fields if fields.shape[-2] <= fields.shape[-1] else fields.transpose(-2, -1)
    found = eigenvalues(fields @ fields.transpose(-2, -1))
    values = found.clamp_min(0).sqrt()
    noise = GRAM_ERROR * found[..., -1:]
    stands_out = found > noise
    either_way = (noise / (2 * values).clamp_min(TINY)).where(stands_out, 0).square().sum(-1).sqrt()
    lifted = (noise.sqrt() * ~stands_out).sum(-1)
    doubtful = either_way + lifted > TOLERANCE * values.sum(-1)
    if doubtful.any():
        exact = fields[doubtful].double()
        values[doubtful] = eigenvalues(exact @ exact.transpose(-2, -1)).clamp_min(0).sqrt()
    return values


def ranks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Stable and effective rank from singular values `(..., n)`; both 0 for a matrix of zeros."""
    largest, total = values.amax(-1), values.sum(-1)
    stable = (values / largest.clamp_min(TINY)[..., None]).square().sum(-1)
    share = values / total.clamp_min(TINY)[..., None]
    effective = torch.special.entr(share).sum(-1).exp() * (total > 0)
    return stable, effective

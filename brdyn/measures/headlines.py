"""The few numbers of curves over depth that are told beside those of other networks."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from brdyn.measures.in_words import half_depth


def _last(said: str) -> Callable[[np.ndarray], list[tuple[str, float]]]:
    return lambda values: [(said, values[-1])]


def _half(said: str) -> Callable[[np.ndarray], list[tuple[str, float]]]:
    """Of the states 0 to L."""
    return lambda values: [(said, values[half_depth(len(values) - 1)])]


def _mean(said: str) -> Callable[[np.ndarray], list[tuple[str, float]]]:
    return lambda values: [(said, values[np.isfinite(values)].mean() if np.isfinite(values).any() else np.nan)]


# What is told of a curve beside those of other networks; of any other, its last value.
LAST = _last("")
LEADING = 2
HEADLINES: dict[str, Callable[[np.ndarray], list[tuple[str, float]]]] = {
    "convergence": _half("cosine to the final state at half depth"),
    "speed": _last("angular speed of the last update (radians)"),
    "turning": _last("turning angle of the last update (radians)"),
    "effective_rank": lambda values: [
        ("largest effective rank of an update", np.fmax.reduce(values)),
        ("effective rank of the last update", values[-1]),
    ],
    "coherence": _last("coherence of the last update"),
    "estimation_mean": lambda values: [("largest absolute mean estimation error", np.abs(values).max())],
    "estimation_variance": lambda values: [("largest variance of the estimation error", values.max())],
    "leading_growth": lambda values: [("leading Lyapunov exponent (of index 1, nats per block)", values.mean())],
    "norm_growth": lambda values: [("log growth of the tokens' norm per block", values.mean())],
    "leading_singular_value": lambda values: [("largest singular value of a block", values.max())],
    "basin_ratio": _last("angle within over between classes at the end"),
    "knn_purity": _last("purity of neighbours at the end"),
    "readout_agreement": _half("share of images with the final class at half depth"),
    # The chance of being undecided, summed over states, is the mean of the first that is decided.
    "readout_decided": lambda values: [("mean state from which the class is the final one", (1 - values).sum())],
    "attention_share": _mean("mean share of attention in the norms of both branches"),
    "rescaling_share": _mean("mean share of rescaling in the norms of all parts"),
    "attention_cosine": _mean("mean cosine of the attention update with the state"),
    "mlp_cosine": _mean("mean cosine of the MLP update with the state"),
    "branches_cosine": _mean("mean cosine of attention with the MLP update"),
    "attention_effective_rank": _mean("mean effective rank of the attention update"),
    "mlp_effective_rank": _mean("mean effective rank of the MLP update"),
    "attention_coherence": _last("coherence of the last attention update"),
    "mlp_coherence": _last("coherence of the last MLP update"),
}


def headlines(table: pd.DataFrame, silent: Collection[str] = ()) -> dict[str, float]:
    """Of every curve of a tidy table the values to tell beside those of other networks, by what they are.

    Parameters
    ----------
    table : DataFrame
    silent : collection of str
        Statistics of which nothing is told unless :data:`HEADLINES` has them.
    """
    found = {}
    for (group, statistic), rows in table.groupby(["group", "statistic"], sort=False):
        if statistic in silent and statistic not in HEADLINES:
            continue
        values = rows.sort_values("layer")["mean"].to_numpy(dtype=float)
        for said, value in HEADLINES.get(str(statistic), LAST)(values):
            found[f"{group}: {said or f'{statistic} at last'}"] = float(value)
    return found


def leading(table: pd.DataFrame, silent: Collection[str] = ()) -> str:
    """The first two of these values, of all token groups, in a sentence; empty where none is known.

    >>> import pandas as pd
    >>> from brdyn.measures.headlines import leading
    >>> speed = {"statistic": "speed", "layer": [0, 1], "mean": [0.2, 0.5]}
    >>> leading(pd.concat([pd.DataFrame(speed | {"group": group}) for group in ("cls", "patches")]))
    'angular speed of the last update (radians): cls 0.5, patches 0.5'
    """
    found: dict[str, list[str]] = {}
    for name, value in headlines(table, silent).items():
        group, _, said = name.partition(": ")
        if np.isfinite(value):
            found.setdefault(said, []).append(f"{group} {value:.3g}")
    return "; ".join(f"{said}: {', '.join(values)}" for said, values in list(found.items())[:LEADING])

"""The linear probe: multinomial logistic regression on standardised features, the penalty chosen on held-out images.

Both solvers minimise the same function. scikit-learn's is used where the problem is small; a full-batch L-BFGS in torch
where the features are on a GPU or too large for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brdyn.arguments import checked
from brdyn.compared import Compared
from brdyn.errors import UsageError
from brdyn.models.request import as_device
from brdyn.probes.features import Features, check_width
from brdyn.runtime import with_gradients
from brdyn.seeds import check_seed

SOLVERS = ("auto", "sklearn", "torch")
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # C of scikit-learn: small is strong
HELD_OUT = 0.2
ITERATIONS = 200
TOLERANCE = 1e-4
LARGE = 2e9  # images x features x classes from which torch takes over
CHUNK = 65536


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe(Compared):
    """A linear classifier of features.

    Attributes
    ----------
    weight, bias : Tensor
        `(classes, F)` and `(classes,)`, of standardised features.
    mean, scale : Tensor
        Of the training features, `(F,)`.
    penalty : float
        C, the weight of the errors against that of the squared weights.
    held_out_accuracy : float
        On the images that chose the penalty.

    Examples
    --------
    >>> from brdyn.probes import LinearProbe
    >>> zeros, ones = torch.zeros(2), torch.ones(2)
    >>> probe = LinearProbe(torch.eye(2), zeros, mean=zeros, scale=ones, penalty=1.0, held_out_accuracy=1.0)
    >>> probe.predict(torch.tensor([[0.2, 0.1], [0.2, 0.3]])).tolist()
    [0, 1]
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    penalty: float
    held_out_accuracy: float

    def predict(self, values: Tensor) -> Tensor:
        """Class indices `(m,)` of features `(m, F)`."""
        return functional.linear((values - self.mean) / self.scale, self.weight, self.bias).argmax(1)


@checked
@with_gradients
def fit_linear(
    train: Features,
    held_out: Features,
    *,
    penalties: Sequence[float] = PENALTIES,
    solver: str = "auto",
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Fit a probe for each penalty, and keep the one that is best on held-out images (ties: the stronger).

    Parameters
    ----------
    train, held_out : Features
    penalties : sequence of float
        Values of C.
    solver : {"auto", "sklearn", "torch"}
        `auto`: torch on a GPU or for large problems.
    device : torch.device
        Of the torch solver.

    Raises
    ------
    UsageError
        If there are no two classes to tell apart.

    Examples
    --------
    >>> from brdyn.probes import Features, fit_linear
    >>> train = Features(torch.tensor([[0.0, 1], [0, 2], [3, 0], [2, 0]]), torch.tensor([0, 0, 1, 1]))
    >>> fit_linear(train, train).predict(torch.tensor([[0.0, 3], [1, 0]])).tolist()
    [0, 1]
    """
    if solver not in SOLVERS:
        raise UsageError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    if not len(penalties):
        raise UsageError("there are no penalties to choose from; give one such as [1.0]")
    check_width(train, held_out.values)
    device = as_device(device)
    present = train.labels.unique()
    if len(present) < 2:
        raise UsageError("a probe needs images of at least two classes")
    mean, scale = train.values.mean(0), train.values.std(0).clamp_min(1e-6)
    values = (train.values - mean) / scale
    classes = max(train.classes, held_out.classes)
    if solver == "auto":
        large = values.numel() * classes > LARGE
        solver = "torch" if large or device.type == "cuda" else "sklearn"
    place = torch.full((classes,), -1)
    place[present] = torch.arange(len(present))
    targets = place[train.labels]
    solve = _Sklearn(values, targets) if solver == "sklearn" else _Torch(values.to(device), targets.to(device))
    best: LinearProbe | None = None
    for penalty in sorted(penalties):
        rows, biases = solve(penalty)
        weight = torch.zeros(classes, values.shape[1], dtype=rows.dtype)
        bias = torch.full((classes,), -torch.inf, dtype=rows.dtype)
        weight[present], bias[present] = rows, biases  # a class without training images is never predicted
        found = LinearProbe(weight, bias, mean, scale, penalty, 0.0)
        right = float((found.predict(held_out.values) == held_out.labels).double().mean())
        if best is None or right > best.held_out_accuracy:
            best = LinearProbe(weight, bias, mean, scale, penalty, right)
    assert best is not None
    return best


def split(features: Features, seed: int) -> tuple[Features, Features]:
    """To fit on, and to choose by: see :func:`split_rows`."""
    fitting, choosing = split_rows(features.labels, seed)
    return features[fitting], features[choosing]


def split_rows(labels: Tensor, seed: int, share: float = HELD_OUT) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to keep out: `share` of each class (at least one row of it stays to fit on)."""
    rng = np.random.default_rng(check_seed(seed))
    fitting, kept = [], []
    for label in labels.unique():
        own = rng.permutation(np.flatnonzero(labels.numpy() == int(label)))
        count = min(round(share * len(own)), len(own) - 1)
        kept.append(own[:count])
        fitting.append(own[count:])
    held_out = np.sort(np.concatenate(kept))
    if not len(held_out):
        raise UsageError("a probe needs at least three images of some class, to choose its penalty; give more images")
    return np.sort(np.concatenate(fitting)), held_out


class _Sklearn:
    """scikit-learn's solver, each penalty starting from the one before."""

    def __init__(self, values: Tensor, targets: Tensor) -> None:
        from sklearn.linear_model import LogisticRegression

        self.values, self.targets = values.numpy(), targets.numpy()
        # Two classes have one row there, the difference of two of half its size: half the penalty for the same map.
        self.strength = 2.0 if int(targets.max()) == 1 else 1.0
        self.fit = LogisticRegression(max_iter=ITERATIONS, tol=TOLERANCE, warm_start=True)

    def __call__(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights `(classes, F)` and biases `(classes,)`."""
        from sklearn.exceptions import ConvergenceWarning

        self.fit.C = self.strength * penalty
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # held-out accuracy decides in any case
            self.fit.fit(self.values, self.targets)
        weights, biases = np.asarray(self.fit.coef_), np.asarray(self.fit.intercept_)
        if len(weights) == 1:
            weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
        return torch.from_numpy(weights).float(), torch.from_numpy(biases).float()


class _Torch:
    """The same minimum by full-batch L-BFGS, on the device of the features, in chunks that fit."""

    def __init__(self, values: Tensor, targets: Tensor) -> None:
        self.values, self.targets = values, targets
        count = int(targets.max()) + 1
        self.weight = torch.zeros(count, values.shape[1], device=values.device, dtype=values.dtype, requires_grad=True)
        self.bias = torch.zeros(count, device=values.device, dtype=values.dtype, requires_grad=True)

    def __call__(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights `(classes, F)` and biases `(classes,)`."""
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=ITERATIONS,
            tolerance_grad=TOLERANCE,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            count = len(self.values)
            total = self.weight.square().sum() / (2 * penalty * count)
            total.backward()
            total = total.detach()
            for part, truth in zip(self.values.split(CHUNK), self.targets.split(CHUNK), strict=True):
                logits = functional.linear(part, self.weight, self.bias)
                loss = functional.cross_entropy(logits, truth, reduction="sum") / count
                loss.backward()
                total = total + loss.detach()
            return total

        optimizer.step(closure)
        return self.weight.detach().cpu().clone(), self.bias.detach().cpu().clone()

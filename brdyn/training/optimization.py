"""What changes from step to step of a training: weights, the state of the optimizer, the learning rate, the average."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from brdyn.store.shared_tensors import each_once, every_name
from brdyn.training.settings import MUON, TrainSettings

MOMENTS = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.Muon: {"momentum_buffer"}}
WARMUP_POWER = 2 / 3  # as in timm
AS_ADAMW = "match_rms_adamw"  # a step as large as AdamW's at the same rate (Liu et al., arXiv 2502.16982)


class Optimization:
    """Optimizers of the parts of a task, a cosine schedule, and an average of the weights where there is to be one.

    Parameters
    ----------
    parts : nn.ModuleDict
        On their device. Gradients of each are clipped apart.
    settings : TrainSettings
    """

    def __init__(self, parts: nn.ModuleDict, settings: TrainSettings) -> None:
        self.parts, self.clip = parts, settings.clip
        self.parameters = [p for p in parts.parameters() if p.requires_grad]
        self.optimizers = optimizers_of(parts, settings)
        self.schedules = [_schedule(optimizer, settings) for optimizer in self.optimizers]
        self.ema = MovingAverage(parts, settings.ema, settings.ema_warmup) if settings.ema else None

    def begin(self, step: int) -> float:
        """Set the learning rate of a step, which is counted from 0, and return it."""
        for schedule in self.schedules:
            schedule.step_update(step + 1)
        return self.optimizers[0].param_groups[0]["lr"]

    def step(self, step: int) -> None:
        """Follow the gradients, and let them go."""
        if self.clip:
            for part in self.parts.values():
                clip_grad_norm_(part.parameters(), self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step + 1)

    @property
    def average(self) -> Mapping[str, Tensor]:
        """A state of the parts; empty without an average."""
        return {} if self.ema is None else self.ema.module.state_dict()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the parts have the average of the weights, where there is one."""
        own = {name: value.clone() for name, value in each_once(self.parts).items()} if self.average else {}
        try:
            if own:
                self._load(self.average)
            yield
        finally:
            if own:
                self._load(own)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments of the optimizers, and the average; what layers share is there once."""
        found = {f"model/{name}": value for name, value in each_once(self.parts).items()}
        for number, parameter in enumerate(self.parameters):
            for name, value in self._of(parameter).state[parameter].items():
                found[f"optimizer/{number}/{name}"] = value
        average = {} if self.ema is None else each_once(self.ema.module)
        return found | {f"ema/{name}": value for name, value in average.items()}

    def is_finite(self) -> bool:
        """Whether all of :meth:`tensors` are numbers."""
        return all_finite(self.tensors().values())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put everything back as :meth:`tensors` gave it.

        Raises
        ------
        RuntimeError, KeyError
            If they are of other parts, or of another optimizer.
        """
        self._load(_under(tensors, "model/"))
        if self.ema is not None:
            module = self.ema.module
            module.load_state_dict(every_name(module, _under(tensors, "ema/")))
        for number, parameter in enumerate(self.parameters):
            moments = _under(tensors, f"optimizer/{number}/")
            if moments:
                optimizer = self._of(parameter)
                if moments.keys() != MOMENTS[type(optimizer)]:
                    raise KeyError(f"moments of another optimizer: {', '.join(moments)}")
                optimizer.state[parameter] = {
                    name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()
                }

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self.parts.load_state_dict(every_name(self.parts, tensors))

    def _of(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        """The optimizer that a parameter has."""
        return next(
            optimizer
            for optimizer in self.optimizers
            if any(parameter is one for group in optimizer.param_groups for one in group["params"])
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return all(bool(one.isfinite().all()) for one in tensors)


class MovingAverage:
    """An exponential moving average of the weights, buffers with them; what is no floating-point number is the newest.

    Parameters
    ----------
    parts : nn.Module
        On their device; the average begins with their weights. A tensor that layers share is averaged once a step.
    decay : float
        Share of the average that stays at each step.
    warmup : bool
        Begin with less: after step s (from 1) the decay is at most `1 - s^(-2/3)`.

    Examples
    --------
    >>> from brdyn.training.optimization import MovingAverage
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> average = MovingAverage(torch.nn.Sequential(layer, layer), decay=0.9)
    >>> before = layer.weight.item()
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(1.0)
    >>> average.update(1)
    >>> round(average.module[1].weight.item() - before, 4)
    0.1
    """

    def __init__(self, parts: nn.Module, decay: float, warmup: bool = False) -> None:
        self.decay, self.warmup = decay, warmup
        self.module = deepcopy(parts).eval()
        pairs = list(zip(each_once(self.module).values(), each_once(parts).values(), strict=True))
        self._smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counted = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, which is counted from 1."""
        decay = min(self.decay, 1 - step**-WARMUP_POWER) if self.warmup else self.decay
        if self._smooth:
            get_ema_multi_avg_fn(decay)(*map(list, zip(*self._smooth, strict=True)), 0)
        for ours, theirs in self._counted:
            ours.copy_(theirs)


def optimizers_of(parts: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the weights of linear maps and AdamW for the rest.

    >>> from brdyn.training import TrainSettings
    >>> from brdyn.training.optimization import optimizers_of
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    >>> [type(one).__name__ for one in optimizers_of(network, TrainSettings(steps=1, optimizer="muon"))]
    ['Muon', 'AdamW']
    """
    lr, decay = settings.lr, settings.weight_decay
    rest = {id(parameter): parameter for parameter in parts.parameters() if parameter.requires_grad}
    found: list[torch.optim.Optimizer] = []
    if settings.optimizer == MUON:
        linear = [module.weight for module in parts.modules() if isinstance(module, nn.Linear)]
        taken = [weight for weight in linear if rest.pop(id(weight), None) is not None]
        if taken:
            found.append(torch.optim.Muon(taken, lr=lr, weight_decay=decay, adjust_lr_fn=AS_ADAMW))
    if rest:
        found.append(torch.optim.AdamW(rest.values(), lr=lr, weight_decay=decay))
    return found


def _schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> CosineLRScheduler:
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, settings.steps - settings.warmup),
        cycle_decay=0.5,  # of further cycles, and there are none; with 1, timm warns of a single step
        lr_min=settings.min_lr,
        warmup_t=min(settings.warmup, settings.steps),
        warmup_lr_init=0.0,
        warmup_prefix=True,  # the cosine begins where the rise ends, at the full rate
        t_in_epochs=False,
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

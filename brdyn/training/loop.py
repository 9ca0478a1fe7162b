"""The one training loop: devices and precision from accelerate, a schedule from timm, and exact resume.

Everything random is a function of seed, stage, step and process: data order, noise, dropout. A run that resumes from a
checkpoint therefore continues as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from brdyn.arguments import checked
from brdyn.data import Batch, ReadReport, Skipped
from brdyn.errors import BrdynError, DivergedError
from brdyn.progress import progress_bar
from brdyn.random_keys import random_keys
from brdyn.runtime import Processes, seed_default, synchronise, with_gradients
from brdyn.training.checkpoints import Checkpoints, Saved
from brdyn.training.compiling import compile_parts
from brdyn.training.optimization import Optimization
from brdyn.training.session import Session
from brdyn.training.settings import TrainSettings
from brdyn.training.shares import among_processes, check_shares
from brdyn.training.task import Batches, History, Task
from brdyn.words import counted

Visit = Callable[[int, Mapping[str, float]], None]


@checked
@with_gradients
def train(
    task: Task,
    batches: Batches,
    settings: TrainSettings,
    *,
    session: Session | None = None,
    stage: int = 1,
    earlier: Mapping[str, Any] | None = None,
    also: Mapping[str, Any] | None = None,
    visit: Visit | None = None,
) -> History:
    """Train a task to the last step of its settings.

    Parameters
    ----------
    task : Task
        Trained in place; its parts end with the weights of the last step.
    batches : Batches
    settings : TrainSettings
    session : Session, optional
        Checkpoints, what to go on from, device, tracker, progress bar.
    stage : int
        Number of this stage, from 1.
    earlier : mapping, optional
        What earlier stages have left, kept in every checkpoint as `state["earlier"]`.
    also : mapping, optional
        What else is kept in the state of every checkpoint.
    visit : callable, optional
        Called in the main process before the first step (as step 0; not when a run is resumed) and after every step,
        with the step and what validation found at it (nothing where there was none), before the step's checkpoint is
        written: what it does is done again if the run is killed.

    Returns
    -------
    History

    Raises
    ------
    UsageError
        If a batch has fewer images than there are processes, or its pieces are too small for batch normalisation.
    BrdynError
        If no image of a step could be read, in any process.
    DivergedError
        If a loss is not finite, or the weights are not after a step: it, the part and the last good checkpoint are
        named.

    Examples
    --------
    >>> from brdyn.data.shuffled import ShuffledBatches
    >>> from brdyn.training import Task, TrainSettings, train
    >>> class Mean(Task):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.parts = torch.nn.ModuleDict({"mean": torch.nn.Linear(1, 1)})
    ...     def inputs(self, batch):
    ...         return batch.images.mean((1, 2, 3))
    ...     def forward(self, inputs, step):
    ...         return {"mean": (self.parts["mean"](inputs[:, None] * 0)[:, 0] - inputs).square()}
    >>> history = train(Mean(), ShuffledBatches(images, 4), TrainSettings(steps=4, batch_size=4, log_every=2))
    >>> [row["step"] for row in history.losses]
    [2.0, 4.0]
    """
    training = _Training(task, batches, settings, session or Session(), stage, earlier or {}, also or {}, visit)
    return training.run()


class _Training:
    """One stage, while it runs."""

    def __init__(
        self,
        task: Task,
        batches: Batches,
        settings: TrainSettings,
        session: Session,
        stage: int,
        earlier: Mapping[str, Any],
        also: Mapping[str, Any],
        visit: Visit | None,
    ) -> None:
        self.task, self.batches, self.settings, self.session = task, batches, settings, session
        self.stage, self.earlier, self.also, self.visit = stage, dict(earlier), dict(also), visit
        self.accelerator = accelerator = session.on()
        check_shares(task, batches.batch_size, accelerator.num_processes, settings.accumulate)
        self.processes = Processes(accelerator.device, accelerator.process_index, accelerator.num_processes)
        task.to(accelerator.device)
        task.train()
        self.optimization = Optimization(task.parts, settings)
        self.history = History()
        self.loss_names: list[str] = []
        self.pending: list[tuple[int, float, Tensor]] = []  # step, rate, losses `(parts,)`
        self.step = 0

    def run(self) -> History:
        """From the checkpoint, or from the start, to the last step."""
        resume = self.session.resume
        if resume is not None:
            self.restore(resume)
        if self.settings.compile:
            compile_parts(self.task.parts)
        module: nn.Module = self.task
        if self.processes.world > 1:
            module = among_processes(self.task)
        left = self.settings.steps - self.step
        show = self.session.progress and self.processes.is_main
        said = f"stage {self.stage}: {counted(left, 'step')} of training,"
        device = self.accelerator.device
        callers = torch.random.fork_rng([device] if device.type == "cuda" else [])  # is left as it was
        with callers, progress_bar(said, left * self.batches.batch_size, show) as advance:
            if resume is None:
                self._show({})
            started = time.perf_counter()
            for pieces in self._pieces():
                self.history.images += self._step(module, pieces)
                self.step += 1
                advance(self.batches.batch_size, self._news())
                if self._due(self.settings.log_every):
                    self._log()
                if self._due(self.settings.validate_every) or self._due(self.settings.checkpoint_every):
                    synchronise(device)  # the device's part of the step is not the validation's
                self.history.seconds += time.perf_counter() - started
                self._upkeep()
                started = time.perf_counter()
        seen = self.history.images * self.processes.world
        self.history.images_per_second = seen / max(self.history.seconds, 1e-9)
        self.task.average = self.optimization.average
        self.task.eval()
        return self.history

    def _pieces(self) -> Iterator[list[Batch]]:
        return self.batches.batches(
            self.step,
            self.settings.steps,
            rank=self.processes.rank,
            world=self.processes.world,
            pieces=self.settings.accumulate,
            pin=self.accelerator.device.type == "cuda",
        )

    def _step(self, module: nn.Module, pieces: list[Batch]) -> int:
        """One optimizer step on this process's share of a batch; the number of its images."""
        here = sum(map(len, pieces))
        everywhere = here
        if self.processes.world > 1:
            count = torch.tensor(here, device=self.accelerator.device)
            everywhere = int(self.accelerator.reduce(count, "sum"))
        if not everywhere:
            none = BrdynError(f"none of the images of step {self.step + 1} could be read")
            self.processes.agree(none if self.processes.is_main else None)
        key = random_keys_of(self.settings.seed, self.stage, self.step, self.processes.rank)
        seed_default(key, self.accelerator.device)
        rate = self.optimization.begin(self.step)
        totals: dict[str, Tensor] = {}
        parts: list[Batch | None] = [*pieces] or [None]  # without images, too, a process takes part
        inputs: list[Any] = [None] * len(parts)
        rounds, more = 0, True
        while more:
            asked = self._optimize(module, parts, inputs, everywhere, totals)
            rounds += 1
            more = self.task.goes_onward and self._share(asked, everywhere) > 0.5
        self.loss_names = list(totals)
        self.pending.append((self.step + 1, rate, torch.stack(list(totals.values())) / rounds))
        return here

    def _optimize(
        self,
        module: nn.Module,
        pieces: list[Batch | None],
        inputs: list[Any],
        everywhere: int,
        totals: dict[str, Tensor],
    ) -> list[Tensor]:
        """One optimizer step, whose losses are added to the totals; what the images say to another.

        Inputs are made where there are none yet, and kept where another step may follow.
        """
        asked = []
        for number, piece in enumerate(pieces):
            with self._together(module, number == len(pieces) - 1), self._autocast():
                own = inputs[number]
                if own is None and piece is not None:
                    own = self.task.inputs(piece)
                losses = module(own, self.step)
            votes = None if piece is None else self.task.onward(own)
            inputs[number] = None if votes is None else own
            asked += [] if votes is None else [votes.detach().float()]
            shares = {part: loss.float().sum() / everywhere for part, loss in losses.items()}
            # Processes average their gradients; the sum over all images is wanted.
            (torch.stack(list(shares.values())).sum() * self.processes.world).backward()
            for part, share in shares.items():
                totals[part] = totals.get(part, torch.zeros_like(share)) + share.detach()
        self.optimization.step(self.step)
        return asked

    def _share(self, votes: list[Tensor], everywhere: int) -> float:
        """The mean vote of the images of all processes."""
        total = torch.cat([torch.zeros(0, device=self.accelerator.device), *votes]).sum()
        if self.processes.world > 1:
            total = self.accelerator.reduce(total, "sum")
        return float(total) / everywhere

    def _news(self) -> str:
        """The last losses and validation, for the progress bar."""
        shown = [
            ", ".join(f"{name} {value:.3g}" for name, value in rows[-1].items() if name not in ("step", "lr"))
            for rows in (self.history.losses, self.history.validation)
            if rows
        ]
        return "loss " + "; ".join(shown) if shown else ""

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = self.accelerator.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _together(self, module: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Leave gradients with the process until the last piece."""
        return nullcontext() if last or module is self.task else self.accelerator.no_sync(module)

    def _log(self) -> None:
        """Write the mean of the losses since the last time down."""
        if not self.pending:
            return
        mean = self._finite().double().mean(0).tolist()
        row = {"step": float(self.step), "lr": self.pending[-1][1]}
        row |= dict(zip(self.loss_names, mean, strict=True))
        self.history.losses.append(row)
        self.pending.clear()
        self._report(row)

    def _finite(self) -> Tensor:
        """The losses since the last time, `(steps, parts)`, of all processes; they are the main process's from here on.

        Raises
        ------
        DivergedError
            If one is not finite.
        """
        values = torch.stack([row for _, _, row in self.pending])
        if self.processes.world > 1:
            values = self.accelerator.reduce(values, "sum")
        own = values if self.processes.is_main else torch.zeros_like(values)
        self.pending = [(step, rate, row) for (step, rate, _), row in zip(self.pending, own, strict=True)]
        found = values.cpu()
        bad = (~found.isfinite()).nonzero()
        if len(bad):
            step, part = self.pending[int(bad[0, 0])][0], self.loss_names[int(bad[0, 1])]
            raise self._diverged(f"the loss of {part} is not finite at step {step}")
        return found

    def _diverged(self, what: str) -> DivergedError:
        """What is not finite, where there is something to go on from, and what to try."""
        good = self.session.checkpoints.paths() if self.session.checkpoints else []
        where = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
        return DivergedError(
            f"{what} of stage {self.stage}; {where}; "
            f"try a smaller `lr`{', or `dtype=float32`' if self.settings.precision != 'float32' else ''}"
        )

    def _check(self) -> None:
        """Refuse to go on from losses that are not finite, or from weights that a step spoilt after a finite loss: none
        is ever validated, kept or written."""
        if self.pending:
            self._finite()
        bad = self.processes.is_main and not self.optimization.is_finite()
        refusal = self._diverged(f"the weights are not finite after step {self.step}") if bad else None
        self.processes.agree(refusal)

    def _report(self, row: dict[str, float]) -> None:
        if self.session.report is not None:
            self.session.report(self.stage, self.step, row)

    def _due(self, every: int) -> bool:
        """Whether this is the step for what is done every so many, and at the end."""
        return self.step == self.settings.steps or self.step % every == 0

    def _upkeep(self) -> None:
        """Validate, show the step to the visitor and write a checkpoint, where it is time."""
        found: dict[str, float] = {}
        if self._due(self.settings.validate_every) or self._due(self.settings.checkpoint_every):
            self._check()
        if self._due(self.settings.validate_every):
            self.task.eval()
            with torch.no_grad(), self.optimization.averaged():
                found = self.task.validate()
            self.task.train()
            if found:
                self.history.validation.append({"step": float(self.step), **found})
                self._report(found)
        self._show(found)
        if self.session.checkpoints is not None and self._due(self.settings.checkpoint_every):
            self._save(self.session.checkpoints)

    def _save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint in the main process; one that cannot be written ends all of them."""
        state = {
            "losses": self.history.losses,
            "validation": self.history.validation,
            "pending": [
                (step, rate, dict(zip(self.loss_names, row.tolist(), strict=True))) for step, rate, row in self.pending
            ],
            "images": self.history.images,
            "seconds": self.history.seconds,
            "read": self._read(),
            "earlier": self.earlier,
            **self.also,
        }
        refusal = None
        try:
            if self.processes.is_main:
                checkpoints.save(self.stage, self.step, self.optimization.tensors(), state)
        except BrdynError as error:
            refusal = error
        self.processes.agree(refusal)

    def _read(self) -> dict[str, Any] | None:
        """What all processes have read of the images, in all sessions."""
        if self.batches.report is None:
            return None
        total = self.processes.gather(self.batches.report)
        return {
            "count": total.count,
            "digest": f"{total.digest:064x}",
            "skipped": total.skipped,
        }

    def _show(self, found: Mapping[str, float]) -> None:
        """Let the visitor see this step."""
        if self.visit is not None and self.processes.is_main:
            self.visit(self.step, found)

    def restore(self, saved: Saved) -> None:
        """Put everything back as it was."""
        try:
            self.optimization.restore(saved.tensors)
            losses, validation = saved.state["losses"], saved.state["validation"]
        except (RuntimeError, KeyError) as error:
            raise BrdynError(f"the checkpoint {str(saved.path)!r} does not fit this run") from error
        self.history = History(
            list(losses),
            list(validation),
            images=saved.state.get("images", 0),
            seconds=saved.state.get("seconds", 0.0),
        )
        self.step = saved.step
        share = float(self.processes.is_main)
        for step, rate, row in saved.state.get("pending", []):
            self.loss_names, losses = list(row), share * torch.tensor(list(row.values()))
            self.pending.append((step, rate, losses.to(self.accelerator.device)))
        read = saved.state.get("read")
        if read and self.batches.report is not None and self.processes.is_main:
            skipped = [Skipped(*one) for one in read["skipped"]]
            self.batches.report.add(ReadReport(read["count"], skipped, int(read["digest"], 16)))


def random_keys_of(*numbers: int) -> int:
    """One seed from several numbers."""
    key = 0
    for number in numbers:
        key = int(random_keys(torch.tensor([number]), key)[0])
    return key % (2**63 - 1)

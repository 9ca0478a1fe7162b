"""The training loop: right on a problem with a known answer, and exact when it is killed and resumed."""

import json
import math
import os
import shutil
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from brdyn.data import load_images
from brdyn.data.shuffled import ShuffledBatches
from brdyn.errors import BrdynError, UsageError
from brdyn.training import Checkpoints, Session, Task, TrainSettings, train
from brdyn.training.compiling import compile_parts
from brdyn.training.optimization import Optimization
from brdyn.training.session import make_accelerator
from brdyn.training.settings import check_same
from brdyn.training.shares import check_shares


class Means(Task):
    """Two parts that learn numbers: one the mean of the images, the other that of noise drawn at every step."""

    def __init__(self):
        super().__init__()
        first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        nn.init.zeros_(first.weight)
        nn.init.zeros_(second.weight)
        self.parts = nn.ModuleDict({"images": first, "noise": second})
        self.break_at = math.inf

    def inputs(self, batch):
        return batch.images.mean((1, 2, 3))

    def forward(self, inputs, step):
        one = torch.ones(len(inputs), 1, device=inputs.device)
        noise = torch.randn(len(inputs), device=inputs.device)
        loss = (self.parts["images"](one)[:, 0] - inputs).square()
        if step == self.break_at:
            loss = loss * torch.nan
        return {"images": loss, "noise": (self.parts["noise"](one)[:, 0] - noise - 3).square()}

    def validate(self):
        assert not self.training  # noise and dropout are for training alone
        assert not torch.is_grad_enabled()
        return {"weight": self.parts["images"].weight.item()}


@pytest.fixture
def batches(noise_folder, tiny):
    return ShuffledBatches(load_images(noise_folder, tiny), 8, seed=1, workers=0)


def settings(**changes):
    return TrainSettings(**{"steps": 12, "batch_size": 8, "lr": 0.1, "warmup": 2, "log_every": 3,
                            "checkpoint_every": 4, "validate_every": 6, **changes})  # fmt: skip


def weights(task):
    return {name: value.clone() for name, value in task.parts.state_dict().items()}


def test_it_learns(batches):
    task = Means()
    history = train(task, batches, settings(steps=600, lr=0.05, clip=0.0, log_every=100))
    every = torch.stack([batch.images.mean((1, 2, 3)).mean() for batch in batches.images.batches(40, workers=0)])
    assert task.parts["images"].weight.item() == pytest.approx(every.item(), abs=0.03)
    assert task.parts["noise"].weight.item() == pytest.approx(3, abs=0.15)
    assert [row["step"] for row in history.losses] == [float(step) for step in range(100, 601, 100)]
    assert history.losses[-1]["noise"] == pytest.approx(1, abs=0.5)  # the variance of the noise
    assert history.validation[-1]["weight"] == task.parts["images"].weight.item()


def test_schedule_and_first_step_by_hand(batches, caplog):
    """AdamW's first step moves a weight by the learning rate, here half of it after one of two warm-up steps."""
    task = Means()
    history = train(task, batches, settings(steps=1, log_every=1, weight_decay=0.0))
    # One step is all warm-up.
    assert history.losses[0]["lr"] == pytest.approx(0.1)
    assert caplog.text == ""  # timm warns of a schedule of one step unless told otherwise
    task = Means()
    rates = train(task, batches, settings(steps=10, log_every=1)).losses
    assert rates[0]["lr"] == pytest.approx(0.05)
    assert rates[1]["lr"] == pytest.approx(0.1)  # where the cosine of the other eight begins
    for step, row in enumerate(rates[2:], 1):
        assert row["lr"] == pytest.approx(1e-6 + 0.5 * (0.1 - 1e-6) * (1 + math.cos(math.pi * step / 8)))
    assert rates[-1]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize("checkpoint_every", [4, 5, 12])
def test_checkpoints_decide_nothing_of_what_is_logged(batches, tmp_path, checkpoint_every):
    """Means are of the same steps, whether checkpoints lie between or not, and a run that goes on closes them alike."""
    alone = train(Means(), batches, settings())
    checkpoints = Checkpoints(tmp_path, {}, keep=9)
    kept = settings(checkpoint_every=checkpoint_every)
    assert train(Means(), batches, kept, session=Session(checkpoints=checkpoints)).losses == alone.losses
    for path in checkpoints.paths():
        resumed = train(Means(), batches, kept, session=Session(resume=checkpoints.read(path)))
        assert resumed.losses == alone.losses


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("killed_after", [1, 4, 7, 11])
def test_resuming_is_exact(batches, tmp_path, monkeypatch, killed_after, ema):
    """Stop after some step, start again from the last checkpoint: the weights are those of an uninterrupted run."""
    whole = Means()
    expected = train(
        whole, batches, settings(ema=ema), session=Session(checkpoints=Checkpoints(tmp_path / "whole", {}))
    )

    class Killed(BaseException):
        pass

    def kill(_, step, __):
        if step > killed_after:
            raise Killed

    checkpoints = Checkpoints(tmp_path / "killed", {})
    with pytest.raises(Killed):
        train(
            Means(),
            batches,
            settings(ema=ema, log_every=1),
            session=Session(checkpoints=checkpoints, report=kill),
        )
    saved = checkpoints.latest()
    assert (saved.step if saved else 0) == killed_after // 4 * 4
    again = Means()
    with torch.no_grad():
        again.parts["images"].weight.fill_(77)  # what it starts with must not matter once it resumes
    if saved is None:
        again = Means()
    history = train(
        again, batches, settings(ema=ema, log_every=1), session=Session(checkpoints=checkpoints, resume=saved)
    )
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
    for name, value in whole.average.items():
        assert torch.equal(again.average[name], value), name
    assert history.losses[-1]["step"] == expected.losses[-1]["step"]
    assert history.validation == expected.validation


def test_a_visitor_sees_every_step_before_its_checkpoint(batches, tmp_path):
    """What it does at a step is then done again by a run that was killed in between."""
    checkpoints, seen = Checkpoints(tmp_path, {}, keep=9), []

    def visit(step, found):
        assert step not in [int(path.name.split("-")[1]) for path in checkpoints.paths()]
        seen.append((step, sorted(found)))

    task = Means()
    train(task, batches, settings(), session=Session(checkpoints=checkpoints), visit=visit)
    assert seen == [(step, ["weight"] if step in (6, 12) else []) for step in range(13)]
    saved, seen = checkpoints.read(checkpoints.folder / "stage1-00000008"), []
    train(Means(), batches, settings(), session=Session(resume=saved), visit=lambda step, _: seen.append(step))
    assert seen == [9, 10, 11, 12]


def test_files_with_a_digest_may_lie_elsewhere():
    before = {
        "data": {"source": "a.parquet", "digest": "1", "images": 5},
        "cifar": {"source": "a", "digest": ""},
        "teacher": {"name": "a", "digest": "1"},
    }
    check_same(before, {**before, "teacher": {**before["teacher"], "size": 32}}, "run")  # not noted earlier
    check_same(before, {**before, "data": {**before["data"], "source": "b.parquet"}}, "run")
    for changes, words in (
        ({"data": {**before["data"], "digest": "2"}}, "data.digest: 1 before, 2 now"),
        ({"data": {**before["data"], "images": 6}}, "data.images: 5 before, 6 now"),
        ({"cifar": {"source": "b", "digest": ""}}, "cifar.source: a before, b now"),
        ({"teacher": {"name": "a", "digest": "2"}}, "teacher.digest: 1 before, 2 now"),
    ):
        with pytest.raises(UsageError, match=words):
            check_same(before, {**before, **changes}, "run")


class Mixed(nn.Module):
    """A linear map, a table, a norm and a bias; another linear map that stays as it is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.still = nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.table = nn.Parameter(torch.randn(3, 4))
        self.still.requires_grad_(False)

    def forward(self, values):
        hidden = self.linear(values)
        return (hidden + self.norm(hidden) * self.table[0] + self.table.sum(0)).square().sum()


def test_muon_moves_linear_maps_as_far_as_adamw_would_and_adamw_the_rest():
    """AdamW's first step is the rate, in the sign of the gradient; Muon's has a root mean square of a fifth of it, and
    all its singular values are about as large."""
    parts = nn.ModuleDict({"one": Mixed()})
    before = weights(Namespace(parts=parts))
    optimization = Optimization(parts, settings(optimizer="muon", weight_decay=0.0, warmup=0, lr=1e-3))
    assert optimization.begin(0) == pytest.approx(1e-3, rel=0.05)
    parts["one"](torch.randn(5, 6)).backward()
    gradients = {name: one.grad.clone() for name, one in parts.named_parameters() if one.requires_grad}
    optimization.step(0)
    moved = {name: value - before[name] for name, value in parts.state_dict().items()}
    lr = optimization.optimizers[1].param_groups[0]["lr"]
    assert lr == optimization.optimizers[0].param_groups[0]["lr"]
    for name in ("one.norm.weight", "one.norm.bias", "one.linear.bias", "one.table"):
        torch.testing.assert_close(moved[name], -lr * gradients[name].sign(), rtol=1e-3, atol=1e-8)
    step = moved["one.linear.weight"]
    assert step.square().mean().sqrt() == pytest.approx(0.2 * lr, rel=0.35)
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.4 * values.max()
    assert (step * gradients["one.linear.weight"]).sum() < 0
    assert not any(moved[name].any() for name in moved if "still" in name)


def test_all_optimizers_let_weights_decay():
    def after(decay):
        parts = nn.ModuleDict({"one": Mixed()})
        optimization = Optimization(parts, settings(optimizer="muon", weight_decay=decay, steps=1))
        before = weights(Namespace(parts=parts))
        rate = optimization.begin(0)
        parts["one"](torch.ones(5, 6)).backward()
        optimization.step(0)
        return before, rate, weights(Namespace(parts=parts))

    (before, rate, plain), (_, _, decayed) = after(0.0), after(0.5)
    for name in before:
        expected = plain[name] - (0 if "still" in name else rate * 0.5 * before[name])
        torch.testing.assert_close(decayed[name], expected)


def test_all_optimizers_go_on_from_a_checkpoint():
    def after(steps, begun=None):
        parts = nn.ModuleDict({"one": Mixed()})
        optimization = Optimization(parts, settings(optimizer="muon", ema=0.5))
        if begun is not None:
            optimization.restore(begun)
        for step in steps:
            optimization.begin(step)
            parts["one"](torch.randn(5, 6, generator=torch.Generator().manual_seed(step))).backward()
            optimization.step(step)
        return {name: value.clone() for name, value in optimization.tensors().items()}

    half = after(range(3))
    assert {name.split("/")[-1] for name in half} >= {"momentum_buffer", "exp_avg", "exp_avg_sq"}
    whole, resumed = after(range(6)), after(range(3, 6), half)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(("first", "second"), [("muon", "adamw"), ("adamw", "muon")])
def test_a_checkpoint_of_another_optimizer_is_refused(batches, tmp_path, first, second):
    checkpoints = Checkpoints(tmp_path, {})
    train(Means(), batches, settings(optimizer=first), session=Session(checkpoints=checkpoints))
    session = Session(checkpoints=checkpoints, resume=checkpoints.latest())
    with pytest.raises(BrdynError, match="does not fit this run"):
        train(Means(), batches, settings(optimizer=second, steps=20), session=session)


def test_pieces_do_not_matter(batches):
    whole, pieces = Means(), Means()
    for task, accumulate in ((whole, 1), (pieces, 4)):
        task.forward = without_noise(task)
        train(task, batches, settings(accumulate=accumulate))
    torch.testing.assert_close(whole.parts["images"].weight, pieces.parts["images"].weight)


def without_noise(task):
    def forward(inputs, step):
        one = torch.ones(len(inputs), 1)
        return {"images": (task.parts["images"](one)[:, 0] - inputs).square()}

    return forward


def test_the_callers_random_state_is_left_alone(batches):
    task = Means()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(task, batches, settings(steps=2))
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_is_named(batches, tmp_path):
    task = Means()
    task.break_at = 9
    checkpoints = Checkpoints(tmp_path, {})
    with pytest.raises(BrdynError, match=r"loss of images is not finite at step 10 of stage 1.*stage1-00000008"):
        train(task, batches, settings(), session=Session(checkpoints=checkpoints))
    assert [path.name for path in checkpoints.paths()] == ["stage1-00000004", "stage1-00000008"]


def test_clipping_is_by_part(batches):
    """Each part's gradient gets the largest norm allowed, whatever the other's is."""
    norms = []

    def look(optimizer, *_):
        norms.append([p.grad.norm().item() for group in optimizer.param_groups for p in group["params"]])

    handle = register_optimizer_step_pre_hook(look)
    try:
        train(Means(), batches, settings(steps=1, clip=1e-3))
    finally:
        handle.remove()
    assert norms == [pytest.approx([1e-3, 1e-3], rel=1e-3)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps 0 is not positive"),
        ({"lr": -1.0}, "lr -1.0 is negative"),
        ({"precision": "int8"}, "unknown precision"),
        ({"ema": 1.0}, "ema 1.0"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; choose one of adamw, muon"),
        ({"accumulate": 9}, "cannot be split into 9"),
        ({"lr": math.nan}, "lr nan"),
    ],
)
def test_settings_that_make_no_sense(changes, words):
    with pytest.raises(UsageError, match=words):
        settings(**changes)


def test_checkpoints_are_whole_and_their_own(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"lr": 0.1, "block": {"mlp": "gelu"}}, keep=2)
    for step in (5, 10, 15):
        checkpoints.save(1, step, {"a": torch.full((3,), float(step))}, {"earlier": {}})
    (tmp_path / ".unfinished-dead").mkdir()
    assert [path.name for path in checkpoints.paths()] == ["stage1-00000010", "stage1-00000015"]
    assert checkpoints.latest().tensors["a"].tolist() == [15, 15, 15]
    with pytest.raises(UsageError, match=r"block.mlp: gelu before, swiglu now; lr: 0.1 before, 0.2 now"):
        Checkpoints(tmp_path, {"lr": 0.2, "block": {"mlp": "swiglu"}}).latest()

    file = tmp_path / "stage1-00000015" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BrdynError, match=r"is damaged .*`previous=True` goes on from stage1-00000010"):
        checkpoints.latest()
    assert checkpoints.latest(previous=True).step == 10
    state = tmp_path / "stage1-00000010" / "state.json"
    state.write_text(json.dumps({"stage": 1}))
    with pytest.raises(BrdynError, match="damaged"):
        checkpoints.latest(previous=True)
    checkpoints.save(2, 1, {"a": torch.zeros(1)}, {})
    assert not list(tmp_path.glob(".unfinished-*"))
    assert checkpoints.latest().stage == 2
    assert Checkpoints(tmp_path / "none", {}).latest() is None


def test_a_checkpoint_altered_in_place_is_refused(tmp_path):
    """As long as before and readable as tensors: only the checksum tells."""
    checkpoints = Checkpoints(tmp_path, {})
    path = checkpoints.save(1, 5, {"a": torch.ones(3)}, {}) / "state.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BrdynError, match="its checksum differs: it is cut short or altered"):
        checkpoints.latest()
    path.write_bytes(data)
    assert checkpoints.latest().tensors["a"].tolist() == [1, 1, 1]


class Repeated(Means):
    """Asks for more steps on the same batch: all images at first, fewer each time, none after the fourth."""

    def inputs(self, batch):
        return {"images": super().inputs(batch), "round": 0}

    def forward(self, inputs, step):
        inputs["round"] += 1
        self.rounds.append((step, inputs["round"]))
        return super().forward(inputs["images"], step)

    def onward(self, inputs):
        share = {1: 1.0, 2: 0.75, 3: 0.5}[inputs["round"]]
        return torch.linspace(0, 1, len(inputs["images"])) < share


def test_a_batch_goes_on_while_most_of_its_images_ask_for_it(batches):
    task = Repeated()
    task.rounds = []
    history = train(task, batches, settings(steps=3, log_every=1))
    assert task.rounds == [(step, number) for step in range(3) for number in (1, 2, 3)]
    assert [row["step"] for row in history.losses] == [1, 2, 3]
    once = Means()
    train(once, batches, settings(steps=3, log_every=1))
    assert task.parts["images"].weight > once.parts["images"].weight > 0  # three times the steps
    pieces = Repeated()
    pieces.rounds = []
    train(pieces, batches, settings(steps=3, log_every=1, accumulate=2))
    torch.testing.assert_close(pieces.parts["images"].weight, task.parts["images"].weight)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_written_out(batches, warmup):
    """It begins with the weights of the start, or by timm's warm-up, 1 - s^(-2/3) after step s, up to the decay asked
    for, with those of the first step. Validation is of it."""
    task, seen = Means(), []
    task.parts["noise"].requires_grad_(False)

    def remember(*_):
        seen.append(task.parts["images"].weight.item())

    chosen = settings(steps=6, ema=0.6, ema_warmup=warmup, log_every=1)
    history = train(task, batches, chosen, session=Session(report=remember))
    weights_after = list(dict.fromkeys(seen))
    average = 0.0  # of the start
    for step, weight in enumerate(weights_after, 1):
        decay = min(0.6, 1 - step ** (-2 / 3)) if warmup else 0.6
        average = decay * average + (1 - decay) * weight
    assert len(weights_after) == 6
    assert task.average["images.weight"].item() == pytest.approx(average, rel=1e-5)
    assert history.validation[-1]["weight"] == pytest.approx(average, rel=1e-5)
    assert task.parts["images"].weight.item() == weights_after[-1]  # and its own weights are as they were


def test_what_is_called_is_compiled():
    """Of a list of blocks, or a network that has one, that is each block: a list itself is never called."""
    blocks = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    rest = {"stem": nn.Sequential(nn.Linear(1, 1), nn.ReLU())}
    parts = nn.ModuleDict(
        {
            "one": nn.Linear(1, 1),
            "single": nn.ModuleList([nn.Linear(1, 1)]),
            "blocks": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]),
            "network": nn.ModuleDict({**rest, "blocks": nn.Sequential(*blocks)}),
        }
    )
    compile_parts(parts)
    compiled = {name for name, module in parts.named_modules() if module._compiled_call_impl is not None}
    assert compiled == {
        "one", "single.0", "blocks.0", "blocks.1", "network.blocks.0", "network.blocks.1"
    }  # fmt: skip


def test_a_run_that_begins_anew_does_not_see_the_old_ones_checkpoints(tmp_path):
    Checkpoints(tmp_path, {}).save(1, 5, {"w": torch.zeros(1)}, {})
    anew = Checkpoints(tmp_path, {}, anew=True)
    assert anew.paths() == []
    anew.save(1, 2, {"w": torch.ones(1)}, {})
    assert [path.name for path in anew.paths()] == ["stage1-00000002"]


def test_an_old_checkpoint_goes_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    """Files, their folder, the name, and the folder that has it: each through to the disk before the next."""
    checkpoints, calls = Checkpoints(tmp_path, {}, keep=1), []
    checkpoints.save(1, 1, {"w": torch.zeros(1)}, {})

    def note(owner, name, place):
        call = getattr(owner, name)

        def noted(*arguments, **options):
            calls.append((name, place(arguments).split("-")[0]))
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    note(os, "fsync", lambda given: os.path.basename(os.readlink(f"/proc/self/fd/{given[0]}")))
    note(os, "replace", lambda given: os.path.basename(given[0]) + " to " + os.path.basename(given[1]))
    checkpoints.save(1, 2, {"w": torch.ones(1)}, {})
    here, above = tmp_path.name.split("-")[0], tmp_path.parent.name.split("-")[0]
    assert calls == [
        ("fsync", above), ("fsync", "state.safetensors"), ("fsync", "state.json"), ("fsync", ".unfinished"),
        ("replace", ".unfinished"), ("fsync", here), ("replace", "stage1"),
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["stage1-00000002"]


def test_checkpoints_are_removed_newest_last(tmp_path, monkeypatch):
    """A kill in between leaves one that is whole, never a damaged one."""
    checkpoints = Checkpoints(tmp_path / "c", {})
    for step in (1, 2):
        checkpoints.save(1, step, {"w": torch.zeros(1)}, {})
    left, rmtree = [], shutil.rmtree

    def look(path, *arguments, **options):
        left.append([one.name for one in Checkpoints(tmp_path / "c", {}).paths()])
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", look)
    checkpoints.remove()
    assert left == [["stage1-00000002"], []]
    assert not (tmp_path / "c").exists()


def test_what_is_no_checkpoint_stays_where_they_were(tmp_path):
    """A folder of that name may be somebody's; what is half written is not."""
    for name in ("mine.pth", "stage-final/state.json", "stageA-1/state.json", "deep/mine.pth", ".unfinished-1/half"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(1, 5, {"w": torch.zeros(1)}, {})
    assert [path.name for path in checkpoints.paths()] == ["stage1-00000005"]
    (tmp_path / ".unfinished-2").mkdir()
    checkpoints.remove()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.pth", "stage-final", "stageA-1", "deep"}
    assert (tmp_path / "deep" / "mine.pth").read_text() == "{}"


def test_a_batch_is_for_all_processes(batches):
    class Two:
        num_processes, device, is_main_process = 9, torch.device("cpu"), True

    with pytest.raises(UsageError, match="a batch of 8 cannot be shared among 9 processes"):
        train(Means(), batches, settings(), session=Session(accelerator=Two()))


@pytest.mark.parametrize(("size", "processes", "pieces", "fits"), [(8, 2, 2, True), (7, 2, 2, False), (1, 1, 1, False)])
def test_batch_normalisation_sees_two_images_at_once(size, processes, pieces, fits):
    check_shares(Means(), size, processes, 1)
    task = Means()
    task.fewest = 2
    with nullcontext() if fits else pytest.raises(UsageError, match=f"two images at once, and of a batch of {size} in"):
        check_shares(task, size, processes, pieces)


def test_a_tracker_is_told_the_stage_and_every_logged_step(batches):
    told = []
    session = Session(report=lambda *row: told.append(row))
    history = train(Means(), batches, settings(), session=session, stage=2)
    assert [(stage, step) for stage, step, _ in told] == [
        (2, 3), (2, 6), (2, 6), (2, 9), (2, 12), (2, 12)
    ]  # fmt: skip
    assert [row for _, __, row in told if "lr" in row] == history.losses
    assert [{"step": float(step), **row} for _, step, row in told if "lr" not in row] == history.validation


def test_another_tasks_checkpoint_is_refused(batches, tmp_path):
    checkpoints, other = Checkpoints(tmp_path, {}), Means()
    train(Means(), batches, settings(), session=Session(checkpoints=checkpoints))
    other.parts["images"] = nn.Linear(1, 1)  # a bias more
    with pytest.raises(BrdynError, match=r"stage1-00000012' does not fit this run"):
        train(other, batches, settings(), session=Session(resume=checkpoints.latest()))


def test_a_session_has_one_accelerator():
    """Its own where it has one; a slip of the pen in a name is no session."""
    own = Session().on(torch.device("cpu"))
    assert own.device.type == "cpu"
    assert Session(accelerator=own).on(torch.device("cuda")) is own
    with pytest.raises(TypeError, match="checkpoint'"):
        Session(checkpoint=None)
    assert len(repr(Session(accelerator=own))) < 200


def test_a_training_is_where_it_is_asked_for_whatever_came_before(monkeypatch):
    """accelerate keeps the first device of a process: the next training would go there, or be refused. One of the same
    device is left to whoever holds it."""
    make_accelerator(torch.device("cpu"))
    monkeypatch.setitem(AcceleratorState._shared_state, "mark", "of its holder")
    make_accelerator(torch.device("cpu"))
    assert AcceleratorState._shared_state["mark"] == "of its holder"
    for state in (PartialState, AcceleratorState):
        monkeypatch.setitem(state._shared_state, "device", torch.device("cuda"))
    assert make_accelerator(torch.device("cpu")).device.type == "cpu"

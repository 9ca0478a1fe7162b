"""Checkpoints of the papers' code, rebuilt here from their layout: read without their classes, the same function."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from brdyn.errors import BrdynError, UsageError
from brdyn.models.module_pickles import read_module
from brdyn.raptor import Raptor, read_official
from tests.conftest import scramble, tiny_vit

NAME = "their_code"


class Halves(nn.Module):
    def forward(self, both):
        gate, value = both.chunk(2, -1)
        return nn.functional.silu(gate) * value


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class TheirBlock(nn.Module):
    """As method notes and names describe it; attention is torch's own."""

    def __init__(self, width=16, heads=2, swiglu=True, scaled=True):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls1, self.ls2 = Scale(width), Scale(width)
        hidden = 4 * width
        first = nn.Linear(width, 2 * hidden if swiglu else hidden)
        self.mlp = nn.Sequential(first, Halves() if swiglu else nn.GELU(), nn.Linear(hidden, width))
        if scaled:
            self.t_proj = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 3 * width))

    def forward(self, state, layer):
        one = torch.ones(3, state.shape[-1])
        on_attention, on_mlp, on_output = (
            1 + self.t_proj(torch.tensor([float(layer)])).view(3, -1) if hasattr(self, "t_proj") else one
        )
        normed = self.norm1(state)
        state = state + on_attention * self.ls1.gamma * self.attn(normed, normed, normed)[0]
        return on_output * (state + on_mlp * self.ls2.gamma * self.mlp(self.norm2(state)))


class TheirRaptor(nn.Module):
    def __init__(self, blocks, thresholds):
        super().__init__()
        self.blocks, self.thresholds = nn.ModuleList(blocks), thresholds


CLASSES = (Halves, Scale, TheirBlock, TheirRaptor)


def written(folder, monkeypatch, *, swiglu=True, scaled=True, width=16, whole=True):
    """A file of theirs; its classes are nowhere when it is read."""
    theirs = TheirRaptor([TheirBlock(width, 2, swiglu, scaled) for _ in range(2)], [3])
    scramble(theirs)
    path = folder / "final_raptor2_seed_1_step_2.pt"
    if not whole:
        torch.save(theirs.state_dict(), path)
        return path, theirs
    module = ModuleType(NAME)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, NAME, module)
        for kind in CLASSES:
            setattr(module, kind.__name__, kind)
            patch.setattr(kind, "__module__", NAME)
        torch.save(theirs, path)
    return path, theirs


@pytest.mark.parametrize(("swiglu", "scaled"), [(True, True), (False, True), (True, False)])
def test_it_computes_what_theirs_does(tmp_path, monkeypatch, swiglu, scaled):
    path, theirs = written(tmp_path, monkeypatch, swiglu=swiglu, scaled=scaled)
    teacher = tiny_vit()
    raptor = read_official(path, teacher)
    assert raptor.assignment == (0, 0, 0, 1)
    state = torch.randn(2, 22, 16, generator=torch.Generator().manual_seed(1))
    own = state
    for layer, block in enumerate(raptor.blocks, 1):
        own = block(own)
        with torch.no_grad():
            state = theirs.blocks[0 if layer <= 3 else 1](state, layer)
        torch.testing.assert_close(own, state, rtol=1e-5, atol=1e-5)
    raptor.save_pretrained(tmp_path / "raptor")
    again = Raptor.from_pretrained(tmp_path / "raptor", teacher)
    assert torch.equal(again.blocks[3](own), raptor.blocks[3](own))


def test_tensors_alone_need_boundaries(tmp_path, monkeypatch):
    path, _ = written(tmp_path, monkeypatch, whole=False)
    with pytest.raises(UsageError, match="does not say where its 2 phases end; give `boundaries`"):
        read_official(path, tiny_vit())
    with pytest.raises(UsageError, match="2 blocks, which need 1 boundaries, not 2"):
        read_official(path, tiny_vit(), [1, 2])
    assert read_official(path, tiny_vit(), [1]).assignment == (0, 1, 1, 1)


def test_only_a_file_of_objects_is_read_as_one(tmp_path, monkeypatch):
    """Not one that is damaged, whatever it is called."""
    path, _ = written(tmp_path, monkeypatch, whole=False)
    damaged = tmp_path / "pickled Python objects.pt"
    damaged.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BrdynError, match=r"objects.pt' as a checkpoint .* is the download complete"):
        read_official(damaged, tiny_vit())


def test_what_does_not_fit_is_said(tmp_path, monkeypatch):
    path, _ = written(tmp_path, monkeypatch, width=32)
    with pytest.raises(UsageError, match="blocks of width 32, and 'tiny_vit' has width 16"):
        read_official(path, tiny_vit())
    path, _ = written(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"its phases end at \[3\]; drop `boundaries`"):
        read_official(path, tiny_vit(), [2])
    with pytest.raises(UsageError, match="do not increase from 1 to 2"):
        read_official(path, tiny_vit(depth=3))
    torch.save({"head.weight": torch.zeros(2)}, path)
    with pytest.raises(BrdynError, match=r"holds 'head.weight', which no Raptor"):
        read_official(path, tiny_vit())
    torch.save({"blocks.0.norm1.weight": torch.zeros(16), "blocks.0.surplus": torch.zeros(2)}, path)
    with pytest.raises(BrdynError, match="no MLP"):
        read_official(path, tiny_vit(), [])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BrdynError, match="cannot read"):
        read_official(path, tiny_vit())


@pytest.mark.parametrize(
    ("value", "words"), [(torch.nan, "has 16 values that are not finite"), (torch.int8, "is int8: quantised")]
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, monkeypatch, value, words):
    path, theirs = written(tmp_path, monkeypatch, whole=False)
    state = theirs.state_dict()
    state["blocks.1.norm1.weight"] = (
        torch.full((16,), value) if isinstance(value, float) else torch.ones(16, dtype=value)
    )
    torch.save(state, path)
    with pytest.raises(BrdynError, match=f"blocks.1.norm1.weight in .* {words}"):
        read_official(path, tiny_vit(), [1])


class Runs:
    """What unpickling it would do."""

    def __reduce__(self):
        return (exec, ("import tests.raptor.test_official as here; here.ran.append(1)",))


ran: list[int] = []


@pytest.mark.parametrize(
    ("as_now", "words"), [(True, "holds no module with parameters"), (False, "a module as torch before 1.6")]
)
def test_nothing_in_a_file_is_run(tmp_path, as_now, words):
    content = {"evil": Runs(), "blocks.0.norm1.weight": torch.zeros(16)}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=as_now)
    with pytest.raises(BrdynError, match=words):
        read_module(tmp_path / "evil.pt")
    assert ran == []

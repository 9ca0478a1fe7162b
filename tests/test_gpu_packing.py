"""State that travels: packed into parts of bounded size with checksums, unpacked whole or refused."""

import io
import tarfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.gpu import packing
from brdyn.classifiers.architectures import build
from brdyn.classifiers.config import ViTRMConfig
from brdyn.classifiers.vitrm import ViTRM
from brdyn.errors import BrdynError


def test_states_fit():
    with torch.device("meta"):
        vitrm = ViTRM(ViTRMConfig())
        small, twelve = (build(name, 10, 32, drop_path=0.1) for name in ("vit-small", "vit-tiny12"))
    vitrm_size, small_size, twelve_size = (
        sum(one.numel() for one in network.parameters()) for network in (vitrm, small, twelve)
    )
    assert 4 * 4 * vitrm_size < 0.96 * packing.MOST  # weights, their average, and two moments
    assert 2 * (vitrm_size + small_size) < packing.MOST
    # two networks at their best, and the other moments of one
    assert 2 * twelve_size * (2 + 3) < packing.MOST


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), max_size=6), part=st.integers(700, 30_000))
def test_what_is_packed_is_unpacked(sizes, part, tmp_path_factory):
    home, out, other = (tmp_path_factory.mktemp(name) for name in ("home", "out", "other"))
    for number, size in enumerate(sizes):
        path = home / f"run{number % 2}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * size)
    size, left_out = packing.pack(home, sorted(home.iterdir()), out, part=part)
    assert left_out == []
    parts = sorted(out.glob("state.0*"))
    assert all(path.stat().st_size <= part for path in parts)
    assert sum(path.stat().st_size for path in parts) == size
    names = packing.unpack(out, other)
    assert sorted(names) == sorted(str(path.relative_to(home)) for path in home.glob("*/*"))
    for name in names:
        assert (other / name).read_bytes() == (home / name).read_bytes()


def test_a_pack_takes_the_most_wanted_that_fit_and_says_what_does_not(tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    (home / "checkpoint").mkdir(parents=True)
    out.mkdir()
    for name, size in {"checkpoint/a": 40_000, "checkpoint/b": 40_000, "small": 9000}.items():
        (home / name).write_bytes(b"x" * size)
    size, left_out = packing.pack(home, [home / "checkpoint", home / "small"], out, most=60_000)
    assert left_out == ["checkpoint"]  # whole or not at all
    assert size <= 60_000
    assert packing.unpack(out, tmp_path / "other") == ["small"]


@pytest.mark.parametrize("harm", ["cut", "gone", "flipped", "first gone", "no state"])
def test_a_state_that_is_not_whole_is_refused_and_nothing_is_unpacked(harm, tmp_path):
    home, out, other = (tmp_path / name for name in ("home", "out", "other"))
    for folder in (home, out, other):
        folder.mkdir()
    (home / "weights").write_bytes(b"x" * 3000)
    packing.pack(home, [home / "weights"], out, part=4096)
    last = out / "state.001"
    if harm == "cut":
        last.write_bytes(last.read_bytes()[:-1])
    elif harm == "gone":
        last.unlink()
    elif harm == "flipped":
        last.write_bytes(bytes([last.read_bytes()[0] ^ 1]) + last.read_bytes()[1:])
    elif harm == "first gone":
        (out / "state.000").unlink()
    elif harm == "no state":
        for path in out.iterdir():
            path.unlink()
    with pytest.raises(BrdynError):
        packing.unpack(out, other)
    assert list(other.iterdir()) == []


def test_what_is_here_stays(tmp_path):
    home, out, other = (tmp_path / name for name in ("home", "out", "other"))
    for folder in (home, out, other):
        folder.mkdir()
        (folder / "result.json").write_text(folder.name)
    packing.pack(home, [home / "result.json"], out)
    assert packing.unpack(out, other) == []
    assert (other / "result.json").read_text() == "other"
    packing.pack_results(home, ["*.json"], out)
    assert packing.unpack_results(out, other, replace=False) == []
    assert packing.unpack_results(out, other, replace=True) == ["result.json"]
    assert (other / "result.json").read_text() == "home"


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "run").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "run" / packing.RESULTS).write_bytes(whole.getvalue())
    with pytest.raises(BrdynError, match="outside"):
        packing.unpack_results(tmp_path / "run", tmp_path / "home", replace=True)
    assert not (tmp_path / "outside").exists()

"""Eigenvalues of symmetric matrices: the kernels, run by Triton's interpreter, against LAPACK in float64."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from brdyn.measures.eigenvalues import eigenvalues, kernels_work
from tests.forked import process


def interpreted(folder):
    """In a process of its own: Triton is imported anew, and reads then that its interpreter is to run kernels."""
    os.environ["TRITON_INTERPRET"] = "1"
    for name in [name for name in sys.modules if name.startswith("triton") and "._C" not in name]:
        del sys.modules[name]
    from brdyn.measures import eigenvalue_kernels as kernels

    kernels.BLOCK_SIZE, found = 64, {}  # of 4 rows
    for name, matrix in matrices().items():
        kernels.IN_REGISTERS = 128 * name.startswith("registers")
        found[name] = kernels.on_gpu(torch.from_numpy(matrix)).numpy()
    np.savez(folder / "found.npz", **found)


def matrices() -> dict[str, np.ndarray]:
    """Each `(B, n, n)`, few and small, since the interpreter takes a tenth of a second a row."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(5, 5)))[0]
    clusters = 1e-30 * block_diag(np.ones((2, 2)), np.eye(2), np.zeros((1, 1)))[None]
    single = {
        "registers, full": np.cov(random.normal(size=(12, 5)).T)[None],
        "registers, clusters": clusters,
        "memory, clusters": clusters,
        "memory, of one row": np.full((1, 1, 1), -3.0),
        "memory, spoilt": np.array([[[1, np.nan], [np.nan, 1]]]),
    }
    precise = {"memory, steep": (turn * np.logspace(-12, 0, 5)) @ turn.T[None]}
    return {name: matrix.astype(np.float32) for name, matrix in single.items()} | precise


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_kernels_find_the_eigenvalues_that_lapack_finds_in_float64(tmp_path):
    running = process(interpreted, tmp_path)
    running.start()
    running.join()
    assert running.exitcode == 0
    with np.load(tmp_path / "found.npz") as found:
        for name, matrix in matrices().items():
            if np.isnan(matrix).any():
                assert np.isnan(found[name]).all()
                continue
            expected = np.linalg.eigvalsh(matrix.astype(np.float64))
            tolerance = (5e-7 if matrix.dtype == np.float32 else 1e-14) * np.abs(expected).max()
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance, err_msg=name)


def test_eigenvalues_on_the_host():
    values = torch.tensor([[1.0, 2.0, 5.0], [0.0, 0.0, 3.0]])
    turn = torch.linalg.qr(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    found = eigenvalues(turn * values[:, None] @ turn.mT)
    torch.testing.assert_close(found, values.double(), rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("error")
def test_a_machine_that_cannot_build_kernels_is_told_so_and_goes_on(monkeypatch):
    """Without a compiler, say; but a GPU that is full is not such a machine."""
    said = RuntimeError("Failed to find C compiler")

    def fail(_):
        raise said

    kernels = type(sys)("brdyn.measures.eigenvalue_kernels")
    kernels.on_gpu = fail
    monkeypatch.setitem(sys.modules, "brdyn.measures.eigenvalue_kernels", kernels)
    kernels_work.cache_clear()
    with pytest.warns(UserWarning, match="on the host.*for cpu.*Failed to find C compiler"):
        assert not kernels_work(torch.device("cpu"))
    kernels_work.cache_clear()
    said = torch.OutOfMemoryError("out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        kernels_work(torch.device("cpu"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_matrices_that_are_not_finite_have_no_eigenvalues_and_the_others_theirs(value):
    found = eigenvalues(torch.stack([torch.eye(3), torch.full((3, 3), value), 2 * torch.eye(3)]))
    np.testing.assert_array_equal(found, [[1, 1, 1], [np.nan] * 3, [2, 2, 2]])

"""Eigenvalues of small symmetric matrices: the GPU's kernels, run by Triton's interpreter, against LAPACK in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from brdyn.measures.eigenvalues import eigenvalues

INTERPRETED = """
import sys
import numpy as np, torch
from brdyn.measures import eigenvalue_kernels as kernels

folder, kernels.IN_REGISTERS, kernels.BLOCK_SIZE = sys.argv[1], int(sys.argv[2]), 128
with np.load(folder + "/matrices.npz") as matrices:
    found = {name: kernels.on_gpu(torch.from_numpy(matrix)).numpy() for name, matrix in matrices.items()}
np.savez(folder + "/found.npz", **found)
"""


def matrices() -> dict[str, np.ndarray]:
    """Each `(B, n, n)`: full, of low rank, without a reflection to make, with clusters, far from one."""
    random = np.random.default_rng(0)
    factor, turn = random.normal(size=(2, 11, 3)), np.linalg.qr(random.normal(size=(12, 12)))[0]
    tridiagonal = np.diag(np.arange(9.0)) + np.diag(np.ones(8), 1) + np.diag(np.ones(8), -1)
    spoilt = np.eye(9)
    spoilt[2, 7] = spoilt[7, 2] = np.nan
    single = {
        **{f"n={n}": np.cov(random.normal(size=(2 * n + 1, n)).T).reshape(1, n, n) for n in (1, 2, 3, 17)},
        "low rank": factor @ factor.transpose(0, 2, 1),
        "plain": np.stack([tridiagonal, np.eye(9), np.zeros((9, 9)), np.ones((9, 9)), spoilt]),
        "steep": (turn * np.logspace(-30, 0, 12)) @ turn.T[None],
        "small": 1e-30 * (turn * np.linspace(-1, 2, 12)) @ turn.T[None],
    }
    precise = {"float64": (turn * np.logspace(-12, 0, 12)) @ turn.T[None]}
    return {name: matrix.astype(np.float32) for name, matrix in single.items()} | precise


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("in_registers", [0, 128])
def test_kernels_find_the_eigenvalues_that_lapack_finds_in_float64(tmp_path, in_registers):
    asked = matrices()
    np.savez(tmp_path / "matrices.npz", **asked)
    command = [sys.executable, "-c", INTERPRETED, str(tmp_path), str(in_registers)]
    subprocess.run(command, check=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    with np.load(tmp_path / "found.npz") as found:
        for name, matrix in asked.items():
            whole = np.isfinite(matrix).all((1, 2))
            expected = np.linalg.eigvalsh(matrix[whole].astype(np.float64))
            largest = np.abs(expected).max()
            tolerance = (1e-6 if matrix.dtype == np.float32 else 1e-14) * largest
            np.testing.assert_allclose(found[name][whole], expected, rtol=0, atol=tolerance, err_msg=name)
            assert np.isnan(found[name][~whole]).all()


def test_eigenvalues_on_the_host():
    values = torch.tensor([[1.0, 2.0, 5.0], [0.0, 0.0, 3.0]])
    turn = torch.linalg.qr(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    found = eigenvalues(turn * values[:, None] @ turn.mT)
    torch.testing.assert_close(found, values.double(), rtol=0, atol=2e-6)

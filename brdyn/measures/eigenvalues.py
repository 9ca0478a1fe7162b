"""Eigenvalues of many small symmetric matrices: by a kernel on a GPU where there is one for them, else by LAPACK.

Solvers of GPU libraries are made for one large matrix or for matrices of up to 32 rows: at 256 they are slower than the
host, whose LAPACK takes milliseconds a matrix.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

LARGEST_ON_GPU = 1024


def eigenvalues(matrices: Tensor) -> Tensor:
    """Ascending eigenvalues of symmetric matrices `(B, n, n)`, `(B, n)`, found in their precision, as float64.

    >>> from brdyn.measures.eigenvalues import eigenvalues
    >>> eigenvalues(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])).numpy().round(4)
    array([[1., 3.]])
    """
    if matrices.is_cuda and matrices.shape[-1] <= LARGEST_ON_GPU and find_spec("triton"):
        from brdyn.measures.eigenvalue_kernels import on_gpu

        return on_gpu(matrices)
    return on_host(matrices)


def on_host(matrices: Tensor) -> Tensor:
    """The same by LAPACK. Each thread takes some of the matrices, on one core: LAPACK makes little of threads here."""
    threads = torch.get_num_threads()
    parts = np.array_split(matrices.cpu().numpy(), threads)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        found = torch.from_numpy(np.concatenate(list(pool.map(np.linalg.eigvalsh, parts))))
    return found.double().to(matrices.device)

"""Eigenvalues of many small symmetric matrices: by a kernel on a GPU where there is one for them, else by LAPACK.

Solvers of GPU libraries are made for one large matrix or for matrices of up to 32 rows: at 256 they are slower than the
host, whose LAPACK takes milliseconds a matrix.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from brdyn.words import first_line

LARGEST_ON_GPU = 1024


def eigenvalues(matrices: Tensor) -> Tensor:
    """Ascending eigenvalues of symmetric matrices `(B, n, n)`, `(B, n)`, found in their precision, as float64.

    A matrix with an entry that is not finite has none: NaN.

    >>> from brdyn.measures.eigenvalues import eigenvalues
    >>> eigenvalues(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])).numpy().round(4)
    array([[1., 3.]])
    """
    if matrices.is_cuda and matrices.shape[-1] <= LARGEST_ON_GPU and kernels_work(matrices.device):
        from brdyn.measures.eigenvalue_kernels import on_gpu

        return on_gpu(matrices)
    return on_host(matrices)


@cache
def kernels_work(device: torch.device) -> bool:
    """Whether kernels can be built here: that takes triton, a C compiler, and a GPU that they fit. Tried once, and said
    where they cannot."""
    try:
        from brdyn.measures.eigenvalue_kernels import on_gpu

        for dtype in (torch.float32, torch.float64):
            on_gpu(torch.eye(2, dtype=dtype, device=device)[None])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of triton, its compiler, or the driver
        warnings.warn(
            f"eigenvalues are found on the host, which takes longer: no kernel can be built for {device} "
            f"({type(error).__name__}: {first_line(error)})",
            stacklevel=2,
        )
        return False
    return True


def on_host(matrices: Tensor) -> Tensor:
    """The same by LAPACK. Each thread takes some of the matrices, on one core: LAPACK makes little of threads here."""
    threads = torch.get_num_threads()
    finite = matrices.isfinite().flatten(1).all(1).cpu()
    values = torch.full(matrices.shape[:2], torch.nan, dtype=torch.float64)
    parts = np.array_split(matrices.cpu()[finite].numpy(), threads)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        found = np.concatenate(list(pool.map(np.linalg.eigvalsh, parts)))
    values[finite] = torch.from_numpy(found).double()
    return values.to(matrices.device)

"""Triton kernels for the eigenvalues of a batch of symmetric float32 matrices of up to 256 rows.

One program takes one matrix. Householder reflections make it tridiagonal while it lies in registers; those hold no
more than three quarters of 256 x 256 numbers, so a larger matrix than 128 x 128 is kept as its upper three blocks
of 128 x 128 until 128 rows are done, and as the last of them from then on. Bisection then finds each eigenvalue of
the tridiagonal matrix in a lane of its own.

A matrix is scaled to entries of at most one, and padded with zeros at its end, where no reflection reaches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

HALF = 128
# A column whose entries below the subdiagonal are shorter than this, of entries up to one, counts as zero.
NEGLIGIBLE = tl.constexpr(1e-15)
# Keeps the recurrence off a division by zero; far below an eigenvalue's rounding error.
PIVOT = tl.constexpr(1e-20)
# Halvings of an interval at most four times as wide as the largest eigenvalue, to below float32's rounding.
HALVINGS = 28


@triton.jit
def _entry(x, index, at):
    """x[at]."""
    return tl.sum(tl.where(index == at, x, 0.0), axis=0)


@triton.jit
def _reflection(head, rest):
    """Subdiagonal entry, first entry of v, and scale: v v^T with |v|^2 = 2 takes (head, rest) to its multiple of e1.

    `rest` is the squared length of the others.
    """
    zero = rest <= NEGLIGIBLE * NEGLIGIBLE
    length = tl.sqrt_rn(head * head + rest)
    subdiagonal = tl.where(head > 0, -length, length)
    first = head - subdiagonal
    square = tl.where(zero, 1.0, rest + first * first)
    scale = tl.sqrt_rn(tl.div_rn(2.0, square))
    return tl.where(zero, head, subdiagonal), first, tl.where(zero, 0.0, scale)


@triton.jit
def _column_product(a, v):
    """a^T v."""
    return tl.sum(a * tl.expand_dims(v, 1), axis=0)


@triton.jit
def _row(a, index, at):
    """a[at]."""
    return tl.sum(tl.where(tl.expand_dims(index, 1) == at, a, 0.0), axis=0)


@triton.jit
def _outer(v, w):
    """v w^T."""
    return tl.expand_dims(v, 1) * tl.expand_dims(w, 0)


@triton.jit
def _tridiagonalise_block(a, index, diagonal_ptr, off_ptr, n):
    """Diagonal and subdiagonal of a block whose first n rows count."""
    row = _row(a, index, 0)
    for k in range(n - 1):
        tl.store(diagonal_ptr + k + index * 0, row, mask=index == k)
        tail = tl.where(index > k + 1, row, 0.0)
        off, first, scale = _reflection(_entry(row, index, k + 1), tl.sum(tail * tail, axis=0))
        tl.store(off_ptr + k, off)
        v = tl.where(index == k + 1, first, tail) * scale
        p = tl.where(index > k, _column_product(a, v), 0.0)
        w = p - 0.5 * tl.sum(p * v, axis=0) * v
        # The next row already updated, so that one pass over the block gives the product and the row.
        row = _row(a, index, k + 1) - first * scale * w - _entry(w, index, k + 1) * v
        a -= _outer(v, w) + _outer(w, v)
    tl.store(diagonal_ptr + n - 1 + index * 0, row, mask=index == n - 1)


@triton.jit
def _load(matrix_ptr, rows, columns, n):
    """A block, zero outside the matrix."""
    row, column = tl.expand_dims(rows, 1), tl.expand_dims(columns, 0)
    return tl.load(matrix_ptr + row * n + column, mask=(row < n) & (column < n), other=0.0)


@triton.jit
def _largest(a):
    """Largest magnitude in a block."""
    return tl.max(tl.max(tl.abs(a), axis=0), axis=0)


@triton.jit
def tridiagonalise(matrix_ptr, diagonal_ptr, off_ptr, scale_ptr, n, BLOCK: tl.constexpr):
    """Of matrices with n <= BLOCK rows, over their largest entry, which goes to `scale_ptr`."""
    matrix = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    a = _load(matrix_ptr + matrix * n * n, index, index, n)
    scale = _largest(a)
    tl.store(scale_ptr + matrix, scale)
    a = a / tl.where(scale == 0, 1.0, scale)
    _tridiagonalise_block(a, index, diagonal_ptr + matrix * n, off_ptr + matrix * n, n)


@triton.jit
def tridiagonalise_large(matrix_ptr, diagonal_ptr, off_ptr, scale_ptr, n, HALF: tl.constexpr):
    """The same for HALF < n <= 2 HALF, of the blocks [[a, b], [b^T, c]]."""
    matrix = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, HALF)
    matrix_ptr += matrix * n * n
    diagonal_ptr += matrix * n
    off_ptr += matrix * n
    a = _load(matrix_ptr, index, index, n)
    b = _load(matrix_ptr, index, index + HALF, n)
    c = _load(matrix_ptr, index + HALF, index + HALF, n)
    scale = tl.maximum(tl.maximum(_largest(a), _largest(b)), _largest(c))
    tl.store(scale_ptr + matrix, scale)
    divisor = tl.where(scale == 0, 1.0, scale)
    a, b, c = a / divisor, b / divisor, c / divisor
    row_a, row_b = _row(a, index, 0), _row(b, index, 0)
    for k in range(HALF):
        tl.store(diagonal_ptr + k + index * 0, row_a, mask=index == k)
        # In the last step the entry under the diagonal is the first of b's row.
        last = k == HALF - 1
        at = tl.where(last, 0, k + 1)
        head = _entry(tl.where(last, row_b, row_a), index, at)
        tail_a = tl.where(index > k + 1, row_a, 0.0)
        tail_b = tl.where(last & (index == 0), 0.0, row_b)
        off, first, scale_v = _reflection(head, tl.sum(tail_a * tail_a + tail_b * tail_b, axis=0))
        tl.store(off_ptr + k, off)
        v_a = tl.where(index == k + 1, first, tail_a) * scale_v
        v_b = tl.where(last & (index == 0), first, tail_b) * scale_v
        p_a = _column_product(a, v_a) + tl.sum(b * tl.expand_dims(v_b, 0), axis=1)
        p_a = tl.where(index > k, p_a, 0.0)
        p_b = _column_product(b, v_a) + _column_product(c, v_b)
        half = 0.5 * tl.sum(p_a * v_a + p_b * v_b, axis=0)
        w_a, w_b = p_a - half * v_a, p_b - half * v_b
        w_first = _entry(w_a, index, k + 1)
        row_a = _row(a, index, k + 1) - first * scale_v * w_a - w_first * v_a
        row_b = _row(b, index, k + 1) - first * scale_v * w_b - w_first * v_b
        a -= _outer(v_a, w_a) + _outer(w_a, v_a)
        b -= _outer(v_a, w_b) + _outer(w_a, v_b)
        c -= _outer(v_b, w_b) + _outer(w_b, v_b)
    _tridiagonalise_block(c, index, diagonal_ptr + HALF, off_ptr + HALF, n - HALF)


@triton.jit
def bisect(diagonal_ptr, off_ptr, scale_ptr, values_ptr, n, BLOCK: tl.constexpr, HALVINGS: tl.constexpr):
    """Ascending eigenvalues of tridiagonal matrices, times their scale: lane i narrows down the i-th.

    As many eigenvalues lie below x as pivots of T - x are negative.
    """
    matrix = tl.program_id(0).to(tl.int64)
    diagonal_ptr += matrix * n
    off_ptr += matrix * n
    index = tl.arange(0, BLOCK)
    inside = index < n
    diagonal = tl.load(diagonal_ptr + index, mask=inside, other=0.0)
    below = tl.load(off_ptr + index, mask=index < n - 1, other=0.0)
    above = tl.load(off_ptr + index - 1, mask=inside & (index > 0), other=0.0)
    radius = tl.abs(below) + tl.abs(above)
    # Disks around the diagonal hold all eigenvalues. Not a number if an entry is not.
    spoilt = 0.0 * tl.sum(diagonal + radius, axis=0)
    low = tl.min(tl.where(inside, diagonal - radius, float("inf")), axis=0) + tl.zeros([BLOCK], tl.float32)
    high = tl.max(tl.where(inside, diagonal + radius, float("-inf")), axis=0) + tl.zeros([BLOCK], tl.float32)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        pivot = tl.load(diagonal_ptr) - middle
        pivot = tl.where(tl.abs(pivot) < PIVOT, -PIVOT, pivot)
        count = (pivot < 0).to(tl.int32)
        for i in range(1, n):
            off = tl.load(off_ptr + i - 1)
            pivot = (tl.load(diagonal_ptr + i) - middle) - off * off / pivot
            pivot = tl.where(tl.abs(pivot) < PIVOT, -PIVOT, pivot)
            count += (pivot < 0).to(tl.int32)
        low = tl.where(count > index, low, middle)
        high = tl.where(count > index, middle, high)
    values = (0.5 * (low + high) + spoilt) * tl.load(scale_ptr + matrix)
    tl.store(values_ptr + matrix * n + index, values, mask=inside)


def on_gpu(matrices: Tensor) -> Tensor:
    """Ascending eigenvalues of symmetric float32 matrices `(B, n, n)`, n of 1 to 256, `(B, n)`, as float64.

    An eigenvalue is wrong by a few float32 roundings of the largest, as LAPACK's are. A matrix with an entry that
    is not finite has none: NaN.
    """
    matrices = matrices.contiguous()
    batch, n = matrices.shape[:2]
    diagonal, off, values = matrices.new_empty(3, batch, n)
    scale = matrices.new_empty(batch)
    block = max(16, triton.next_power_of_2(n))
    with torch.cuda.device_of(matrices):
        if n > HALF:
            tridiagonalise_large[(batch,)](matrices, diagonal, off, scale, n, HALF, num_warps=8, num_stages=1)
        else:
            warps = {16: 1, 32: 1, 64: 4, 128: 8}[block]
            tridiagonalise[(batch,)](matrices, diagonal, off, scale, n, block, num_warps=warps, num_stages=1)
        lanes = max(1, block // 128)
        bisect[(batch,)](diagonal, off, scale, values, n, block, HALVINGS, num_warps=lanes, num_stages=1)
    return values.double()

"""Triton kernels for the eigenvalues of a batch of symmetric matrices of up to 1024 rows.

One program takes one matrix. Householder reflections make it tridiagonal: in registers where those hold it, else in
memory, one pass over what is left of the matrix for each reflection. Bisection then finds each eigenvalue of the
tridiagonal matrix in a lane of its own.

A matrix is scaled to entries of about one, and padded with zeros at its end, where no reflection reaches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows of the largest float32 matrix that registers hold.
IN_REGISTERS = 128
# Numbers of a block that a program takes from memory at a time, and the warps that share them.
BLOCK_SIZE = 8192
WARPS = 16
# A column whose entries below the subdiagonal are shorter than this, of entries of about one, counts as zero.
NEGLIGIBLE = tl.constexpr(1e-18)
# Keeps the recurrence off a division by zero; far below an eigenvalue's rounding error.
PIVOT = tl.constexpr(1e-20)
# Halvings of an interval at most a few times as wide as the largest eigenvalue, to below rounding.
HALVINGS = {torch.float32: 28, torch.float64: 54}


@triton.jit
def _entry(x, index, at):
    """x[at]."""
    return tl.sum(tl.where(index == at, x, 0.0), axis=0)


@triton.jit
def _reflection(head, rest):
    """Subdiagonal entry, first entry of v, and scale of v, |v|^2 = 2: I - v v^T leaves of (head, others) the first.

    `rest` is the squared length of the others. In float64, since every entry shares the rounding.
    """
    head64, rest64 = head.to(tl.float64), rest.to(tl.float64)
    zero = rest64 <= NEGLIGIBLE * NEGLIGIBLE
    length = tl.sqrt(head64 * head64 + rest64)
    subdiagonal = tl.where(head64 > 0, -length, length)
    first = head64 - subdiagonal
    scale = tl.sqrt(2.0 / tl.where(zero, 1.0, rest64 + first * first))
    off = tl.where(zero, head64, subdiagonal)
    return off.to(head.dtype), first.to(head.dtype), tl.where(zero, 0.0, scale).to(head.dtype)


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
def tridiagonalise_in_registers(matrix_ptr, diagonal_ptr, off_ptr, n, WIDTH: tl.constexpr):
    """Diagonal and subdiagonal, `(n,)` a matrix, of matrices `(WIDTH, WIDTH)` whose first n rows and columns count."""
    matrix = tl.program_id(0).to(tl.int64)
    matrix_ptr += matrix * WIDTH * WIDTH
    diagonal_ptr += matrix * n
    off_ptr += matrix * n
    index = tl.arange(0, WIDTH)
    a = tl.load(matrix_ptr + tl.expand_dims(index, 1) * WIDTH + tl.expand_dims(index, 0))
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
def tridiagonalise_in_memory(
    matrix_ptr, pending_ptr, diagonal_ptr, off_ptr, n, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """The same of matrices that do not fit in registers, destroyed where they lie.

    The update by one reflection is made in the pass that multiplies by the next: until then it is pending, its v and
    w of every other step in turn in `pending_ptr`, `(2, 2, WIDTH)`, as they are needed along both rows and columns.
    """
    matrix = tl.program_id(0).to(tl.int64)
    matrix_ptr += matrix * WIDTH * WIDTH
    pending_ptr += matrix * 4 * WIDTH
    diagonal_ptr += matrix * n
    off_ptr += matrix * n
    index = tl.arange(0, WIDTH)
    w = tl.load(matrix_ptr + index) * 0
    v = w
    tl.store(pending_ptr + 2 * WIDTH + index, v)
    tl.store(pending_ptr + 3 * WIDTH + index, w)
    tl.debug_barrier()
    for k in range(n - 1):
        before = pending_ptr + 2 * WIDTH * ((k + 1) % 2)
        after = pending_ptr + 2 * WIDTH * (k % 2)
        row = tl.load(matrix_ptr + k * WIDTH + index)
        row = row - tl.load(before + k) * w - tl.load(before + WIDTH + k) * v
        tl.store(diagonal_ptr + k + index * 0, row, mask=index == k)
        tail = tl.where(index > k + 1, row, 0.0)
        off, first, scale = _reflection(_entry(row, index, k + 1), tl.sum(tail * tail, axis=0))
        tl.store(off_ptr + k, off)
        v_next = tl.where(index == k + 1, first, tail) * scale
        tl.store(after + index, v_next)
        tl.debug_barrier()
        start = (k + 1) // ROWS * ROWS
        live = tl.expand_dims(index, 0) >= start
        products = tl.zeros([ROWS, WIDTH], row.dtype)
        for r in range(start, n, ROWS):
            rows = r + tl.arange(0, ROWS)
            block_ptr = matrix_ptr + tl.expand_dims(rows, 1) * WIDTH + tl.expand_dims(index, 0)
            a = tl.load(block_ptr, mask=live, other=0.0)
            a -= _outer(tl.load(before + rows), w) + _outer(tl.load(before + WIDTH + rows), v)
            tl.store(block_ptr, a, mask=live)
            products += a * tl.expand_dims(tl.load(after + rows), 1)
        p = tl.where(index > k, tl.sum(products, axis=0), 0.0)
        v = v_next
        w = p - 0.5 * tl.sum(p * v, axis=0) * v
        tl.store(after + WIDTH + index, w)
        tl.debug_barrier()
    # The last step had one entry under the diagonal, nothing to reflect: no update is pending.
    tl.store(diagonal_ptr + n - 1, tl.load(matrix_ptr + (n - 1) * (WIDTH + 1)))


@triton.jit
def bisect(diagonal_ptr, off_ptr, values_ptr, n, WIDTH: tl.constexpr, HALVINGS: tl.constexpr):
    """Ascending eigenvalues of tridiagonal matrices: lane i narrows down the i-th.

    As many eigenvalues lie below x as pivots of T - x are negative.
    """
    matrix = tl.program_id(0).to(tl.int64)
    diagonal_ptr += matrix * n
    off_ptr += matrix * n
    index = tl.arange(0, WIDTH)
    inside = index < n
    diagonal = tl.load(diagonal_ptr + index, mask=inside, other=0.0)
    below = tl.load(off_ptr + index, mask=index < n - 1, other=0.0)
    above = tl.load(off_ptr + index - 1, mask=inside & (index > 0), other=0.0)
    radius = tl.abs(below) + tl.abs(above)
    # Disks around the diagonal hold all eigenvalues. Not a number if an entry is not.
    spoilt = 0.0 * tl.sum(diagonal + radius, axis=0)
    low = tl.min(tl.where(inside, diagonal - radius, float("inf")), axis=0) + tl.zeros([WIDTH], diagonal.dtype)
    high = tl.max(tl.where(inside, diagonal + radius, float("-inf")), axis=0) + tl.zeros([WIDTH], diagonal.dtype)
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
    tl.store(values_ptr + matrix * n + index, 0.5 * (low + high) + spoilt, mask=inside)


def on_gpu(matrices: Tensor) -> Tensor:
    """Ascending eigenvalues of symmetric matrices `(B, n, n)`, n of 1 to 1024, in float32 or float64, as float64.

    An eigenvalue is wrong by a few roundings of the largest, as LAPACK's are. A matrix with an entry that is not
    finite has none: NaN.
    """
    batch, n = matrices.shape[:2]
    width = max(16, triton.next_power_of_2(n))
    exponent = torch.frexp(matrices.abs().amax((-2, -1))).exponent
    scale = torch.ldexp(torch.ones_like(exponent, dtype=matrices.dtype), exponent)  # exact to divide by
    scaled = matrices.new_zeros(batch, width, width)
    scaled[:, :n, :n] = matrices / scale[:, None, None]
    diagonal, off, values = matrices.new_empty(3, batch, n)
    with torch.cuda.device_of(matrices):
        if width <= IN_REGISTERS and matrices.dtype == torch.float32:
            warps = max(1, width**2 // 2048)
            tridiagonalise_in_registers[(batch,)](scaled, diagonal, off, n, width, num_warps=warps)
        else:
            pending = matrices.new_empty(batch, 4, width)
            rows = min(width, BLOCK_SIZE // width)
            tridiagonalise_in_memory[(batch,)](scaled, pending, diagonal, off, n, width, rows, num_warps=WARPS)
        halvings, warps = HALVINGS[matrices.dtype], max(1, width // 128)
        bisect[(batch,)](diagonal, off, values, n, width, halvings, num_warps=warps)
    return values.double() * scale[:, None]

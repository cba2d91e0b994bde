"""Matrix products of the cpu, cut into pieces over the pool. The pieces follow from the shapes alone.

Each piece is a product by BLAS on one thread, written to its place in the result: bits are the same with any number of
threads and beside any load. BLAS packs its operands for each piece again; the rules below keep that below a tenth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.pool import aligned_empty, pool

Array = np.ndarray[Any, Any]

LEAST = 1 << 22  # multiply-adds of a piece: below, waking a thread takes as long
MOST = 1 << 29  # ... and above, threads that end early wait for long
PIECES = 8  # of a product between the two
LIMIT = 32
TOUCH = 64  # multiply-adds that take as long as an element of an operand from memory
WIDTH, UNIT = 64, 16  # a piece's least rows or columns, and their unit: a cache line of f32
LONG = 16  # times the longer side of the output: a sum as long as that is cut itself
HELD = 500  # elements of a matrix up to which NumPy keeps the interpreter's lock: no other thread would run
ADDED = 1 << 21  # bytes of a piece that is computed beside its target before it is added


@dataclass(frozen=True)
class Cut:
    """Into how many parts a product's rows, columns, or sums are cut."""

    rows: int = 1
    columns: int = 1
    sums: int = 1


def cut(rows: int, columns: int, inner: int, beside: int = 0) -> Cut:
    """The cuts of a product (rows, inner) (inner, columns). beside: bytes of the output if it is added, else 0."""
    sums = rows * columns * inner
    work = sums + TOUCH * (rows * inner + inner * columns + rows * columns)
    count = PIECES
    while count > 1 and (work < count * LEAST or (rows > 1 and rows * columns <= count * HELD)):
        count //= 2
    while count < LIMIT and sums > count * MOST:
        count *= 2
    count = max(count, -(-beside // ADDED))
    if count == 1:
        return Cut()
    if inner >= LONG * max(rows, columns) and not beside:
        return Cut(sums=count)
    if rows > 1.5 * columns:  # a side that is not cut is packed for each piece: the shorter one costs less
        return Cut(rows=min(count, max(1, rows // WIDTH)))
    halves = 2 if rows >= 512 and 2 * rows > columns and count > 2 else 1
    return Cut(rows=halves, columns=min(count // halves, max(1, columns // WIDTH)))


def parts(length: int, count: int) -> list[slice]:
    """[0, length) in that number of parts or fewer, each of a multiple of UNIT but the last."""
    size = max(1, -(-length // count))
    size = -(-size // UNIT) * UNIT
    return [slice(lo, min(lo + size, length)) for lo in range(0, length, size)]


def multiply(a: Array, b: Array, out: Array) -> None:
    """out = a b, without the interpreter's lock, which `np.matmul` keeps for a row of up to HELD numbers."""
    if len(a) == 1 and out.strides[1] == out.itemsize and a.dtype == b.dtype == out.dtype:
        np.dot(b.T, a[0], out=out[0])
    else:
        np.matmul(a, b, out=out)


def same(a: Array, b: Array) -> bool:
    """Whether two arrays are views of the same numbers in the same places."""
    return a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data


class Product:
    """out = a b, or out += a b, each time that it is called: a (rows, inner), b (inner, columns), views that stay."""

    def __init__(self, a: Array, b: Array, out: Array, add: bool = False, line: str = "") -> None:
        """line: `file:line` of its caller."""
        self.line = line
        rows, columns = out.shape
        plan = cut(rows, columns, a.shape[1], out.nbytes if add else 0)
        self.a, self.b, self.out, self.add = a, b, out, add
        self.sums = plan.sums > 1
        self.mirrored = plan != Cut() and not self.sums and not add and same(a, b.T)
        if self.mirrored:  # the longest first
            below = [(r, slice(0, r.stop)) for r in reversed(parts(rows, plan.rows * plan.columns))]
            self.pieces = [(a[r], b[:, c], out[r, c]) for r, c in below]
        elif self.sums:
            cuts = parts(a.shape[1], plan.sums)
            memory = aligned_empty(len(cuts) * out.nbytes).view(out.dtype).reshape(len(cuts), rows, columns)
            self.pieces = [(a[:, part], b[part], memory[i]) for i, part in enumerate(cuts)]
        else:
            grid = [(r, c) for r in parts(rows, plan.rows) for c in parts(columns, plan.columns)]
            self.pieces = [(a[r], b[:, c], out[r, c]) for r, c in grid]
        self.scratch = max((piece[2].nbytes for piece in self.pieces), default=0) if add else 0

    def __call__(self) -> None:
        threads = pool()
        threads.share(len(self.pieces), self._add if self.add else self._write, self.scratch)
        if self.sums:
            threads.rows(len(self.out), -(-len(self.out) // PIECES), self._total)
        if self.mirrored:
            threads.share(len(self.pieces), self._mirror)

    def _write(self, i: int) -> None:
        multiply(*self.pieces[i])

    def _add(self, i: int, scratch: Array) -> None:
        a, b, out = self.pieces[i]
        beside = scratch[: out.nbytes].view(out.dtype).reshape(out.shape)
        multiply(a, b, beside)
        np.add(out, beside, out=out)

    def _mirror(self, i: int) -> None:
        """Copy a piece of a symmetric product from below the diagonal to above it: BLAS may round the two
        differently."""
        block = self.pieces[i][2]
        left = block.shape[1] - block.shape[0]
        self.out[:left, left : block.shape[1]] = block[:, :left].T
        above, square = np.triu_indices(len(block), 1), block[:, left:]
        square[above] = square.T[above]

    def _total(self, lo: int, hi: int) -> None:
        """The parts of the sums, added in their order."""
        total, (first, *others) = self.out[lo:hi], (piece[2] for piece in self.pieces)
        np.copyto(total, first[lo:hi])
        for other in others:
            np.add(total, other[lo:hi], out=total)


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product a b as by `np.matmul`, over the threads; within a piece of work, on its thread.

    a: (..., I, K), b: (..., K, J), out: (..., I, J), all f32 or f64; leading dims broadcast. ValueError from NumPy for
    shapes that do not match.
    """
    if a.ndim < 2 or b.ndim < 2:
        return np.matmul(a, b, out=out)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = np.empty((*lead, a.shape[-2], b.shape[-1]), np.result_type(a, b))
    for one in _matrices(a, b, out):
        Product(*one)()
    return out


def _matrices(a: Array, b: Array, out: Array) -> Iterator[tuple[Array, Array, Array]]:
    """The products of matrices that a product of stacks is made of."""
    lead = out.shape[:-2]
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    for index in np.ndindex(lead):
        yield a[index], b[index], out[index]

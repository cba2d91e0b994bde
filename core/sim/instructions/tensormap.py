"""Tensor maps of the simulator: 128 bytes with our own fields, since CUtensorMap's are not documented."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.kernels.tensors import TensorMap
from core.sim.instructions.warpgroups import swizzled
from core.sim.ptx.register_types import Array

BYTES = 128
MAGIC = 0x50414D54  # TMAP
_FIELDS = struct.Struct("<IBBBB8xQ5I5I4Q8x")
KINDS = ("f32", "bf16", "f16", "i32", "u32", "u8", "f64", "i64", "u64")


@dataclass(frozen=True)
class BoxMap:
    """A tensor in global memory and the box of it that one copy moves. Sizes run from the fastest dim."""

    address: int
    kind: str
    itemsize: int
    swizzle: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]  # bytes, of all dims but the first
    box: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.box)) * self.itemsize

    def offsets(self, shared: int) -> Array:
        """Shared addresses of the box's elements, fastest dim last, from the address `shared`."""
        return swizzled(shared + np.arange(int(np.prod(self.box))) * self.itemsize, self.swizzle)

    def addresses(self, start: Sequence[int]) -> tuple[Array, Array]:
        """(global addresses, whether they are inside the tensor) of the box's elements at coordinates `start`."""
        address = np.zeros((1,) * len(self.box), np.int64) + self.address
        inside = np.ones((1,) * len(self.box), np.bool_)
        for dim, (at, count) in enumerate(zip(start, self.box, strict=True)):
            place = at + np.arange(count).reshape((-1,) + (1,) * dim)
            step = self.itemsize if dim == 0 else self.strides[dim - 1]
            address = address + place * step
            inside = inside & (place >= 0) & (place < self.dims[dim])
        return address.reshape(-1), np.broadcast_to(inside, address.shape).reshape(-1)


def encode(
    address: int,
    kind: str,
    itemsize: int,
    dims: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int],
    swizzle: int,
) -> bytes:
    """The bytes of a map, to be passed as a kernel's parameter."""

    def five(sizes: Sequence[int], count: int = 5) -> list[int]:
        return [*sizes, *[0] * (count - len(sizes))]

    packed = _FIELDS.pack(
        MAGIC, len(dims), KINDS.index(kind), itemsize, swizzle, address, *five([d - 1 for d in dims]), *five(box),
        *five(strides, 4),
    )  # fmt: skip
    return packed.ljust(BYTES, b"\0")


def bytes_of(m: TensorMap, kind: str = "") -> bytes:
    """A launcher's tensor map as the bytes of a parameter. kind: of its elements; by default the tensor's."""
    return encode(m.tensor.pointer, kind or m.tensor.dtype, m.tensor.itemsize, m.dims, m.strides, m.box, m.swizzle)


def decode(raw: bytes) -> BoxMap | None:
    """The map in 128 bytes; None where they are not one."""
    magic, rank, kind, itemsize, swizzle, address, *rest = _FIELDS.unpack(raw[: _FIELDS.size])
    if magic != MAGIC:
        return None
    dims, box, strides = rest[:rank], rest[5 : 5 + rank], rest[10 : 10 + rank - 1]
    return BoxMap(address, KINDS[kind], itemsize, swizzle, tuple(d + 1 for d in dims), tuple(strides), tuple(box))

"""Tensors of kernels, on a GPU and in the simulator alike: an address, a shape, an element type; bf16; tensor maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.dtypes import NARROW, NUMPY, itemsize
from core.errors import BuildError, NumericsError

Array = np.ndarray[Any, Any]

# Of each dtype, the least number that rounds to infinity in it
INFINITE = {"fp16": 65520.0, "bf16": 2.0**128 - 2.0**119, "f32": 2.0**128 - 2.0**103, "f64": math.inf}


@dataclass(frozen=True, eq=False)
class DeviceTensor:
    """A tensor on a device: an address, a shape, an element type; the type of `t.x` in a launcher of a kernel.

    base: the device's handle of the memory that holds it, `offset` bytes from its start. dtype is a name of
    core.dtypes. Contiguous, always. Launchers see its shape and never its contents.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    base: Any = None
    offset: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return itemsize(self.dtype)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, start: int, shape: Sequence[int], dtype: str | None = None) -> DeviceTensor:
        """The tensor of `shape` that starts `start` elements of this one from its start, contiguous.

        With another dtype (workspace is u8), `start` still counts this tensor's elements.
        """
        kind = dtype or self.dtype
        skipped = start * self.itemsize
        sizes = tuple(int(n) for n in shape)
        if start < 0 or skipped + math.prod(sizes) * itemsize(kind) > self.nbytes:
            raise BuildError(f"a part of shape {sizes} ({kind}) from {start} is not within {self}")
        return DeviceTensor(self.pointer + skipped, sizes, kind, self.base, self.offset + skipped)

    def __getitem__(self, index: slice) -> DeviceTensor:
        """Leading rows [a:b], as of an array."""
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise BuildError(f"{self} is on a device: only leading rows [a:b] can be taken, not [{index}]")
        start, stop, _ = index.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        return self.part(start * row, (max(stop - start, 0), *self.shape[1:]))

    def reshape(self, *shape: Any) -> DeviceTensor:
        """The same elements under another shape; one size may be -1."""
        sizes = [int(n) for n in (shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)]
        if -1 in sizes:
            rest = math.prod(n for n in sizes if n != -1)
            sizes[sizes.index(-1)] = self.size // max(rest, 1)
        if math.prod(sizes) != self.size:
            raise BuildError(f"{self} does not have the shape {tuple(sizes)}")
        return DeviceTensor(self.pointer, tuple(sizes), self.dtype, self.base, self.offset)

    def __repr__(self) -> str:
        return f"<{self.dtype} tensor {'x'.join(map(str, self.shape)) or 'scalar'} at {self.pointer:#x}>"

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError(f"{self} is on a device: a launcher sees shapes, never contents")


def to_bf16(values: Array) -> Array:
    """f32 -> bf16 bits (uint16) of the same shape, to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)  # of at least one dim
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    quiet = ((bits >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16)
    return np.where(nan, quiet, rounded).reshape(np.shape(values))


def from_bf16(bits: Array) -> Array:
    """bf16 bits (uint16) -> f32, exactly."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def check_range(values: Array, dtype: str, label: str) -> None:
    """Raises NumericsError, with `label` for the tensor, for finite floats that would be infinity in `dtype`."""
    least = INFINITE[dtype]
    if not values.size or max(float(values.max()), -float(values.min())) < least:
        return
    wide = values.astype(np.float64)
    lost = np.isfinite(wide) & (np.abs(wide) >= least)
    if lost.any():
        where = tuple(int(i) for i in np.argwhere(lost)[0])
        wider = " or ".join(name for name, other in INFINITE.items() if other > least)
        count = f"{np.count_nonzero(lost):,} of {values.size:,} elements"
        raise NumericsError(
            f"{label}: {count} would be infinity in {dtype}, such as {wide[where]:.6g} at {list(where)}",
            hint=f"precision {wider} has room for them",
        )


def encode(values: Any, dtype: str, shape: Sequence[int]) -> Array:
    """The bytes of `values` in a device's memory: contiguous, of `shape`, rounded where the tensor is bf16 or fp16."""
    array = np.asarray(values)
    if dtype == "bf16" and array.dtype != np.uint16:
        array = to_bf16(array.astype(np.float32))
    if array.shape != tuple(shape):
        array = np.broadcast_to(array, tuple(shape))
    if array.dtype == NUMPY[dtype]:
        return np.asarray(array, order="C")
    with np.errstate(over="ignore"):  # beyond fp16's range is infinity there
        return np.asarray(array, NUMPY[dtype], order="C")


def decode(stored: Array, dtype: str) -> Array:
    """Stored contents as the host computes with them: bf16 and fp16 as f32, all others unchanged."""
    if dtype not in NARROW:
        return stored
    return from_bf16(stored) if dtype == "bf16" else stored.astype(np.float32)


@dataclass(frozen=True)
class TensorMap:
    """A tensor map (CUtensorMap) to be encoded by the device: how bulk copies walk a tensor.

    dims and box: sizes, the fastest running dim first, rank 1 to 5. strides: bytes, of all dims but the first.
    swizzle: 0, 32, 64 or 128 bytes.
    """

    tensor: DeviceTensor
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int

    @property
    def dtype(self) -> str:
        return self.tensor.dtype


def tensor_map(
    tensor: DeviceTensor,
    box: Sequence[int],
    swizzle: int = 128,
    dims: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> TensorMap:
    """`launch.tmap`: a tensor map for bulk copies. dims and box run from the fastest dim, strides are bytes.

    Checks the hardware's requirements, so that the error has a sentence. Raises BuildError.
    """
    sizes = tuple(int(n) for n in (dims if dims is not None else reversed(tensor.shape)))
    if strides is None:
        running = [tensor.itemsize * math.prod(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        steps = tuple(running)
    else:
        steps = tuple(int(n) for n in strides)
    described = TensorMap(tensor, sizes, steps, tuple(int(n) for n in box), swizzle)
    problems = [text for bad, text in _map_rules(described) if bad]
    if problems:
        raise BuildError(f"launch.tmap({tensor}, box={described.box}): {'; '.join(problems)}")
    return described


def _map_rules(m: TensorMap) -> list[tuple[bool, str]]:
    rank, inner = len(m.dims), m.box[0] * m.tensor.itemsize if m.box else 0
    steps = list(zip(m.strides, m.dims[1:], strict=False))  # a dim of one has no step
    return [
        (not 1 <= rank <= 5, f"rank {rank}; the hardware knows 1 to 5"),
        (len(m.box) != rank, f"the box has {len(m.box)} sizes, the tensor {rank}"),
        (len(m.strides) != rank - 1, f"{len(m.strides)} strides; expected {rank - 1}, all but the first dim's"),
        (m.tensor.pointer % 16 != 0, "the address is not a multiple of 16 bytes"),
        (
            any(s % 16 or not 0 <= s < 2**40 or (not s and n > 1) for s, n in steps),
            f"strides {m.strides}: not multiples of 16 bytes",
        ),
        (any(not 1 <= n <= 256 for n in m.box), "a box has 1 to 256 elements along each dim"),
        (any(not 1 <= n <= 2**32 for n in m.dims), f"dims {m.dims}: not within 1 to 2^32"),
        (inner % 16 != 0, f"the box's first dim has {inner} bytes, not a multiple of 16"),
        (m.swizzle not in (0, 32, 64, 128), f"swizzle {m.swizzle}; expected 0, 32, 64 or 128"),
        (m.swizzle in (32, 64, 128) and inner > m.swizzle, f"the box's first dim has {inner} bytes, more than swizzle"),
    ]

"""Packs a caller's arguments into the bytes of a kernel's parameters, with buffers for NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import BuildError
from core.kernels.tensors import DeviceTensor, TensorMap, tensor_map
from core.kernels.unrepresentable import hint_of, problem_of
from core.scalars import Unrepresentable
from core.sim.instructions import tensormap
from core.sim.machine.address_space import Memory
from core.sim.ptx.syntax import PtxVariable

Array = np.ndarray[Any, Any]
ELEMENTS = {
    "float32": "f32", "float64": "f64", "float16": "f16", "uint16": "bf16", "int32": "i32", "uint32": "u32",
    "int64": "i64", "uint64": "u64", "uint8": "u8",
}  # fmt: skip
SIZED = {1: "u8", 2: "bf16", 4: "f32", 8: "f64"}  # a map's geometry follows from the size of an element alone
FLOATS: dict[int, Any] = {4: np.float32, 8: np.float64}


@dataclass(frozen=True)
class Map:
    """A tensor map of a NumPy array, as an argument of a kernel that copies boxes of it (cp.async.bulk.tensor).

    box: its sizes, the fastest running dim first, as in `launch.tmap`; swizzle in bytes: 0, 32, 64 or 128. dims and
    strides, as cuTensorMapEncodeTiled takes them: sizes from the fastest dim, 1 to 5 of them, and bytes of all dims but
    the first; by default the array's own. A kernel takes the map by value (`const __grid_constant__ CUtensorMap`) or by
    its address.
    """

    array: Array
    box: Sequence[int]
    swizzle: int = 0
    dims: Sequence[int] | None = None
    strides: Sequence[int] | None = None

    def of(self, tensor: DeviceTensor) -> TensorMap:
        """The map of that array on a device. Raises BuildError for a map that the hardware refuses."""
        return tensor_map(tensor, self.box, self.swizzle, self.dims, self.strides)


@dataclass(frozen=True)
class Pointer:
    """The address of an array's element, counted from its start: `&x[index]` of CUDA C++."""

    array: Array
    index: int = 0


class Buffers:
    """NumPy arrays in simulated memory: each has one address as long as this lives."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.placed: dict[int, tuple[int, Array]] = {}  # id -> its address, and the array
        self.held: set[int] = set()  # ids of those whose addresses the caller holds
        self.maps: dict[bytes, int] = {}

    def address(self, array: Array, name: str) -> int:
        """The address of an array, which is one buffer even if it is passed several times."""
        if id(array) not in self.placed:
            start = self.memory.allocate(array.nbytes, name, itemsize=array.itemsize)
            self.placed[id(array)] = start, array
        return self.placed[id(array)][0]

    def upload(self, ids: set[int]) -> None:
        for address, array in (self.placed[one] for one in ids | self.held):
            self.memory.write(address, array)

    def download(self, ids: set[int], kernel: str) -> None:
        """Copy back the kernel's results; a write to a read-only array is reported."""
        for address, array in (self.placed[one] for one in ids | self.held):
            contents = self.memory.read(address, array.nbytes).view(array.dtype).reshape(array.shape)
            if array.flags.writeable:
                array[...] = contents
            elif contents.tobytes() != array.tobytes():
                raise BuildError(f"kernel {kernel} wrote into an array that is read-only")


class Packer:
    """Packs the arguments of one launch. used: ids of the arrays among them."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.used: set[int] = set()

    def pack(self, value: Any, place: int, parameter: PtxVariable | None) -> bytes:
        """The bytes of argument `place`; parameter: None where the kernel has no such. Raises BuildError."""
        size = parameter.size if parameter else 8
        if value is None:
            return bytes(8)
        if isinstance(value, np.ndarray):
            return self._address(value, place).to_bytes(8, "little")
        if isinstance(value, Pointer):
            start = self._address(value.array, place) + int(value.index) * value.array.itemsize
            return start.to_bytes(8, "little")
        if isinstance(value, Map):
            return self._map(value, place, size)
        if isinstance(value, np.generic):
            return value.tobytes()
        if isinstance(value, bytes):
            return value
        if isinstance(value, Unrepresentable):
            raise BuildError(f"argument {place} is {problem_of(value)}", hint=hint_of(value))
        if isinstance(value, int | float) and parameter is not None:
            return _number(value, place, parameter)
        raise BuildError(
            f"argument {place} is {value!r}; expected a NumPy array, a number, None, or a Pointer or Map of core.sim",
            hint="a struct is bytes, or a scalar of a structured dtype: np.array((n, x), dtype)[()]",
        )

    def _address(self, array: Array, place: int) -> int:
        address = self.buffers.address(array, f"argument {place}")
        self.used.add(id(array))
        return address

    def _map(self, value: Map, place: int, size: int) -> bytes:
        address, kind = self._address(value.array, place), ELEMENTS.get(value.array.dtype.name)
        if kind is None:
            raise BuildError(f"argument {place}: no tensor map of {value.array.dtype}; of {', '.join(ELEMENTS)}")
        sized = DeviceTensor(address, value.array.shape, SIZED[value.array.itemsize])
        raw = tensormap.bytes_of(value.of(sized), kind)
        if size != 8:
            return raw
        if raw not in self.buffers.maps:
            memory = self.buffers.memory
            self.buffers.maps[raw] = memory.allocate(len(raw), f"the tensor map of argument {place}")
            memory.write(self.buffers.maps[raw], np.frombuffer(raw, np.uint8))
        return self.buffers.maps[raw].to_bytes(8, "little")


def _number(value: int | float, place: int, parameter: PtxVariable) -> bytes:
    """A Python number in the parameter's own size and, where the PTX has it (.f32), type."""
    size, floating = parameter.size, parameter.kind.startswith("f")
    if isinstance(value, float) or floating:
        number_type = FLOATS.get(size) if floating or not parameter.kind.startswith(("u", "s")) else None
        if number_type is None:
            raise BuildError(
                f"argument {place} is the float {value!r}; the parameter is not a float of 4 or 8 bytes "
                f"(.{parameter.kind}, {size} bytes)",
                hint="a NumPy scalar has its own type: np.float16(x), np.int32(n)",
            )
        return bytes(number_type(value).tobytes())
    bits = 8 * size
    if size not in (1, 2, 4, 8) or not -(1 << bits - 1) <= value < 1 << bits:
        raise BuildError(f"argument {place} is {value}; the parameter has {size} bytes")
    return (value & ((1 << bits) - 1)).to_bytes(size, "little")

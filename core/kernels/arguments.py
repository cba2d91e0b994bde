"""Compares a launch's arguments with the kernel's parameter list, as far as the source shows it.

So a swapped pointer or an untyped number is an error message, and not a wrong gradient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError
from core.kernels.nvrtc import Kernel
from core.kernels.sources import read_source
from core.kernels.tensors import DeviceTensor, TensorMap
from core.kernels.unrepresentable import hint_of, problem_of
from core.scalars import Unrepresentable

Scalar = np.generic
Argument = DeviceTensor | Scalar | TensorMap | None


def as_argument(value: Any, index: int, where: str, parameter: str = "") -> Argument:
    """A launcher's value for a kernel's parameter, typed. Raises BuildError for a value that no kernel can take.

    parameter: as the source writes it, for the error; "" where the source does not show it.
    """
    at = f"{where}, ...): argument {index + 1}"
    if isinstance(value, Unrepresentable):
        named = f", `{parameter}`," if parameter else ""
        raise BuildError(f"{at}{named} is {problem_of(value)}", hint=hint_of(value))
    if value is None or isinstance(value, DeviceTensor | TensorMap):
        return value
    if isinstance(value, bool | np.bool_):
        raise BuildError(f"{at} is {value}, and a kernel's scalars are typed", hint=f"write i32({value})")
    if isinstance(value, np.generic) and value.dtype.kind in "iuf":
        return value
    if isinstance(value, int):
        raise BuildError(
            f"{at} is the bare int {value}, which would be read as a pointer",
            hint=f"write {'i32' if -(2**31) <= value < 2**31 else 'u64'}({value})",
        )
    if isinstance(value, float):
        raise BuildError(f"{at} is the bare float {value}, which would be read as a double", hint=f"write f32({value})")
    if isinstance(value, np.ndarray):
        raise BuildError(
            f"{at} is a NumPy array, which no kernel can read", hint="pass a tensor of t, or a typed scalar"
        )
    raise BuildError(f"{at} is {value!r}; expected a tensor, i32(n), u64(n), f32(x), launch.tmap(...) or None")


# C type of a kernel's parameter -> NumPy type of its scalar
SCALARS = {
    "int": "int32", "i32": "int32", "unsigned": "uint32", "unsigned int": "uint32", "u32": "uint32", "uint": "uint32",
    "float": "float32", "double": "float64", "long long": "int64", "i64": "int64", "unsigned long long": "uint64",
    "u64": "uint64", "size_t": "uint64",
}  # fmt: skip
# the tensors that a pointer takes, by the type that it points to
POINTEES = {
    "float": "f32", "double": "f64", "bf16": "bf16", "fp16": "fp16", "int": "i32", "i32": "i32", "unsigned": "u32",
    "unsigned int": "u32", "u32": "u32", "uint": "u32", "unsigned char": "u8", "u8": "u8", "uint8_t": "u8",
    "int32_t": "i32", "uint32_t": "u32",
}  # fmt: skip
SIGNATURE = re.compile(
    r"(?P<before>\b__global__\b(?:[^;{}()]|\((?:[^()]|\([^()]*\))*\))*?)\b(?P<name>\w+)\s*"
    r"\((?P<parameters>[^(){};]*)\)\s*\{"
)


AMBIGUOUS: list[str] = []  # of overloads, which share one name
DEPENDENT_START = re.compile(r"\s*dependent_start\s*\(\s*\)\s*;")


@cache
def definitions(text: str) -> list[tuple[str, list[str], bool]]:
    """(kernel, its parameters as written, whether it begins with `dependent_start();`) for each that the source
    writes out."""
    plain = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", text), flags=re.DOTALL)
    kernels = []
    for match in SIGNATURE.finditer(plain):
        parts = [" ".join(p.split()) for p in match["parameters"].split(",")]
        first = DEPENDENT_START.match(plain, match.end()) is not None
        kernels.append((match["name"], [] if parts == [""] else parts, first))
    return kernels


@cache
def signatures(text: str) -> dict[str, list[str]]:
    """kernel -> its parameters as written, for those kernels that the source writes out."""
    types: dict[str, list[str]] = {}
    for name, written, _ in definitions(text):
        types[name] = written if types.get(name, written) == written else AMBIGUOUS
    return {name: parts for name, parts in types.items() if parts is not AMBIGUOUS}


def starts_dependent(kernel: Kernel) -> bool:
    """Whether the first statement of a kernel's body is `dependent_start();`, in each definition of its name: then it
    may be launched before the kernel in front of it has ended (docs/launch.md). False where a macro writes it."""
    firsts = [first for name, _, first in definitions(_text_of(kernel)) if name == kernel.name]
    return bool(firsts) and all(firsts)


def signature(kernel: Kernel) -> list[str] | None:
    """The kernel's parameters as its source writes them; None where it is written by a macro, or not there."""
    return signatures(_text_of(kernel)).get(kernel.name)


def _text_of(kernel: Kernel) -> str:
    return kernel.text if kernel.text is not None else source_text(kernel.source)


def source_text(path: Path) -> str:
    return read_source(path)


def as_arguments(kernel: Kernel, args: Sequence[Any], where: str) -> tuple[Argument, ...]:
    """A launcher's values for all parameters of a kernel, typed. Raises BuildError for one that no kernel can take."""
    names = signature(kernel) or []
    names = names if len(names) == len(args) else [""] * len(args)
    return tuple(as_argument(value, i, where, name) for i, (value, name) in enumerate(zip(args, names, strict=True)))


def check_signature(kernel: Kernel, args: Sequence[Argument], where: str, dtype: str) -> None:
    """Compare arguments with the kernel's parameters; `dtype` is that of `elem`. Raises BuildError, also for a kernel
    that waits for the preceding one and whose parameters let the compiler read before."""
    parameters = signature(kernel)
    if parameters is None:
        return
    restricted = next((p for p in parameters if "__restrict" in p), None)
    if restricted and starts_dependent(kernel):
        raise BuildError(
            f"{where}, ...): the kernel begins with dependent_start(), and the compiler may read `{restricted}` before "
            "its wait",
            hint="leave __restrict__ out of this kernel's parameters",
        )
    if len(parameters) != len(args):
        raise BuildError(
            f"{where}, ...) has {len(args)} arguments; the kernel takes {len(parameters)}: {', '.join(parameters)}"
        )
    for index, (parameter, argument) in enumerate(zip(parameters, args, strict=True)):
        problem = _mismatch(parameter, argument, dtype)
        if problem:
            raise BuildError(f"{where}, ...): argument {index + 1} is {problem}; the kernel takes `{parameter}`")


QUALIFIERS = re.compile(r"\b(const|volatile|__restrict__|__restrict|__grid_constant__|struct)\b")


def _mismatch(parameter: str, argument: Argument, dtype: str) -> str:
    """The problem of an argument; "" where there is none, or where the type is unknown."""
    words = " ".join(QUALIFIERS.sub(" ", parameter).split())
    if "*" in words:
        pointee = words.partition("*")[0].strip()
        if argument is None:
            return ""
        if not isinstance(argument, DeviceTensor):
            return _named(argument)
        takes = dtype if pointee == "elem" else POINTEES.get(pointee)
        # u8 is workspace, which a kernel divides as it likes
        return "" if takes in (None, argument.dtype) or argument.dtype == "u8" else f"a tensor of {argument.dtype}"
    kind = SCALARS.get(" ".join(words.split()[:-1]))
    if kind is None or (isinstance(argument, np.generic) and argument.dtype.name == kind):
        return ""
    return _named(argument)


def _named(argument: Argument) -> str:
    if isinstance(argument, np.generic):
        return f"a scalar of {argument.dtype.name}"
    if isinstance(argument, TensorMap):
        return "a tensor map"
    return "None" if argument is None else f"a tensor of {argument.dtype}"


def bytes_of(argument: Scalar | DeviceTensor | None) -> bytes:
    """An argument's bytes in the parameter buffer: an address (8 bytes; 0 for None), or the scalar's own bytes."""
    if isinstance(argument, np.generic):
        return argument.tobytes()
    return (0 if argument is None else argument.pointer).to_bytes(8, "little")

"""A problem: the buffers of a kernel, its launches, the sizes to try, and a NumPy function, the truth.

problem = Problem(
    truth=lambda x, y, a: a * x + y,
    inputs={"x": "n", "y": "n"},
    outputs={"y": "n"},
    scalars={"a": f32(1.5)},
    launches=KernelLaunch("saxpy", "y x a n", grid="cdiv(n, 256)", block=256),
    sizes=[{"n": 1}, {"n": 257}],
    real=[{"n": 1_000_000}],
)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.dtypes import NUMPY
from core.errors import BuildError, UsageError, did_you_mean
from core.expr import evaluate
from core.judge.hard_contents import HARD
from core.kernels.tensors import from_bf16, to_bf16
from core.kernels.unrepresentable import problem_of
from core.scalars import TYPES, Unrepresentable
from core.testing.author_file import foreign, load_object

Array = np.ndarray[Any, Any]
Dims = Mapping[str, int]
Sizes = int | str | Sequence[int | str]

# element types of buffers; bf16 is stored as 16-bit integers on the host
ELEMENTS: dict[str, np.dtype[Any]] = {
    **NUMPY, "i8": np.dtype(np.int8), "i64": np.dtype(np.int64),
    "u64": np.dtype(np.uint64),
}  # fmt: skip
SPELLED = {"f16": "fp16"}  # PTX's name of an element type -> its name here
MANTISSA = {"f64": 52, "f32": 23, "fp16": 10, "bf16": 7}  # explicit bits
UNBOUNDED = 100  # integers without a bound are drawn below this
NULL = "null"


@dataclass(frozen=True)
class BufferSpec:
    """One line of a problem: `"rows C"`, `"rows C : bf16"`, `"rows : i32 < C"`: dims, element type, an integer's bound.

    Dims are arithmetic over the names of `sizes`; f32 without an element type.
    """

    name: str
    text: str
    tokens: tuple[str, ...]
    dtype: str = "f32"
    bound: str = ""

    @classmethod
    def parse(cls, name: str, text: str) -> BufferSpec:
        dims, colon, rest = str(text).partition(":")
        kind, _, bound = rest.partition("<")
        kind = kind.strip() if colon else "f32"
        kind = SPELLED.get(kind, kind)
        if kind not in ELEMENTS:
            raise BuildError(
                f'"{name}": "{text}" has the element type "{kind}"{did_you_mean(kind, ELEMENTS)}',
                hint=f'one of {", ".join(ELEMENTS)}, as in "rows C : bf16"',
            )
        if not dims.split():
            raise BuildError(f'"{name}": "{text}" has no dims', hint='a buffer of one element has the shape "1"')
        return cls(name, str(text), tuple(dims.split()), kind, bound.strip())

    @property
    def integer(self) -> bool:
        return self.dtype not in MANTISSA

    @property
    def storage(self) -> np.dtype[Any]:
        """NumPy's type of the elements in memory."""
        return ELEMENTS[self.dtype]

    def shape(self, dims: Dims) -> tuple[int, ...]:
        """Raises BuildError for a size that is not a positive whole number."""
        sizes = [evaluate(token, dims, f'"{self.name}"') for token in self.tokens]
        if not all(isinstance(n, int) and n > 0 for n in sizes):
            raise BuildError(f'"{self.name}": "{self.text}" is {sizes} under {described(dims)}; sizes are positive')
        return tuple(int(n) for n in sizes)

    def stored(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Contents in the kernel's memory: f32 rounded where the buffer is narrower."""
        with np.errstate(all="ignore"):
            if self.dtype == "bf16":
                return to_bf16(np.broadcast_to(values, shape))
            return np.ascontiguousarray(np.broadcast_to(values, shape), ELEMENTS[self.dtype])

    def values(self, stored: Array, single: bool = False) -> Array:
        """Contents as the truth computes with them: floats in f64, or f32 for `single`; integers unchanged."""
        if self.integer:
            return stored.copy()
        with np.errstate(all="ignore"):
            wide = from_bf16(stored) if self.dtype == "bf16" else stored
            return np.asarray(wide, np.float32 if single and self.dtype != "f64" else np.float64).copy()


@dataclass(frozen=True)
class KernelLaunch:
    """One launch. arguments: names in the kernel's order, blanks between them: buffers, scalars, dims, or `null`.

    A dim is an `int`; `n:u64` makes it a 64-bit integer. grid, block (up to three sizes), smem (bytes) and cluster are
    numbers or arithmetic over dims: "cdiv(n, 256)".
    """

    kernel: str
    arguments: str
    grid: Sizes = 1
    block: Sizes = 256
    smem: int | str = 0
    cluster: int | str = 1

    @property
    def words(self) -> list[tuple[str, str]]:
        """(name, type or "") of each argument."""
        pairs = [word.partition(":") for word in re.split(r"[\s,]+", self.arguments.strip()) if word]
        return [(name, kind) for name, _, kind in pairs]

    def sizes(self, field: str, dims: Dims) -> tuple[int, ...]:
        """The grid or the thread block under `dims`."""
        values = getattr(self, field)
        values = values if isinstance(values, list | tuple) else (values,)
        return tuple(self.number(one, dims, field) for one in values)

    def number(self, value: int | str, dims: Dims, field: str) -> int:
        """A size under `dims`; `field` names it in errors. Raises BuildError for one that is no whole number."""
        result = evaluate(value, dims, f"{self.kernel}, {field}")
        if not isinstance(result, int | np.integer):
            raise BuildError(f"{self.kernel}, {field}: {value!r} is {result!r} under {described(dims)}; expected a "
                             "whole number", hint="cdiv(n, 256) divides and rounds up")  # fmt: skip
        return int(result)


@dataclass(frozen=True)
class Problem:
    """The computation that a kernel must do, and its launch.

    truth: a function of inputs, scalars and dims by name; it gets NumPy arrays (floats in f64) and returns the output,
    or a dict of outputs by name. inputs, outputs, scratch: name -> BufferSpec line; a name among inputs and outputs is
    updated in place. scalars: typed numbers, f32(1e-5). launches: run one after another on the same buffers.
    sizes: awkward ones, small enough for strict mode; real: practical ones.
    contents: (rng, dims) -> contents of some inputs; the others are drawn, standard normal or below their bound.
    hard: which of core.judge.hard_contents are tried. tolerance: relative 2-norm in place of that of the outputs'
    element type. zeroed: outputs and scratch that start at zero, as atomics want them. narrow: arithmetic narrower than
    the buffers is allowed. repeatable: False lets results depend on the order of threads, as float atomics make them.
    defines: macros. kernel_file: the submission, beside the problem's file, where none is named to the judge.
    Raises BuildError for parts that do not fit together.
    """

    truth: Callable[..., Any]
    outputs: Mapping[str, str]
    launches: KernelLaunch | Sequence[KernelLaunch]
    sizes: Sequence[Dims]
    inputs: Mapping[str, str] = field(default_factory=dict)
    scratch: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, Any] = field(default_factory=dict)
    real: Sequence[Dims] = ()
    contents: Callable[..., Mapping[str, Any]] | None = None
    hard: Sequence[str] = tuple(HARD)
    tolerance: float | None = None
    zeroed: Sequence[str] = ()
    narrow: bool = False
    repeatable: bool = True
    defines: Mapping[str, str | int] = field(default_factory=dict)
    kernel_file: str = ""

    def __post_init__(self) -> None:
        if not self.outputs:
            raise BuildError("the problem has no outputs", hint='outputs={"y": "rows C"}')
        if not self.sizes:
            raise BuildError("the problem has no sizes", hint='sizes=[{"n": 1}, {"n": 257}]: awkward ones, small')
        if unknown := [name for name in self.hard if name not in HARD]:
            raise BuildError(f'hard contents "{unknown[0]}"{did_you_mean(unknown[0], HARD)}', hint=", ".join(HARD))
        for dims in (*self.sizes, *self.real):
            self._check_dims(dims)
        for name, value in self.scalars.items():
            if isinstance(value, Unrepresentable) or not isinstance(value, np.generic):
                problem = problem_of(value) if isinstance(value, Unrepresentable) else repr(value)
                raise BuildError(f'scalar "{name}" is {problem}; a kernel\'s scalars are typed',
                                 hint="from core import f32, i32: f32(1e-5)")  # fmt: skip
        starting = [*self.outputs, *self.scratch]
        if unknown := [name for name in self.zeroed if name not in starting or name in self.inputs]:
            close = did_you_mean(unknown[0], starting)
            raise BuildError(f'zeroed "{unknown[0]}" is neither an output nor scratch{close}')
        for launch in self.each_launch:
            for name, kind in launch.words:
                self._check_argument(launch, name, kind)
        _ = self.truth_inputs  # raises for a parameter of truth that the problem does not have

    def _check_dims(self, dims: Dims) -> None:
        names = set(self.sizes[0])
        if set(dims) != names or not all(isinstance(n, int) and n > 0 for n in dims.values()):
            raise BuildError(f"sizes {dict(dims)}; expected a positive int for each of {', '.join(sorted(names))}")
        for spec in self.buffers.values():
            spec.shape(dims)
        for launch in self.each_launch:
            for part in ("grid", "block"):
                launch.sizes(part, dims)

    def _check_argument(self, launch: KernelLaunch, name: str, kind: str) -> None:
        names = [*self.buffers, *self.scalars, *self.sizes[0], NULL]
        if name not in names:
            raise BuildError(f'kernel {launch.kernel}: no buffer, scalar or dim "{name}"{did_you_mean(name, names)}',
                             hint=f"it has {', '.join(names)}")  # fmt: skip
        if kind and (kind not in TYPES or name not in self.sizes[0]):
            raise BuildError(f'kernel {launch.kernel}: argument "{name}:{kind}"; a dim has one of the types '
                             f"{', '.join(TYPES)}", hint="buffers and scalars have their own types")  # fmt: skip

    def submission_beside(self, problem: Path) -> Path:
        """The submission that the problem of this file names. Raises UsageError where it names none."""
        if not self.kernel_file:
            raise UsageError(
                f"{problem} names no kernel's file, and neither does the call",
                hint='core judge PROBLEM.py KERNEL.cu, or Problem(..., kernel_file="KERNEL.cu")',
            )
        return problem.parent / self.kernel_file

    @property
    def each_launch(self) -> tuple[KernelLaunch, ...]:
        """The launches in their order, of one too."""
        return (self.launches,) if isinstance(self.launches, KernelLaunch) else tuple(self.launches)

    @property
    def buffers(self) -> dict[str, BufferSpec]:
        """All buffers, inputs first. Raises BuildError for an update in place whose two lines differ."""
        specs: dict[str, BufferSpec] = {}
        for lines in (self.inputs, self.outputs, self.scratch):
            for name, text in lines.items():
                spec = BufferSpec.parse(name, text)
                if name in specs and (specs[name].tokens, specs[name].dtype) != (spec.tokens, spec.dtype):
                    raise BuildError(f'"{name}" is "{specs[name].text}" in one place and "{text}" in another')
                specs.setdefault(name, spec)
        return specs

    @property
    def narrowest(self) -> int:
        """Bits of mantissa of the narrowest float buffer; 0 where no buffer holds floats."""
        return min((MANTISSA[b.dtype] for b in self.buffers.values() if not b.integer), default=0)

    @property
    def narrowest_dtype(self) -> str:
        """The element type of the narrowest float buffer; f64 where no buffer holds floats: integers are exact."""
        return min((b.dtype for b in self.buffers.values() if not b.integer), key=MANTISSA.__getitem__, default="f64")

    @property
    def truth_inputs(self) -> list[str]:
        """The names that `truth` takes. Raises BuildError for one that the problem does not have."""
        have = [*self.inputs, *self.scalars, *self.sizes[0]]
        parameters = inspect.signature(self.truth).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return have
        for parameter in parameters:
            if parameter.name not in have and parameter.default is parameter.empty:
                raise BuildError(f'truth takes "{parameter.name}", which is not an input, scalar or dim of the problem'
                                 f"{did_you_mean(parameter.name, have)}", hint=f"it has {', '.join(have)}")  # fmt: skip
        return [p.name for p in parameters if p.name in have]

    def draw(self, dims: Dims, seed: Sequence[int]) -> dict[str, Array]:
        """Contents of all inputs in the kernel's memory."""
        rng = np.random.default_rng(list(seed))
        own = dict(foreign("contents", self.contents, rng, dict(dims))) if self.contents else {}
        if unknown := [name for name in own if name not in self.inputs]:
            close = did_you_mean(unknown[0], self.inputs)
            raise BuildError(f'contents gives "{unknown[0]}", which is not an input{close}')
        contents = {}
        for name in self.inputs:
            spec, shape = self.buffers[name], self.buffers[name].shape(dims)
            values = np.asarray(own[name]) if name in own else self._drawn(spec, shape, dims, rng)
            if values.shape != shape:
                raise BuildError(f'contents gives "{name}" of shape {values.shape}; "{spec.text}" is {shape} under '
                                 f"{described(dims)}")  # fmt: skip
            contents[name] = spec.stored(values, shape)
        return contents

    def nearly_as(
        self, contents: Mapping[str, Array], other: Mapping[str, Array], dims: Dims, seed: Sequence[int]
    ) -> dict[str, Array]:
        """`contents` with one element of each input from `other`; of those that the problem draws, since `contents` of
        its author's may be of one piece, such as sorted ids."""
        rng = np.random.default_rng(list(seed))
        own = foreign("contents", self.contents, np.random.default_rng(list(seed)), dict(dims)) if self.contents else {}
        made = {name: array.copy() for name, array in contents.items()}
        for name in (name for name in made if name not in own):
            at = rng.integers(made[name].size)
            made[name].reshape(-1)[at] = other[name].reshape(-1)[at]
        return made

    def _drawn(self, spec: BufferSpec, shape: tuple[int, ...], dims: Dims, rng: np.random.Generator) -> Array:
        if not spec.integer:
            return rng.standard_normal(shape)
        limit = int(evaluate(spec.bound, dims, f'"{spec.name}"')) if spec.bound else UNBOUNDED
        values = rng.integers(0, max(1, limit), shape)
        values.reshape(-1)[-1] = max(1, limit) - 1  # the largest is always among them
        return values

    def right(self, contents: Mapping[str, Array], dims: Dims, single: bool = False) -> dict[str, Array]:
        """The outputs by the truth, in f64, or computed in f32 for `single`. Raises BuildError for one that raises, or
        returns something else."""
        values: dict[str, Any] = {n: self.buffers[n].values(v, single) for n, v in contents.items()}
        values |= {**self.scalars, **dims}
        results = foreign("truth", self.truth, **{name: values[name] for name in self.truth_inputs})
        if not isinstance(results, Mapping):
            results = results if isinstance(results, tuple) else (results,)
            if len(results) != len(self.outputs):
                raise BuildError(f"truth returns {len(results)} arrays; the outputs are {', '.join(self.outputs)}",
                                 hint='return them in that order, or as a dict: {"y": ...}')  # fmt: skip
            results = dict(zip(self.outputs, results, strict=True))
        if set(results) != set(self.outputs):
            raise BuildError(f"truth returns {', '.join(map(str, results))}; the outputs are {', '.join(self.outputs)}")
        return {name: self._fitting(name, value, dims) for name, value in results.items()}

    def _fitting(self, name: str, value: Any, dims: Dims) -> Array:
        spec, array = self.buffers[name], np.asarray(value)
        shape = spec.shape(dims)
        if array.dtype.kind not in "biuf" or array.shape != shape:
            raise BuildError(f'truth returns {array.dtype} of shape {array.shape} for "{name}"; "{spec.text}" is '
                             f"{shape} under {described(dims)}")  # fmt: skip
        return array


def described(dims: Dims) -> str:
    return ", ".join(f"{name} = {size:,}" for name, size in dims.items())


def load_problem(path: Path) -> Problem:
    """The one Problem of a Python file, which is its author's code, and runs as such.

    Raises UsageError for a file that cannot be read, BuildError for one that raises or has no Problem.
    """
    if path.suffix != ".py":
        raise UsageError(f"{path}: a problem is a Python file", hint="core judge PROBLEM.py KERNEL.cu")
    return load_object(path, Problem, "problem", "problem = Problem(truth=..., ...)")

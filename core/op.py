"""The vocabulary: Op, Param, Variant, Reference, Optimizer, Schedule, and `t`, what a launcher sees.

An op is a schema: named tensors with shape patterns, attributes, parameters. A variant is one way to compute it,
forward and backward together. The reference is the variant that says what is right. Nothing here knows a graph,
a plan or a device.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.dtypes import NUMPY
from core.errors import BuildError, CoreError, did_you_mean, words_of
from core.expr import Number, described, evaluate, trim, unpadded
from core.step_record import CONTROL as CONTROL
from core.step_record import MASKS, StepRecord, mask
from core.step_record import SLOT as SLOT

NAME = re.compile(r"[a-z][a-z0-9_]*")
ACTIVATION, ACC = None, "acc"  # the two dtypes that a precision settles; the others are names of core.dtypes


# --- shape patterns ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """One line of a schema: `"... C"`, `"B T : i32 < V"`, `"S kv_heads*D"`, `"... : acc"`.

    `...` stands for any leading dims. A token is a name, which is bound to the size that comes, or arithmetic
    over names that are bound already. `dtype` is None (the activations' type), "acc", or a name of core.dtypes;
    `bound` is the exclusive upper bound of integer contents, an expression.
    """

    text: str
    tokens: tuple[str, ...]
    leading: bool
    dtype: str | None
    bound: str | None

    @classmethod
    def parse(cls, text: str, where: str = "") -> Pattern:
        shape, colon, rest = text.partition(":")
        dtype: str | None = None
        bound: str | None = None
        if colon:
            name, less, limit = rest.partition("<")
            dtype = name.strip()
            bound = limit.strip() if less else None
            known = [ACC, *NUMPY]
            if dtype not in known or (less and not bound):
                raise BuildError(
                    f'{where}: pattern "{text}" has dtype "{rest.strip()}"; expected one of '
                    f"{', '.join(known)}, integers with an optional bound as in `i32 < V`{did_you_mean(dtype, known)}"
                )
        tokens = tuple(shape.split())
        leading = bool(tokens) and tokens[0] == "..."
        if "..." in tokens[1:]:
            raise BuildError(f'{where}: pattern "{text}" has "..." after its first place')
        return cls(text, tokens[1:] if leading else tokens, leading, dtype, bound)

    @property
    def integer(self) -> bool:
        """Whether the contents are integers, which have no gradient."""
        return self.dtype in ("i32", "u32", "u8")

    def unify(self, shape: tuple[int, ...], dims: dict[str, Any], where: str) -> None:
        """Bind this pattern's names in `dims` to the sizes of `shape`, or raise BuildError naming both."""
        sizes = shape
        if self.leading:
            cut = len(shape) - len(self.tokens)
            head, sizes = shape[: max(cut, 0)], shape[max(cut, 0) :]
            known = dims.setdefault("...", head)
            if known != head or trim(known) != trim(head):
                raise BuildError(
                    f"{where}: leading dims {described(head)}, but another tensor of this node has {described(known)}"
                )
        if len(sizes) != len(self.tokens):
            raise BuildError(f'{where}: shape {shape} does not fit "{self.text}"')
        for token, size in zip(self.tokens, sizes, strict=True):
            expected: Any = dims.setdefault(token, size) if token.isidentifier() else evaluate(token, dims, where)
            if expected != size:
                raise BuildError(f'{where}: shape {shape} does not fit "{self.text}" with {token} = {expected}')
            if unpadded(expected) != unpadded(size):
                raise BuildError(
                    f'{where}: {token} of "{self.text}" is {described((size,))} here, and {described((expected,))} '
                    "in another tensor of this node",
                    hint="both have padding or neither: the padded part of one would meet contents of the other",
                )

    def shape(self, dims: Mapping[str, Any], where: str = "") -> tuple[int, ...]:
        """The sizes that this pattern has under `dims`."""
        sizes: list[int] = list(dims["..."]) if self.leading else []
        for token in self.tokens:
            size = evaluate(token, dims, where)
            if not isinstance(size, int) or size < 1:
                raise BuildError(f'{where}: "{token}" of "{self.text}" is {size}, not a positive size')
            sizes.append(size)
        return tuple(sizes)


@dataclass(frozen=True)
class Slot:
    """A named tensor of an op: an input, output or state."""

    name: str
    pattern: Pattern
    optional: bool = False


@dataclass(frozen=True)
class Param:
    """A parameter of an op.

    shape: a pattern without leading dims; no part of it may depend on B or T.
    init: "ones", "zeros", "normal(STD)" or "uniform(LIMIT)", with arithmetic over the model's dims.
    decay: whether weight decay applies. optional: the op gets a bool attr of the parameter's name (default true).
    """

    shape: str
    init: str = "normal(0.02)"
    decay: bool = True
    optional: bool = False


Attr = bool | int | float | str
REQUIRED_TYPES = (int, float, bool, str)


@dataclass(frozen=True)
class Statement:
    """One step of a fused op's pattern: `p = matmul(x, weight, bias)`."""

    outputs: tuple[str, ...]
    op: str
    arguments: tuple[str, ...]
    attrs: Mapping[str, Any]


class Op:
    """An operation's schema.

    inputs, outputs, state: name -> pattern; a trailing `?` on an input's name makes it optional.
    params: name -> Param. attrs: name -> default, or a bare type when required, or a tuple of choices for a str.
    infer(dims): adds dims or raises BuildError, for the rare op whose patterns do not say everything.
    examples: what `core check` runs: shapes by input name, attrs by name.
    replaces: the pattern of a fused op, `"p = matmul(x, weight, bias); y = add(r, p)"`.
    uses: "start" (position of the first token, for decoding), "random", "step" (the optimizer's control record).
    commutes: whether the first two inputs may be swapped. gradient: False for updates and norms.
    mutates: inputs that the op writes to.
    flops: of forward, as published utilisations count them: multiplications and additions of matrix products, an
    expression over dims, attrs and `rows`; "0" for the ops that are bound by memory. needed_flops: of these, the ones
    whose results are used, where that is fewer (causal attention). Backward counts twice as many.
    padding: dims, and attributes that are sizes, that may be padded (`"..."` for the leading ones): with zeros there in
    inputs, parameters and output gradients, the outputs and gradients have zeros there too, and are otherwise what they
    are without padding. A node with padding anywhere else is refused.
    decodes: optional inputs that the op takes into account while decoding too. A model that connects another one to an
    op with state or `uses=("start",)` does not generate.
    why_no_decode(dims): why a node with these dims and attrs cannot be computed token by token, as where a token
    depends on later ones; None when it can.

    Raises BuildError when names collide or a pattern does not parse.
    """

    def __init__(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str] | None = None,
        params: Mapping[str, Param] | None = None,
        attrs: Mapping[str, Any] | None = None,
        state: Mapping[str, str] | None = None,
        infer: Callable[[dict[str, Any]], None] | None = None,
        examples: Sequence[Mapping[str, Any]] = (),
        replaces: str = "",
        uses: Sequence[str] = (),
        commutes: bool = False,
        gradient: bool = True,
        mutates: Sequence[str] = (),
        flops: str = "0",
        needed_flops: str = "",
        padding: Sequence[str] = (),
        decodes: Sequence[str] = (),
        why_no_decode: Callable[[Mapping[str, Any]], str | None] = lambda dims: None,
        doc: str = "",
    ) -> None:
        self.name = name
        self.inputs = self._slots(inputs)
        self.outputs = self._slots(outputs or {})
        self.state = self._slots(state or {})
        self.params = dict(params or {})
        self.param_patterns = {p: Pattern.parse(d.shape, f"{name}.{p}") for p, d in self.params.items()}
        self.attrs: dict[str, Any] = dict(attrs or {})
        for param, declared in self.params.items():
            if declared.optional:
                self.attrs.setdefault(param, True)
        self.infer = infer
        self.examples = [dict(example) for example in examples]
        self.replaces = replaces
        self.statements = parse_statements(replaces, name) if replaces else ()
        self.uses = tuple(uses)
        self.commutes = commutes
        self.gradient = gradient
        self.mutates = tuple(mutates)
        self.flops, self.needed_flops = flops, needed_flops or flops
        self.padding, self.decodes = tuple(padding), tuple(decodes)
        self.why_no_decode = why_no_decode
        self.doc = doc
        self.origin = ""  # the plugin that brought it; stamped when registered
        caller = sys._getframe(1)
        self.where = f"{caller.f_code.co_filename}:{caller.f_lineno}"  # for an error that names two definitions
        self._validate()

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def default_of(self, attr: str) -> Any:
        """The value of an attribute where a node gives none; None for a required one."""
        default = self.attrs[attr]
        return None if isinstance(default, type) else default[0] if isinstance(default, tuple) else default

    def _slots(self, patterns: Mapping[str, str]) -> dict[str, Slot]:
        slots = {}
        for key, text in patterns.items():
            name = key.rstrip("?")
            slots[name] = Slot(name, Pattern.parse(text, f"{self.name}.{name}"), key.endswith("?"))
        return slots

    def _validate(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BuildError(f'op name "{self.name}" is not a lower-case identifier')
        tensors = [*self.inputs, *self.outputs, *self.state, *self.params]
        gradients = ["d" + n for n in (*self.inputs, *self.outputs, *self.params)]
        others = [a for a in self.attrs if a not in self.params]
        seen: set[str] = set()
        for used in (*tensors, *gradients, *others, "config", "step", "start", "key"):
            if used in seen:
                raise BuildError(
                    f'op "{self.name}": the name "{used}" stands for two things',
                    hint="inputs, outputs, params, state, attrs and gradients (`d` + name) must all differ",
                )
            seen.add(used)
        for use in self.uses:
            if use not in ("start", "random", "step"):
                raise BuildError(f'op "{self.name}" uses "{use}"; expected start, random or step')
        for name, pattern in self.param_patterns.items():
            if pattern.leading:
                raise BuildError(
                    f'op "{self.name}": the shape of param "{name}" has "..."; a param has sizes of its own'
                )
        for name in self.decodes:
            if name not in self.inputs or not self.inputs[name].optional:
                raise BuildError(f'op "{self.name}" decodes "{name}", which is no optional input')
        for name in self.mutates:
            if name not in self.inputs:
                raise BuildError(f'op "{self.name}" mutates "{name}", which is not an input')

    # --- what a node of this op is made of -----------------------------------------------------------------

    def settle_attrs(self, given: Mapping[str, Any], dims: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Attribute values from a node's keys: strings where numbers belong are arithmetic over `dims`.

        Raises BuildError for an unknown, missing or ill-typed attribute.
        """
        for key in given:
            if key not in self.attrs:
                raise BuildError(
                    f'{where}: op "{self.name}" has no attribute "{key}"{did_you_mean(key, self.attrs)}',
                    hint=f"it has: {', '.join(self.attrs) or 'none'}",
                )
        settled: dict[str, Any] = {}
        for key, default in self.attrs.items():
            if key not in given:
                if isinstance(default, type):
                    raise BuildError(f'{where}: op "{self.name}" needs the attribute "{key}" ({default.__name__})')
                settled[key] = self.default_of(key)
            else:
                settled[key] = self.settle_attr(key, given[key], dims, where)
        return settled

    def settle_attr(self, key: str, value: Any, dims: Mapping[str, Any], where: str) -> Any:
        """The value of one attribute that the op has. BuildError for one of another type."""
        return _settle(value, self.attrs[key], dims, f'{where}: attribute "{key}"')

    def present_params(self, attrs: Mapping[str, Any]) -> dict[str, Param]:
        """The parameters that a node with these attrs has: optional ones may be switched off."""
        return {p: d for p, d in self.params.items() if not (d.optional and not attrs[p])}

    def solve(self, shapes: Mapping[str, tuple[int, ...]], attrs: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All dims of a node: attrs, and names bound by unifying the inputs' shapes, then `infer`."""
        dims: dict[str, Any] = dict(attrs)
        arithmetic_last = sorted(
            self.inputs, key=lambda n: any(not t.isidentifier() for t in self.inputs[n].pattern.tokens)
        )
        for name in arithmetic_last:
            if name in shapes:
                self.inputs[name].pattern.unify(tuple(shapes[name]), dims, f"{where}.{name}")
        if self.infer is not None:
            try:
                self.infer(dims)
            except BuildError as error:
                raise BuildError(f"{where}: {error.message}", hint=error.hint) from None
            except CoreError:
                raise
            except Exception as error:  # that code is its author's
                raise BuildError(
                    f'{where}: infer of op "{self.name}" ({self.origin or "no plugin"}) raised {words_of(error)}',
                    hint="infer raises BuildError for sizes that do not fit",
                ) from error
        return dims


def _settle(value: Any, default: Any, dims: Mapping[str, Any], where: str) -> Any:
    if isinstance(default, tuple):
        if value not in default:
            raise BuildError(f"{where} is {value!r}; expected one of {', '.join(map(repr, default))}")
        return value
    kind = default if isinstance(default, type) else type(default)
    if kind is str:
        if not isinstance(value, str):
            raise BuildError(f"{where} is {value!r}; expected a string")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise BuildError(f"{where} is {value!r}; expected true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BuildError(f"{where} is {value!r}; expected a number or arithmetic over the dims")
    number: Number = evaluate(value, dims, where)
    if kind is int and not isinstance(number, int):
        raise BuildError(f"{where} is {value!r} = {number}; expected a whole number")
    return number if kind is int else float(number)


def parse_statements(text: str, op: str) -> tuple[Statement, ...]:
    """`"p = matmul(x, weight, bias); y = add(r, p)"` as statements. Raises BuildError if it is not that form."""
    statements = []
    for part in text.split(";"):
        left, equals, right = part.partition("=")
        try:
            call = ast.parse(right.strip(), mode="eval").body
            if not (equals and isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                raise ValueError
            arguments = tuple(a.id for a in call.args if isinstance(a, ast.Name))
            if len(arguments) != len(call.args):
                raise ValueError
            attrs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        except (SyntaxError, ValueError):
            raise BuildError(
                f'op "{op}": cannot read "{part.strip()}" in replaces; expected `y = op(a, b, attr=1)`'
            ) from None
        statements.append(Statement(tuple(n.strip() for n in left.split(",")), call.func.id, arguments, attrs))
    return tuple(statements)


# --- what a launcher sees --------------------------------------------------------------------------------------


class Tensors:
    """`t`: tensors and parameters by schema name, gradients with `d`, saved ones, attrs, dims and flags.

    On the cpu the tensors are NumPy arrays. `t.rows` is the product of `...`. Only what the variant declared is
    here: backward sees its saved tensors, its `reads`, and gradients, so that nothing can be read by accident.

    On the cpu an update's `t.step` is a StepRecord, and with an input `group` it has `t.trains` and `t.decays`: a bool
    for each of the n elements.
    """

    config: dict[str, Any]  # the tile candidate that was chosen

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in MASKS and "group" in self.__dict__:
            return mask(self.group, name, self.n)
        visible = sorted(n for n in self.__dict__ if n != "...")
        raise AttributeError(
            f"t has no {name!r} here{did_you_mean(name, visible)}; it has {', '.join(visible)}. "
            "Backward sees saved tensors, gradients, and what the variant lists in `reads`."
        )

    def add(self, name: str, value: Any) -> None:
        """Write `value` into the gradient `name`, or add to it, or drop it, as the plan asks."""
        target = getattr(self, name)
        if target is None:
            return
        if getattr(self, "add_" + name, False):
            target += np.asarray(value).reshape(target.shape)
        else:
            target[...] = np.asarray(value).reshape(target.shape)


def make_tensors(dims: Mapping[str, Any], tensors: Mapping[str, Any], **flags: Any) -> Tensors:
    """`t` from a node's dims and attrs, its tensors by name, and flags such as `add_dx`."""
    visible = {k: v for k, v in dims.items() if k != "..."}
    if "..." in dims:
        visible["rows"] = math.prod(dims["..."])
    if isinstance(step := tensors.get("step"), np.ndarray):
        tensors = {**tensors, "step": step.view(StepRecord)}
    return Tensors(**{"config": {}, **visible, **flags, **tensors})


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before it has memory: what `workspace`, `configs` and `why_not` see. dtype is a core.dtypes name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * NUMPY[self.dtype].itemsize


class Variant:
    """One way to compute an op, forward and backward together. docs/plugins.md explains every field.

    A subclass writes `op`, `name`, `forward`, `backward` and what is saved and read; the rest has defaults.
    Variants never allocate: outputs, saved tensors and workspace are given.
    """

    op: ClassVar[str] = ""
    name: ClassVar[str] = ""
    device: ClassVar[str] = "cuda"
    source: ClassVar[str | tuple[str, ...]] = ""  # a .cu beside the class, or several; "" means <op>.cu
    dtypes: ClassVar[tuple[str, ...]] = ("f32", "bf16")
    tf32: ClassVar[bool] = False  # in f32 its products are of TF32, 10 bits of mantissa: only where a run allows it
    arch: ClassVar[str] = "sm_75+"
    library: ClassVar[str] = ""  # of the vendor, which it calls (`launch.call`): on a GPU only, never simulated
    priority: ClassVar[int] = 10  # the highest that can run is `auto`; negative is never automatic
    saved: ClassVar[Mapping[str, str]] = {}  # name -> pattern: written by forward, read by backward
    reads: ClassVar[tuple[str, ...]] = ()  # inputs, params, outputs that backward reads besides saved
    can_add: ClassVar[tuple[str, ...]] = ()  # inputs whose gradient it can add to instead of overwrite
    alias: ClassVar[Mapping[str, str]] = {}  # {"da": "dy"}: that gradient IS the other: no launch, no copy
    inplace: ClassVar[Mapping[str, str]] = {}  # {"dx": "dy"}: may lie in that tensor's memory
    partial: ClassVar[tuple[str, ...]] = ()  # parameters whose gradient it does not write whole
    base: ClassVar[str] = ""  # a variant of the same op: whatever this class does not define comes from there
    repeatable: ClassVar[bool] = True  # False: bits may differ between runs; never automatic
    tolerance: ClassVar[Mapping[str, float]] = {}  # dtype -> relative 2-norm allowed by the check
    tolerance_why: ClassVar[str] = ""  # needed to allow more than the default
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()  # checked besides the op's own
    uncovered: ClassVar[Mapping[str, str]] = {}  # a line of its kernels that no example reaches -> why that is right
    # stamped when registered:
    origin: str = ""  # the plugin that brought it
    folder: Path = Path()  # the folder of the class's file
    sources: Mapping[str, tuple[Path, ...]] = {}  # launcher -> its kernels' files; `base` may make them differ

    def forward(self, t: Any, launch: Any) -> None:
        raise BuildError(f"variant {self.op}.{self.name} defines no forward")

    def backward(self, t: Any, launch: Any) -> None:
        """Set to None in a variant that is forward only: it is never chosen for training."""
        raise BuildError(f"variant {self.op}.{self.name} defines no backward")

    def configs(self, t: Any) -> list[dict[str, Any]]:
        """Tile candidates, best guess first; the chosen one is `t.config`."""
        return [{}]

    def workspace(self, t: Any) -> int:
        """Scratch bytes, from shapes and `t.config` alone."""
        return 0

    def counters(self, t: Any) -> int:
        """u32 zeros of its own; a launch leaves them zero."""
        return 0

    def why_not(self, t: Any) -> str | None:
        """Why this variant cannot run on these shapes, in words; None when it can."""
        return None

    @property
    def has_backward(self) -> bool:
        method = type(self).backward
        return method is not None and method is not Variant.backward

    @property
    def has_forward_backward(self) -> bool:
        """Whether it computes loss and gradients in one go (`forward_backward(t, launch)`), for loss ops."""
        return hasattr(self, "forward_backward")

    def __repr__(self) -> str:
        return f"<{self.op}.{self.name} ({self.device})>"


class Reference(Variant):
    """The NumPy implementation that says what is right: `forward(self, t)` and `backward(self, t)`, no `launch`.

    Generic over f32 and f64; the gradient check runs in f64. Without a faster cpu variant, it is what trains.
    """

    name: ClassVar[str] = "reference"
    device: ClassVar[str] = "cpu"
    dtypes: ClassVar[tuple[str, ...]] = ("f32", "f64")
    priority: ClassVar[int] = 0

    def forward(self, t: Any) -> None:  # type: ignore[override]
        raise BuildError(f"the reference of {self.op} defines no forward")

    def backward(self, t: Any) -> None:  # type: ignore[override]
        raise BuildError(f"the reference of {self.op} defines no backward")

    @property
    def has_backward(self) -> bool:
        method = type(self).backward
        return method is not None and method is not Reference.backward


# --- optimizers and schedules ----------------------------------------------------------------------------------


class Optimizer:
    """An optimizer: options with defaults, state tensors beside each parameter element, one recorded step.

    `step(p, launch)` is called once; it launches ops (`launch.op("adamw_update", ...)`) over the flat arenas:
    `p.param`, `p.grad`, each state by name, `p.group` (which elements train, and which decay), `p.control` (the control
    record, see core.step_record), and the options by name; `p.flat` has all of them but the options by the names of an
    update's inputs: `launch.op("adamw_update", **p.flat, eps=p.eps)`. For updates that need whole matrices
    (`whole`), `p.parameters` has one entry for each that trains: name, shape, decays, and by the names above its own
    parts of the arenas in its shape; `p.group_without(names)` is `p.group` with these left untrained, so that another
    update can take all the rest at once.
    """

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    below: ClassVar[Mapping[str, float]] = {}  # option -> what its numbers must be less than: {"betas": 1.0}
    state: ClassVar[Mapping[str, str]] = {}  # {"m": "n : acc"}: n elements, as many as the parameter arena
    whole: ClassVar[bool] = False  # True: needs whole matrices (Muon), not slices of the arena
    origin: str = ""

    def step(self, p: Any, launch: Any) -> None:
        raise BuildError(f"optimizer {self.name} defines no step")


class Schedule:
    """A learning-rate schedule: `lr(step, steps, peak, options)` for step 0 .. steps-1."""

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    origin: str = ""

    def lr(self, step: int, steps: int, peak: float, options: Mapping[str, Any]) -> float:
        raise BuildError(f"schedule {self.name} defines no lr")

    def remarks(self, steps: int, options: Mapping[str, Any]) -> Iterable[str]:
        """What a person should know of these options in a run of `steps`, a sentence each; said before step 1."""
        return ()

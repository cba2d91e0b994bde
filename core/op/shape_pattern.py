"""Shape patterns: a schema's lines `"... C"`, `"B T : i32 < V"`, matched with the shapes of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.dtypes import NUMPY
from core.errors import BuildError, did_you_mean
from core.expr import described, evaluate, trim, unpadded

ACTIVATION, ACC = None, "acc"  # the two dtypes that a precision settles; the others are names of core.dtypes


@dataclass(frozen=True)
class Pattern:
    """One line of a schema: `"... C"`, `"B T : i32 < V"`, `"S kv_heads*D"`, `"... : acc"`.

    `...` stands for any leading dims. A token is a name, which is bound to the size, or arithmetic
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
            dtypes = [ACC, *NUMPY]
            if dtype not in dtypes or (less and not bound):
                raise BuildError(
                    f'{where}: pattern "{text}" has dtype "{rest.strip()}"; expected one of '
                    f"{', '.join(dtypes)}, integers with an optional bound as in `i32 < V`{did_you_mean(dtype, dtypes)}"
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
            leading = dims.setdefault("...", head)
            if leading != head or trim(leading) != trim(head):
                raise BuildError(
                    f"{where}: leading dims {described(head)}, but another tensor of this node has {described(leading)}"
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

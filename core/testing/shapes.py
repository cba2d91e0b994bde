"""Sizes of an op on a command line, `--shape x=64,768 --shape features=96`, to an example and back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.device.large_blocks import available, described
from core.errors import BuildError, OutOfMemory, UsageError, did_you_mean
from core.op import Op
from core.testing.case import make_case

LABELLED = re.compile(r"(\w+)=(\([^)]*\)|[^,]+)")
ADDRESSABLE = 1 << 47  # bytes, where the system does not report free memory


def example_of(op: Op, words: Sequence[str]) -> dict[str, Any]:
    """The example of `--shape`: an input's or a param's sizes, or an attr. Without it, the op's largest.

    Raises UsageError for a name that the op does not have and for invalid sizes.
    """
    if not words:
        if not op.examples:
            raise BuildError(f'op "{op.name}" has no examples', hint="give --shape")
        return largest_first(op)[0]
    example: dict[str, Any] = {}
    for part in (p for text in words for p in text.split()):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--shape {part}: expected NAME=SIZES", hint="such as --shape x=64,768")
        names = list(dict.fromkeys([*op.inputs, *op.params, *op.attrs]))
        if name not in names:
            raise UsageError(f'--shape {part}: op "{op.name}" has no input or attr "{name}"{did_you_mean(name, names)}')
        optional = name in op.params and name in op.attrs and value in ("true", "false")
        sized = (name in op.inputs or name in op.params) and not optional
        example[name] = _sizes(part, value) if sized else _literal(value)
    return example


def largest_first(op: Op) -> list[dict[str, Any]]:
    """The op's examples, those with most elements first."""
    return sorted((dict(e) for e in op.examples), key=lambda e: _elements(op, e), reverse=True)


def as_shape(op: Op, example: Mapping[str, Any]) -> str:
    """The example as `--shape` takes it: `x=2,256 eps=0.001`. Attributes at their defaults are left out."""
    sizes = {n: ",".join(map(str, v)) for n, v in example.items() if isinstance(v, tuple)}
    attrs = {n: v if isinstance(v, str) else json.dumps(v) for n, v in example.items() if n not in sizes}
    shown = {n: v for n, v in attrs.items() if n not in op.attrs or example[n] != op.default_of(n)}
    return " ".join(f"{name}={value}" for name, value in {**sizes, **shown}.items())


def label_as_shape(label: str) -> str:
    """A case's label as `--shape` takes it: "x=(4, 7), heads=2" -> "x=4,7 heads=2"; "" for one with contents."""
    parts = LABELLED.findall(label)
    if any(value == "contents" for _, value in parts):
        return ""
    words = [(name, ",".join(re.findall(r"\d+", value)) if value.startswith("(") else value) for name, value in parts]
    return " ".join(f"{name}={value.lower() if value in ('True', 'False') else value}" for name, value in words)


def _elements(op: Op, example: Mapping[str, Any]) -> int:
    """Elements of all inputs and params."""
    values = make_case(op, example).values.values()
    return sum(v.size for v in values if v is not None)


def _sizes(part: str, value: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in value.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--shape {part:.200}: expected sizes of at least 1 with commas between them, such as 64,768")
    nbytes, free = 4 * math.prod(sizes), available()
    if nbytes > (ADDRESSABLE if free is None else free):
        request = f"--shape {part:.200}: {nbytes:,} bytes{described()}"
        raise OutOfMemory(request, hint="give smaller sizes")
    return sizes


def _literal(value: str) -> Any:
    """A number or true or false; else a word."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

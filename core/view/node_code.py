"""The code of a node: the op's formula, and the lines of the variant that ran, of launchers and kernels."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.kernels.sources import source_lines
from core.op import Op, Variant
from core.registry import Registry
from core.registry.fields import LAUNCHERS
from core.registry.lookup import REFERENCE
from core.view.private import short_place

MOST_LINES = 160  # of a kernel's file


def formula_of(op: Op, registry: Registry) -> dict[str, Any]:
    """`doc`: a sentence on an op; `formula`: its page's docstring; `where`: `file:line`; `replaces` of a fused op."""
    reference = registry.variants.get(op.name, {}).get(REFERENCE)
    module = sys.modules.get(type(reference).__module__) if reference is not None else None
    formula = inspect.cleandoc(module.__doc__ or "") if module is not None else ""
    return {"doc": op.doc, "formula": formula, "where": short_place(op.where), "replaces": op.replaces}


def code_of(variant: Variant) -> list[dict[str, Any]]:
    """Blocks of lines: `title`, `file`, `first` (a line's number), `lines`, and `left_out`, the number of lines."""
    return [*launchers_of(variant), *kernels_of(variant)]


def launchers_of(variant: Variant) -> Iterator[dict[str, Any]]:
    """The Python of the launchers; those that are not written are left out."""
    for name in LAUNCHERS:
        method = getattr(type(variant), name, None)
        if method is None or method is getattr(Variant, name, None):
            continue
        with contextlib.suppress(OSError, TypeError):
            lines, first = inspect.getsourcelines(inspect.unwrap(method))
            file = short_place(str(inspect.getsourcefile(inspect.unwrap(method))))
            yield block_of(name, file, first, [line.rstrip() for line in lines])


def kernels_of(variant: Variant) -> Iterator[dict[str, Any]]:
    """The files of the kernels."""
    for path in dict.fromkeys(path for those in variant.sources.values() for path in those):
        if Path(path).is_file():
            yield block_of("kernels", short_place(str(path)), 1, source_lines(Path(path)))


def block_of(title: str, file: str, first: int, lines: list[str]) -> dict[str, Any]:
    shown = [line.expandtabs(4) for line in lines[:MOST_LINES]]
    return {"title": title, "file": file, "first": first, "lines": shown, "left_out": len(lines) - len(shown)}

"""A model's `[dims]`: numbers and arithmetic over one another, in any order."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from core.errors import BuildError, UsageError, did_you_mean
from core.expr import FUNCTIONS, LARGEST, LONGEST, Number, evaluate, evaluate_any

Dims = dict[str, Any]  # a number, or a tuple of numbers
INDEX = "i"  # the number of a block's repeat, in the block's expressions


def check_overrides(dims: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`overrides` as plain TOML values. Raises UsageError for an unknown dim or a value that is no size."""
    settled: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in dims:
            raise UsageError(
                f'{where} has no dim "{name}"{did_you_mean(str(name), dims)}',
                hint=f"its dims are {', '.join(dims) or 'none'}",
            )
        problem = unusable_dim(value)
        if problem:
            raise UsageError(f'dim "{name}" of {where}: {problem}')
        settled[name] = [_plain(part) for part in value] if isinstance(value, list | tuple) else _plain(value)
    return settled


def _plain(value: Number | str) -> Number | str:
    return value if isinstance(value, str) else float(value) if isinstance(value, float) else int(value)


def unusable_dim(value: Any) -> str:
    """Why `value` cannot be a dim, which may be a list, or ''."""
    parts = value if isinstance(value, list | tuple) else [value]
    return next((why for part in parts if (why := unusable(part))), "") if parts else "a list without an element"


def unusable(value: Any) -> str:
    """Why `value` cannot be a dim, or ''."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return f"{value!r} is not a number or arithmetic over the dims"
    if not isinstance(value, str) and (not math.isfinite(value) if isinstance(value, float) else abs(value) > LARGEST):
        return f"{value!r} is out of range"
    return ""


def evaluate_dims(table: Mapping[str, Any], overridden: Collection[str], where: Callable[[str], str]) -> Dims:
    """All dims as numbers, in the table's order; `where` gives a dim's place.

    Raises BuildError, with a circle shown; UsageError where the expression at fault is an override.
    """
    needs = {name: _names(value) & table.keys() for name, value in table.items()}
    settled: Dims = {}
    while len(settled) < len(table):
        ready = [n for n in table if n not in settled and needs[n] <= settled.keys()]
        if not ready:
            circle = _circle(needs, settled)
            raise BuildError(f"{where(circle[0])}: dims depend on one another: {' -> '.join(circle)}")
        for name in ready:
            try:
                settled[name] = _settled(table[name], settled, where(name))
            except BuildError as error:
                kind = UsageError if name in overridden else BuildError
                raise kind(error.message, hint=error.hint) from None
    return {name: settled[name] for name in table}


def _settled(value: Any, names: Dims, where: str) -> Any:
    if isinstance(value, list | tuple):
        return tuple(evaluate(part, names, f"{where}[{index}]") for index, part in enumerate(value))
    return evaluate_any(value, names, where)


def name_problem(name: str) -> str:
    """Why `name` cannot be a dim's name, or ''."""
    if name == INDEX:
        return f'"{INDEX}" is the number of a block\'s repeat'
    if name in FUNCTIONS:
        return f'"{name}" is a function of the arithmetic'
    return "" if name.isidentifier() else f'"{name}" is not an identifier'


def _names(value: Any) -> set[str]:
    """Names that an expression mentions; none where it does not parse, which `evaluate` reports."""
    if isinstance(value, list | tuple):
        return {name for part in value for name in _names(part)}
    if not isinstance(value, str) or len(value) > LONGEST:
        return set()
    try:
        tree = ast.parse(value.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def _circle(needs: Mapping[str, set[str]], settled: Dims) -> list[str]:
    stuck = {n: needs[n] - settled.keys() for n in needs if n not in settled}
    name = next(iter(stuck))
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        name = sorted(stuck[name])[0]
    return [*seen[seen.index(name) :], name]

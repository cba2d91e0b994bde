"""A model's `[dims]`: numbers and arithmetic over one another, in any order."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

from core.errors import BuildError, UsageError, did_you_mean
from core.expr import FUNCTIONS, LARGEST, LONGEST, Number, evaluate

Dims = dict[str, Number]


def check_overrides(dims: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Number | str]:
    """`overrides` as plain TOML values. Raises UsageError for an unknown dim or a value that is no size."""
    settled: dict[str, Number | str] = {}
    for name, value in overrides.items():
        if name not in dims:
            raise UsageError(
                f'{where} has no dim "{name}"{did_you_mean(str(name), dims)}',
                hint=f"its dims are {', '.join(dims) or 'none'}",
            )
        problem = unusable(value)
        if problem:
            raise UsageError(f'dim "{name}" of {where}: {problem}')
        settled[name] = value if isinstance(value, str) else float(value) if isinstance(value, float) else int(value)
    return settled


def unusable(value: Any) -> str:
    """Why `value` cannot be a dim, or ''."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return f"{value!r} is not a number or arithmetic over the dims"
    if not isinstance(value, str) and (not math.isfinite(value) if isinstance(value, float) else abs(value) > LARGEST):
        return f"{value!r} is out of range"
    return ""


def evaluate_dims(table: Mapping[str, Any], where: str) -> Dims:
    """All dims as numbers, in the table's order. Raises BuildError; a circle is shown."""
    needs = {name: _names(value) & table.keys() for name, value in table.items()}
    settled: Dims = {}
    while len(settled) < len(table):
        ready = [n for n in table if n not in settled and needs[n] <= settled.keys()]
        if not ready:
            raise BuildError(f"{where}: {_circle(needs, settled)} depend on one another")
        for name in ready:
            settled[name] = evaluate(table[name], _known(settled, table), f"{where} {name}")
    return {name: settled[name] for name in table}


def name_problem(name: str) -> str:
    """Why `name` cannot be a dim's name, or ''."""
    if name in FUNCTIONS:
        return f'"{name}" is a function of the arithmetic'
    return "" if name.isidentifier() else f'"{name}" is not an identifier'


def _known(settled: Dims, table: Mapping[str, Any]) -> Mapping[str, Number]:
    return {n: settled[n] for n in table if n in settled}


def _names(value: Any) -> set[str]:
    """Names that an expression mentions; none where it does not parse, which `evaluate` reports."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return set()
    try:
        tree = ast.parse(value.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def _circle(needs: Mapping[str, set[str]], settled: Dims) -> str:
    stuck = {n: needs[n] - settled.keys() for n in needs if n not in settled}
    name, seen = next(iter(stuck)), []
    while name not in seen:
        seen.append(name)
        name = sorted(stuck[name])[0]
    return " -> ".join([*seen[seen.index(name) :], name])

"""Checks the options of an optimizer or schedule by its declaration.

The config cannot do it while it loads, since it knows no optimizer. The caller has looked it up in the registry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.config.spelling import shown_value
from core.errors import UsageError, did_you_mean, raise_all

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def check_options(
    table: Mapping[str, Any],
    options: Mapping[str, Any],
    where: str | Callable[[str], str],
    beside: Sequence[str] = (),
    below: Mapping[str, float] = {},
) -> dict[str, Any]:
    """All options by name: those of `table` over the defaults in `options`.

    table: the config's values. options: name -> default; a bare type (`float`) is required; a tuple of strings
    lists the choices, its first the default; a tuple or list of numbers takes a list of as many, a list of strings one
    or any number of them. An int stands for a float. where: the table, `configs/tiny.toml [optimizer]`, or a function
    from an option's name to its place. beside: keys of the same table that are no options. Numbers must be finite, and
    not negative unless the default is. below: name -> exclusive upper bound of its numbers.

    Raises UsageError that lists every problem: unknown (with the nearest name), missing, or of a wrong type.
    """
    place = where if callable(where) else lambda name: f"{where} {name}"
    problems: list[str] = []
    names = [*beside, *options]
    settled: dict[str, Any] = {}
    for name in table:
        if name not in options:
            problems.append(f"{place(name)}: unknown key{did_you_mean(name, names) or listed(names)}")
    for name, default in options.items():
        if name in table:
            try:
                settled[name] = settle(table[name], default)
                check_below(settled[name], below.get(name, math.inf))
            except ValueError as error:
                problems.append(f"{place(name)}: expected {error}, got {shown_value(table[name])}")
        elif isinstance(default, type):
            problems.append(f"{place(name)}: missing; expected {KINDS[default]}")
        else:
            settled[name] = default[0] if is_choice(default) else default
    raise_all(problems, UsageError)
    return settled


def check_below(value: Any, bound: float) -> None:
    """ValueError, with the expectation, unless each number is below `bound`."""
    numbers = value if isinstance(value, tuple | list) else [value]
    if any(isinstance(n, int | float) and n >= bound for n in numbers):
        raise ValueError(("numbers" if numbers is value else "a number") + f" >= 0 and below {bound:g}")


def listed(names: Sequence[str]) -> str:
    return f" (known: {', '.join(names) or 'none'})"


def is_choice(default: Any) -> bool:
    return isinstance(default, tuple) and bool(default) and all(isinstance(c, str) for c in default)


def settle(value: Any, default: Any) -> Any:
    """`value` in the type of `default`. Raises ValueError with the expectation."""
    if is_choice(default):
        if value not in default:
            raise ValueError("one of " + ", ".join(f'"{c}"' for c in default))
        return value
    if isinstance(default, list) and all(isinstance(item, str) for item in default):
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("a string or a list of strings")
        return names
    if isinstance(default, tuple | list):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            raise ValueError(f"a list of {len(default)} numbers")
        return type(default)(settle(v, d) for v, d in zip(value, default, strict=True))
    kind = default if isinstance(default, type) else type(default)
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (type(value) is kind or number):
        raise ValueError(KINDS[kind])
    if kind in (int, float):
        least = 0 if isinstance(default, type) or default >= 0 else -math.inf
        if not (math.isfinite(value) and value >= least):
            raise ValueError(KINDS[kind] + " >= 0" * (least == 0))
    return kind(value)

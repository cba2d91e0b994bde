"""Checks a TOML document by the schema, key by key, and collects every problem instead of the first.

A problem is one line: file, table, key; the expected type or values; the actual value; the nearest known name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any

import msgspec

from core.config.key_types import Key, keys, rest, type_info
from core.config.schema import Document, Table
from core.config.spelling import Keys, show, shown_value

Where = Callable[[Keys], str]


def check_table(value: Any, table: type[Table], path: Keys, where: Where) -> Iterator[str]:
    """The problems of one table, those of its sub-tables included."""
    if not isinstance(value, dict):
        yield f"{where(path)}: expected a table, got {shown_value(value)}"
        return
    spare = rest(table)
    for name, item in value.items():
        inner = (*path, name)
        key = keys(table).get(name)
        if key is not None and key is not spare:
            yield from check_key(item, key, inner, where)
        elif spare is not None and spare.entries is not None:
            yield from check_rest(item, spare.entries[1], inner, where)
        else:
            from core.config.expectations import suggestion

            yield f"{where(inner)}: unknown key{suggestion(name, table, path)}"


def check_rest(value: Any, annotated: Any, path: Keys, where: Where) -> Iterator[str]:
    """The problems of a key that the schema does not name: a table, as `[on.cpu]`, or a value."""
    if isinstance(annotated, type) and issubclass(annotated, Table):
        yield from check_table(value, annotated, path, where)
    else:
        yield from check_value(value, annotated, path, where)


def check_key(value: Any, key: Key, path: Keys, where: Where) -> Iterator[str]:
    if key.table is not None:
        yield from check_table(value, key.table, path, where)
    elif key.entries is not None:
        names, values = key.entries
        if not isinstance(value, dict):
            yield f"{where(path)}: expected a table, got {shown_value(value)}"
            return
        for name, item in value.items():
            yield from check_value(name, names, (*path, name), where)
            yield from check_value(item, values, (*path, name), where)
    elif key.items is not None and isinstance(value, list):
        for number, item in enumerate(value, 1):
            inner = (*path, str(number))
            problems = list(check_table(item, key.items, inner, where))
            yield from problems or check_complete(item, key.items, inner, where)
    else:
        yield from check_value(value, key.type, path, where)


def check_value(value: Any, annotated: Any, path: Keys, where: Where) -> Iterator[str]:
    """The problem of one value, if it has one."""
    why = never_valid(value)
    if not why:
        try:
            msgspec.convert(as_list(value, annotated), annotated)
            return
        except msgspec.ValidationError:
            from core.config.expectations import remedy

            why = f"got {shown_value(value)}{remedy(value, annotated)}"
    from core.config.expectations import expected

    yield f"{where(path)}: expected {expected(annotated)}, {why}"


def as_list(value: Any, annotated: Any) -> Any:
    """A list of one where the schema permits one string for it."""
    return [value] if type_info(annotated)[1].get("lone") and isinstance(value, str) else value


def never_valid(value: Any) -> str:
    """The reason why no key of any type can take this value; "" where one might."""
    match value:
        case list():
            return next(filter(None, map(never_valid, value)), "")
        case dict():
            return next(filter(None, map(never_valid, [*value, *value.values()])), "")
        case float() if not math.isfinite(value):
            return f"got {value}, which is not finite"
        case int() if not -(2**63) <= value < 2**63:
            return f"got {show(value)}, which does not fit 64 bits"
        case str() if "\0" in value:
            return f"got {show(value)}, which holds a NUL character"
        case str() if any("\ud800" <= letter <= "\udfff" for letter in value):  # from an argument that is not UTF-8
            return f"got {show(value)}, which is not Unicode text"
        case bool() | int() | float() | str() | NoneType():
            return ""
    return f"got the date or time {value}"


def check_complete(document: Document, table: type[Table], path: Keys, where: Where) -> Iterator[str]:
    """The keys without a default that `document` lacks. Its types are known to be right."""
    for name, key in keys(table).items():
        inner = (*path, name)
        if key.table is not None:
            yield from check_complete(document.get(name, {}), key.table, inner, where)
        elif key.required and name not in document:
            from core.config.expectations import expected

            yield f"{where(inner)}: missing; expected {expected(key.type)}"


def to_struct(document: Document, table: type[Table]) -> dict[str, Any]:
    """A checked document in the shape that msgspec converts: the rest gathered, lone strings in lists."""
    spare = rest(table)
    shaped: dict[str, Any] = {spare.name: {}} if spare else {}
    for name, item in document.items():
        key = keys(table).get(name)
        if key is None or key is spare:
            assert spare is not None
            shaped[spare.name][name] = item
        elif key.table is not None:
            shaped[name] = to_struct(item, key.table)
        elif key.items is not None:
            shaped[name] = [to_struct(one, key.items) for one in item]
        else:
            shaped[name] = as_list(item, key.type)
    for name, key in keys(table).items():
        if key.table is not None:
            shaped.setdefault(name, to_struct({}, key.table))
    return shaped


def to_document(settings: Table, table: type[Table]) -> Document:
    """The opposite: the rest spread among the other keys."""
    document: Document = {}
    for name, key in keys(table).items():
        value = getattr(settings, name)
        if key.table is not None:
            value = to_document(value, key.table)
        elif key.items is not None:
            value = [{n: v for n, v in to_document(one, key.items).items() if v is not None} for one in value]
        if key.extra.get("rest"):
            document.update(msgspec.to_builtins(value))
        else:
            document[name] = msgspec.to_builtins(value)
    return document

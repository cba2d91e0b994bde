"""Words for a problem of a config: the expected type, and the nearest known key or value."""

from __future__ import annotations

import re
from typing import Any

from msgspec import inspect

from core.config.key_types import keys, named_keys, type_info
from core.config.schema import Schema, Table
from core.config.spelling import Keys
from core.errors import did_you_mean


def expected(annotated: Any) -> str:
    """A type as text: `a whole number >= 1`."""
    info, extra, _ = type_info(annotated)
    if "expected" in extra:
        return str(extra["expected"])
    if isinstance(info, inspect.ListType) and extra.get("lone"):
        return "a string or a list of strings" + (" that is not empty" if info.min_length else "")
    return words(info)


def words(info: inspect.Type) -> str:
    match info:
        case inspect.IntType():
            return "a whole number" + bounds(info)
        case inspect.FloatType():
            return "a number" + bounds(info)
        case inspect.StrType(min_length=shortest):
            return "a string that is not empty" if shortest else "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{v}"' for v in values)
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.UnionType(types=types):
            return " or ".join(words(t) for t in types)
        case inspect.Metadata(type=inner):
            return words(inner)
    raise TypeError(f"the schema has no words for {info}")


def bounds(info: inspect.IntType | inspect.FloatType) -> str:
    limits = [(">", info.gt), (">=", info.ge), ("<", info.lt), ("<=", info.le)]
    return "".join(f" {sign} {limit:g}" for sign, limit in limits if limit is not None)


def suggestion(name: str, table: type[Table], path: Keys) -> str:
    """The probable meaning of an unknown key: a close name here, or this name in another table."""
    here = did_you_mean(name, named_keys(table))
    homes = [t for t, key in keys(Schema).items() if key.table and name in named_keys(key.table) and (t,) != path]
    if path and name in named_keys(Schema):
        return f'; "{name}" belongs before the first table'
    if homes and not here:
        return f"; it belongs in [{homes[0]}]"
    return here or f" (known: {', '.join(named_keys(table))})"


def remedy(value: Any, annotated: Any) -> str:
    """The correction of a value, where it is obvious."""
    info, _, _ = type_info(annotated)
    number = isinstance(info, inspect.IntType | inspect.FloatType)
    if isinstance(info, inspect.LiteralType) and isinstance(value, str):
        return did_you_mean(value, [str(v) for v in info.values])
    if isinstance(info, inspect.IntType) and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if number and isinstance(value, str) and re.fullmatch(r"\s*[-+0-9._eE]*[0-9][-+0-9._eE]*\s*", value):
        return "; write it without quotes"
    if isinstance(info, inspect.StrType) and not isinstance(value, str | dict | list):
        return "; write it in quotes"
    return ""

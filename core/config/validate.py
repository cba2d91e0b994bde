"""Checks a TOML document against the schema, key by key, and collects every problem instead of the first.

A problem is one line: file, table, key; what was expected; what came; what was probably meant.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import inspect

from core.config.schema import Document, Schema, Table
from core.errors import did_you_mean

Keys = tuple[str, ...]  # of keys, from the top of the document
Where = Callable[[Keys], str]

BARE = re.compile(r"[A-Za-z0-9_-]+")
LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Key:
    """One key of a table: its type with and without annotations, as Python's and as msgspec's inspection sees it."""

    name: str
    type: Any
    info: inspect.Type
    extra: Mapping[str, Any]
    doc: str
    required: bool
    default: Any

    @property
    def table(self) -> type[Table] | None:
        """The table's class, when this key holds a table with keys of its own."""
        return self.info.cls if isinstance(self.info, inspect.StructType) else None

    @property
    def is_table(self) -> bool:
        return isinstance(self.info, inspect.StructType | inspect.DictType)

    @property
    def entries(self) -> tuple[Any, Any] | None:
        """Types of keys and values, when this key holds a table with names of the user's choice."""
        if not isinstance(self.info, inspect.DictType):
            return None
        plain = unannotated(self.type)
        key, value = get_args(plain)
        return key, value


def unannotated(annotated: Any) -> Any:
    """A type without its annotations."""
    while get_origin(annotated) is Annotated:
        annotated = get_args(annotated)[0]
    return annotated


@functools.cache
def type_info(annotated: Any) -> tuple[inspect.Type, Mapping[str, Any], str]:
    """msgspec's view of a type: itself, the merged `extra` of its annotations, its description."""
    info = inspect.type_info(annotated)
    if isinstance(info, inspect.Metadata):
        return info.type, info.extra or {}, str((info.extra_json_schema or {}).get("description", ""))
    return info, {}, ""


@functools.cache
def keys(table: type[Table]) -> dict[str, Key]:
    """The keys of a table by name, the one for the rest included."""
    by_name = {}
    for each in msgspec.structs.fields(table):
        info, extra, doc = type_info(each.type)
        default = each.default if each.default is not msgspec.NODEFAULT else None
        if each.default_factory is not msgspec.NODEFAULT:
            default = each.default_factory()
        by_name[each.name] = Key(each.name, each.type, info, extra, doc, each.required, default)
    return by_name


def rest(table: type[Table]) -> Key | None:
    """The key that takes what no other key of the table does."""
    return next((k for k in keys(table).values() if k.extra.get("rest")), None)


def named_keys(table: type[Table]) -> list[str]:
    """Keys that a user can write into the table, without the rest."""
    return [name for name, key in keys(table).items() if not key.extra.get("rest")]


# --- in words --------------------------------------------------------------------------------------------------


def expected(annotated: Any) -> str:
    """A type in words: `a whole number >= 1`."""
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


def show(value: Any) -> str:
    """A value as it would stand in TOML, shortened."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = msgspec.json.encode(value).decode() if value.isprintable() else ascii(value)
        case list():
            text = "[" + ", ".join(show(v) for v in value[:9]) + (", ..." if len(value) > 9 else "") + "]"
        case dict():
            text = "{ " + ", ".join(f"{bare(k)} = {show(v)}" for k, v in list(value.items())[:9]) + " }"
        case int() if value.bit_length() > 200:  # Python refuses to print an int of thousands of digits
            text = f"a whole number of {value.bit_length()} bits"
        case _:
            text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def shown_value(value: Any) -> str:
    """What came, with its kind: the same digits may be a string."""
    match value:
        case str():
            return f"the string {show(value)}"
        case list():
            return f"the list {show(value)}"
        case dict():
            return "a table"
        case _:
            return show(value)


def bare(key: str) -> str:
    """A key as TOML writes it: in quotes when it must be."""
    return key if BARE.fullmatch(key) else show(key)


def place(file: str, path: Keys) -> str:
    """`configs/tiny.toml [train] steps`."""
    *table, key = path
    inside = "[" + ".".join(bare(t) for t in table) + "] " if table else ""
    return f"{file} {inside}{bare(key)}"


# --- checks ----------------------------------------------------------------------------------------------------


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
            yield f"{where(inner)}: unknown key{suggestion(name, table, path)}"


def check_rest(value: Any, annotated: Any, path: Keys, where: Where) -> Iterator[str]:
    """The problems of a key that the schema does not name: a table, as `[on.cpu]`, or a value."""
    if isinstance(annotated, type) and issubclass(annotated, Table):
        yield from check_table(value, annotated, path, where)
    else:
        yield from check_value(value, annotated, path, where)


def suggestion(name: str, table: type[Table], path: Keys) -> str:
    """What an unknown key probably was: a close name here, or this name in another table."""
    here = did_you_mean(name, named_keys(table))
    homes = [t for t, key in keys(Schema).items() if key.table and name in named_keys(key.table) and (t,) != path]
    if path and name in named_keys(Schema):
        return f'; "{name}" belongs before the first table'
    if homes and not here:
        return f"; it belongs in [{homes[0]}]"
    return here or f" (known: {', '.join(named_keys(table))})"


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
            why = f"got {shown_value(value)}{remedy(value, annotated)}"
    yield f"{where(path)}: expected {expected(annotated)}, {why}"


def as_list(value: Any, annotated: Any) -> Any:
    """A list of one where the schema lets one string stand for it."""
    return [value] if type_info(annotated)[1].get("lone") and isinstance(value, str) else value


def never_valid(value: Any) -> str:
    """Why no key can take this value, whatever its type; "" when one might."""
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


def remedy(value: Any, annotated: Any) -> str:
    """What to write instead, where that is plain."""
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


def check_complete(document: Document, table: type[Table], path: Keys, where: Where) -> Iterator[str]:
    """The keys without a default that `document` lacks. Its types are known to be right."""
    for name, key in keys(table).items():
        inner = (*path, name)
        if key.table is not None:
            yield from check_complete(document.get(name, {}), key.table, inner, where)
        elif key.required and name not in document:
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
        if key.extra.get("rest"):
            document.update(msgspec.to_builtins(value))
        else:
            document[name] = msgspec.to_builtins(value)
    return document

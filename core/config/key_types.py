"""The keys of the schema's tables, with their types as msgspec sees them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import inspect

from core.config.schema import Table


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
    def items(self) -> type[Table] | None:
        """The class of each table, when this key holds a list of tables."""
        inner = self.info.item_type if isinstance(self.info, inspect.ListType) else None
        return inner.cls if isinstance(inner, inspect.StructType) else None

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
    """The key that takes all keys that no other of the table does."""
    return next((k for k in keys(table).values() if k.extra.get("rest")), None)


def named_keys(table: type[Table]) -> list[str]:
    """Keys that a user can write into the table, without the rest."""
    return [name for name, key in keys(table).items() if not key.extra.get("rest")]

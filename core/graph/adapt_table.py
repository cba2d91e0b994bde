"""The table [adapt] of a model: an adapter's options, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import CoreError, UsageError
from core.graph.document import ModelDocument
from core.graph.problems import Problems

if TYPE_CHECKING:
    from core.registry import Registry

TABLE = "adapt"


def settled(source: ModelDocument, registry: Registry, name: str, table: Any) -> dict[str, Any]:
    """The options of a table [adapt.NAME]. BuildError for an unknown adapter, UsageError for options that it lacks."""
    from core.config import check_options

    if name not in registry.adapters:
        raise registry.missing("adapter", name, registry.adapters, source.where(TABLE, name), "core_adapters")
    if not isinstance(table, dict):
        raise UsageError(f"{source.where(TABLE, name)} is {table!r:.200}; expected a table")
    return check_options(table, registry.adapters[name].options, source.where(TABLE, name))


def check_adapt(source: ModelDocument, registry: Registry, problems: Problems) -> None:
    """Report the faults of the tables of [adapt]."""
    tables = source.document[TABLE]
    if not isinstance(tables, dict):
        problems.also(source.where(TABLE), f"{source.where(TABLE)} is {tables!r:.200}; expected tables by adapter")
        return
    for name, table in tables.items():
        try:
            settled(source, registry, name, table)
        except CoreError as error:
            problems.add(source.where(TABLE, name), error.message, error.hint)

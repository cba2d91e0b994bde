"""The form of a model's [llama2c] table: its keys, and the type of each."""

from __future__ import annotations

from typing import Any

from core.interop import ModelDocument, Problems, check_string, check_table, is_names, wrong


def check(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    """Report the faults of a model's [llama2c]."""
    table = check_table(source, value, path, problems, ("header", "shared", "fixed", "parts", "order"))
    if not isinstance(table.get("shared", True), bool):
        wrong(source, (*path, "shared"), table["shared"], "true or false", problems)
    dims = source.document.get("dims")
    for name in table.get("header", []):
        if name not in (dims if isinstance(dims, dict) else {}):
            wrong(source, (*path, "header"), name, "names of the model's dims", problems)
    for name, rule in check_table(source, table.get("parts", {}), (*path, "parts"), problems).items():
        rule = check_table(source, rule, (*path, "parts", name), problems, ("of", "from", "rows", "heads"))
        check_string(source, rule.get("of"), (*path, "parts", name), problems)
    for version, names in check_table(source, table.get("order"), (*path, "order"), problems).items():
        if not is_names(names):
            wrong(source, (*path, "order", version), names, "the weights in the file's order", problems)

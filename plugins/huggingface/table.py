"""The form of a model's [hf] table: its keys, and the type of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.interop import (
    ModelDocument,
    Problems,
    as_list,
    check_string,
    check_strings,
    check_table,
    unusable,
    unusable_dim,
    wrong,
)


def check(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    """Report the faults of the table `value` of a model, whose key is `path`."""
    for key, inner in check_table(source, value, path, problems, KEYS).items():
        if key in KEYS:
            KEYS[key](source, inner, (*path, key), problems)


def _dims(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    dims = source.document.get("dims")
    for name, entry in check_table(source, value, path, problems, dims if isinstance(dims, dict) else ()).items():
        here = (*path, name)
        table = entry if isinstance(entry, dict) else {"from": entry}
        check_table(source, table, here, problems, ("from", "absent", "null", "flag", "values", "loss", "note"))
        check_strings(source, table.get("from"), here, problems)
        if "absent" in as_list(table.get("from")):
            wrong(source, here, entry, "keys of config.json", problems, "{ from = KEYS, absent = SIZE } for no key")
        for key in ("flag", "loss"):
            if not isinstance(table.get(key, False), bool):
                wrong(source, here, entry, f"{key} = true or false", problems)
        words = table.get("values", {"": 0})
        if not isinstance(words, dict) or not words or any(unusable(n) or isinstance(n, str) for n in words.values()):
            wrong(source, here, entry, "values = { WORD = NUMBER, ... }", problems)
        if not isinstance(table.get("note", ""), str):
            wrong(source, here, entry, "note = TEXT", problems)
        for key in ("absent", "null"):
            if key in table and (why := unusable_dim(table[key])):
                problems.also(source.where(*here), f"{source.where(*here)}: {key}: {why}")


def _expect(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, entry in check_table(source, value, path, problems).items():
        here = (*path, name)
        table = entry if isinstance(entry, dict) else {"from": name, "is": entry}
        check_table(source, table, here, problems, ("from", "is"))
        check_strings(source, table.get("from"), here, problems)
        if table.get("is", []) == []:
            wrong(source, here, entry, "the values that it may have", problems)


def _params(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, rule in check_table(source, value, path, problems).items():
        here = (*path, name)
        if isinstance(rule, dict):
            _rule(source, rule, here, problems)
        else:
            check_strings(source, rule, here, problems)


def _rule(source: ModelDocument, rule: dict[str, Any], path: tuple[str, ...], problems: Problems) -> None:
    table = check_table(source, rule, path, problems, ("from", "transpose", "stack", "rows", "sizes"))
    if ("from" in table) == ("rows" in table):
        wrong(source, path, rule, 'either "from" or "rows", the tensors that the parameter is made of', problems)
    sizes = table.get("sizes", [])
    if not isinstance(sizes, list) or any(unusable(size) for size in sizes):
        wrong(source, path, sizes, "the rows of each tensor, as arithmetic over the dims", problems)
    if not isinstance(table.get("transpose", False), bool):
        wrong(source, path, table["transpose"], "true or false", problems)
    if not isinstance(table.get("stack", ""), str):
        wrong(source, path, table["stack"], "the name that counts the tensors", problems)


def _tied(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, owner in check_table(source, value, path, problems).items():
        check_string(source, owner, (*path, name), problems)


KEYS: dict[str, Callable[..., None]] = {
    "architectures": check_strings,
    "prefix": lambda source, value, path, problems: (
        None
        if isinstance(value, list) and all(isinstance(p, str) for p in value)
        else wrong(source, path, value, "a list of strings", problems)
    ),
    "dims": _dims,
    "expect": _expect,
    "ignore": check_strings,
    "params": _params,
    "tied": _tied,
}

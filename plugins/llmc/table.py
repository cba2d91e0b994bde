"""The form of a model's [llmc] table: its keys, and the type of each."""

from __future__ import annotations

from typing import Any

from core.errors import did_you_mean
from core.interop import ModelDocument, Problems, check_table, wrong


def check(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    """Report the faults of a model's [llmc]."""
    table = check_table(source, value, path, problems, ("magic", "header", "padding", "params"))
    if type(table.get("magic")) is not int:
        wrong(source, (*path, "magic"), table.get("magic"), "the number that the model's files begin with", problems)
    dims = source.document.get("dims")
    dims_known = dims if isinstance(dims, dict) else {}
    for key in ("header", "padding", "params"):
        names = table.get(key, [] if key == "padding" else None)
        if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
            wrong(source, (*path, key), names, "a list of strings", problems)
            continue
        for name in names if key != "params" else ():
            if name not in dims_known:
                where = source.where(*path, key)
                problems.also(where, f'{where}: the model has no dim "{name}"{did_you_mean(name, dims_known)}')

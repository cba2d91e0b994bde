"""The schema of a model file: its tables and keys, and the type of each.

expand.py and build.py resolve the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from core.errors import did_you_mean
from core.graph.dims import name_problem, unusable, unusable_dim
from core.graph.document import ModelDocument
from core.graph.problems import Problems
from core.registry import Registry
from core.roles import ROLES

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # a node, block or input; no dots, which expanded names are made of
RESERVED = ("in", "out")  # a block's own keys: no node can have these names
STANDS = ("when", "else")  # any node may have them
BLOCK_NODE = ("block", "in", "repeat", "share", *STANDS)
FORMATS = "core_formats"  # the hook that brings the formats of weights, whose tables a model may have
ADAPT = "adapt"  # the table of adapters, by name
OP_NODE = ("op", "in", "tie", *STANDS)  # and the op's attributes

Check = Callable[[ModelDocument, Any, tuple[str, ...], Problems], None]


def check_document(source: ModelDocument, problems: Problems, registry: Registry) -> None:
    """Report every key that a model file does not have, and every value of a wrong type.

    A table of a format of weights is that format's to check; one of a plugin that is switched off or broken is passed
    over, since nothing reads it.
    """
    checks: dict[str, Check] = {one.table: one.check for one in registry.formats.values() if one.table}
    for key, value in source.document.items():
        check = TOP.get(key) or checks.get(key)
        if key == ADAPT:
            from core.graph.adapt_table import check_adapt  # of models with adapters

            check_adapt(source, registry, problems)
        elif check is not None:
            check(source, value, (key,), problems)
        elif not isinstance(value, dict) or not registry.suspects(key, FORMATS):
            where = source.where(key)
            tables = [*TOP, *checks, ADAPT]
            problems.also(where, f'{where}: a model has no key "{key}"{did_you_mean(key, tables)}')
    for needed in ("inputs", "graph"):
        if needed not in source.document:
            problems.also(source.where(), f'{source.where()}: there is no "{needed}"; a model needs it')
    if not {"loss", "logits"} & source.document.keys():
        problems.also(source.where(), f'{source.where()}: there is neither "loss" nor "logits": it has no output')


def wrong(
    source: ModelDocument, path: tuple[str, ...], value: Any, expected: str, problems: Problems, hint: str = ""
) -> None:
    """Add the problem of a value at `path`: its place, the value, the expected form, and a hint."""
    where = source.where(*path)
    problems.also(where, f"{where} is {value!r:.200}; expected {expected}", hint)


# --- pieces ------------------------------------------------------------------------------------------------------


def check_string(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    """Add a problem unless the value at `path` is a string that is not empty."""
    if not isinstance(value, str) or not value:
        wrong(source, path, value, "a string", problems)


def check_strings(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    """Add a problem unless the value at `path` is a string or a list of strings."""
    if not is_names(value):
        wrong(source, path, value, "a string or a list of strings", problems)


def is_names(value: Any) -> bool:
    """A string, or a list of at least one."""
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(n, str) and n for n in names)


def check_table(
    source: ModelDocument,
    value: Any,
    path: tuple[str, ...],
    problems: Problems,
    keys: Collection[str] | None = None,
) -> Mapping[str, Any]:
    """`value` if it is a table, else an empty one and a problem. Keys that are not in `keys` are problems."""
    if not isinstance(value, dict):
        wrong(source, path, value, "a table", problems)
        return {}
    for key in value:
        if keys is not None and key not in keys:
            where = source.where(*path, key)
            problems.also(
                where, f'{where}: there is no key "{key}" here{did_you_mean(key, keys)} (known: {", ".join(keys)})'
            )
    return value


def _identifier(source: ModelDocument, path: tuple[str, ...], problems: Problems, subject: str) -> None:
    name = path[-1]
    if not KEY.fullmatch(name) or name in RESERVED:
        why = "is reserved" if name in RESERVED else "is not made of letters, digits and _"
        problems.also(source.where(*path), f'{source.where(*path)}: "{name}" {why}; {subject} cannot be called so')


# --- tables ------------------------------------------------------------------------------------------------------


def _inputs(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, pattern in check_table(source, value, path, problems).items():
        _identifier(source, (*path, name), problems, "an input")
        if not isinstance(pattern, str):
            wrong(source, (*path, name), pattern, 'a shape, as in "B T : i32 < V"', problems)


def _roles(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    inputs = source.document.get("inputs")
    names = list(inputs) if isinstance(inputs, dict) else []
    named = check_table(source, value, path, problems, ROLES)
    for role, name in named.items():
        where, others = source.where(*path, role), [n for r, n in named.items() if r != role]
        if name not in names:
            problems.also(where, f"{where} is {name!r:.200}; expected an input{did_you_mean(str(name), names)}")
        elif name in others or (name in ROLES and name != role):
            problems.also(where, f'{where}: input "{name}" has one role; here it would have two')
        elif role in names and name != role:
            problems.also(where, f'{where}: input "{role}" has that role by its name; give that input another name')


def _dims(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, size in check_table(source, value, path, problems).items():
        where = source.where(*path, name)
        if problem := name_problem(name) or unusable_dim(size):
            problems.also(where, f"{where}: {problem}")


def _nodes(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    inputs = source.document.get("inputs")
    taken = set(inputs) if isinstance(inputs, dict) else set()
    for name, node in check_table(source, value, path, problems).items():
        if len(path) == 2 and name in RESERVED:
            continue
        here = (*path, name)
        _identifier(source, here, problems, "a node")
        if name in taken:
            where = source.where(*here)
            problems.also(where, f'{where}: "{name}" is an input of the graph already; a node needs a name of its own')
        if isinstance(node, dict):
            _node(source, node, here, problems)
        else:
            wrong(source, here, node, 'a node: { op = "...", in = "..." } or { block = "...", in = "..." }', problems)


def _node(source: ModelDocument, node: dict[str, Any], path: tuple[str, ...], problems: Problems) -> None:
    where = source.where(*path)
    if ("op" in node) == ("block" in node):
        problems.also(where, f'{where}: a node has either "op" or "block"; this one has {", ".join(node) or "nothing"}')
        return
    kind = "op" if "op" in node else "block"
    if not isinstance(node[kind], str):
        problems.also(where, f'{where}: "{kind}" is {node[kind]!r:.200}; expected a name')
    if "in" in node and not is_names(node["in"]) and not (kind == "op" and _named_inputs(node["in"])):
        problems.also(where, f'{where}: "in" is {node["in"]!r:.200}; expected a name or a list of names')
    _stands(source, node, path, problems)
    if kind == "op":
        tie = node.get("tie", {})
        if not isinstance(tie, dict) or not all(isinstance(v, str) for v in tie.values()):
            problems.also(where, f'{where}: "tie" is {tie!r:.200}; expected {{ weight = "wte.weight" }}')
        return
    for key in node:
        if key not in BLOCK_NODE:
            problems.also(where, f'{where}: a block node has no key "{key}"{did_you_mean(key, BLOCK_NODE)}')
    if "in" not in node:
        problems.also(where, f'{where}: a block node needs "in"')
    if why := unusable(node.get("repeat", 1)):
        problems.also(where, f'{where}: "repeat": {why}')
    share = node.get("share", False)
    if not isinstance(share, bool) and (why := unusable(share)):
        problems.also(where, f'{where}: "share" is {share!r:.200}; expected true, false or arithmetic')


def _stands(source: ModelDocument, node: dict[str, Any], path: tuple[str, ...], problems: Problems) -> None:
    where = source.where(*path)
    if "when" in node and (why := unusable(node["when"])):
        problems.also(where, f'{where}: "when": {why}')
    if "else" in node and not (isinstance(node["else"], str) and node["else"]):
        problems.also(where, f'{where}: "else" is {node["else"]!r:.200}; expected the name of a value')
    if "else" in node and "when" not in node:
        problems.also(where, f'{where}: "else" without "when"; "when" is the condition of the node')


def _named_inputs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) and v for v in value.values())


def _blocks(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, block in check_table(source, value, path, problems).items():
        here = (*path, name)
        _identifier(source, here, problems, "a block")
        _nodes(source, block, here, problems)
        if not isinstance(block, dict):
            continue
        for key in RESERVED:
            if not is_names(block.get(key)):
                where = source.where(*here)
                problems.also(
                    where, f'{where}: "{key}" is {block.get(key)!r:.200}; a block needs a name or a list of names'
                )
        names = as_list(block.get("in", [])) if is_names(block.get("in")) else []
        for twice in {n for n in names if n in block or names.count(n) > 1}:
            where = source.where(*here, twice)
            problems.also(where, f'{where}: "{twice}" names two things in this block; one of them is in its "in"')


def as_list(value: Any) -> list[Any]:
    """A list as it is; any other value as a list of one."""
    return value if isinstance(value, list) else [value]


def _loss(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    if isinstance(value, str) and value:
        return
    if not isinstance(value, dict) or not value:
        wrong(source, path, value, 'a value\'s name, or weights as in { loss = 1.0, "h.*.balance" = 0.02 }', problems)
        return
    for name, weight in value.items():
        if why := unusable(weight):
            problems.also(source.where(*path, name), f"{source.where(*path, name)}: {why}")


def _init(source: ModelDocument, value: Any, path: tuple[str, ...], problems: Problems) -> None:
    for name, rule in check_table(source, value, path, problems).items():
        check_string(source, rule, (*path, name), problems)


TOP: dict[str, Check] = {
    "name": check_string,
    "requires": lambda *_: None,  # checked where the file is read
    "inputs": _inputs,
    "roles": _roles,
    "logits": check_string,
    "loss": _loss,
    "dims": _dims,
    "graph": _nodes,
    "block": _blocks,
    "init": _init,
}

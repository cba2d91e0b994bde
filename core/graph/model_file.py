"""Model files: reading, `extends`, merging. The result is a document that needs no other file.

No shape is known here, and no op is looked up: that is build.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.layers import read_source
from core.errors import BuildError, did_you_mean
from core.graph.build import build_graph
from core.graph.document import KeyPath, ModelDocument, is_path
from core.graph.model_schema import ADAPT, TOP
from core.graph.problems import Problems
from core.graph.types import Graph
from core.weight_format import WeightFormat

if TYPE_CHECKING:
    from core.registry import Registry

# Where the keys of two files are merged one by one; anywhere else the later value replaces the earlier one whole.
TABLES = ("inputs", "roles", "dims", "graph", "init", "loss", "block", ADAPT)
MERGED = (*((table,) for table in TABLES), *((table, "*") for table in ("block", ADAPT)))
# Tables in which `key = false` removes an earlier file's entry.
REMOVABLE = ((), *MERGED)


class ModelSource(ModelDocument):
    """A document that builds graphs."""

    def build(self, registry: Registry, dims: Mapping[str, Any] | None = None) -> Graph:
        """The graph under these dims (overrides of `[dims]`), every size settled; nothing is allocated.

        Raises BuildError for a graph that cannot be built, UsageError for an unknown dim or a glob that matches
        nothing.
        """
        check_requires(self.requires, registry, self.where())
        return build_graph(self, registry, dict(dims or {}))


def load_model(name_or_path: str | Path, registry: Registry, text: str | None = None) -> ModelSource:
    """A model by its registered name or the path of its TOML, bases included. text: of that file, if it was read.

    Raises UsageError (exit 2) for a file that is missing, is not TOML, or whose bases run in a circle; BuildError
    for an unknown name or a plugin that the model requires and that is not there.
    """
    path = _resolve_name(str(name_or_path), registry)
    chain = _read_chain(path, registry, text)
    document: dict[str, Any] = {}
    places: dict[KeyPath, str] = {}
    removed: dict[KeyPath, str] = {}
    problems = Problems()
    requires: dict[str, None] = {}
    for file in reversed(chain):
        requires.update(dict.fromkeys(file.requires))
        _merge(document, file.document, (), file, places, removed, problems, registry)
    problems.finish()
    name = chain[0].document.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise BuildError(f'{chain[0].shown}: "name" is {name!r}; expected a string')
    for key in ("extends", "name"):
        document.pop(key, None)
    if requires:
        document["requires"] = list(requires)
    return ModelSource(name, document, tuple(f.path for f in chain), tuple(requires), places, removed)


# --- one file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    path: Path
    shown: str
    document: dict[str, Any]
    lines: dict[KeyPath, int]
    requires: tuple[str, ...]

    def place(self, path: KeyPath) -> str:
        """The file and line of a key; of the table or inline table around it where the key's own is not known."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.shown}:{self.lines[path[:length]]}"
        return self.shown


def _read(path: Path, text: str | None = None) -> _File:
    source = read_source(path, text)
    return _File(path, source.shown, source.document, key_lines(source.text), _requires(source.document, source.shown))


def _requires(document: Mapping[str, Any], shown: str) -> tuple[str, ...]:
    requires = document.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(r, str) for r in requires):
        raise BuildError(f'{shown} requires is {requires!r}; expected a list of plugin names, as in ["llama"]')
    return tuple(requires)


_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line of each key, found by a reading of the text line by line: for messages, where a miss is harmless."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            table = path = _parts(line.partition("#")[0])
        elif key := _KEY.match(line):
            path = (*table, *_parts(key[1]))
        else:
            continue
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], number)
    return lines


def _parts(dotted: str) -> KeyPath:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))


# --- a file and its bases ----------------------------------------------------------------------------------------


def _resolve_name(name: str, registry: Registry) -> Path:
    """The file of a registered model, or the path itself. A bare word is a name; any other text is a path."""
    if name in registry.models:
        return Path(registry.models[name].path)
    if is_path(name):
        return Path(name)
    return Path(registry.model(name).path)  # raises, with the nearest name and the plugin that may have brought it


def _read_chain(path: Path, registry: Registry, text: str | None) -> list[_File]:
    """The file and its bases, base last."""
    chain = [_read(path, text)]
    check_requires(chain[0].requires, registry, chain[0].shown)
    while "extends" in chain[-1].document:
        from core.graph.bases import base_of

        last = chain[-1]
        where, named = last.place(("extends",)), last.document["extends"]
        base = base_of(named, where, [(f.path, f.shown) for f in chain], registry)
        chain.append(_read(base))
        check_requires(chain[-1].requires, registry, chain[-1].shown)
    return chain


def check_requires(names: Sequence[str], registry: Registry, where: str) -> None:
    """Raise BuildError for a plugin that a model needs and that is missing, broken or disabled."""
    for name in names:
        registry.plugin(name, f"{where} requires")


def _merge(
    base: dict[str, Any],
    over: Mapping[str, Any],
    path: KeyPath,
    file: _File,
    places: dict[KeyPath, str],
    removed: dict[KeyPath, str],
    problems: Problems,
    registry: Registry,
) -> None:
    """Fold `over` into `base`: tables key by key, nodes whole, `false` removes. A replaced node keeps its place."""
    for key, value in over.items():
        here = (*path, key)
        if value is False and (_listed(path, REMOVABLE) or (len(path) == 2 and _of_format(path, registry))):
            if key not in base:
                problems.also(
                    file.place(here),
                    f"{file.place(here)} [{'.'.join(path)}] {key} = false: there is no "
                    f'"{key}" to remove{did_you_mean(key, base)}',
                )
            base.pop(key, None)
            removed[here] = file.place(here)
            continue
        removed.pop(here, None)
        places[here] = file.place(here)
        if isinstance(value, dict) and (_listed(here, MERGED) or _of_format(here, registry)):
            inner = base.get(key)
            base[key] = inner = dict(inner) if isinstance(inner, dict) else {}
            _merge(inner, value, here, file, places, removed, problems, registry)
        else:
            base[key] = value


def _listed(path: KeyPath, patterns: Sequence[KeyPath]) -> bool:
    return any(len(p) == len(path) and all(a in ("*", b) for a, b in zip(p, path, strict=True)) for p in patterns)


def _of_format(path: KeyPath, registry: Registry) -> bool:
    """Whether a format of weights has the table at `path` merged: its own, or one in it that it names."""
    if not path or path[0] in TOP:
        return False
    one = next((one for one in registry.formats.values() if one.table == path[0]), WeightFormat())
    return one.merged if len(path) == 1 else len(path) == 2 and path[1] in one.tables

"""Loads a run config: base files first, each with its `[on.DEVICE]` for this device, then `--set`, then the checks.

Every value keeps its file and line, so that a floor above can name them in its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import tomli_w

from core.config.key_types import keys, named_keys
from core.config.layers import Source, find_config, read_chain
from core.config.rules import micro_steps
from core.config.schema import NAMED, ConfigFile, Document, Schema
from core.config.spelling import Keys, place, show, show_path
from core.config.validate import (
    check_complete,
    check_table,
    to_document,
    to_struct,
)
from core.devices import AUTO, RESIDENT, DeviceKind, choose
from core.errors import UsageError, did_you_mean, raise_all

if TYPE_CHECKING:
    from core.config.overrides import Override


class RunConfig(Schema, frozen=True, kw_only=True):
    """A run config in its resolved form: the tables of the schema as typed attributes, and where they came from.

    path: the file. source: its text as read. files: it and its bases, the base first. device: the one that it was
    resolved for. notes: messages for the user (a shipped config was used, `[on.cpu]` was folded in).
    origins: dotted key -> place.
    """

    path: Path
    source: str
    files: tuple[Path, ...]
    device: str
    notes: tuple[str, ...]
    origins: dict[str, str]

    @property
    def document(self) -> Document:
        """The resolved form as a TOML document: every key, no `extends`, no `[on]`."""
        return to_document(self, Schema)

    def to_toml(self) -> str:
        """The resolved form as text. Loading it for the same device gives the same config."""
        return f"# resolved for device {self.device}\n{tomli_w.dumps(self.document)}"

    def where(self, key: str) -> str:
        """The place of a dotted key for a message: `configs/tiny.toml [train] steps`, `--set train.steps=3`.

        A key that no file sets has the place of a default. Keys may be globs: `nodes.h.*.fc`.
        """
        if key in self.origins:
            return self.origins[key]
        shown = show_path(self.path)
        if key in keys(Schema) and keys(Schema)[key].is_table:
            return f"{shown} [{key}]"
        head, _, tail = key.partition(".")
        return place(shown, (head, tail) if tail else (head,)) + " (default)"


def load_config(
    path: str | Path, *, overrides: Sequence[str] = (), device: str, devices: Mapping[str, DeviceKind] = RESIDENT
) -> RunConfig:
    """The config at `path` (or the shipped one of that path or stem) for `device`, with `--set` overrides on top.

    devices: those that there are, by name.

    Raises UsageError listing every problem of all its files and overrides, each with file, table, key, the
    expected and the actual value; syntax errors with file, line and column.
    """
    kind = choose(device, devices)
    device = kind.name
    file, note = find_config(path)
    chain, problems = read_chain(file)
    for source in chain:
        problems += check_table(source.document, ConfigFile, (), in_file(source))
        problems += unknown_devices(source.document, devices, in_file(source))
    settings, wrong = read_overrides(overrides, devices)
    problems += wrong
    raise_all(problems, UsageError)

    merged = Merged([note] if note else [])
    for source in chain:
        merged.fold(source.document, in_file(source))
        merged.fold_device(source.document, device, in_file(source), source.shown)
    merged.fold_overrides(settings, device)
    raise_all(list(check_complete(merged.document, Schema, (), in_file(chain[-1]))), UsageError)
    values = to_struct(merged.document, Schema)
    top = chain[-1]
    config = msgspec.convert(
        {**values, "device": device, "notes": tuple(merged.notes), "origins": merged.origins, "path": str(file),
         "source": top.text, "files": [str(s.path) for s in chain]},
        RunConfig,
        dec_hook=lambda kind, value: kind(value),
    )  # fmt: skip
    raise_all(list(impossible(config, kind.precisions)), UsageError)
    return config


def in_file(source: Source) -> Callable[[Keys], str]:
    return lambda path: place(source.shown, path)


def unknown_devices(document: Document, devices: Mapping[str, DeviceKind], where: Callable[[Keys], str]) -> list[str]:
    """The tables `[on.NAME]` of devices that there are not, a line each."""
    on = document.get("on")
    return [
        f"{where(('on', name))}: unknown key{did_you_mean(name, devices) or ' (known: ' + ', '.join(devices) + ')'}"
        for name in (on if isinstance(on, dict) else {})
        if name not in devices
    ]


def read_overrides(texts: Sequence[str], devices: Mapping[str, DeviceKind]) -> tuple[list[Override], list[str]]:
    """The overrides that can be read, and the problems of the others and of all keys and values."""
    good: list[Override] = []
    problems: list[str] = []
    if texts:
        from core.config.overrides import parse_override
    for text in texts:
        override = parse_override(text)
        if isinstance(override, str):
            problems.append(override)
            continue
        good.append(override)
        where: Callable[[Keys], str] = lambda path, shown=override.shown: shown  # type: ignore[misc]  # noqa: E731
        problems += check_table(override.document, ConfigFile, (), where)
        problems += unknown_devices(override.document, devices, where)
    return good, problems


class Merged:
    """The document as it grows, layer by layer; a later layer wins key by key, lists whole."""

    def __init__(self, notes: list[str]) -> None:
        self.document: Document = {}
        self.origins: dict[str, str] = {}
        self.notes = notes

    def fold(self, layer: Document, where: Callable[[Keys], str]) -> None:
        """Lay `layer` over the document; `where` gives the place of each of its keys."""
        own = {name: value for name, value in layer.items() if name not in ("extends", "on")}
        self.drop_options(own, where)
        merge(self.document, own, (), lambda path: self.record(path, where(path)))

    def record(self, path: Keys, place: str) -> None:
        """Note the origin of a key's value; keys below it lose theirs."""
        name = ".".join(path)
        for old in [o for o in self.origins if o.startswith(name + ".")]:
            del self.origins[old]
        self.origins[name] = place

    def drop_options(self, layer: Document, where: Callable[[Keys], str]) -> None:
        """Another optimizer's or schedule's options mean nothing to the new one."""
        for table, kind in NAMED.items():
            before, name = self.document.get(table, {}), layer.get(table, {}).get("name")
            if name is None or before.get("name", name) == name:
                continue
            old = [key for key in before if key not in named_keys(kind)]
            for key in old:
                del before[key]
                self.origins.pop(f"{table}.{key}", None)
            if old:
                self.notes.append(
                    f"{where((table, 'name'))}: {show(name)} takes the place of {show(before['name'])}, "
                    f"whose options are dropped: {', '.join(old)}"
                )

    def fold_device(self, layer: Document, device: str, where: Callable[[Keys], str], shown: str) -> None:
        """Fold in `[on.DEVICE]` of a file and announce it."""
        part = layer.get("on", {}).get(device)
        if not part:
            return
        self.fold(part, lambda path: where(("on", device, *path)))
        settings = ", ".join(f"{'.'.join(path)} = {show(value)}" for path, value in leaves(part))
        self.notes.append(f"{shown} [on.{device}] is folded in: {settings}")

    def fold_overrides(self, overrides: Sequence[Override], device: str) -> None:
        """Lay all `--set` over the document as one layer: an optimizer's name and options may have any order."""
        layer: Document = {}
        places: dict[Keys, str] = {}
        for override in overrides:
            merge(layer, override.document, (), lambda path, o=override: places.update({path: o.shown}))  # type: ignore[misc]

        def where(path: Keys) -> str:
            return places.get(path) or next((p for key, p in places.items() if key[: len(path)] == path), "--set")

        self.fold(layer, where)
        part = layer.get("on", {}).get(device)
        if part:
            self.fold(part, lambda path: where(("on", device, *path)))


def merge(document: Document, layer: Document, path: Keys, record: Callable[[Keys], None]) -> None:
    """Lay `layer` over `document` in place: tables key by key, anything else whole. `record` hears of each value."""
    for name, value in layer.items():
        inner = (*path, name)
        if isinstance(value, dict):
            if not isinstance(document.get(name, {}), dict):  # `head_loss = false`, now a table of attributes
                del document[name]
                record(inner)
            document.setdefault(name, {})
            merge(document[name], value, inner, record)
        else:
            document[name] = value
            record(inner)


def leaves(document: Document, path: Keys = ()) -> list[tuple[Keys, Any]]:
    """Every value that is no table, with its path."""
    pairs: list[tuple[Keys, Any]] = []
    for name, value in document.items():
        pairs += leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]
    return pairs


def impossible(config: RunConfig, legal: Sequence[str]) -> list[str]:
    """Values that are right one by one and cannot be together. legal: the precisions of the device."""
    problems: list[str] = []
    if config.precision not in (*legal, AUTO):
        problems.append(
            f"{config.where('precision')}: expected one of {', '.join(legal)} on {config.device}, got "
            f'"{config.precision}"; --set precision={legal[0]}, or [on.{config.device}] in the file, changes it there'
        )
    if 0 < config.train.loss_scale < 1:
        problems.append(f"{config.where('train.loss_scale')}: expected 0 or at least 1, got {config.train.loss_scale}")
    for name in ("B", "T"):
        size = config.dims.get(name, 1)
        if not isinstance(size, str) and (not isinstance(size, int) or size < 1):
            problems.append(f"{config.where(f'dims.{name}')}: expected a whole number >= 1, got {size}")
    if config.train.val_every and not config.data.val:
        problems.append(
            f"{config.where('train.val_every')}: expected [data] val with sources, got none; set it, or val_every = 0"
        )
    if config.train.early_stop and not config.train.val_every:
        problems.append(f"{config.where('train.early_stop')}: expected val_every > 0: the run never validates")
    B, T = config.dims.get("B"), config.dims.get("T")
    if not problems and isinstance(B, int) and isinstance(T, int):  # else the model settles them: checked then
        try:
            micro_steps(config.train.tokens_per_step, B, T, where=config.where("train.tokens_per_step"))
        except UsageError as error:
            problems.append(f"{error.message}; {error.hint}")
    return problems

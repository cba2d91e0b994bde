"""A model's document: its TOML after `extends`, with the place of every key. Data, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli_w

from core.config.spelling import show_path
from core.graph.dims import check_overrides

KeyPath = tuple[str, ...]  # the way to a key: ("block", "layer", "qkv")


@dataclass(frozen=True)
class ModelDocument:
    """A model's TOML after `extends`, before its dims are evaluated.

    name: the file's stem, or its `name`. files: the file and its bases, base last. places: where each key was
    written, "models/gpt2_124m.toml:25". removed: nodes and entries that a later file took away, and where.
    """

    name: str
    document: dict[str, Any]
    files: tuple[Path, ...]
    requires: tuple[str, ...] = ()
    places: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)
    removed: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)

    def to_toml(self, dims: Mapping[str, Any] | None = None) -> str:
        """A self-contained model file: bases resolved, `dims` folded in. It builds the same graph."""
        overrides = check_overrides(self.document.get("dims", {}), dims or {}, self.where())
        document = {"name": self.name, **self.document}
        if overrides:
            document["dims"] = {**document.get("dims", {}), **overrides}
        return tomli_w.dumps(document)

    @cached_property
    def _shown(self) -> str:
        return show_path(self.files[0]) if self.files else self.name

    def where(self, *path: str) -> str:
        """The place of a key for a message: `models/x.toml:25 [block.layer] qkv`."""
        place = self.places.get(path) or self._shown
        if not path:
            return place
        table = f"[{'.'.join(path[:-1])}] " if path[:-1] else ""
        return f"{place} {table}{path[-1]}"


def is_path(name: str) -> bool:
    """Whether a name of a model is the path of its file: a bare word is a registered name."""
    return name.endswith(".toml") or "/" in name or "\\" in name

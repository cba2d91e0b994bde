"""Adapter: a change of a model's graph that a plugin brings, by the table [adapt.NAME] of a model's TOML.

An adapter sees the expanded nodes before their sizes are known. It adds nodes, gives their readers other values, copies
the graph under a prefix, and sets initial values and the loss. The document in a checkpoint has its table, so that the
graph is built again wherever the model goes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar


class Adapter(ABC):
    """The base class of a plugin's adapter.

    name: of its table. options: the table's keys -> their defaults, of the types that an optimizer's options have.
    """

    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    origin: str = ""

    @abstractmethod
    def apply(self, edit: Any, options: Mapping[str, Any]) -> None:
        """Change the graph: `edit` is a `core.graph.adapting.GraphEdit`. Raises BuildError for options that do not fit
        the graph."""

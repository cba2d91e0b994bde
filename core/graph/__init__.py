"""Model TOML to a graph: reading and `extends` (source), checks (schema), blocks (expand), shapes (build), init.

Nothing is allocated here and nothing runs: a graph of billions of parameters builds in milliseconds.
"""

from __future__ import annotations

from core.graph.document import ModelDocument
from core.graph.model_file import ModelSource, load_model
from core.graph.types import Graph, Node, Parameter, Value
from core.roles import TARGETS

__all__ = ["TARGETS", "Graph", "ModelDocument", "ModelSource", "Node", "Parameter", "Value", "load_model"]

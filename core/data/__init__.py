"""Data: text and token shards in, batches of token ids out.

`open_data` turns a run config's `[data]` into a `Data`; `TokenSource` gives batches. Nothing here knows of models or of
training; text becomes ids in core/tokenizers. A plugin's reader (`core_data`) returns `Inputs`: documents, or pieces of
tokens such as `InMemory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.data.documents import Document, Reading
from core.data.inputs import Inputs
from core.data.prepare import Data, open_data
from core.data.source import DataSource
from core.data.token_source import TokenSource
from core.lazy import imports_of

if TYPE_CHECKING:
    from core.data.array_source import HeldRows as HeldRows
    from core.data.data_differences import diff_description as diff_description
    from core.data.marks import Conversations as Conversations
    from core.data.pieces import InMemory as InMemory
    from core.data.pieces import Piece as Piece

__all__ = [
    "Conversations",
    "Data",
    "Document",
    "HeldRows",
    "InMemory",
    "Inputs",
    "Piece",
    "Reading",
    "DataSource",
    "TokenSource",
    "diff_description",
    "open_data",
]

LATER = {
    "Conversations": "core.data.marks",
    "HeldRows": "core.data.array_source",
    "InMemory": "core.data.pieces",
    "Piece": "core.data.pieces",
    "diff_description": "core.data.data_differences",
}  # of readers of plugins, and of runs that continue

__getattr__ = imports_of(__name__, LATER)

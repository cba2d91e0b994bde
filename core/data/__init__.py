"""Data: text and token shards in, batches of token ids out.

`open_data` turns a run config's `[data]` into a `Data`; `TokenSource` gives batches. Nothing here knows of models or of
training; text becomes ids in core/tokenizers. A plugin's reader (`core_data`) returns `Inputs`: documents, or pieces of
tokens such as `InMemory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.data.documents import Document as Document
from core.data.documents import Reading as Reading
from core.data.inputs import Inputs as Inputs
from core.data.prepare import Data as Data
from core.data.prepare import open_data as open_data
from core.data.source import DataSource as DataSource
from core.data.token_source import TokenSource as TokenSource
from core.lazy import imports_of

if TYPE_CHECKING:
    from core.data.array_source import HeldRows as HeldRows
    from core.data.data_differences import diff_description as diff_description
    from core.data.marks import Conversations as Conversations
    from core.data.pieces import InMemory as InMemory
    from core.data.pieces import Piece as Piece

__getattr__ = imports_of(__name__)

"""Data: text and token shards in, batches of token ids out.

`open_data` turns a run config's `[data]` into a `Data`; `TokenSource` gives batches. Nothing here knows of models or of
training; text becomes ids in core/tokenizers.
"""

from __future__ import annotations

from core.data.prepare import Data, open_data
from core.data.source import TokenSource, diff_description

__all__ = ["Data", "TokenSource", "diff_description", "open_data"]

"""Data: text and token shards in, batches of token ids out.

`open_data` turns a run config's `[data]` into a `Data`; `TokenSource` gives batches; `Tokenizer` is text to ids and
back. Nothing here knows of models or of training.
"""

from __future__ import annotations

from core.data.choose import TokenizerChoice, choose_tokenizer
from core.data.prepare import Data, open_data
from core.data.source import TokenSource, diff_description
from core.data.tokenizer import Tokenizer

__all__ = ["TokenizerChoice", "Data", "TokenSource", "Tokenizer", "choose_tokenizer", "diff_description", "open_data"]

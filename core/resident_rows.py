"""The core's own rows of plugins' hooks: its kinds of tokenizers, its readers of data."""

from __future__ import annotations

from core.data.readers import READERS
from core.data_reader import DataReader
from core.tokenizers.kinds import KINDS
from core.tokenizers.tokenizer_kind import TokenizerKind


def core_tokenizers() -> list[type[TokenizerKind]]:
    return list(KINDS)


def core_data() -> list[type[DataReader]]:
    return list(READERS)

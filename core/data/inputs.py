"""The results of a reader: documents and conversations, which are tokenised; pieces of tokens, which are drawn as they
are; and arrays by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.data.documents import Document
from core.data.shards import Shard

if TYPE_CHECKING:
    from core.data.array_source import ArrayRows
    from core.data.marks import Conversations
    from core.data.pieces import Piece


@dataclass
class Inputs:
    """One of train and val: shards, other pieces of tokens, documents, conversations, arrays by the input that they
    are for, and the files that they come from."""

    shards: list[Shard] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    conversations: list[Conversations] = field(default_factory=list)
    arrays: dict[str, list[ArrayRows]] = field(default_factory=dict)

    def add(self, more: Inputs) -> None:
        self.shards += more.shards
        self.pieces += more.pieces
        self.documents += more.documents
        self.conversations += more.conversations
        self.files |= more.files
        for name, arrays in more.arrays.items():
            self.arrays[name] = self.arrays.get(name, []) + arrays

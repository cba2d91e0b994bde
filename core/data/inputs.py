"""The results of a reader: documents, which are tokenised, and pieces of tokens, which are drawn as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.data.documents import Document
from core.data.shards import Shard

if TYPE_CHECKING:
    from core.data.pieces import Piece


@dataclass
class Inputs:
    """One of train and val: shards, other pieces of tokens, documents, and the files that they come from."""

    shards: list[Shard] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)

    def add(self, more: Inputs) -> None:
        self.shards += more.shards
        self.pieces += more.pieces
        self.documents += more.documents
        self.files |= more.files

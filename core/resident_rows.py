"""What the core itself brings through the hooks that plugins have: its kinds of tokenizers."""

from __future__ import annotations

from core.tokenizers.kinds import KINDS
from core.tokenizers.tokenizer_kind import TokenizerKind


def core_tokenizers() -> list[type[TokenizerKind]]:
    return list(KINDS)

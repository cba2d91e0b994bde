"""What the core itself brings through the hooks that plugins have: its kinds of tokenizers."""

from __future__ import annotations

from core.tokenizers.kind import TokenizerKind
from core.tokenizers.kinds import KINDS


def core_tokenizers() -> list[type[TokenizerKind]]:
    return list(KINDS)

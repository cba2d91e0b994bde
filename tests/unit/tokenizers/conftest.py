"""A cache for each test, GPT-2's tokenizer of three merges, and one trained on a text."""

from __future__ import annotations

import hashlib

import pytest
from tokenizer_texts import MERGES

from core.tokenizers import gpt2
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.token_files import read_merges


@pytest.fixture(autouse=True)
def offline(empty_caches, monkeypatch):
    """Empty caches, and no network."""
    monkeypatch.setattr(gpt2, "URL", "http://127.0.0.1:9/vocab.bpe")  # the discard port: nothing listens


@pytest.fixture
def small_gpt2(monkeypatch):
    """As if GPT-2's tokenizer had three merges."""
    tokenizer = Tokenizer("gpt2", read_merges(MERGES, "test"))
    monkeypatch.setattr(gpt2, "HASH", tokenizer.hash)
    monkeypatch.setattr(gpt2, "URL_SHA256", hashlib.sha256(MERGES).hexdigest())
    return tokenizer

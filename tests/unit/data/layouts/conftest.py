"""Texts and conversations to make batches of."""

from __future__ import annotations

import json

import pytest
from batch_layouts import CHATS
from library_tokenizers import write_tokenizer


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("%%".join(f"{n} " + "word " * (n % 4) for n in range(12)))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("folder"), "byte_level")


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    rows = [[{"role": role, "content": content} for role, content in chat] for chat in CHATS]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return str(path)

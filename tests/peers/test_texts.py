"""Texts: encodings by their byte-order mark, documents of JSON lines by their field, folders file by file."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from trained_run import run as ran

import core
from core.data.data_names import resolve
from core.data.documents import WHOLE, Reading
from core.data.text_files import folder_files, text_document
from core.data.tokenising import tokenise
from core.errors import DataError

tokenizers = pytest.importorskip("tokenizers")


def ids_of(path, tokenizer, reading=WHOLE):
    documents = resolve([str(path)], "train", "", [], reading).documents
    return np.concatenate(list(tokenise(documents, tokenizer))).tolist()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8"])
def test_a_text_is_read_by_its_mark(encoding, tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_blocks.BLOCK_BYTES", 101)
    text = "the cat — été 🎉\r\n" * 40
    (tmp_path / "a.txt").write_bytes(("\ufeff" + text).encode(encoding))
    assert "".join(text_document(tmp_path / "a.txt", []).blocks()) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_without_a_mark_and_with_a_wrong_one_is_refused(encoding, tmp_path):
    (tmp_path / "a.txt").write_bytes(("the cat\n" * 40).encode(encoding))
    with pytest.raises(DataError, match="byte-order mark"):
        list(text_document(tmp_path / "a.txt", []).blocks())
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe" + b"\x00\xdc" * 3)
    with pytest.raises(DataError, match="UTF-16"):
        list(text_document(tmp_path / "b.txt", []).blocks())


def test_a_json_file_with_an_object_a_line_is_read_as_a_jsonl_and_an_array_is_noted(here, capsys):
    lines = [json.dumps({"text": "the cat"}), json.dumps({"text": "a dog"})]
    (here / "a.json").write_text("\n".join(lines))
    (here / "array.json").write_text("[" + ",\n".join(lines) + "]")
    (here / "one.json").write_text('{\n  "text": "the cat"\n}\n')
    words = ("data", "prepare", "--tokenizer", "bytes")
    assert "--field text" in ran(capsys, *words, "a.json", "--out", "o", code=6).err
    assert ids_of(here / "a.json", core.tokenizers.byte_pairs.bytes_tokenizer(), Reading("text"))[:8] == [
        256,
        *b"the cat",
    ]
    said = ran(capsys, *words, "array.json", "--out", "o")
    assert "array.json: an array of JSON objects is read as plain text" in said.out + said.err
    said = ran(capsys, *words, "one.json", "--out", "p")
    assert "one.json:" not in said.out + said.err


def test_each_line_of_a_jsonl_is_a_document_by_its_field_and_never_braces(here, capsys):
    lines = [{"text": "the cat", "id": 1}, {"text": "the\ndog", "id": 2}]
    (here / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    said = ran(capsys, "data", "prepare", "a.jsonl", "--out", "o", "--tokenizer", "bytes", code=6).err
    assert "a.jsonl" in said and "--field text" in said
    bytes_ = core.tokenizers.byte_pairs.bytes_tokenizer()
    got = ids_of(here / "a.jsonl", bytes_, Reading("text"))
    assert got == [256, *b"the cat", 256, *b"the\ndog"]
    ran(capsys, "data", "prepare", "a.jsonl", "--out", "o", "--tokenizer", "bytes", "--field", "text")
    for bad, place in (
        ('{"tex": "a"}', "a.jsonl:4"),
        ("[1]", "a.jsonl:4"),
        ('{"text": 3}', "a.jsonl:4"),
        ("{", "a.jsonl:4"),
    ):
        (here / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n" + bad)
        with pytest.raises(DataError, match=place):
            ids_of(here / "a.jsonl", bytes_, Reading("text"))


def test_a_separator_makes_documents_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.text_blocks.BLOCK_BYTES", 16)
    (tmp_path / "a.txt").write_text("one cat\n<|endoftext|>\ntwo\n<|endoftext|><|endoftext|>three and four")
    bytes_ = core.tokenizers.byte_pairs.bytes_tokenizer()
    got = ids_of(tmp_path / "a.txt", bytes_, Reading(separator="<|endoftext|>"))
    assert got == [256, *b"one cat", 256, *b"two", 256, *b"three and four"]


def test_folders_behind_a_link_are_read_and_each_once(tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "sub" / "x.txt").write_text("x")
    data = tmp_path / "data"
    data.mkdir()
    os.symlink("../real", data / "link")
    os.symlink("../real", data / "second")
    os.symlink("..", tmp_path / "real" / "sub" / "up")  # a circle
    assert [path.relative_to(data).as_posix() for path in folder_files(data)] == ["link/sub/x.txt"]

"""Text: encodings, documents, the cache of its tokens, and the text that comes with Python."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import DIMS, Config, tokens_of

from core.data import open_data, tokenising
from core.data import text_blocks as text
from core.data.builtin import builtin_documents
from core.data.shard_writer import ShardWriter
from core.data.text_files import text_document
from core.errors import DataError
from core.tokenizers.bpe_training import train_bpe


def test_an_empty_file_is_a_document_without_text_and_a_folder_is_read_by_name(tmp_path):
    (tmp_path / "docs" / "b").mkdir(parents=True)
    (tmp_path / "docs" / "a.txt").write_bytes(b"")
    (tmp_path / "docs" / "b" / "c.txt").write_bytes(b"C")
    (tmp_path / "docs" / "b.txt").write_bytes(b"B")
    (tmp_path / "docs" / ".hidden").write_bytes(b"no")
    assert tokens_of(tmp_path / "docs") == [256, 256, ord("B"), 256, ord("C")]


def test_bytes_that_are_no_utf8_become_u_fffd_with_a_note_each_time(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"plain text " * 10 + b"caf\xe9")
    for _ in range(2):  # tokenised, then from the cache
        data = open_data(Config(str(path)), dims=DIMS)
        tokens = data.train.pieces[0].open()
        assert data.tokenizer.decode(tokens[1:]) == "plain text " * 10 + "caf\ufffd"
        assert any("1 places that are not UTF-8" in note for note in data.notes)


def test_a_u_fffd_that_stands_in_the_file_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("\ufffd word" * 20, "utf-8")
    for size in (1000, 4, 5):
        monkeypatch.setattr(text, "BLOCK_BYTES", size)
        notes: list[str] = []
        assert "".join(text.read_blocks(path, notes)) == "\ufffd word" * 20 and notes == []


def test_a_table_is_text_and_a_note_says_so(tmp_path):
    notes = []
    for name in ("a.csv", "a.TSV", "a.txt"):
        (tmp_path / name).write_text('id,text\n1,"the cat, the dog"\n')
        assert "".join(text_document(tmp_path / name, notes).blocks()).startswith("id,text\n1,")
    assert [note.partition(":")[0] for note in notes] == [str(tmp_path / "a.csv"), str(tmp_path / "a.TSV")]
    assert all("a table is read as plain text" in note for note in notes)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(range(128, 256)) * 10)
    with pytest.raises(DataError, match=r"photo\.jpg: expected UTF-8 text"):
        open_data(Config(str(path)), dims=DIMS)


def test_tokens_do_not_depend_on_where_a_file_is_cut_into_blocks(tmp_path, monkeypatch):
    words = "It's 12 o'clock,  and\n\n\nall's   well\t!\r\nÜber—größe  x9 " * 40
    tokenizer = train_bpe([words], 400)
    path = tmp_path / "a.txt"
    path.write_bytes(words.encode())
    whole = tokenizer.encode(words)
    for size in (64, 97, 1 << 20):
        monkeypatch.setattr(text, "BLOCK_BYTES", size)
        blocks = list(text.read_blocks(path, []))
        assert "".join(blocks) == words and (len(blocks) > 20 or size == 1 << 20)
        assert np.array_equal(np.concatenate([tokenizer.encode(b) for b in blocks]), whole)


def test_text_is_tokenised_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("hello " * 20)
    count = []
    tokenise = tokenising.tokenise
    monkeypatch.setattr(tokenising, "tokenise", lambda *a: count.append(1) or tokenise(*a))
    first = tokens_of(path)
    assert tokens_of(path) == first and len(count) == 1
    path.write_text("jello " * 20)
    assert tokens_of(path)[1] == ord("j") and len(count) == 2
    tokens_of(path, tokenizer=["bpe"])
    assert len(count) == 3


def test_a_damaged_cache_entry_is_made_again_with_a_note(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello " * 20)
    first = tokens_of(path)
    (shard,) = (tmp_path / "cache" / "tokens").glob("*/*.bin")
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    data = open_data(Config(str(path)), dims=DIMS)
    assert data.train.pieces[0].open().tolist() == first
    assert any("made again" in note for note in data.notes)


def test_without_a_writable_cache_everything_works_with_a_note(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("hello " * 20)
    want = open_data(Config(str(path), tokenizer="bpe"), dims=DIMS).train.batch(3).values()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("CORELM_CACHE", str(blocked / "cache"))  # a file in the way: true for root too
    data = open_data(Config(str(path), tokenizer="bpe"), dims=DIMS)
    assert any("cannot be written" in note for note in data.notes)
    assert all(np.array_equal(a, b) for a, b in zip(data.train.batch(3).values(), want, strict=True))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing_half_written_in_the_cache(tmp_path, monkeypatch, interruption):
    path = tmp_path / "a.txt"
    path.write_text("hello " * 20)
    write = ShardWriter.write
    calls = []

    def interrupted(self, tokens):
        calls.append(1)
        if len(calls) == 2:
            raise interruption
        write(self, tokens)

    monkeypatch.setattr(ShardWriter, "write", interrupted)
    if interruption is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            tokens_of(path)
    else:
        data = open_data(Config(str(path)), dims=DIMS)
        assert any("No space left" in note for note in data.notes)
        assert data.train.tokens == 121
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []


def test_progress_ends_at_the_total(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello " * 2000)
    seen = []
    open_data(Config(str(path)), dims=DIMS, progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1] == (12000, 12000, "tokenising a.txt")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_the_builtin_text_is_large_repeatable_and_its_parts_are_disjoint():
    train, val = builtin_documents("train"), builtin_documents("val")
    assert sum(d.size for d in train) > 500_000 and 20_000 < sum(d.size for d in val) < 300_000
    assert not {d.name for d in train} & {d.name for d in val}
    assert not {d.digest for d in train} & {d.digest for d in val}
    again = builtin_documents("train")  # from the cache
    assert [(d.name, d.digest) for d in again] == [(d.name, d.digest) for d in train]
    words = "".join(block for d in train for block in d.blocks())
    assert words.count(" the ") > 5000


def test_builtin_needs_nothing_and_validates_on_another_part():
    data = open_data(
        Config("builtin", "builtin", ["gpt2", "bpe"], 512), dims={"B": 4, "T": 64, "V": 50257}, progress=None
    )
    assert data.tokenizer.kind == "bpe" and data.tokenizer.vocab_size == 512
    assert "passed over gpt2" in data.notes[0]
    assert not any("share" in note for note in data.notes)
    tokens, targets = data.train.batch(0).values()
    assert tokens.shape == targets.shape == (4, 64) and tokens.dtype == np.int32
    assert " ".join(data.tokenizer.decode(row) for row in tokens).isprintable() is False  # lines, that is: text

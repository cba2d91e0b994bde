"""Token shards: both published formats, damage, hashes, the writer, and the tokenizer that they record."""

from __future__ import annotations

import hashlib
import json
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from data_files import DIMS, Config, prepare_shards, write_shard

from core.cli.data import command
from core.data import digests as digests_module
from core.data import open_data, token_source
from core.data.shard_writer import ShardWriter
from core.data.shards import format_for, open_shard, sha256_sidecar, verify_shard
from core.errors import CheckFailed, DataError, UsageError
from core.tokenizers.bpe_training import train_bpe
from core.tokenizers.byte_pairs import bytes_tokenizer


def test_both_published_formats_are_read(tmp_path):
    small = open_shard(write_shard(tmp_path / "a.bin", [1, 2, 65535]))
    large = open_shard(write_shard(tmp_path / "b.bin", [1, 2, 128000], 20240801, 7, "<u4"))
    assert small.open().tolist() == [1, 2, 65535]
    assert large.open().tolist() == [1, 2, 128000]


BROKEN = {
    "magic": (lambda p: write_shard(p, [1, 2], magic=7), r"expected .*20240520.*, got 7"),
    "version": (lambda p: write_shard(p, [1, 2], version=3), "expected version 1 .* got 3"),
    "truncated": (lambda p: write_shard(p, [1, 2], count=3), r"truncated.*expected 1,030 bytes, got 1,028"),
    "extra": (lambda p: write_shard(p, [1, 2], count=1), r"too long.*expected 1,026 bytes, got 1,028"),
    "odd byte": (lambda p: p.write_bytes(write_shard(p, [1, 2]).read_bytes() + b"x"), "too long"),
    "zero": (lambda p: write_shard(p, []), "zero tokens"),
    "short": (lambda p: p.write_bytes(b"abc"), "header of 1024 bytes, the file has 3"),
    "empty": (lambda p: p.write_bytes(b""), "the file has 0"),
    "folder": (lambda p: p.mkdir(), "got a folder"),
    "checkpoint": (lambda p: write_shard(p, [1], magic=20240326), "model checkpoint"),
    "nanogpt": (lambda p: p.write_bytes(bytes(4096)), "--raw uint16"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_shard_is_refused_at_the_start(tmp_path, name):
    make, message = BROKEN[name]
    make(tmp_path / "x.bin")
    with pytest.raises(DataError, match="x.bin") as error:
        open_data(Config(str(tmp_path / "x.bin")), dims=DIMS)
    assert error.value.exit_code == 6
    assert re.search(message, str(error.value)), str(error.value)


def test_all_damaged_shards_are_named_together(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.bin", [])
    with pytest.raises(DataError, match=r"(?s)a\.bin.*b\.bin"):
        open_data(Config(str(tmp_path / "*.bin")), dims=DIMS)


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")
def test_the_writer_splits_shards_and_refuses_counts_beyond_the_header(tmp_path):
    record = {"tokenizer": bytes_tokenizer().record()}
    with ShardWriter(tmp_path, "s", format_for(257), record, shard_tokens=10) as writer:
        writer.write(np.arange(7))
        writer.write(np.arange(7, 25))
    assert [open_shard(p).count for p in writer.paths] == [10, 10, 5]
    assert np.concatenate([open_shard(p).open() for p in writer.paths]).tolist() == list(range(25))
    assert all(verify_shard(p) for p in writer.paths)
    with pytest.raises(DataError, match="2,147,483,648"):
        ShardWriter(tmp_path, "t", format_for(257), record, shard_tokens=2**31)


def test_flipped_bytes_are_refused_by_verify_and_by_a_run(tmp_path, monkeypatch):
    path = write_shard(tmp_path / "x.bin", np.arange(200))
    sha256_sidecar(path).write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "  x.bin\n")
    open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)
    assert CliRunner().invoke(command, ["verify", str(path)]).exit_code == 0
    raw = bytearray(path.read_bytes())
    raw[1100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.bin: changed since it was written.*"):
        open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)
    result = CliRunner().invoke(command, ["verify", "--json", str(path)])
    assert isinstance(result.exception, CheckFailed)
    assert json.loads(result.stdout)[0]["result"] == "failed"


def test_the_hash_of_an_unchanged_file_is_remembered_and_of_a_changed_one_is_not(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"one" * 100_000)
    monkeypatch.setattr(digests_module, "FRESH_NS", -(10**12))
    first = digests_module.file_sha256(path)
    read = []
    contents = digests_module.read_digests
    monkeypatch.setattr(digests_module, "read_digests", lambda p: read.append(p) or contents(p))
    assert digests_module.file_sha256(path) == first and not read
    path.write_bytes(b"two")
    assert digests_module.file_sha256(path) == hashlib.sha256(b"two").hexdigest() and read


def test_an_id_beyond_the_vocabulary_names_the_shard_and_the_place(tmp_path, monkeypatch):
    tokens = np.zeros(1000, int)
    tokens[777] = 65535
    path = write_shard(tmp_path / "bad.bin", tokens)
    message = r"bad\.bin: .*300, got 65,535 at token 777 \(byte 2,578\)"
    with pytest.raises(DataError, match=message):
        open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)
    monkeypatch.setattr(token_source, "UP_FRONT_TOKENS", 10)  # as if the shard were too large to look at first
    drawn = open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS).train
    with pytest.raises(DataError, match=message):
        for step in range(63):
            drawn.batch(step)


def test_prepared_shards_train_with_the_tokenizer_that_made_them(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 30)
    (tmp_path / "b.txt").write_text("the dog sat on the log. " * 10)
    out = tmp_path / "set"
    result = prepare_shards(out, "--json", "--tokenizer", "bpe", "--vocab-size", "280", str(tmp_path / "a.txt"))
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    # the second split gets the first one's tokenizer, though a bpe of its own text would be another
    assert prepare_shards(out, "--split", "val", str(tmp_path / "b.txt")).exit_code == 0
    data = open_data(Config(str(out / "set_train_*.bin"), str(out / "set_val_*.bin"), ["gpt2", "bpe"]), dims=DIMS)
    assert data.tokenizer.hash == made["tokenizer"]["hash"]
    assert data.train.tokens == made["tokens"]
    assert data.tokenizer.decode(data.val.pieces[0].open()[1:]) == "the dog sat on the log. " * 10
    assert isinstance(prepare_shards(out, str(tmp_path / "a.txt")).exception, UsageError)  # nothing is overwritten
    other = prepare_shards(out, "--name", "other", "--tokenizer", "bytes", str(tmp_path / "a.txt"))
    assert isinstance(other.exception, DataError)


def test_data_of_another_tokenizer_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 30)
    a, b = tmp_path / "A", tmp_path / "B"
    assert prepare_shards(a, "--tokenizer", "bpe", "--vocab-size", "280", str(tmp_path / "a.txt")).exit_code == 0
    assert prepare_shards(b, "--tokenizer", "bytes", str(tmp_path / "a.txt")).exit_code == 0
    with pytest.raises(DataError, match="two tokenizers"):
        open_data(Config([str(a / "*.bin"), str(b / "*.bin")]), dims=DIMS)
    with pytest.raises(DataError, match="made with bpe .* the config has bytes"):
        open_data(Config(str(a / "*.bin"), tokenizer="bytes"), dims=DIMS)
    with pytest.raises(DataError, match="made with bpe .* the run with bytes"):
        open_data(Config(str(a / "*.bin"), tokenizer=["gpt2", "bpe"]), dims=DIMS, tokenizer=bytes_tokenizer())
    with pytest.raises(DataError, match="do not fit the model's vocabulary of 258"):
        open_data(Config(str(a / "*.bin"), tokenizer=["gpt2", "bpe"]), dims={**DIMS, "V": 258})


def test_text_beside_shards_gets_the_tokenizer_of_the_shards(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 30)
    prepare_shards(tmp_path / "A", "--tokenizer", "bytes", str(tmp_path / "a.txt"))
    config = Config(str(tmp_path / "A" / "*.bin"), str(tmp_path / "a.txt"), ["bpe", "bytes"])
    assert open_data(config, dims=DIMS).tokenizer.kind == "bytes"


def test_foreign_shards_train_without_samples_where_their_tokenizer_is_missing(tmp_path):
    path = write_shard(tmp_path / "a.bin", np.arange(100))
    data = open_data(Config(str(path), tokenizer=["gpt2", "bpe"]), dims={**DIMS, "V": 50257})
    assert data.tokenizer is None and any(note.startswith("no samples") for note in data.notes)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="no network in tests"):  # text cannot go without one
        open_data(Config([str(path), str(tmp_path / "a.txt")], tokenizer="gpt2"), dims={**DIMS, "V": 50257})


def test_a_recorded_tokenizer_is_used_as_it_is(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 30)
    recorded = train_bpe(["something else entirely, else entirely"], 270)
    data = open_data(Config(str(tmp_path / "a.txt"), tokenizer="bpe"), dims=DIMS, tokenizer=recorded)
    assert data.tokenizer is recorded and data.train.pieces[0].open()[0] == recorded.eot

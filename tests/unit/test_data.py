"""Data: shards, text, the builtin text, the order of batches, and what becomes of bad input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from core.cli.data import command
from core.data import TokenSource, diff_description, gpt2, open_data, prepare, source, text
from core.data import digests as digests_module
from core.data.builtin import builtin_documents
from core.data.shards import ShardWriter, format_for, open_shard, sha256_sidecar, verify_shard
from core.data.tokenizer import bytes_tokenizer, train_bpe
from core.errors import CheckFailed, CoreError, DataError, UsageError

DIMS = {"B": 2, "T": 8, "V": 300}


@dataclass
class Config:
    """A stand-in for `[data]`."""

    train: str | list[str]
    val: str | list[str] = field(default_factory=list)
    tokenizer: str | list[str] = "bytes"
    vocab_size: int = 300


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of its own for each test, nobody's environment, and no network."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no-tiktoken"))
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    monkeypatch.delenv("CORELM_OFFLINE", raising=False)

    def no_network(url, seconds, largest):
        raise DataError("no network in tests")

    monkeypatch.setattr(gpt2.download, "small_file", no_network)


def write_shard(path: Path, tokens, magic=20240520, version=1, dtype="<u2", count=None) -> Path:
    tokens = np.asarray(tokens)
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, tokens.size if count is None else count
    path.write_bytes(header.tobytes() + tokens.astype(dtype).tobytes())
    return path


# ---- shards


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


# ---- names


def test_a_glob_that_matches_nothing_names_the_key_and_the_nearest_folder(tmp_path):
    (tmp_path / "fine").mkdir()
    write_shard(tmp_path / "fine" / "train_0.bin", [1])
    with pytest.raises(UsageError) as error:
        open_data(
            Config(str(tmp_path / "fine" / "trian_*.bin")),
            dims=DIMS,
            where=lambda key: f"configs/x.toml [{key.replace('.', '] ')}",
        )
    message = str(error.value)
    assert error.value.exit_code == 2
    assert "configs/x.toml [data] train" in message and "fine, which holds train_0.bin" in message
    with pytest.raises(UsageError, match=r"nearest folder .*, which holds fine; did you mean \"fine\""):
        open_data(Config(str(tmp_path / "fnie" / "deep" / "*.bin")), dims=DIMS)


def test_a_missing_file_an_empty_list_and_a_folder_of_shards_say_what_to_write(tmp_path):
    write_shard(tmp_path / "a.bin", [1])
    with pytest.raises(UsageError, match="does not exist"):
        open_data(Config(str(tmp_path / "b.bin")), dims=DIMS)
    with pytest.raises(UsageError, match="empty list"):
        open_data(Config([]), dims=DIMS)
    with pytest.raises(DataError, match=r"\*\.bin"):
        open_data(Config(str(tmp_path)), dims=DIMS)


def test_names_that_no_file_can_have_are_usage_errors(tmp_path):
    for name in ("a\0b", "x" * 300, str(tmp_path / ("y" * 300) / "*.bin")):
        with pytest.raises(UsageError):
            open_data(Config(name), dims=DIMS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_and_a_file_that_cannot_be_read_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    os.mkfifo(tmp_path / "texts" / "pipe")
    with pytest.raises(DataError, match="pipe: expected a file"):
        open_data(Config(str(tmp_path / "texts")), dims=DIMS)
    path = write_shard(tmp_path / "a.bin", np.arange(20))

    def denied(file, *args, ordinary=open, **options):
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied")
        return ordinary(file, *args, **options)

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(DataError, match=r"a\.bin: cannot be read: Permission denied"):
        open_data(Config(str(path)), dims=DIMS)


def test_globs_are_taken_in_the_order_of_names_and_each_file_once(tmp_path):
    for name in "bca":
        write_shard(tmp_path / f"{name}.bin", np.arange(20))
    data = open_data(Config([str(tmp_path / "*.bin"), str(tmp_path / "a.bin")], tokenizer="gpt2"), dims=DIMS)
    assert [Path(f["file"]).name for f in data.train.describe()["files"]] == ["a.bin", "b.bin", "c.bin"]


def test_train_and_val_sharing_a_file_is_a_warning(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some text " * 20)
    data = open_data(Config(str(path), str(path)), dims=DIMS)
    assert any(note.startswith("warning: train and val share") and "a.txt" in note for note in data.notes)


def test_too_few_tokens_are_refused_with_the_arithmetic(tmp_path):
    path = write_shard(tmp_path / "a.bin", np.arange(16))
    with pytest.raises(DataError, match=r"train: expected at least 17 tokens \(B \* T \+ 1 = 2 \* 8 \+ 1\), got 16"):
        open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)


def test_an_id_beyond_the_vocabulary_names_the_shard_and_the_place(tmp_path, monkeypatch):
    tokens = np.zeros(1000, int)
    tokens[777] = 65535
    path = write_shard(tmp_path / "bad.bin", tokens)
    message = r"bad\.bin: .*300, got 65,535 at token 777 \(byte 2,578\)"
    with pytest.raises(DataError, match=message):
        open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS)
    monkeypatch.setattr(source, "UP_FRONT_TOKENS", 10)  # as if the shard were too large to look at first
    drawn = open_data(Config(str(path), tokenizer="gpt2"), dims=DIMS).train
    with pytest.raises(DataError, match=message):
        for step in range(63):
            drawn.batch(step)


# ---- text


def tokens_of(path: Path, **changes) -> list[int]:
    data = open_data(Config(str(path), **changes), dims={"B": 1, "T": 1, "V": 300})
    return np.concatenate([piece.open() for piece in data.train.pieces]).tolist()


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
    tokenise = prepare.tokenise
    monkeypatch.setattr(prepare, "tokenise", lambda *a: count.append(1) or tokenise(*a))
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
    want = open_data(Config(str(path), tokenizer="bpe"), dims=DIMS).train.batch(3)
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("CORELM_CACHE", str(blocked / "cache"))  # a file in the way: true for root too
    data = open_data(Config(str(path), tokenizer="bpe"), dims=DIMS)
    assert any("cannot be written" in note for note in data.notes)
    assert all(np.array_equal(a, b) for a, b in zip(data.train.batch(3), want, strict=True))


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


# ---- builtin


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
    tokens, targets = data.train.batch(0)
    assert tokens.shape == targets.shape == (4, 64) and tokens.dtype == np.int32
    assert " ".join(data.tokenizer.decode(row) for row in tokens).isprintable() is False  # lines, that is: text


# ---- batches


def pieces(*counts: int) -> list[np.ndarray]:
    """Arrays whose ids are all different."""
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]


def test_an_epoch_draws_every_sequence_once_and_the_next_in_another_order():
    drawn = TokenSource(pieces(101, 57, 5, 80), B=1, T=10, seed=3)
    assert drawn.sequences == 10 + 5 + 0 + 7
    starts = [int(drawn.batch(step)[0][0, 0]) for step in range(44)]
    want = [*range(0, 100, 10), *range(101, 151, 10), *range(163, 233, 10)]
    assert sorted(starts[:22]) == sorted(starts[22:]) == want
    assert starts[:22] != starts[22:] and starts[:22] != sorted(starts[:22])
    other = TokenSource(pieces(101, 57, 5, 80), B=1, T=10, seed=4)
    assert [int(other.batch(step)[0][0, 0]) for step in range(22)] != starts[:22]


def test_targets_are_the_tokens_that_follow_and_never_cross_a_piece():
    drawn = TokenSource(pieces(101, 57), B=3, T=10)
    for step in range(5):
        tokens, targets = drawn.batch(step)
        assert np.array_equal(targets, tokens + 1)
        assert ((tokens[:, 0] < 101) == (targets[:, -1] < 101)).all()


def test_ranks_and_micro_steps_of_every_number_draw_the_same_sequences():
    def step_of(B: int, micro_steps: int, ranks: int, step: int) -> list[int]:
        drawn = TokenSource(pieces(1001), B=B, T=10, seed=1)
        batches = [drawn.batch(step, m, micro_steps, r, ranks) for m in range(micro_steps) for r in range(ranks)]
        return np.concatenate([tokens[:, 0] for tokens, _ in batches]).tolist()

    for step in (0, 7, 12, 500):  # 12: across the end of an epoch
        want = step_of(8, 1, 1, step)
        assert len(want) == 8
        for B, micro_steps, ranks in ((4, 2, 1), (2, 4, 1), (2, 1, 4), (1, 2, 4), (2, 2, 2)):
            assert step_of(B, micro_steps, ranks, step) == want


def test_a_batch_depends_on_nothing_but_its_number():
    a, b = (TokenSource(pieces(1001), B=2, T=10, seed=1) for _ in range(2))
    for step in range(30):
        a.batch(step)
    assert all(np.array_equal(x, y) for x, y in zip(a.batch(31), b.batch(31), strict=True))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
def test_the_order_is_a_permutation_for_every_size(n):
    for epoch in range(3):
        order = source.permute(np.arange(n), n, 11, epoch)
        assert sorted(order.tolist()) == list(range(n))


def test_the_order_shows_no_preference_and_is_instant_for_ten_billion_tokens():
    n, trials = 8, 1500
    seen = np.zeros((n, n))
    for epoch in range(trials):
        seen[np.arange(n), source.permute(np.arange(n), n, 5, epoch)] += 1
    chi2 = ((seen - trials / n) ** 2 / (trials / n)).sum()
    assert chi2 < 100  # 49 degrees of freedom: 99.99% lie below 95
    big = source.permute(np.arange(1000), 10**7, 0, 0)
    assert len(set(big.tolist())) == 1000 and abs(big.mean() / 10**7 - 0.5) < 0.05
    assert abs(np.corrcoef(np.arange(1000), big)[0, 1]) < 0.15


def test_the_order_is_the_one_that_older_runs_had():
    """A change here would make every resumed run draw other data: it needs a new version of `describe`."""
    assert source.permute(np.arange(10), 10, 1337, 0).tolist() == GOLDEN_ORDER


def test_validation_reads_a_number_of_tokens_in_order_whatever_the_batch():
    drawn = TokenSource(pieces(26, 14), B=2, T=10, least=2)

    def targets(tokens: int, B: int) -> list[int]:
        batches = list(drawn.val_batches(tokens, B))
        assert all(x.shape == y.shape == (B, 10) for x, y in batches)
        for x, y in batches:
            assert np.array_equal(y[y >= 0], x[y >= 0] + 1) and (x[y < 0] == 0).all()
        return np.concatenate([y[y >= 0] for _, y in batches]).tolist() if batches else []

    everything = [*range(1, 26), *range(27, 40)]
    for B in (1, 2, 3, 7):
        assert targets(10**9, B) == everything
        assert targets(33, B) == everything[:33]
        assert targets(20, B) == everything[:20]
    assert len(list(drawn.val_batches(20, 2))) == 1


def test_describe_finds_every_change_that_matters_and_none_that_does_not(tmp_path):
    def describe(folder: Path, seed=1) -> dict:
        return json.loads(json.dumps(TokenSource(sorted(folder.glob("*.bin")), B=2, T=8, seed=seed).describe()))

    first, moved = tmp_path / "a", tmp_path / "b"
    for folder in (first, moved):
        folder.mkdir()
        write_shard(folder / "0.bin", np.arange(100))
        write_shard(folder / "1.bin", np.arange(50))
    before = describe(first)
    assert diff_description(before, describe(moved)) == []
    assert "seed was 1, is 2" in diff_description(before, describe(first, seed=2))[0]
    write_shard(first / "0.bin", np.arange(1, 101))
    assert "0.bin (100 tokens) changed" in diff_description(before, describe(first))[0]
    (moved / "1.bin").unlink()
    lines = diff_description(before, describe(moved))
    assert any(line.startswith("train: - ") and "1.bin" in line for line in lines)


# ---- shards and their tokenizers


def prepare_shards(folder: Path, *args: str):
    return CliRunner().invoke(command, ["prepare", "--out", str(folder), *args])


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
    with pytest.raises(DataError, match="made with bpe .* the config asks for bytes"):
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


# ---- core data


def test_raw_ids_are_converted_and_then_train(tmp_path):
    raw = tmp_path / "train.bin"
    np.arange(1000, dtype="<u2").tofile(raw)
    assert prepare_shards(tmp_path / "out", "--raw", "uint16", str(raw)).exit_code == 0
    shard = open_shard(tmp_path / "out" / "out_train_000000.bin")
    assert shard.open().tolist() == list(range(1000)) and verify_shard(shard.path)
    open_data(Config(str(shard.path), tokenizer="gpt2"), dims={**DIMS, "V": 1000})
    raw.write_bytes(b"odd")
    assert isinstance(prepare_shards(tmp_path / "odd", "--raw", "uint16", str(raw)).exception, DataError)


def test_an_interrupted_prepare_leaves_no_shard(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr(ShardWriter, "close", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    prepare_shards(tmp_path / "out", "--tokenizer", "bytes", str(tmp_path / "a.txt"))
    assert list((tmp_path / "out").iterdir()) == []


def test_inspect_shows_shards_and_texts_and_has_a_json_twin(tmp_path):
    path = write_shard(tmp_path / "a.bin", [3, 1, 4, 1, 5])
    (tmp_path / "a.txt").write_text("text")
    result = CliRunner().invoke(command, ["inspect", "--json", str(path), str(tmp_path / "a.txt")])
    shard, document = json.loads(result.stdout)
    assert shard["tokens"] == 5 and shard["largest id"] == 5 and shard["first ids"] == [3, 1, 4, 1, 5]
    assert document["bytes"] == 4
    plain = CliRunner().invoke(command, ["inspect", str(path)])
    assert plain.exit_code == 0 and "GPT-2, uint16" in plain.output


def test_verify_without_any_hash_does_not_claim_success(tmp_path):
    path = write_shard(tmp_path / "a.bin", [3, 1, 4])
    result = CliRunner().invoke(command, ["verify", str(path)])
    assert isinstance(result.exception, CoreError) and result.exception.exit_code == 1


GOLDEN_ORDER = [3, 0, 5, 6, 8, 2, 9, 4, 1, 7]


def test_every_command_in_the_docs_is_understood():
    from core.cli import tokenizer

    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    lines = re.findall(r"^    core (data|tokenizer) (.*)$", page, re.MULTILINE)
    assert len(lines) >= 8
    for group, line in lines:
        name, *args = shlex.split(line)
        verb = {"data": command, "tokenizer": tokenizer.command}[group].commands[name]
        verb.make_context(name, args)

"""Shards, texts and tokenizers at fault, and the order of the data over ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from outside_files import CONFIG, TRAIN, Core, shard, train_on, write

from core.data import TokenSource
from core.data.digests import BLOCK, block_digest
from core.data.shards import HEADER_BYTES, json_sidecar, open_shard, sha256_sidecar
from core.errors import DataError
from core.tokenizers import gpt2
from core.tokenizers.recorded import load_tokenizer


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: shard("a.bin", magic=7), "expected a token shard with magic number 20240520"),
        (lambda: shard("a.bin", magic=20240326), "got a model checkpoint of llm.c"),
        (lambda: shard("a.bin", version=9), "expected version 1"),
        (lambda: Path("a.bin").write_bytes(shard("a.bin")[:-3]), "truncated: its header has 400 tokens, so expected"),
        (lambda: Path("a.bin").write_bytes(shard("a.bin") + b"xx"), "too long"),
        (lambda: shard("a.bin", []), "zero tokens"),
        (lambda: shard("a.bin", count=-1), "truncated"),
        (lambda: Path("a.bin").write_bytes(b"abc"), "expected a header of 1024 bytes, the file has 3"),
        (lambda: Path("a.bin").mkdir(), "got a folder"),
        (lambda: os.mkfifo("a.bin"), "got a pipe or a device"),
    ],
)  # fmt: skip
def test_a_shard_that_is_damaged(core: Core, make: Callable[[], object], says: str) -> None:
    make()
    train_on('"a.bin"')
    core(*TRAIN, code=6, says=["a.bin", says])


def test_a_token_beyond_the_vocabulary(core: Core) -> None:
    shard("a.bin", [1] * 300 + [65535] * 100)
    train_on('"a.bin"')
    core(*TRAIN, code=6, says=["a.bin", "vocabulary of 257", "got 65,535 at token 300 (byte 1,624)"])


def test_bytes_of_a_shard_that_flipped(core: Core) -> None:
    core("data", "prepare", "text.txt", "--tokenizer", "bytes", "--out", "d", code=0, makes=True)
    core("data", "verify", "d/*.bin", code=0)
    (path,) = Path("d").glob("*.bin")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    core("data", "verify", "d/*.bin", code=1, says=["changed since it was written", "expected sha256"])
    train_on('"d/*.bin"')
    core(*TRAIN, code=6, says=[path.name, "changed since it was written"])


def test_data_that_is_not_there_too_little_or_shared(core: Core) -> None:
    train_on('"d/*.bin"')
    core(*TRAIN, code=2, says=['run.toml [data] train: "d/*.bin" matches no file; the nearest folder'])
    train_on('"short.txt"')
    write("short.txt", "abc")
    core(*TRAIN, code=6, says=["expected at least 33 tokens (B * T + 1 = 2 * 16 + 1), got 4"])
    write("run.toml", CONFIG, ('"val.txt"', '"text.txt"'))
    said = core("train", "run.toml", "--device", "cpu", code=0, makes=True)
    assert "warning: train and val share" in said


@pytest.mark.parametrize("count", [2**31 + 1000, 2**32 + 1000])
def test_a_shard_beyond_2_gib_and_2_to_the_31_tokens(tmp_path: Path, count: int) -> None:
    """Read at its end, also where the count wraps in the header, and refused one token short. The file is sparse, and
    its sidecars say the digests of its MiB, so that gigabytes of zeros are not hashed."""
    path = tmp_path / "large.bin"
    header = np.zeros(256, "<u4")
    header[:3] = 20240520, 1, count % 2**32
    tail = np.arange(1000, dtype="<u2")
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.seek(HEADER_BYTES + 2 * (count - len(tail)))
        file.write(tail.tobytes())
    with path.open("rb") as file:
        first, last_mib = file.read(BLOCK), path.stat().st_size // BLOCK
        file.seek(last_mib * BLOCK)
        ends = [block_digest(first), block_digest(file.read())]
    mib = [ends[0], *[block_digest(bytes(BLOCK))] * (last_mib - 1), ends[1]]
    json_sidecar(path).write_text(json.dumps({"mib_sha256": mib}))
    sha256_sidecar(path).write_text(f"{'0' * 64}  large.bin\n")
    drawn = TokenSource([path], B=1, T=999, vocab=50257)
    assert drawn.tokens == count and drawn.sequences == (count - 1) // 999
    last = drawn.sequences - 1
    tokens = drawn.window(*drawn._locate(last), 999)
    start = last * 999
    want = np.concatenate([np.zeros(count - 1000 - start, "<u2"), tail])[:1000]
    assert start > count - 3000 and np.array_equal(tokens, want)
    os.truncate(path, HEADER_BYTES + 2 * count - 2)
    with pytest.raises(DataError, match="its header has"):
        open_shard(path)


def test_data_of_another_tokenizer_than_the_models(core: Core) -> None:
    """Of the config, and of the checkpoint that a run goes on from."""
    core("data", "prepare", "text.txt", "--tokenizer", "bpe", "--vocab-size", "257", "--out", "d", code=0, makes=True)
    train_on('"d/*.bin"')
    core(*TRAIN, code=6, says=["were made with", "the config has bytes"])
    write("run.toml", CONFIG)
    core(*TRAIN, "--set", "train.checkpoint_every=1", code=0, makes=True)
    write("run.toml", CONFIG, ('"text.txt"', '"d/*.bin"'), ('"val.txt"', '"d/*.bin"'), ('"bytes"', '"bpe"'))
    core(*TRAIN, "--set", "train.steps=2", "--from", "runs/run", code=6, says=["were made with", "the run with bytes"])


HARD = {
    "a literal end of text": b"a <|endoftext|> b",
    "a megabyte of blanks": b" " * 1_000_000 + b"x",
    "NULs": b"a\0\0b\0",
    "ends of lines": b"one\r\ntwo\r\n\r\nthree\r",
    "nothing": b"",
    "half a surrogate pair": b"a\xed\xa0\x80b" + b"c" * 90,
    "astral letters": "smile \U0001f600 and \ufdfd".encode(),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_documents_that_are_hard_to_tokenise(core: Core, name: str, kind: str) -> None:
    """One end-of-text token, at the start, and then the text; what is not UTF-8 is U+FFFD, and that is said."""
    Path("hard.txt").write_bytes(HARD[name])
    write("rest.txt", "the cat sat on the mat and the dog sat on the log " * 9)
    sources = ["hard.txt"] if kind == "bytes" else ["hard.txt", "rest.txt"]
    said = core(
        "data", "prepare", *sources, "--tokenizer", kind, "--vocab-size", "280", "--out", "d", code=0, makes=True
    )
    tokenizer = load_tokenizer(Path("d/tokenizer.json"))
    ids = open_shard(Path("d/d_train_000000.bin")).open().tolist()
    starts = [i for i, token in enumerate(ids) if token == tokenizer.eot]
    assert starts[0] == 0 and len(starts) == len(sources)
    text = HARD[name].decode("utf-8", "replace")
    assert tokenizer.decode(ids[1 : starts[1] if kind == "bpe" else None]) == text
    assert ("not UTF-8" in said) == ("\ufffd" in text)


def test_a_tokenizer_in_the_cache_that_is_poisoned_or_cut_short(core: Core) -> None:
    """It is named with its hash, left as it is, and never used."""
    cached = gpt2.cached_file()
    cached.parent.mkdir(parents=True)
    letters = [chr(b) if chr(b).isprintable() and b != 32 else None for b in range(256)]
    assert letters[65] == "A"
    for contents, says in (
        (b"#version: 0.2\nt h\nth e\n", "expected GPT-2's tokens, sha256 2a22afed"),
        (b"#version: 0.2\nt", "expected a merge"),
    ):
        cached.write_bytes(contents)
        write("run.toml", CONFIG, ('"bytes"', '"gpt2"'), ("V = 257", "V = 50257"))
        core(*TRAIN, code=6, says=["vocab.bpe is left alone and not used", says])
        assert cached.read_bytes() == contents


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_another_number_of_ranks_draws_and_validates_the_same(ranks: int) -> None:
    """A step has the same sequences in the same global order, in parts that do not overlap; validation the same
    number of the same tokens, in as many batches on each rank, whatever B, T and the number of ranks are."""
    tokens = [np.arange(0, 4100), np.arange(5000, 5950)]
    whole = TokenSource(tokens, B=24, T=10, seed=3)
    parts = TokenSource(tokens, B=24 // ranks, T=10, seed=3)
    for step in (0, 3, 20, 21, 400):  # 20 and 21: the end of an epoch of 503 sequences
        drawn = [parts.batch(step, rank=rank, ranks=ranks) for rank in range(ranks)]
        for got, want in zip(zip(*(d.values() for d in drawn), strict=True), whole.batch(step).values(), strict=True):
            assert np.array_equal(np.concatenate(got), want)
    want = [*range(1, 4100), *range(5001, 5950)]
    for B, T, count in ((1, 7, 1000), (3, 10, 4200), (5, 64, 10**9)):
        source = TokenSource(tokens, B=B, T=T, least=2)
        lists = [list(source.val_batches(count, rank=rank, ranks=ranks)) for rank in range(ranks)]
        assert len({len(batches) for batches in lists}) == 1
        rows = [
            y[row] for batches in zip(*lists, strict=True) for b in batches for y in [b["targets"]] for row in range(B)
        ]
        assert np.concatenate([row[row >= 0] for row in rows]).tolist() == want[:count]

"""Files of byte-pair tokens: this project's own, tiktoken's ranks and GPT-2's vocab.bpe."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from core.errors import DataError
from core.outside import read_whole, reads
from core.tokenizers.byte_pairs import BytePairTokenizer


def read_ranks(raw: bytes, where: object) -> list[bytes]:
    """The tokens of tiktoken's file format, in the order of their ranks, which are 0, 1, 2, ..."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            if int(rank) in ranks:
                raise DataError(
                    f"{where}:{number}: rank {int(rank)} occurs twice", hint="fetch or write the file again"
                )
            ranks[int(rank)] = base64.b64decode(token, validate=True)
        except (ValueError, binascii.Error):
            raise DataError(
                f"{where}:{number}: expected a token in base64 and its rank, got {line[:40]!r}",
                hint="tokenizer files are our tokenizer.json, tiktoken's ranks and GPT-2's vocab.bpe",
            ) from None
    for expected in range(len(ranks)):
        if expected not in ranks:
            raise DataError(f"{where}: rank {expected} is missing", hint="fetch or write the file again")
    return [ranks[i] for i in range(len(ranks))]


def byte_letters() -> dict[int, str]:
    """Byte -> its letter where GPT-2 writes tokens as text, in the order of GPT-2's ids.

    A printable byte is itself, the others are the letters from U+0100 on, so that no token holds a blank.
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in set(printable)]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def read_merges(raw: bytes, where: object) -> list[bytes]:
    """The tokens of GPT-2's vocab.bpe: the 256 bytes in the order of `byte_letters`, then a merge of two a line."""
    letters = byte_letters()
    byte_of = {letter: byte for byte, letter in letters.items()}
    tokens = [bytes([b]) for b in letters]
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n")[1:], 2):
        if not line.strip("\r"):
            continue
        try:
            first, second = line.rstrip("\r").split(" ")
            tokens.append(bytes(byte_of[letter] for letter in first + second))
        except (ValueError, KeyError):
            raise DataError(
                f"{where}:{number}: expected a merge of two tokens, got {line[:40]!r}", hint="fetch the file again"
            ) from None
    return tokens


def load_byte_pairs(path: Path, kind: str = "bpe") -> BytePairTokenizer:
    """A tokenizer from a file: its `to_json`, tiktoken's ranks (base64 and rank a line) or GPT-2's vocab.bpe."""
    with reads(DataError, path):
        raw = read_whole(path)
    if raw.lstrip()[:1] == b"{":
        return BytePairTokenizer.from_json(raw.decode("utf-8", "replace"), str(path))
    tokens = read_merges(raw, path) if raw.startswith(b"#version") else read_ranks(raw, path)
    return BytePairTokenizer(kind, tokens, name=kind)

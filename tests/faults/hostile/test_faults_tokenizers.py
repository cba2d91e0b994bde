"""Hostile tokenizers: each an error by name, in seconds and in bounded memory."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.folder import read_folder
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.recorded import load_tokenizer
from core.tokenizers.scored import read_file as read_scored

ROOT = Path(__file__).parents[3]


# --- tokenizers ------------------------------------------------------------------------------------------------------

ADDED = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DOUBLED = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}
EACH = {"type": "Replace", "pattern": {"Regex": "."}, "content": "b" * 2000}


def document(**parts: Any) -> dict[str, Any]:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "!": 2}, "merges": []}
    made = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": LEVEL, "post_processor": None,
            "decoder": LEVEL, "model": model}  # fmt: skip
    return {**made, **parts}


def bpe(vocabulary: Any, merges: Any = ()) -> dict[str, Any]:
    return document(model={"type": "BPE", "vocab": vocabulary, "merges": list(merges)})


def charmap(data: bytes) -> dict[str, Any]:
    return document(normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()})


def split(expression: str) -> dict[str, Any]:
    rule = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return document(pre_tokenizer={"type": "Sequence", "pretokenizers": [rule, LEVEL]})


UNIGRAM = {"type": "Unigram", "unk_id": None, "vocab": []}
LIBRARY: dict[str, tuple[Any, str]] = {
    "an id of 2**32 - 1": (bpe({"a": 0, "b": 2**32 - 1}), '"b" has id 4294967295'),
    "an id of 2**31": (bpe({"a": 0, "b": 2**31}), '"b" has id 2147483648'),
    "an id of 2**63": (bpe({"a": 0, "b": 2**63}), '"b" has id 9223372036854775808'),
    "an id of -1": (bpe({"a": 0, "b": -1}), '"b" has id -1'),
    "an id that is a float": (bpe({"a": 0, "b": 1.5}), '"b" has id 1.5'),
    "two tokens with one id": (bpe({"a": 0, "b": 0}), 'tokens "a" and "b" have one id, 0'),
    "a merge of tokens that are not there": (bpe({"a": 0}, ["a c"]), "library fails"),
    "a merge of one token": (bpe({"a": 0}, ["a"]), "library fails"),
    "no model": ({"version": "1.0"}, "damaged"),
    "a model that is a list": (document(model=[]), "damaged"),
    "a normalizer that doubles 40 times": (document(normalizer=DOUBLED), "1,024"),
    "a rule that makes 2,000 of one": (document(normalizer=EACH), "1,024 times"),
    "a decoder that does": (document(decoder={"type": "Sequence", "decoders": [EACH, LEVEL]}), "1,024 times"),
    "a character map that claims 4 GiB": (charmap(b"\xfc\xff\xff\xff" + bytes(8)), "claims 4,294,967,292 of 12 bytes"),
    "a character map of nothing": (charmap(bytes(8)), "claims 0 of 8 bytes"),
    "a character map with a trie of zeros": (charmap(struct.pack("<I", 8) + bytes(12)), "library fails"),
    "a regular expression that is none": (split("(((" * 9), "library fails"),
    "parentheses 100,000 deep": (split("(" * 100_000 + "a" + ")" * 100_000), "library fails"),
    "a post-processor with ids that are none": (document(post_processor={"type": "x"}), "library fails"),
    "a unigram without an unknown token": (document(model=UNIGRAM), "library fails"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARY)
def test_a_hostile_file_of_the_tokenizers_library_is_an_error_with_its_name(name: str) -> None:
    pytest.importorskip("tokenizers")
    value, says = LIBRARY[name]
    Path("tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(DataError) as raised:
        read_folder(Path())
    assert says in raised.value.message and raised.value.message.startswith("tokenizer.json: "), raised.value.message
    with pytest.raises(DataError):
        LibraryTokenizer(json.dumps(value), {}, name="x")


def test_a_token_twice_in_a_tokenizer_file_is_an_error() -> None:
    text = json.dumps(document()).replace('"b": 1', '"b": 1, "b": 2')
    Path("tokenizer.json").write_text(text)
    with pytest.raises(DataError, match='"b" occurs twice'):
        read_folder(Path())


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "a*a*a*a*$", r"(?<x>a\g<x>?)+$"])
def test_a_regular_expression_that_takes_too_long_is_an_error_of_the_text(expression: str) -> None:
    pytest.importorskip("tokenizers")
    made = LibraryTokenizer(json.dumps(split(expression)), {}, name="x")
    with pytest.raises(DataError, match="tokenizer.json: the tokenizers library fails: PanicException"):
        made.encode("a" * 3000 + "!")
    assert made.encode("ab").tolist() == [0, 1]


PANICKING = """
import sys
from core import terminal
from core.tokenizers.library import LibraryTokenizer
from core.errors import DataError
terminal.guard()
made = LibraryTokenizer(open("tokenizer.json").read(), {}, name="x")
try:
    made.encode("a" * 3000 + "!")
except DataError as error:
    print(f"core: error: {error}", file=sys.stderr)
import os
os.write(2, b"behind\\n")
"""


def test_a_librarys_panic_is_one_sentence_and_its_own_text_goes_nowhere() -> None:
    """The library prints a panic on descriptor 2 by itself: past the outlet, and waits for its reader."""
    pytest.importorskip("tokenizers")
    Path("tokenizer.json").write_text(json.dumps(split("(a+)+$")))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "1"}
    command = [sys.executable, "-c", PANICKING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    lines = done.stderr.splitlines()
    assert len(lines) <= 3 and lines[0].startswith("core: error: tokenizer.json: the tokenizers library fails: Panic")
    assert lines[-1] == "behind" and "panicked at" not in done.stderr, done.stderr


def test_a_file_of_a_tokenizer_cut_at_any_byte_is_an_error() -> None:
    pytest.importorskip("tokenizers")
    whole = json.dumps(document()).encode()
    for size in range(0, len(whole), 7):
        Path("tokenizer.json").write_bytes(whole[:size])
        with pytest.raises(DataError, match="tokenizer.json"):
            read_folder(Path())


def test_our_own_tokenizer_files_that_lie_are_errors() -> None:
    letters = [bytes([b]) for b in range(256)]
    good = json.loads(Tokenizer("bpe", [*letters, b"ab"]).to_json())
    tokens = good["tokens"]
    for wrong in (
        {"tokens": ""}, {"tokens": tokens + " !"}, {"tokens": tokens + " YWI="}, {"tokens": 3}, {"hash": "0" * 64},
        {"kind": "x" * 100_000}, {"format": 2**63}, {"tokens": tokens + " YWI"}, {"name": None, "tokens": tokens + " "},
    ):  # fmt: skip
        Path("t.json").write_text(json.dumps(good | wrong))
        with pytest.raises(DataError) as raised:
            load_tokenizer(Path("t.json"))
        assert len(raised.value.message) < 200_000
    for text in ("[" * 10**6, '{"format":' * 10**5, "", "\x00", '{"a": 1e999}', '{"format": NaN}', "\udcff"):
        Path("t.json").write_text(text, "utf-8", "surrogateescape")
        with pytest.raises(DataError):
            load_tokenizer(Path("t.json"))
    ranks = [base64.b64encode(t).decode() + f" {i}" for i, t in enumerate(letters)]
    for wrong_line in (
        "YWI= 2147483648",
        "YWI= 9223372036854775808",
        "YWI= -1",
        "YWI= 255",
        "YWI= " + "9" * 5000,
        "YWI=",
    ):
        Path("t.tiktoken").write_text("\n".join([*ranks, wrong_line]))
        with pytest.raises(DataError, match="t.tiktoken"):
            load_tokenizer(Path("t.tiktoken"))


def test_a_llama2c_tokenizer_cut_or_changed_anywhere_is_an_error() -> None:
    pieces = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % b for b in range(256)), b" "]
    whole = struct.pack("<i", 6) + b"".join(struct.pack("<fi", 0.0, len(p)) + p for p in pieces)
    path = Path("tokenizer.bin")
    path.write_bytes(whole)
    assert read_scored(path, 260).vocab_size == 260
    for size in (*range(60), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="tokenizer.bin: expected llama2.c's"):
            read_scored(path, 260)
    for length in (0, -1, 2**31 - 1, -(2**31)):
        path.write_bytes(whole[:8] + struct.pack("<i", length) + whole[12:])
        with pytest.raises(DataError, match="tokenizer.bin: expected llama2.c's"):
            read_scored(path, 260)
    path.write_bytes(whole)
    for count in (0, 259, 261, 2**31 - 1):
        with pytest.raises(DataError):
            read_scored(path, count)

"""Byte-level BPE (GPT-2's, or one trained on the run's own text) and plain bytes.

A tokenizer here is a list of byte strings, a pattern that cuts text into pieces, and one special token, end of text,
whose id is the last. No text yields the special token. `to_json` is complete: a checkpoint restores the tokenizer from
it alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from core.outside import parse_json
from core.tokenizers.tokenizer import END_OF_TEXT, Tokenizer, without_surrogates

if TYPE_CHECKING:
    import tiktoken

FORMAT = "corelm tokenizer 1"
LIBRARY_FORMAT = "corelm tokenizer of the tokenizers library 1"  # library.py's
SCORED_FORMAT = "corelm tokenizer of llama2.c 1"  # scored.py's
GPT2_HASH = "2a22afed7c1bc07a25c567c2d30d15e1aaa1127376f4c7d4aa36a38a0f54dc48"  # of GPT-2's tokens
ANOTHER_VERSION = "use the version that wrote it"

# GPT-2's: contractions, then words, numbers and signs with the blank before them, then white space but for the blank
# that belongs to the next word. `++` takes the same text as `+` and never gives any back.
PATTERN = r"'(?:s|d|m|t|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s+(?!\S)|\s+"


# Merging a piece costs more than its length, and matching white space takes stack: runs of one kind are cut.
LONGEST_RUN = 4096
LONG_RUN = re.compile(rf"(?<![^\W_])[^\W_]{{{LONGEST_RUN + 1},}}|(?<![\W_])[\W_]{{{LONGEST_RUN + 1},}}")


class BytePairTokenizer(Tokenizer):
    """Text to ids and back.

    kind: "gpt2", "bpe" or "bytes"; name: for people; tokens: the byte string of each id below `eot`; eot: the id of
    the end-of-text token, the last; vocab_size: ids, `eot` included. DataError for tokens that cannot work.
    """

    def __init__(self, kind: str, tokens: Sequence[bytes], *, name: str | None = None) -> None:
        validate_tokens(tokens, name or kind)
        self.kind = kind
        self.name = name or kind
        self.tokens = tuple(tokens)
        self.eot = len(self.tokens)
        self.vocab_size = len(self.tokens) + 1
        self.bos = self.eot

    @property
    def whole(self) -> bool:
        """Whether tokens may continue over a blank after a word, so that a text cannot be encoded in parts."""
        return False

    def encode(self, text: str) -> NDArray[np.int32]:
        """Ids (n,) int32. A lone surrogate counts as U+FFFD; runs of one kind beyond 4,096 characters are cut."""
        text = without_surrogates(text)
        if self.kind == "bytes":
            return np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        parts = [self._encode_part(part) for part in split_runs(text)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(vocab_size,) bytes of text of each id; 0 for end of text."""
        return np.array([*(len(token) for token in self.tokens), 0], np.int64)

    @cached_property
    def hash(self) -> str:
        """sha256 over everything that decides which ids a text gets: two tokenizers with one hash are the same."""
        hasher = hashlib.sha256(f"{FORMAT}\n{'bytes' if self.kind == 'bytes' else PATTERN}\n".encode())
        for token in self.tokens:
            hasher.update(len(token).to_bytes(4, "little") + token)
        return hasher.hexdigest()

    def to_json(self) -> str:
        """The whole tokenizer as JSON: the tokens in base64, separated by blanks, in the order of their ids."""
        tokens = " ".join(base64.b64encode(token).decode() for token in self.tokens)
        pattern = None if self.kind == "bytes" else PATTERN
        return json.dumps({"format": FORMAT, **self.record(), "pattern": pattern, "tokens": tokens}, indent=2) + "\n"

    @classmethod
    def from_value(cls, value: Mapping[str, Any], where: str) -> BytePairTokenizer:
        """The tokenizer of the JSON that `to_json` wrote. DataError if it is damaged."""
        try:
            kind, name, digest = str(value["kind"]), str(value["name"]), str(value["hash"])
            tokens = [base64.b64decode(token, validate=True) for token in value["tokens"].split(" ")]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: not a tokenizer of this project: {error!r}", hint="write it again") from None
        if kind not in ("gpt2", "bpe", "bytes"):
            raise DataError(f'{where}: expected kind gpt2, bpe or bytes, got "{kind}"', hint="write it again")
        tokenizer = cls(kind, tokens, name=name)
        if tokenizer.hash != digest:
            raise DataError(
                f"{where}: damaged: expected sha256 {digest[:16]}..., got {tokenizer.hash[:16]}...",
                hint="write it again",
            )
        return tokenizer

    @classmethod
    def from_json(cls, text: str, where: str) -> BytePairTokenizer:
        """`from_value` of a text. DataError for one of another format."""
        value = parsed(text, where)
        if value["format"] != FORMAT:
            raise DataError(f'{where}: expected format "{FORMAT}", got "{value["format"]}"', hint=ANOTHER_VERSION)
        return cls.from_value(value, where)

    def _encode_part(self, text: str) -> NDArray[np.int32]:
        try:
            return np.array(self._encoding.encode_ordinary(text), np.int32)
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # no Exception, and not importable: it would end the program
                raise DataError(
                    f"tokenizer {self.name}: cannot encode {text[:40]!r}...: {error}", hint="leave that text out"
                ) from None
            raise

    @cached_property
    def _table(self) -> Sequence[bytes]:
        return [*self.tokens, END_OF_TEXT.encode()]

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken  # a fifth of a second, and only who encodes needs it

        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        return tiktoken.Encoding(
            self.name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
        )


def bytes_tokenizer() -> BytePairTokenizer:
    """One id a byte, and end of text: 257 ids."""
    return BytePairTokenizer("bytes", [bytes([b]) for b in range(256)])


def split_runs(text: str) -> Iterator[str]:
    """`text` in parts, cut only inside runs of more than 4,096 letters and digits, or of none."""
    start = 0
    for run in LONG_RUN.finditer(text):
        for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]


def validate_tokens(tokens: Sequence[bytes], name: str) -> None:
    """DataError unless every byte has a token and no two are equal: the encoder would panic on anything else."""
    distinct = set(tokens)
    missing = [b for b in range(256) if bytes([b]) not in distinct]
    if missing:
        raise DataError(
            f"tokenizer {name}: {len(missing)} of the 256 bytes have no token, such as {missing[0]:#04x}",
            hint="write it again",
        )
    if len(distinct) != len(tokens) or b"" in distinct:
        seen: set[bytes] = {b""}
        for i, token in enumerate(tokens):
            if token in seen:
                raise DataError(
                    f"tokenizer {name}: token {i} ({token!r}) is empty or a duplicate", hint="write it again"
                )
            seen.add(token)


def parsed(text: str, where: str) -> Mapping[str, Any]:
    """The JSON object of a tokenizer of this project, "format" among its keys. DataError for anything else."""
    try:
        value: dict[str, Any] = parse_json(text)
        value["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: not a tokenizer of this project: {error!r}", hint="write it again") from None
    return value

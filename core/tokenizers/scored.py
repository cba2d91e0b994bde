"""llama2.c's tokenizer.bin: tokens with scores, merged as its run.c merges them.

https://github.com/karpathy/llama2.c, tokenizer.py (the file) and run.c (encode, decode). A blank is put before a text;
its characters become tokens, or bytes where they are none; then the pair with the best score is merged, until no pair
is a token. Token 1 begins a text, and ends the one before it.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from core.outside import read_whole, reads
from core.tokenizers.byte_pairs import SCORED_FORMAT
from core.tokenizers.tokenizer import Tokenizer, without_surrogates

KIND, FILE = "scored", "tokenizer.bin"
BEGIN, BYTES = 1, 3  # the id that a text begins with, and that of byte 0
TRIED = (
    "The quick brown fox jumps over the lazy dog. It's 1,234.5 o'clock!",
    "  two blanks,   three\n\n\ttabs\r\n and blanks at the end  ",
    "def f(x):\n    return [i ** 2 for i in range(x)]  # squares\n",
    "naïve été, Straße, Ελληνικά, русский, 日本語, 한국어, \u2603 \U0001f389 e\u0301",
    "aaaaaaaaaaaa hahahaha internationalisation https://example.org/?a=1&b=2 <s> </s>",
)  # texts whose ids must agree before a tokenizer is written
NEVER = -1e10  # run.c merges no token whose score is not above this
LONGEST = 1 << 16  # bytes of a token: more is another kind of file
BYTE = re.compile(rb"<0x([0-9A-F]{2})>")


class ScoredTokenizer(Tokenizer):
    """pieces: the tokens as the file has them; scores: f32, the higher the earlier merged. DataError for too few."""

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float], *, name: str = KIND, longest: int = 0) -> None:
        if len(pieces) < BYTES + 256 or len(pieces) != len(scores):
            raise DataError(f"tokenizer {name}: {len(pieces)} tokens, too few for the 256 bytes", hint="fetch it again")
        self.kind, self.name, self.vocab_size = KIND, name, len(pieces)
        self.pieces, self.scores = tuple(pieces), np.array(scores, np.float32)
        self.longest = longest or max(map(len, pieces))
        self.eot = self.bos = BEGIN
        self.begin: tuple[int, ...] = (BEGIN,)
        self.tokens = tuple(bytes([int(b[1], 16)]) if (b := BYTE.fullmatch(p)) else p for p in pieces)
        self._ids = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
        self.dummy = int(b" " in self._ids)

    def encode(self, text: str) -> NDArray[np.int32]:
        if not text:
            return np.array([], np.int32)
        ids = [self._ids[b" "]] * self.dummy
        for letter in without_surrogates(text):
            data = letter.encode()
            number = self._ids.get(data)
            ids += [number] if number is not None else [byte + BYTES for byte in data]
        return np.array(self._merged(ids), np.int32)

    def encode_more(self, text: str) -> NDArray[np.int32]:
        return self.encode(text[self.dummy :] if text.startswith(" ") else text)

    @property
    def whole(self) -> bool:
        return True  # no bound of its merges is known

    def _merged(self, ids: list[int]) -> list[int]:
        """The best pair first, the leftmost of equals: by a heap over pairs, dead ones left out."""
        after = [*range(1, len(ids)), -1]
        before = [*range(-1, len(ids) - 1)]
        alive = [True] * len(ids)
        heap: list[tuple[float, int, int, int, int]] = []

        def push(left: int) -> None:
            right = after[left] if left >= 0 else -1
            if left < 0 or right < 0:
                return
            joined = self._ids.get(self.pieces[ids[left]] + self.pieces[ids[right]])
            if joined is not None and self.scores[joined] > NEVER:
                heapq.heappush(heap, (-float(self.scores[joined]), left, ids[left], ids[right], joined))

        for left in range(len(ids)):
            push(left)
        while heap:
            _, left, first, second, joined = heapq.heappop(heap)
            right = after[left]
            if not alive[left] or right < 0 or (ids[left], ids[right]) != (first, second):
                continue
            ids[left], alive[right], after[left] = joined, False, after[right]
            if after[right] >= 0:
                before[after[right]] = left
            push(before[left])
            push(left)
        return [token for token, there in zip(ids, alive, strict=True) if there]

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return np.array([0 if i < BYTES else len(token) for i, token in enumerate(self.tokens)], np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self._lengths

    @property
    def _table(self) -> Sequence[bytes]:
        return self.tokens

    @cached_property
    def hash(self) -> str:
        hasher = hashlib.sha256(f"{SCORED_FORMAT}\n".encode() + self.scores.tobytes())
        for piece in self.pieces:
            hasher.update(len(piece).to_bytes(4, "little") + piece)
        return hasher.hexdigest()

    def to_json(self) -> str:
        pieces = " ".join(base64.b64encode(piece).decode() for piece in self.pieces)
        scores = base64.b64encode(self.scores.astype("<f4").tobytes()).decode()
        whole = {"format": SCORED_FORMAT, **self.record(), "longest": self.longest, "pieces": pieces, "scores": scores}
        return json.dumps(whole, indent=1) + "\n"

    def to_bytes(self) -> bytes:
        """tokenizer.bin: the longest token's length, then for each token score, length and bytes."""
        parts = [struct.pack("<i", self.longest)]
        for piece, score in zip(self.pieces, self.scores.tolist(), strict=True):
            parts += [struct.pack("<fi", score, len(piece)), piece]
        return b"".join(parts)


def scored_of(tokenizer: Tokenizer) -> ScoredTokenizer:
    """A tokenizer of SentencePiece's kind in llama2.c's form: a token's score is the rank of its merge, negated.

    That is the same tokenizer only where no two merges lead to one token in another order: so the ids of `TRIED` are
    compared with it, and those of the tokens' own texts. DataError, with the reason, where it is not the same.
    """
    model = json.loads(getattr(tokenizer, "document", "{}")).get("model", {})
    vocab, merges = model.get("vocab", {}), model.get("merges", [])
    if model.get("type") != "BPE" or not isinstance(vocab, dict) or not model.get("byte_fallback"):
        raise DataError(f"tokenizer {tokenizer.name} is not SentencePiece's BPE with tokens for bytes")
    names = {i: piece for piece, i in vocab.items()}
    if tokenizer.begin != (BEGIN,) or any(names.get(BYTES + b) != f"<0x{b:02X}>" for b in range(256)):
        raise DataError(f"tokenizer {tokenizer.name} has other ids than {BEGIN} for <s> and {BYTES} for byte 0")
    if sorted(names) != list(range(tokenizer.vocab_size)):
        raise DataError(f"tokenizer {tokenizer.name} has added tokens, which llama2.c cannot distinguish from text")
    pieces = [names[i].replace("\u2581", " ").encode() for i in range(len(names))]
    scores = [2 * NEVER] * len(pieces)
    for rank, merge in reversed(list(enumerate(merges))):
        scores[vocab["".join(merge.split(" ") if isinstance(merge, str) else merge)]] = -float(rank)
    scored = ScoredTokenizer(pieces, scores, name=tokenizer.name)
    spread = [t.decode("utf-8", "replace").strip() for t in tokenizer.tokens[BYTES + 256 :: 1 + len(pieces) // 8000]]
    words = ["".join(spread[i : i + 9]) for i in range(0, len(spread), 9)]
    for text in (*TRIED, *spread, *words):
        if scored.encode(text).tolist() != tokenizer.encode(text).tolist():
            raise DataError(f"llama2.c's merges by score give other ids than {tokenizer.name} for {text[:40]!r}")
    return scored


def from_json(value: Mapping[str, Any], where: str) -> ScoredTokenizer:
    """The tokenizer that `to_json` wrote."""
    try:
        pieces = [base64.b64decode(piece, validate=True) for piece in value["pieces"].split(" ")]
        scores = np.frombuffer(base64.b64decode(value["scores"], validate=True), "<f4")
        tokenizer = ScoredTokenizer(pieces, scores.tolist(), name=str(value["name"]), longest=int(value["longest"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not a tokenizer of this project: {error!r}", hint="import the model again") from None
    if tokenizer.hash != value["hash"]:
        raise DataError(f"{where}: damaged: its sha256 is not the recorded one", hint="import the model again")
    return tokenizer


def read_file(path: Path, count: int) -> ScoredTokenizer:
    """A tokenizer.bin of `count` tokens, which the file does not state. DataError for a file with fewer."""
    with reads(DataError, path):
        raw = read_whole(path)
    pieces: list[bytes] = []
    scores: list[float] = []
    at = 4
    while at + 8 <= len(raw) and len(pieces) < count:
        score, length = struct.unpack_from("<fi", raw, at)
        if not 0 < length <= LONGEST or at + 8 + length > len(raw):
            break
        pieces.append(raw[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    if len(pieces) != count or at != len(raw):
        raise DataError(
            f"{path}: expected llama2.c's tokenizer with the model's {count:,} tokens, got {len(pieces):,} in "
            f"{at:,} of {len(raw):,} bytes",
            hint="put the model's own tokenizer.bin beside it, or move this one away",
        )
    return ScoredTokenizer(pieces, scores, name=path.parent.resolve().name, longest=struct.unpack_from("<i", raw)[0])

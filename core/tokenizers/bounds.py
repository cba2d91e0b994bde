"""Bounds on a tokenizer.json from a stranger, checked before the tokenizers library or a table of ids takes memory.

The library itself bounds the time of a regular expression (it panics, which is an error here), but neither the text
that a normalizer makes of a letter nor the sizes that a compiled character map claims.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import DataError

GROWTH = 1 << 10  # bytes that rules of replacement may make of one, all of them together
HOLES = 1 << 16  # ids without a token, in addition to one for each token
HINT = "no published tokenizer is so: fetch it again from where you trust it"


def check_document(document: Any, where: str) -> None:
    """DataError for a normalizer or decoder that makes text more than GROWTH times as long, a damaged character map, or
    two tokens with one id."""
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise DataError(f'{where}: not a file of the tokenizers library: it has no "model"', hint="fetch it again")
    for part in ("normalizer", "decoder"):
        growth = 1
        for rule in _rules(document.get(part)):
            growth *= _growth(rule, where)
            if growth > GROWTH:
                claim = f"its {part} makes a text more than {GROWTH:,} times as long"
                raise DataError(f"{where}: {claim}, by rules of type {rule['type']}", hint=HINT)
    vocabulary = document["model"].get("vocab")
    if isinstance(vocabulary, dict):
        check_ids(vocabulary, where)


def check_ids(vocabulary: Mapping[str, Any], where: str) -> None:
    """DataError for an id that leaves more holes than a table of tokens should have, or that two tokens have."""
    most = 2 * len(vocabulary) + HOLES
    owner: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < most:
            entry = f'token "{token:.40}" has id {number!r:.40}'
            raise DataError(f"{where}: {entry}; {len(vocabulary):,} tokens have ids from 0 to {most - 1:,}", hint=HINT)
        if owner.setdefault(number, token) != token:
            raise DataError(f'{where}: tokens "{owner[number]:.40}" and "{token:.40}" have one id, {number}', hint=HINT)


def _rules(part: Any) -> Iterator[dict[str, Any]]:
    """The rules of a normalizer or decoder, those in sequences included. JSON bounds how deep they are nested."""
    waiting = [part]
    while waiting:
        rule = waiting.pop()
        if isinstance(rule, dict):
            if isinstance(rule.get("type"), str):
                yield rule
            waiting += [value for value in rule.values() if isinstance(value, list | dict)]
        elif isinstance(rule, list):
            waiting += rule


def _growth(rule: Mapping[str, Any], where: str) -> int:
    """Bytes that a rule makes of one, at most; 1 for one that makes a text longer only once."""
    if rule["type"] == "Replace":
        pattern = rule.get("pattern")
        taken = pattern.get("String") if isinstance(pattern, dict) else None
        made = len(str(rule.get("content", "")).encode("utf-8", "replace"))
        if not taken or not isinstance(taken, str):
            return made + 1  # a regular expression, which may match a byte, or nothing beside one
        return max(1, -(-made // len(taken.encode("utf-8", "replace"))))
    if rule["type"] == "Precompiled":
        return _character_map(rule.get("precompiled_charsmap"), where)
    return 1


def _character_map(text: Any, where: str) -> int:
    """The longest text that a SentencePiece character map writes for a letter. Its form: 4 bytes, the size of the trie,
    little-endian; the trie; texts that end with a zero byte."""
    try:
        raw = base64.b64decode(text or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise DataError(f"{where}: the character map of its normalizer is not base64", hint="fetch it again") from None
    if not raw:
        return 1
    size = struct.unpack("<I", raw[:4])[0] if len(raw) >= 4 else len(raw)
    if not size or size % 4 or 4 + size > len(raw):
        claim = f"the character map of its normalizer claims {size:,} of {len(raw):,} bytes"
        raise DataError(f"{where}: {claim}", hint="fetch it again")
    return max(1, max(map(len, raw[4 + size :].split(b"\0"))))

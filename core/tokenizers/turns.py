"""A conversation in tokens, and which of them are the assistant's: those that a loss counts.

A template with `{% generation %}` marks the answers itself. Without it, an answer is the difference of two prefixes:
the text with it, without the text before it that ends with the start of an answer, as for generation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError

GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
BEGIN, END = "\ue000\u2042\ue001", "\ue001\u2042\ue000"  # around answers while a template is rendered
ASSISTANT = "assistant"
TAG = "a chat template with {% generation %} marks the answers itself"

Message = Mapping[str, Any]
Span = tuple[int, int]  # characters


class Templated(Protocol):
    """A tokenizer with a chat template. encoding: of the tokenizers library."""

    @property
    def chat_template(self) -> str | None: ...

    def written(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, marks: tuple[str, str] | None = None
    ) -> str: ...

    def encoding(self, text: str) -> Any: ...


def conversation(tokenizer: Templated, messages: Sequence[Message]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Ids (n,) of a conversation, and which of them count. UsageError without a template, DataError for one that fails
    or that does not show its answers."""
    if GENERATION.search(tokenizer.chat_template or ""):
        if any(mark in str(value) for m in messages for value in m.values() for mark in (BEGIN, END)):
            raise DataError("a message holds the characters that mark answers in a template", hint="remove them")
        text, spans = _marked(tokenizer.written(messages, marks=(BEGIN, END)))
    else:
        text = tokenizer.written(messages)
        spans = list(_differences(tokenizer, messages, text))
    encoding = tokenizer.encoding(text)
    ids = np.array(encoding.ids, np.int32)
    counts = np.zeros(len(ids), bool)
    for begin, end in spans:
        first = _token(encoding, range(begin, end))
        last = _token(encoding, reversed(range(begin, end)))
        if first is not None and last is not None:
            counts[first : last + 1] = True
    return ids, counts


def _marked(text: str) -> tuple[str, list[Span]]:
    """A text without marks, and the spans between them."""
    parts = re.split(f"({BEGIN}|{END})", text)
    spans, at, begin = list[Span](), 0, 0
    for part in parts:
        if part == BEGIN:
            begin = at
        elif part == END:
            spans.append((begin, at))
        else:
            at += len(part)
    return "".join(part for part in parts if part not in (BEGIN, END)), spans


def _differences(tokenizer: Templated, messages: Sequence[Message], text: str) -> Iterator[Span]:
    for number, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        before = tokenizer.written(messages[:number], add_generation_prompt=True)
        through = tokenizer.written(messages[: number + 1])
        if not text.startswith(before):
            raise DataError(
                f"the chat template writes message {number} differently than as the answer to its prompt", hint=TAG
            )
        if not text.startswith(through) or len(through) < len(before):
            raise DataError(f"the chat template writes message {number} differently once others follow it", hint=TAG)
        yield len(before), len(through)


def _token(encoding: Any, characters: Any) -> int | None:
    """The token of the first of these characters that has one: a normalizer may leave some out."""
    return next((t for c in characters if (t := encoding.char_to_token(c)) is not None), None)
